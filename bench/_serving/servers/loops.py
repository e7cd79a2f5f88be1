"""Trying ways to run a model, without a server, and measuring the best of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

SWEEP = 0.5
"""The part of the time that goes into finding the best way."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run the model.

    Args:
        batch: items per run.
        parallel: runs at once.
        run: does one.
    """

    batch: int
    parallel: int
    run: Callable[[], Any]

    def __str__(self) -> str:
        return f"batch {self.batch}, " + (f"{self.parallel} runs at once" if self.parallel > 1 else "one run at a time")


def report(ways: Sequence[Way], seconds: float) -> None:
    """Find the best way, measure it, and print a line of JSON."""
    each = seconds * SWEEP / len(ways)
    rates = [_measure(way, each)[0] for way in ways]
    best = ways[int(np.argmax(rates))]
    rate, times = _measure(best, seconds * (1 - SWEEP))
    p50, p99 = np.percentile(times, [50, 99])
    print(json.dumps({"per_second": rate, "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3, "note": str(best)}))


def _measure(way: Way, seconds: float) -> tuple[float, list[float]]:
    """Items per second, and seconds of each run."""
    way.run()  # the first one of a size allocates
    times: list[float] = []
    started = time.perf_counter()
    deadline = started + seconds

    def keep_running() -> None:
        while (begun := time.perf_counter()) < deadline:
            way.run()
            times.append(time.perf_counter() - begun)

    with ThreadPoolExecutor(way.parallel) as pool:
        for future in [pool.submit(keep_running) for _ in range(way.parallel)]:
            future.result()
    return len(times) * way.batch / (time.perf_counter() - started), times
