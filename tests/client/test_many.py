"""score_many over a real socket, sync and async alike."""

from __future__ import annotations

import io
import itertools
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from gpu_infer import errors
from gpu_infer.client import Progress
from gpu_infer.client.many.options import MAX_CONCURRENCY, START_CONCURRENCY
from gpu_infer.client.many.source import IMAGE_SUFFIXES
from gpu_infer.client.timing import Timing


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture
def doubling(server: Any, steps: Any) -> Counter[int]:
    """The server answers each number with its double as a service of ours, and refuses negative ones with 400.

    The result: how often it was asked for each number.
    """
    asked: Counter[int] = Counter()
    lock = threading.Lock()

    def step(connection: Any, seen: Any) -> bool:
        many = seen.headers["x-gpu-infer-items"] == "many"
        rows = np.load(io.BytesIO(seen.body))
        numbers = rows.ravel().tolist() if many else [rows.item()]
        with lock:
            asked.update(numbers)
        bad = next((at for at, number in enumerate(numbers) if number < 0), None)
        if bad is not None:
            body = {"error": "bad_input", "message": "negative", "item": bad if many else None}
            return steps.answer(400, body, steps.ours)(connection, seen)
        return steps.answer(200, npy(2 * (rows if many else rows[()])), steps.ours, "application/x-npy")(
            connection, seen
        )

    server.default = step
    return asked


# --- results ----------------------------------------------------------------------------------------------------------


def test_many_come_back_in_order(make, server, doubling):
    assert list(make().score_many(range(100), concurrency=4)) == list(range(0, 200, 2))
    assert 1 < server.connections <= 4


def test_many_may_come_as_they_are_ready(make, server, steps):
    release = threading.Event()

    def step(connection: Any, seen: Any) -> bool:
        number = int(np.load(io.BytesIO(seen.body)))
        if number == 0:
            release.wait(5)
        return steps.answer(200, number)(connection, seen)

    server.default = step
    results = make().score_many(range(8), concurrency=2, ordered=False)
    first = [next(results) for _ in range(3)]
    assert 0 not in first
    release.set()
    assert sorted(first + list(results)) == list(range(8))


def test_small_items_share_requests_and_their_number_is_found_out(make, server, doubling):
    results = list(make().score_many(np.arange(20_000)))
    assert [int(result) for result in results] == list(range(0, 40_000, 2))
    assert len(server.seen) < 2_000
    assert set(doubling.values()) == {1}


def test_other_services_get_one_item_in_a_request_unless_the_caller_says_so(make, server, steps):
    server.default = steps.answer(200, [1.0])
    list(make(codec="json").score_many([[1.0], [2.0], [3.0]]))
    assert len(server.seen) == 3
    server.default = steps.answer(200, [10, 20])
    assert make(codec="json").score_many([[1.0], [2.0], [3.0], [4.0]], items_per_request=2, method="to_list") == [
        10,
        20,
        10,
        20,
    ]
    assert {seen.body for seen in server.seen[3:]} == {b'{"data":[[1.0],[2.0]]}', b'{"data":[[3.0],[4.0]]}'}


def test_of_many_only_a_window_is_read_ahead(make, doubling):
    taken: list[int] = []

    def source() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    results = make().score_many(source(), concurrency=3, items_per_request=1)
    assert taken == []
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(taken) <= 5 + 2 * 3
    results.close()


def test_many_can_be_a_list_an_array_or_a_function(make, doubling):
    face = make()
    assert face.score_many(range(5), method="to_list", ordered=False) == [0, 2, 4, 6, 8]
    array = face.score_many(np.arange(12).reshape(12), method="to_array")
    assert array.tolist() == list(range(0, 24, 2))
    assert face.score_many(iter(range(3)), method="to_array").tolist() == [0, 2, 4]
    assert face.score_many([], method="to_array").shape == (0,)
    seen: dict[int, int] = {}
    assert face.score_many(range(5), ordered=False, method="for_each", argument=seen.__setitem__) == 5
    assert seen == {0: 0, 1: 2, 2: 4, 3: 6, 4: 8}
    assert sorted(face.score_many(range(3), ordered=False, method="with_index")) == [(0, 0), (1, 2), (2, 4)]


def test_results_of_several_shapes_make_no_array(make, server, steps):
    for body in ([1.0], [1.0, 2.0]):
        server.plays(steps.answer(200, npy(np.array(body)), steps.ours, "application/x-npy"))
    with pytest.raises(ValueError, match=r"result of item 1 is float64 \[2\], others are float64 \[1\]"):
        make().score_many([b"a", b"b"], concurrency=1, method="to_array")


def test_many_go_to_a_parquet_file_that_appears_when_it_is_whole(make, tmp_path, server, steps):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = np.arange(20_000, dtype=np.float32).reshape(10_000, 2)

    def step(connection: Any, seen: Any) -> bool:
        scores = np.load(io.BytesIO(seen.body))
        if seen.headers["x-gpu-infer-items"] == "one" and scores[0] == 42:
            return steps.answer(400, {"error": "bad_input", "message": "not 42"}, steps.ours)(connection, seen)
        if 42 in scores:
            body = {"error": "bad_input", "message": "not 42", "item": int(np.argwhere(scores == 42)[0][0])}
            return steps.answer(400, body, steps.ours)(connection, seen)
        return steps.answer(200, npy(scores + 1), steps.ours, "application/x-npy")(connection, seen)

    server.default = step
    path = tmp_path / "scores.parquet"
    assert make().score_many(rows, on_error="return", method="to_parquet", argument=path) == 10_000
    table = parquet.read_table(path)
    assert table.column_names == ["item", "result", "error"]
    assert table["item"].to_pylist() == list(range(10_000))
    assert str(table.schema.field("result").type) == "list<item: float>" or "float" in str(table.schema)
    found = table["result"].to_pylist()
    assert found[:2] == [[1.0, 2.0], [3.0, 4.0]]
    assert found[21] is None
    assert "not 42" in table["error"][21].as_py()
    with pytest.raises(errors.BadInputError):
        make().score_many(rows, method="to_parquet", argument=tmp_path / "other.parquet")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scores.parquet"]


def test_fields_that_only_later_results_have_are_not_left_out_without_a_word(
    make, server, steps, tmp_path, monkeypatch
):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("gpu_infer.client.many.parquet.ROWS", 4)
    server.default = lambda connection, seen: steps.answer(
        200, {"a": 1} if np.load(io.BytesIO(seen.body)).item() < 4 else {"a": 1, "b": 2}
    )(connection, seen)
    with pytest.raises(ValueError, match="fields that the first ones do not have, b"):
        make().score_many(range(10), items_per_request=1, method="to_parquet", argument=tmp_path / "x.parquet")


# --- errors -----------------------------------------------------------------------------------------------------------


def test_of_many_the_first_error_is_raised_and_says_which(make, doubling):
    results = make().score_many([1, 2, -3, 4], concurrency=2)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(errors.BadInputError, match="negative") as caught:
        next(results)
    assert caught.value.__notes__ == ["This was item 2 of score_many()."]
    assert list(results) == []


def test_of_many_errors_may_take_the_place_of_results(make, doubling):
    results = list(make().score_many([1, -2, [[1], [2, 3]], 4], on_error="return"))
    assert (results[0], results[3]) == (2, 8)
    assert isinstance(results[1], errors.BadInputError)
    assert "ragged" in str(results[2]), "what cannot be sent is reported like what is refused"


def test_a_bad_item_fails_alone_whoever_shared_its_request(make, doubling):
    numbers = [-index if index in (100, 200, 5_000) else index for index in range(10_000)]
    results = list(make().score_many(np.array(numbers), on_error="return"))
    failed = [index for index, result in enumerate(results) if isinstance(result, errors.ScoringError)]
    assert failed == [100, 200, 5_000]
    assert all(result == 2 * index for index, result in enumerate(results) if index not in failed)
    assert results[5_000].__notes__ == ["This was item 5000 of score_many()."]


def test_of_many_the_results_before_a_broken_source_come_first(make, doubling):
    def source() -> Any:
        yield from (1, 2, 3)
        raise OSError("the disk is gone")

    results = make().score_many(source())
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_a_service_without_room_gets_fewer_requests_at_once_and_all_items_their_results(make, server, steps, doubling):
    answers = server.default
    refusals = iter(range(40))

    def step(connection: Any, seen: Any) -> bool:
        if next(refusals, None) is not None:
            return steps.answer(429, {"error": "overloaded"}, {"retry-after-ms": "1", **steps.ours})(connection, seen)
        return answers(connection, seen)

    server.default = step
    sizes: list[int] = []
    face, ticks = make(), itertools.count(0.0, 0.06)
    face.client._timing = Timing(lambda: next(ticks), face.outside.random, face.outside.now)  # each result is reported
    results = face.score_many(
        range(200),
        items_per_request=1,
        concurrency=16,
        progress=lambda now: sizes.append(now.concurrency),
    )
    assert list(results) == list(range(0, 400, 2))
    assert min(sizes) < 16


def test_a_late_request_is_sent_a_second_time_and_the_first_answer_counts(make, server, steps, doubling):
    answers, stuck, release = server.default, iter([True]), threading.Event()

    def step(connection: Any, seen: Any) -> bool:
        if np.load(io.BytesIO(seen.body)).item() == 50 and next(stuck, False):
            return steps.wait_for(release, answers)(connection, seen)
        return answers(connection, seen)

    server.default = step
    face = make()
    face.real_time()
    try:
        results = face.score_many(range(60), items_per_request=1, hedge=0.2, method="to_list")
    finally:
        release.set()
    assert results == list(range(0, 120, 2))
    assert 60 < len(server.seen) <= 60 + 0.2 * 60


# --- what can be many -------------------------------------------------------------------------------------------------


def test_many_rows_of_an_array_or_a_table_are_items(make, server, steps):
    class Table:
        columns = ("a", "b")

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([[1, 2], [3, 4]])

        def __iter__(self) -> Any:
            return iter(self.columns)

    server.default = steps.answer(200, [1])
    face = make()
    assert len(list(face.score_many(np.zeros((3, 2))))) == 3
    assert len(list(face.score_many(Table(), concurrency=1))) == 2
    assert np.load(io.BytesIO(server.seen[-1].body)).tolist() == [3, 4]


def test_the_images_of_a_folder_are_items_by_name(make, server, steps, tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    (tmp_path / "c.jpg").mkdir()
    server.default = steps.answer(200, [1])
    assert list(make().score_many(str(tmp_path), concurrency=1)) == [[1], [1]]
    assert [seen.body[3:] for seen in server.seen] == [b"a.jpg", b"b.PNG"]
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    with pytest.raises(errors.BadInputError, match="no images in the folder"):
        make().client.score_many(tmp_path / "c.jpg")


@pytest.mark.parametrize("items", ["photos", b"bytes", {"data": [1]}])
def test_many_are_not_one(make, items):
    with pytest.raises(TypeError, match="takes an iterable of items, not one .*; that is for score"):
        list(make().score_many(items))


def test_a_list_is_no_item_of_many(make, server):
    with pytest.raises(errors.BadInputError, match="One item is expected here, this is a list of items"):
        list(make().score_many([[b"a", b"b"]]))


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": MAX_CONCURRENCY + 1},
        {"on_error": "skip"},
        {"timeout": 0},
        {"items_per_request": 0},
        {"hedge": 2},
        {"checkpoint": "/"},
    ],
)
def test_bad_options_of_many_are_refused_at_once(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make().client.score_many([1], **options)


def test_leaving_many_early_leaves_nothing_running(make, server, doubling):
    for _ in make().score_many(range(1000), concurrency=4, items_per_request=1):
        break
    seen = len(server.seen)
    assert seen <= 2 * 4 + 4
    for thread in threading.enumerate():
        if thread.name.startswith("gpu-infer-score"):
            thread.join(5)
    assert not any(thread.name.startswith("gpu-infer-score") for thread in threading.enumerate())


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_tells_a_function_how_far_it_is(make, doubling):
    told: list[Progress] = []
    face = make()
    face.real_time()
    list(face.score_many([*range(500), -1], on_error="return", progress=told.append))
    last = told[-1]
    assert (last.done, last.total, last.failed, last.resumed) == (501, 501, 1, 0)
    assert last.eta == 0
    assert last.rate > 0
    assert [now.done for now in told] == sorted(now.done for now in told)
    assert told[0].concurrency >= START_CONCURRENCY
    list(face.score_many(iter(range(5)), progress=told.append))
    assert (told[-1].done, told[-1].total, told[-1].eta) == (5, None, None)


def test_the_bar_shows_numbers_only_where_somebody_looks(make, doubling, capsys):
    assert list(make().score_many(range(5), progress=True)) == [0, 2, 4, 6, 8]
    assert capsys.readouterr() == ("", "")


# --- checkpoint -------------------------------------------------------------------------------------------------------


def test_an_interrupted_job_goes_on_where_it_stopped(make, doubling, tmp_path):
    path = tmp_path / "c"
    results = make().score_many(range(1000), checkpoint=path, items_per_request=1)
    assert [next(results) for _ in range(300)] == list(range(0, 600, 2))
    results.close()
    before = Counter(doubling)
    told: list[Progress] = []
    assert list(make().score_many(range(1000), checkpoint=path, progress=told.append)) == list(range(0, 2000, 2))
    again = {number for number in before if doubling[number] > before[number]}
    assert not again & set(range(300)), "what has a result is not sent again"
    assert told[-1].resumed >= 300
    count = sum(doubling.values())
    assert make().score_many(range(1000), checkpoint=path, method="to_list") == list(range(0, 2000, 2))
    assert sum(doubling.values()) == count


def test_what_failed_is_tried_again_by_the_next(make, server, steps, doubling, tmp_path):
    path = tmp_path / "c"
    results = list(make().score_many([1, -2, 3], checkpoint=path, on_error="return"))
    assert isinstance(results[1], errors.BadInputError)
    server.default = steps.answer(200, npy(np.int64(7)), steps.ours, "application/x-npy")
    assert list(make().score_many([1, -2, 3], checkpoint=path)) == [2, 7, 6]


def test_a_checkpoint_of_other_items_is_refused(make, doubling, tmp_path):
    list(make().score_many([1, 2, 3], checkpoint=tmp_path / "c"))
    with pytest.raises(errors.CheckpointError, match="Item 1 is not the one"):
        list(make().score_many([1, 5, 3], checkpoint=tmp_path / "c"))
    assert list(make().score_many([1, 2, 3], checkpoint=tmp_path / "c")) == [2, 4, 6]
