"""Who is let in: as long as another request would be answered in time."""

from __future__ import annotations

import math
import time

import pytest

from gpu_infer.serving.admission import Admission
from gpu_infer.serving.failures import Overloaded


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


def fill(admission: Admission, count: int) -> list[int]:
    return [admission.enter(math.inf) for _ in range(count)]


def test_one_that_would_take_too_long_is_refused_and_told_when_to_come_back() -> None:
    admission = Admission(most=1000, at_least=1, longest_wait=5)
    admission.leave(admission.enter(math.inf), 0.1)
    fill(admission, 50)
    with pytest.raises(Overloaded, match=r"51 requests are under way, and another would take 5\.1 s") as caught:
        fill(admission, 5)
    assert caught.value.retry_after == 3


def test_one_that_might_miss_its_own_deadline_is_refused() -> None:
    admission = Admission(most=1000, at_least=1, longest_wait=math.inf)
    admission.leave(admission.enter(math.inf), 0.1)
    fill(admission, 20)
    with pytest.raises(Overloaded):
        admission.enter(in_seconds(3.9))  # 2 s of work, and an unknown time has passed already
    assert admission.enter(in_seconds(60)) == 21


def test_a_few_are_let_in_whatever_they_take() -> None:
    admission = Admission(most=1000, at_least=32, longest_wait=1)
    admission.leave(admission.enter(math.inf), 3600)
    fill(admission, 32)
    with pytest.raises(Overloaded):
        admission.enter(math.inf)


def test_what_a_request_takes_is_learnt_from_those_that_ran_beside_others() -> None:
    """Alone each takes 0.1 s, so 40 would be the most; but 30 at once take no more than 0.2 s in their batch."""
    admission = Admission(most=2000, at_least=1, longest_wait=4)
    admission.leave(admission.enter(math.inf), 0.1)
    for _ in range(20):
        for entered in fill(admission, 30):
            admission.leave(entered, 0.2 if entered > 1 else 0.1)
    fill(admission, 300)


def test_failures_teach_nothing() -> None:
    admission = Admission(most=1000, at_least=1, longest_wait=5)
    admission.leave(admission.enter(math.inf), 0.1)
    for entered in fill(admission, 40):
        admission.leave(entered, 0)
    fill(admission, 49)
    with pytest.raises(Overloaded):
        fill(admission, 5)


def test_no_more_than_the_most() -> None:
    admission = Admission(most=3, at_least=1, longest_wait=5)
    fill(admission, 3)
    with pytest.raises(Overloaded, match="3 requests are under way already"):
        admission.enter(math.inf)
    admission.leave(1, 0)
    assert admission.enter(math.inf) == 3


def test_a_burst_that_may_share_a_batch_is_let_in_after_slow_single_requests() -> None:
    admission = Admission(most=1000, at_least=32, longest_wait=5)
    for _ in range(10):
        admission.leave(admission.enter(math.inf), 0.3)
    fill(admission, 64)
