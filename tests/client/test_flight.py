"""score_many without sockets: what goes out together and when, and that each item comes to exactly one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_infer.client.many.flight import Flight, Result
from gpu_infer.client.many.options import ManyOptions
from gpu_infer.client.many.pieces import Answer, Group, piece_of
from gpu_infer.client.many.tuning import GROUP_BYTES, GROUP_MOST, HEDGE_AFTER, SAMPLES, GroupSize, Hedges, Window
from gpu_infer.errors import AuthenticationError, BadInputError, ModelError, OverloadedError, ScoringTimeoutError


def row(number: float) -> np.ndarray[Any, Any]:
    return np.full(4, number, np.float32)


def doubled(group: Group) -> Any:
    """What the service answers: an array for one item, an array with one axis more for several."""
    rows = [2 * item for item in group.items]
    return rows[0] if len(rows) == 1 else np.stack(rows)


def fill(flight: Flight, count: int) -> None:
    for _ in range(count):
        flight.take(piece_of(flight.taken, row(flight.taken)))


def numbers(flight: Flight) -> list[float]:
    found: list[float] = []
    while (result := flight.pop()) is not None:
        found.append(float(result.value[0]))
    return found


# --- what may share a request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (row(1), row(2), True),
        ([1.0, 2.0], [3.0, 4.0], True),
        ([1.0, 2.0], np.array([3.0, 4.0]), True),
        (row(1), row(1).astype(np.float64), False),
        (row(1), row(1)[:2], False),
        (b"\xff\xd8 photo", "lynx.jpg", True),
        ("one.npy", "two.npy", False),
        ("one.json", "two.json", False),
        (b"\x93NUMPY", b"\x93NUMPY", False),
        ({"data": [1]}, {"data": [1]}, False),
        (np.array(["text"]), np.array(["text"]), False),
        (b"photo", row(1), False),
    ],
)
def test_items_of_one_kind_share_a_request(one, other, together):
    flight = Flight(ManyOptions(items_per_request=8))
    flight.take(piece_of(0, one))
    flight.take(piece_of(1, other))
    flight.end()
    assert [len(group.pieces) for group in flight.to_send(0.0)] == ([2] if together else [1, 1])


def test_a_request_that_is_not_full_waits_only_while_items_come_at_once():
    flight = Flight(ManyOptions(items_per_request=4))
    fill(flight, 3)
    assert list(flight.to_send(0.0, hold=True)) == []
    fill(flight, 1)
    assert [len(group.pieces) for group in flight.to_send(0.0, hold=True)] == [4]
    fill(flight, 1)
    assert [len(group.pieces) for group in flight.to_send(0.0)] == [1]


def test_a_request_has_a_megabyte_of_items_at_most_unless_the_caller_says_how_many():
    big = np.zeros(GROUP_BYTES // 2 - 1, np.uint8)
    for fixed, expected in ((None, [2, 2, 1]), (5, [5])):
        flight = Flight(ManyOptions(items_per_request=fixed))
        flight.size.size = 64 if fixed is None else fixed
        for index in range(5):
            flight.take(piece_of(index, big))
        assert [len(group.pieces) for group in flight.to_send(0.0)] == expected


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_items_or_as_they_are_ready():
    for ordered, expected in ((True, [0.0, 2.0, 4.0]), (False, [4.0, 2.0, 0.0])):
        flight = Flight(ManyOptions(ordered=ordered))
        fill(flight, 3)
        groups = list(flight.to_send(0.0))
        seen: list[float] = []
        for group in reversed(groups):
            flight.answered(group, Answer(doubled(group), 0.1))
            seen += numbers(flight)
        assert seen == expected
        flight.end()
        assert flight.finished


def test_an_item_that_is_named_as_wrong_goes_alone_and_the_others_without_it():
    flight = Flight(ManyOptions(items_per_request=4))
    fill(flight, 4)
    flight.end()
    (group,) = flight.to_send(0.0)
    error = BadInputError("negative", status=400)
    error.item = 2
    flight.answered(group, Answer(error=error))
    alone, others = flight.to_send(0.0)
    assert [piece.index for piece in alone.pieces] == [2]
    assert [piece.index for piece in others.pieces] == [0, 1, 3]
    flight.answered(alone, Answer(error=BadInputError("negative", status=400)))
    flight.answered(others, Answer(doubled(others), 0.1))
    results = [flight.pop() for _ in range(4)]
    assert [result.error is None for result in results if result] == [True, True, False, True]
    assert results[2] is not None
    assert results[2].error is not None
    assert results[2].error.__notes__ == ["This was item 2 of score_many()."]
    assert flight.finished


def test_without_a_name_the_one_at_fault_is_found_by_halves():
    flight = Flight(ManyOptions(items_per_request=64))
    fill(flight, 64)
    flight.end()
    requests = 0
    while groups := list(flight.to_send(0.0)):
        for group in groups:
            requests += 1
            bad = any(piece.index == 41 for piece in group.pieces)
            flight.answered(group, Answer(error=ModelError("boom")) if bad else Answer(doubled(group), 0.1))
    failed = [result.index for result in iter(flight.pop, None) if result.error is not None]
    assert failed == [41]
    assert requests == 1 + 2 * 6


def test_what_is_nobodys_fault_is_everybodys_error_and_each_has_its_own():
    flight = Flight(ManyOptions(items_per_request=3))
    fill(flight, 3)
    (group,) = flight.to_send(0.0)
    flight.answered(group, Answer(error=AuthenticationError("the key", status=401, request_id="abc")))
    results = list(iter(flight.pop, None))
    assert [result.error.__notes__ for result in results if result.error] == [
        [f"This was item {index} of score_many()."] for index in range(3)
    ]
    assert {result.error.request_id for result in results if result.error} == {"abc"}


def test_a_request_that_takes_too_long_goes_in_halves_and_none_is_as_large_again():
    flight = Flight(ManyOptions())
    flight.allow_groups()
    flight.size.size = 16
    fill(flight, 16)
    (group,) = flight.to_send(0.0)
    flight.answered(group, Answer(error=ScoringTimeoutError("late")))
    assert flight.size.size == 8
    assert [len(part.pieces) for part in flight.to_send(0.0)] == [8, 8]


def test_results_that_differ_by_their_neighbours_are_asked_for_again_alone():
    flight = Flight(ManyOptions())
    flight.allow_groups()
    fill(flight, 1)
    (group,) = flight.to_send(0.0)
    flight.answered(group, Answer(np.zeros(3), 0.1))
    flight.size.size = 4
    fill(flight, 4)
    (group,) = flight.to_send(0.0)
    assert flight.answered(group, Answer([[1.0], [1.0, 2.0], [1.0], [1.0]], 0.1)) == ()
    assert [len(part.pieces) for part in flight.to_send(0.0)] == [1] * 4
    assert flight.size.size == 1


def test_an_answer_that_is_not_one_result_for_each_item_is_an_error_where_the_caller_chose_the_number():
    flight = Flight(ManyOptions(items_per_request=2, on_error="return"))
    fill(flight, 2)
    (group,) = flight.to_send(0.0)
    flight.answered(group, Answer({"predictions": [1, 2]}, 0.1))
    error = next(iter(flight.pop, None)).error
    assert "not one result for each, but one dict of 1" in str(error)


def test_of_two_requests_for_the_same_items_the_first_answer_counts():
    flight = Flight(ManyOptions(hedge=1.0, concurrency=1))
    for _ in range(HEDGE_AFTER):
        fill(flight, 1)
        (group,) = flight.to_send(0.0)
        flight.answered(group, Answer(doubled(group), 0.01))
    numbers(flight)
    fill(flight, 1)
    (late,) = flight.to_send(1.0)
    assert flight.late(1.005) == []
    assert flight.next_late(1.005) == pytest.approx(0.005)
    assert flight.late(1.01) == [late]
    assert flight.late(2.0) == [], "once"
    flight.answered(late, Answer(error=OverloadedError("full")))
    assert flight.pop() is None, "the other may still have it"
    flight.answered(late, Answer(doubled(late), 0.02))
    assert len(numbers(flight)) == 1
    fill(flight, 1)
    (late,) = flight.to_send(3.0)
    assert flight.late(4.0) == [late]
    flight.answered(late, Answer(doubled(late), 0.02))
    flight.answered(late, Answer(doubled(late), 0.02))
    assert len(numbers(flight)) == 1
    flight.end()
    assert flight.finished


class World:
    """A service that answers as hypothesis wants, in any order, and refuses the bad items."""

    def __init__(self, data: st.DataObject, flight: Flight, bad: set[int]) -> None:
        self.data = data
        self.flight = flight
        self.bad = bad
        self.out: list[Group] = []

    def answers_one(self) -> None:
        if not self.out:
            return
        group = self.out.pop(self.data.draw(st.integers(0, len(self.out) - 1)))
        fate = self.data.draw(st.sampled_from(["good", "good", "refused", "named"]))
        if fate == "refused":
            self.flight.refused()
        wrong = [at for at, piece in enumerate(group.pieces) if piece.index in self.bad]
        if not wrong:
            self.flight.answered(group, Answer(doubled(group), 0.01))
            return
        error = BadInputError("bad")
        error.item = wrong[0] if fate == "named" else None
        self.flight.answered(group, Answer(error=error))

    def answers_what_is_left(self) -> None:
        """Second requests, when all is over."""
        for group in self.out:
            assert self.flight.answered(group, Answer(doubled(group), 0.01)) == ()


def read_what_is_wanted(flight: Flight, count: int, given: int) -> None:
    while flight.wants_item:
        assert flight.taken - given < 2 * flight.window.size * flight.size.size
        if flight.taken == count:
            flight.end()
        else:
            flight.take(piece_of(flight.taken, row(flight.taken)))


@settings(deadline=None)
@given(st.data())
def test_whatever_happens_each_item_has_one_result_and_memory_is_bounded(data):
    count = data.draw(st.integers(0, 60))
    bad = data.draw(st.sets(st.integers(0, max(0, count - 1)), max_size=5))
    ordered = data.draw(st.booleans())
    flight = Flight(ManyOptions(ordered=ordered, concurrency=data.draw(st.integers(1, 5)), hedge=0.5))
    if data.draw(st.booleans()):
        flight.allow_groups()
    world = World(data, flight, bad)
    results: list[Result] = []
    clock = 0.0
    while not flight.finished:
        clock += 0.01
        read_what_is_wanted(flight, count, len(results))
        world.out += [*flight.to_send(clock), *flight.late(clock)]
        world.answers_one()
        results += iter(flight.pop, None)
    world.answers_what_is_left()
    indices = [result.index for result in results]
    assert (indices if ordered else sorted(indices)) == list(range(count))
    assert {result.index for result in results if result.error} == {index for index in bad if index < count}
    assert all(result.value.tolist() == [2.0 * result.index] * 4 for result in results if not result.error)


# --- the dials --------------------------------------------------------------------------------------------------------


def settle(size: GroupSize, seconds_of: Any) -> list[int]:
    """The sizes that are tried while requests take what ``seconds_of(items)`` says."""
    tried = [size.size]
    for _ in range(20 * SAMPLES):
        size.answered(size.size, seconds_of(size.size))
        if size.size != tried[-1]:
            tried.append(size.size)
    return tried


@pytest.mark.parametrize(
    ("seconds_of", "tried"),
    [
        (lambda n: 0.001 + n * 1e-6, [1, 4, 16, 64, 256, 1024]),
        (lambda n: 0.005 * n, [1, 4, 1]),
        (lambda n: 0.0005 + 0.0005 * n, [1, 4, 16, 4]),
        (lambda n: 0.3, [1]),
    ],
)
def test_as_many_items_share_a_request_as_make_it_cheaper(seconds_of, tried):
    size = GroupSize()
    assert settle(size, seconds_of) == [1], "not before the service is known to take several"
    size.allow(GROUP_MOST)
    assert settle(size, seconds_of) == tried


def test_a_number_that_the_caller_chose_stays():
    size = GroupSize(7)
    size.allow(GROUP_MOST)
    assert settle(size, lambda n: 0.001) == [7]


def test_the_window_grows_while_answers_are_quick_and_halves_once_for_one_refusal():
    window = Window(start=8, most=16)
    for _ in range(200):
        window.answered(1, 0.01)
    assert window.size == 16
    for _ in range(16):  # all that were under way are refused
        window.refused()
    assert window.size == 8
    for _ in range(100):
        window.answered(1, 0.05)
    assert window.size == 8, "slow answers are no reason to send more"
    for _ in range(1000):
        window.refused()
    assert window.size == 1


def test_second_requests_keep_to_their_share():
    hedges = Hedges(0.05)
    taken = 0
    for _ in range(1000):
        hedges.sent()
        hedges.answered(1, 0.01)
        if hedges.late_after is not None:
            hedges.take()
            taken += 1
    assert 0 < taken <= 50
