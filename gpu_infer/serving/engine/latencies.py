"""How long things took: counts in buckets that grow by a fixed ratio, so that they can be added up over processes."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Sequence

LEAST_MS = 0.01
"""The upper end of the first bucket."""

RATIO = 1.15
"""A percentile is right to within this ratio."""

BUCKETS = 128
"""The last one ends at 0.01 * 1.15**127, about 140 hours."""

PERCENTILES = (50, 90, 99)

_SCALE = 1 / math.log(RATIO)


class Latencies:
    """Histograms of durations by name; the caller sees to it that one thread at a time adds.

    Args:
        names: of what is measured.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._counts: Dict[str, List[int]] = {name: [0] * BUCKETS for name in names}

    def add(self, name: str, milliseconds: float, times: int = 1) -> None:
        """Count a duration."""
        bucket = 0
        if milliseconds > LEAST_MS:
            bucket = min(BUCKETS - 1, 1 + int(math.log(milliseconds / LEAST_MS) * _SCALE))
        self._counts[name][bucket] += times

    def clear(self) -> None:
        """Begin anew."""
        for counts in self._counts.values():
            counts[:] = [0] * BUCKETS

    def counts(self) -> Dict[str, List[int]]:
        """The histograms by name, without the empty buckets at their ends; what ``merged`` takes."""
        return {name: _trimmed(counts) for name, counts in self._counts.items()}


def merged(histograms: Sequence[Mapping[str, Sequence[int]]]) -> Dict[str, List[int]]:
    """Histograms of several processes, added up by name."""
    total: Dict[str, List[int]] = {}
    for histogram in histograms:
        for name, counts in histogram.items():
            sums = total.setdefault(name, [0] * BUCKETS)
            for bucket, count in enumerate(counts):
                sums[bucket] += count
    return {name: _trimmed(counts) for name, counts in total.items()}


def percentiles(counts: Sequence[int]) -> Dict[str, Any]:
    """``{"count": 12, "p50": 1.3, "p90": 2.0, "p99": 7.1}`` in milliseconds, each the upper end of its bucket."""
    total = sum(counts)
    summary: Dict[str, Any] = {"count": total}
    if not total:
        return summary
    for percentile in PERCENTILES:
        wanted, seen = math.ceil(total * percentile / 100), 0
        for bucket, count in enumerate(counts):
            seen += count
            if seen >= wanted:
                summary[f"p{percentile}"] = float(f"{LEAST_MS * RATIO**bucket:.3g}")
                break
    return summary


def _trimmed(counts: Sequence[int]) -> List[int]:
    last = max((bucket for bucket, count in enumerate(counts) if count), default=-1)
    return list(counts[: last + 1])
