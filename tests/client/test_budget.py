"""The retry budget by itself, and in calls: no sockets, no clock, no sleep."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_infer import errors
from gpu_infer.client.budget import BUDGET_CAP, BUDGET_RESERVE, BUDGET_TRICKLE, RetryBudget
from gpu_infer.client.messages import Pause, Request, Response
from gpu_infer.client.protocol import BUDGET_PAUSE, Call, converse
from gpu_infer.client.retry import DEFAULT_BUDGET, DEFAULT_RETRIES, RetryPolicy

OK = Response(200, {"content-type": "application/json"}, b"1")
BUSY = Response(503, {})

STEPS = st.lists(
    st.one_of(st.just("success"), st.just("retry"), st.floats(-1, 20)),
    max_size=200,
)


@given(STEPS, st.floats(0, 2), st.floats(0, 20), st.floats(0, 200), st.floats(0, 5))
def test_retries_are_at_most_what_the_reserve_the_successes_and_the_time_pay_for(steps, share, reserve, cap, trickle):
    budget = RetryBudget(share, reserve=reserve, cap=cap, trickle=trickle)
    now = latest = 1000.0
    retries = successes = 0
    for step in steps:
        if step == "success":
            budget.succeed(now)
            successes += 1
        elif step == "retry":
            retries += budget.take(now)
        else:
            now += step  # back as well: threads read the clock before they come here
            latest = max(latest, now)
        assert retries <= reserve + share * successes + trickle * (latest - 1000.0) + 1e-6
        assert retries <= max(reserve, cap) + share * successes + trickle * (latest - 1000.0) + 1e-6


@given(STEPS, st.floats(0.01, 5))
def test_after_the_foretold_wait_there_is_a_token(steps, trickle):
    budget = RetryBudget(0.3, trickle=trickle)
    now = 0.0
    for step in steps:
        if step == "success":
            budget.succeed(now)
        elif step == "retry":
            budget.take(now)
        else:
            now += abs(step)
    wait = budget.seconds_until_token(now)
    assert wait is not None
    assert 0 <= wait <= 1 / trickle + 1e-6
    assert budget.take(now + wait + 1e-6)


def test_a_bucket_that_nothing_fills_has_no_wait_to_tell():
    assert RetryBudget(0.3, reserve=0, trickle=0).seconds_until_token(0.0) is None
    assert RetryBudget(0.3, reserve=0.5, trickle=1).seconds_until_token(0.0) is None


def test_only_recent_successes_count_and_idling_saves_nothing_up():
    budget = RetryBudget(0.5)
    for _ in range(10_000):
        budget.succeed(0.0)
    assert sum(budget.take(0.0) for _ in range(1000)) == BUDGET_CAP
    assert sum(budget.take(86_400.0) for _ in range(1000)) == BUDGET_RESERVE


def test_without_a_share_there_is_always_a_token():
    budget = RetryBudget(None)
    budget.succeed(0.0)
    assert all(budget.take(0.0) for _ in range(1000))
    assert budget.seconds_until_token(0.0) == 0


def test_threads_share_it_without_losing_a_token():
    budget = RetryBudget(1.0, reserve=0, cap=1e6, trickle=0)
    gate = threading.Barrier(8)
    taken = [0] * 8

    def work(index: int) -> None:
        gate.wait(5)
        for _ in range(2000):
            budget.succeed(0.0)
            taken[index] += budget.take(0.0)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) + sum(budget.take(0.0) for _ in range(20_000)) == 16_000


def test_one_call_alone_never_runs_into_the_budget():
    """It has a reserve of more than its retries, which is full again once their waits are over."""
    assert DEFAULT_RETRIES <= BUDGET_RESERVE
    policy = RetryPolicy()
    average = sum(min(policy.cap, policy.base * 2**n) / 2 for n in range(policy.limit))
    assert average * BUDGET_TRICKLE > policy.limit


# --- in a call --------------------------------------------------------------------------------------------------------


class Talk:
    """Carries one call through against a script, on a clock that moves when it waits."""

    def __init__(self, budget: RetryBudget, *, patient: bool, timeout: float = 60.0, start: float = 0.0) -> None:
        self.time, self.pauses = start, []
        call = Call(
            request=Request("POST", "http://127.0.0.1/score", {}, b"x"),
            request_id="abc",
            codec=None,
            timeout=timeout,
            policy=RetryPolicy(base=0, limit=1000),
            patient=patient,
            renewable=True,
        )
        now = datetime(2026, 11, 23, tzinfo=UTC)
        self._talk = converse(call, clock=lambda: self.time, random=lambda: 0.5, now=lambda: now, budget=budget)

    pauses: list[float]

    def run(self, answers: Callable[[int], Response]) -> Any:
        event, sent = None, 0
        try:
            while True:
                order = self._talk.send(event)
                if isinstance(order, Pause):
                    self.pauses.append(order.seconds)
                    self.time += order.seconds
                    event = None
                else:
                    event, sent = answers(sent), sent + 1
        except StopIteration as stop:
            return stop.value.value


def test_a_call_without_a_token_gives_up_and_says_why():
    budget = RetryBudget(DEFAULT_BUDGET, reserve=2)
    talk = Talk(budget, patient=False)
    with pytest.raises(
        errors.OverloadedError, match="retry budget is used up.* add replicas; score_many.* waits"
    ) as caught:
        talk.run(lambda _: BUSY)
    assert (caught.value.attempts, talk.pauses) == (3, [])
    assert "no room for the request. If it stays so" in str(caught.value), "what happened comes first"


def test_successes_pay_for_retries():
    budget = RetryBudget(0.5, reserve=0)
    for _ in range(2):
        assert Talk(budget, patient=False).run(lambda _: OK) == 1
    assert Talk(budget, patient=False).run(lambda sent: OK if sent else BUSY) == 1
    with pytest.raises(errors.OverloadedError, match="budget"):
        Talk(budget, patient=False).run(lambda sent: OK if sent else BUSY)


def test_a_patient_call_waits_for_a_token():
    budget = RetryBudget(DEFAULT_BUDGET, reserve=1)
    talk = Talk(budget, patient=True)
    assert talk.run(lambda sent: OK if sent == 3 else BUSY) == 1
    # The first retry is paid for by the reserve, each other by one second of trickle; waits are spread up to twofold.
    assert talk.pauses == [1.5, 1.5]


def test_a_patient_call_waits_no_longer_than_its_deadline():
    budget = RetryBudget(DEFAULT_BUDGET, reserve=1)
    talk = Talk(budget, patient=True, timeout=10)
    with pytest.raises(errors.OverloadedError, match="budget is used up") as caught:
        talk.run(lambda _: BUSY)
    assert caught.value.elapsed == sum(talk.pauses) <= 10
    assert caught.value.attempts >= 5
    with pytest.raises(errors.OverloadedError, match="budget is used up"):
        Talk(RetryBudget(0, reserve=0, trickle=0), patient=True).run(lambda _: BUSY)


def test_waits_for_the_budget_are_never_too_short_to_move_the_clock():
    """Seconds until the next token may be a rounding error, by which no clock would get on."""
    budget = RetryBudget(0.1, reserve=1, trickle=0.1)
    talk = Talk(budget, patient=True, timeout=1e6, start=1e9)
    assert talk.run(lambda sent: OK if sent == 50 else BUSY) == 1
    assert min(talk.pauses) >= BUDGET_PAUSE


def test_renewing_a_credential_takes_no_token():
    budget = RetryBudget(0, reserve=0, trickle=0)
    assert Talk(budget, patient=False).run(lambda sent: OK if sent else Response(401, {})) == 1
