"""A small model runs in the thread that reads requests: batches of all that is ready, and nobody starves."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from gpu_infer.serving.engine.batching import Batcher
from gpu_infer.serving.engine.scheduling import Greenlets
from gpu_infer.serving.failures import DeadlineExceeded

gevent: Any = pytest.importorskip("gevent")


@pytest.fixture(scope="module")
def greenlets() -> Greenlets:
    return Greenlets()


def make(greenlets: Greenlets, seen: list[int], **options: Any) -> Batcher:
    def double(rows: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(rows))
        if (rows == 13).any():
            message = "thirteen"
            raise RuntimeError(message)
        return {"doubled": rows * 2}

    defaults: dict[str, Any] = {"max_batch": 8, "max_queue": 1000, "inline": True}
    return Batcher(double, scheduler=greenlets, **{**defaults, **options})


def in_a_minute() -> float:
    return time.monotonic() + 60


def test_what_is_ready_at_once_runs_at_once(greenlets: Greenlets) -> None:
    seen: list[int] = []
    batcher = make(greenlets, seen)
    assert batcher.inline
    results: dict[int, float] = {}

    def ask(number: int) -> None:
        results[number] = batcher.run(np.array([float(number)]), deadline=in_a_minute()).outputs["doubled"][0]

    gevent.joinall([gevent.spawn(ask, number) for number in range(20) if number != 13], timeout=20)
    assert results == {number: 2 * number for number in range(20) if number != 13}
    assert sum(seen) == 19
    assert len(seen) <= 4, "of 8 at the most, and not one by one"
    batcher.close()


def test_a_request_larger_than_a_batch(greenlets: Greenlets) -> None:
    batcher = make(greenlets, [])
    result = batcher.run(np.arange(100.0, 130.0), deadline=in_a_minute())
    assert result.outputs["doubled"].tolist() == [2.0 * value for value in range(100, 130)]
    batcher.close()


def test_a_bad_neighbour_is_not_noticed(greenlets: Greenlets) -> None:
    batcher = make(greenlets, [])
    outcomes: dict[float, Any] = {}

    def ask(value: float) -> None:
        outcomes[value] = batcher.run(np.array([value]), deadline=in_a_minute())

    gevent.joinall([gevent.spawn(ask, value) for value in (1.0, 13.0, 2.0)], timeout=20)
    assert outcomes[1.0].outputs["doubled"].tolist() == [2]
    assert outcomes[2.0].outputs["doubled"].tolist() == [4]
    assert list(outcomes[13.0].failures) == [0]
    batcher.close()


def test_what_is_too_late_never_runs(greenlets: Greenlets) -> None:
    seen: list[int] = []
    batcher = make(greenlets, seen)
    with pytest.raises(DeadlineExceeded):
        batcher.run(np.ones(1), deadline=time.monotonic() - 1)
    assert batcher.run(np.ones(1), deadline=in_a_minute()).outputs["doubled"].tolist() == [2]
    assert seen == [1]
    batcher.close()


def test_many_clients_share_alike(greenlets: Greenlets) -> None:
    batcher = make(greenlets, [])
    counts = dict.fromkeys(range(24), 0)
    end = time.monotonic() + 0.5

    def client(number: int) -> None:
        while time.monotonic() < end:
            batcher.run(np.array([float(number)]) * 0, deadline=in_a_minute())
            counts[number] += 1

    gevent.joinall([gevent.spawn(client, number) for number in counts], timeout=20)
    assert min(counts.values()) >= max(counts.values()) - 2
    batcher.close()
