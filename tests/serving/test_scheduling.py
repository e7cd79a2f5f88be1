"""Greenlets wait without holding up each other, whoever hands them their result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from gpu_infer.serving.engine.scheduling import Greenlets, Scheduler, Threads, TimedOut

gevent: Any = pytest.importorskip("gevent")


@pytest.fixture(scope="module")
def greenlets() -> Greenlets:
    return Greenlets()


@pytest.fixture(params=["greenlets", "threads"])
def scheduler(request: pytest.FixtureRequest, greenlets: Greenlets) -> Scheduler:
    return greenlets if request.param == "greenlets" else Threads()


def in_time() -> float:
    return time.monotonic() + 20


def test_a_result_that_is_there_already(scheduler: Scheduler) -> None:
    waiter = scheduler.waiter()
    waiter.set("early")
    assert waiter.wait(in_time()) == "early"


def test_a_result_from_another_thread(scheduler: Scheduler) -> None:
    waiter = scheduler.waiter()
    threading.Timer(0.05, waiter.set, ["late"]).start()
    assert waiter.wait(in_time()) == "late"


def test_a_deadline_ends_the_wait_and_a_result_after_it_is_for_nobody(scheduler: Scheduler) -> None:
    waiter = scheduler.waiter()
    with pytest.raises(TimedOut):
        waiter.wait(time.monotonic() + 0.02)
    waiter.set("too late")


def test_thousands_of_greenlets_get_each_their_own(greenlets: Greenlets) -> None:
    waiters = [greenlets.waiter() for _ in range(2000)]
    got: dict[int, int] = {}

    def wait(number: int) -> None:
        got[number] = waiters[number].wait(in_time())

    waiting = [gevent.spawn(wait, number) for number in range(2000)]

    def hand_over(numbers: range) -> None:
        for number in numbers:
            waiters[number].set(number)

    for start in range(4):
        threading.Thread(target=hand_over, args=(range(start, 2000, 4),)).start()
    gevent.joinall(waiting, timeout=20)
    assert got == {number: number for number in range(2000)}


def test_others_go_on_while_one_waits_for_a_pool(greenlets: Greenlets) -> None:
    let_go = threading.Event()
    order: list[str] = []

    def slow() -> None:
        assert greenlets.offload("test", 1, lambda: let_go.wait(20))
        order.append("slow")

    def quick() -> None:
        order.append("quick")
        let_go.set()

    gevent.joinall([gevent.spawn(slow), gevent.spawn(quick)], timeout=20)
    assert order == ["quick", "slow"]


def test_calls_of_a_pool_run_side_by_side_and_keep_their_order(greenlets: Greenlets) -> None:
    together = threading.Barrier(3)

    def call(number: int) -> Callable[[], int]:
        return lambda: together.wait(20) * 0 + number

    assert greenlets.offload_all("three", 3, [call(number) for number in range(3)]) == [0, 1, 2]


def test_what_a_call_raises_is_raised(scheduler: Scheduler) -> None:
    def fail() -> None:
        message = "no"
        raise LookupError(message)

    with pytest.raises(LookupError, match="no"):
        scheduler.offload("failing", 1, fail)


def test_idle_comes_when_nobody_is_ready(greenlets: Greenlets) -> None:
    order: list[str] = []
    waiter = greenlets.waiter()

    def idle() -> None:
        order.append("idle")
        waiter.set(None)

    assert greenlets.when_idle(idle)
    ready = [gevent.spawn(order.append, "ready") for _ in range(3)]
    waiter.wait(in_time())
    assert order == ["ready", "ready", "ready", "idle"]
    gevent.joinall(ready)


def test_one_flush_sends_for_all_who_asked(greenlets: Greenlets) -> None:
    sent: list[int] = []
    for _ in range(5):
        greenlets.flush(lambda: sent.append(1))
    gevent.sleep(0.01)
    assert sent == [1]
    greenlets.flush(lambda: sent.append(2))
    gevent.sleep(0.01)
    assert sent == [1, 2]
