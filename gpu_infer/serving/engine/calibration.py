"""Which way of running a model gives most on this device: measured at warm-up, since it cannot be known.

A small model and any GPU want batches. On a CPU a large model often wants the opposite: several runs side by side, of
one item and one thread each, since the threads of one run wait for each other.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from ..adapters.base import Adapter
from ..cores import usable_cores
from .jobs import powers_of_two

SECONDS = 2.0
"""What all measurements together may take; a model so slow that one run takes longer is not measured further."""

POINT_SECONDS = 0.05
"""What one measurement takes, unless a single run takes longer."""

ENOUGH = 0.95
"""A smaller batch that gives this share of the best is taken: it answers sooner."""

RUN_SECONDS = 0.0005
"""What a run costs besides the model: its batch is formed, and its results are handed out, by Python."""

WORTH_IT = 1.1
"""How many times better parallel runs must be: they take more memory, and one request alone runs on one core."""

WORTH_IT_MAKING = 0.9
"""The same where each run also decodes its images. Side by side nobody waits for a decoder, nor decodes while others
wait for a core: EfficientNet-Lite0 on two cores, where both ways were measured alike, answered 178 or 113 a second."""

INLINE_SECONDS = 0.002
"""A batch on a CPU that is quicker than this runs in the thread that reads requests: changing threads costs more."""

DOWNHILL = 0.95
"""Where two batches in a row give less than this share of the best, larger ones are not tried: they would give less
still, and frameworks keep the memory of the largest batch they have seen."""

Predict = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Form:
    """A way of running the model.

    Args:
        max_batch: the most items of one run.
        parallel: how many runs go side by side.
        inline: whether it runs in the thread that reads requests.
        curve: items per second by way and batch size, such as ``{"1x32": 51000.0, "2x1": 730.0}``; empty: not measured.
    """

    max_batch: int
    parallel: int = 1
    inline: bool = False
    curve: Optional[Dict[str, float]] = None

    def __str__(self) -> str:
        runs = "one run at a time" if self.parallel == 1 else f"{self.parallel} runs side by side"
        curve = " ".join(f"{way}:{rate:.3g}/s" for way, rate in (self.curve or {}).items())
        return f"batches up to {self.max_batch}, {runs}{', inline' if self.inline else ''}; {curve or 'not measured'}"


def calibrate(
    adapter: Adapter,
    predict: Predict,
    sample: Callable[[int], np.ndarray],
    *,
    max_batch: int,
    threads: int = 0,
    making: bool = False,
) -> Form:
    """Measure the ways of running a model and choose one; the adapter is left set up for it.

    Args:
        adapter: the loaded model, which has run before.
        predict: runs it.
        sample: gives a batch of so many items.
        max_batch: the most items of one run that may be chosen.
        threads: CPU threads of one run that the user asked for, 0 for none.
        making: whether runs side by side also decode their images.

    What ``predict`` raises is the caller's.
    """
    end = time.monotonic() + SECONDS
    curve: Dict[str, float] = {}

    def measure(parallel: int) -> None:
        worse = 0
        for size in powers_of_two(max_batch):
            batch = sample(size)
            predict(batch)
            one = _seconds_per_run(predict, batch, parallel)
            curve[f"{parallel}x{size}"] = rate = parallel * size / one
            worse = worse + 1 if rate < DOWNHILL * _best(curve, parallel) else 0
            if time.monotonic() > end or one > SECONDS / 4 or worse == 2:
                return

    on_cpu = adapter.device.kind == "cpu"
    inline = False
    if on_cpu:
        # Where even one thread is that quick, reading requests takes the time, and no other way could matter.
        adapter.use_threads(threads or 1)
        inline = all(_median_run(predict, sample(size)) < INLINE_SECONDS for size in sorted({1, max_batch}))
        if not inline:
            adapter.use_threads(threads)
    measure(1)
    parallel, size = 1, _enough(curve, 1)
    side_by_side = usable_cores() // (threads or 1)
    if on_cpu and not inline and side_by_side > 1 and time.monotonic() < end:
        adapter.use_threads(threads or 1)
        measure(side_by_side)
        if _best(curve, side_by_side) > (WORTH_IT_MAKING if making else WORTH_IT) * _best(curve, 1):
            parallel, size = side_by_side, _enough(curve, side_by_side)
        else:
            adapter.use_threads(threads)
    return Form(size, parallel, inline, {way: float(f"{rate:.4g}") for way, rate in curve.items()})


def _enough(curve: Dict[str, float], parallel: int) -> int:
    """The smallest batch that gives nearly as much as any, with all that a run costs."""
    rates: Dict[int, float] = {}
    for way, rate in curve.items():
        runs, _, size = way.partition("x")
        if int(runs) == parallel:
            at_once = parallel * int(size)
            rates[int(size)] = at_once / (at_once / rate + RUN_SECONDS)
    return min(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def _best(curve: Dict[str, float], parallel: int) -> float:
    return max((rate for way, rate in curve.items() if way.startswith(f"{parallel}x")), default=0.0)


def _seconds_per_run(predict: Predict, batch: np.ndarray, parallel: int) -> float:
    """Seconds that one of ``parallel`` runs side by side takes, the median of several."""
    if parallel == 1:
        return _median_run(predict, batch)
    results: List[float] = []
    failures: List[BaseException] = []

    def run() -> None:
        try:
            results.append(_median_run(predict, batch))
        except BaseException as error:  # raised again below, in the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(results) / len(results)


def _median_run(predict: Predict, batch: np.ndarray) -> float:
    durations: List[float] = []
    end = time.perf_counter() + POINT_SECONDS
    while len(durations) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        predict(batch)
        durations.append(time.perf_counter() - started)
        if sum(durations) > 4 * POINT_SECONDS:
            break
    return sorted(durations)[len(durations) // 2]
