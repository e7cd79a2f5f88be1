"""The figures of a measurement, and what follows from them. No I/O."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["HEADROOM", "QUICK_MS", "TAIL", "Level", "LoadReport", "percentile", "replicas_for"]

TAIL = 3.0
"""A p99 of up to so many times the p50 is acceptable, where the user sets no limit."""

QUICK_MS = 50.0
"""Milliseconds; a p99 up to this is acceptable whatever the p50: beside a p50 of 1 ms it says more about the operating
system than about the service."""

NEAR_BEST = 0.9
"""Of the levels that reach this part of the highest rate the quickest counts: beyond it waiting grows, not the rate."""

HEADROOM = 0.7
"""The part of its sustained rate that is planned for a replica: the rest is for peaks, and for one that is lost."""

CLIENT_LIMIT = 0.8
"""Cores. Threads of one Python process share one core; from here on they wait for it, and not for the service."""

SHARED_CORES = 0.1
"""The part of a machine's cores from which on the load takes something away from a service on that machine."""

FEW = 100
"""Results below which one request in a hundred is not yet one request."""

RISING = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What was measured with one number of requests under way.

    Attributes:
        concurrency: requests under way at any moment.
        seconds: how long was measured, warm-up excluded.
        results: requests that got a result.
        rate: results per second.
        p50_ms, p90_ms, p99_ms, max_ms: milliseconds from the sending to the end of the answer, of those with a result.
        errors: how many requests got none, by reason, such as ``"503 overloaded"``.
        batch: items that the service ran together, on average; ``None`` where it does not say.
        queue_ms: milliseconds of waiting for the device, on average; ``None`` where the service does not say.
        client_cores: processor time that this process took, as a part of one core.
    """

    concurrency: int
    seconds: float
    results: int
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    batch: float | None = None
    queue_ms: float | None = None
    client_cores: float = 0.0

    @property
    def client_bound(self) -> bool:
        """Whether this process may have been the limit, and not the service."""
        return self.client_cores >= CLIENT_LIMIT

    def acceptable(self, p99_ms: float | None = None) -> bool:
        """Whether it had results, no errors, and a p99 within the limit.

        Args:
            p99_ms: the limit in milliseconds; where ``None``, 3 times the level's p50, and 50 ms at least.
        """
        limit = max(TAIL * self.p50_ms, QUICK_MS) if p99_ms is None else p99_ms
        return self.results > 0 and not self.errors and self.p99_ms <= limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a service did under load.

    Attributes:
        service: its name.
        levels: in the order in which they were measured.
        device: that did the work, ``None`` where the service does not say.
        replicas: how many it ran on.
        p99_ms: the limit of an acceptable p99; where ``None``, 3 times the p50 of its level, and 50 ms at least.
        here: whether it ran on this very machine.
        interrupted: whether Ctrl-C ended it; the last level is shorter then.
    """

    service: str
    levels: tuple[Level, ...]
    device: str | None = None
    replicas: int = 1
    p99_ms: float | None = None
    here: bool = False
    interrupted: bool = False

    @property
    def sustained(self) -> Level | None:
        """The level that counts: of the acceptable ones within 10 % of the highest rate the one with the least p99."""
        good = [level for level in self.levels if level.acceptable(self.p99_ms)]
        best = max((level.rate for level in good), default=0.0)
        return min((one for one in good if one.rate >= NEAR_BEST * best), key=lambda one: one.p99_ms, default=None)

    @property
    def rate_per_replica(self) -> float | None:
        """Results per second that one replica sustains; ``None`` where no level was acceptable."""
        return None if self.sustained is None else self.sustained.rate / self.replicas

    @property
    def notes(self) -> tuple[str, ...]:
        """What keeps the figures from saying what they seem to say."""
        found = [*self._on_the_client()]
        few = [str(level.concurrency) for level in self.levels if 0 < level.results < FEW]
        if few:
            found.append(
                f"Fewer than {FEW} results at {_listed(few)} at a time, so that p99 is about the slowest of them: "
                "--seconds gives it longer."
            )
        if len(self.levels) > 1 and not self.interrupted:
            last, best = self.levels[-1], max(level.rate for level in self.levels[:-1])
            if last is self.sustained and last.rate > RISING * best and not last.client_bound:
                found.append(
                    f"The rate still rose at {last.concurrency} at a time: a higher --concurrency may find more."
                )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            **{key: value for key, value in asdict(self).items() if key != "levels"},
            "levels": [_rounded(level) for level in self.levels],
            "sustained": None if self.sustained is None else _rounded(self.sustained),
            "rate_per_replica": None if self.rate_per_replica is None else round(self.rate_per_replica, 2),
            "notes": list(self.notes),
        }

    def _on_the_client(self) -> list[str]:
        bound = [level for level in self.levels if level.client_bound]
        if bound:
            at, most = _listed([str(one.concurrency) for one in bound]), max(one.client_cores for one in bound)
            note = (
                f"This process was the limit at {at} at a time: it took {most:.0%} of a core, and has no more. The "
                "service may do better: run the command on several machines at once and add their rates up."
            )
            return [note]
        most, cores = max((level.client_cores for level in self.levels), default=0.0), os.cpu_count() or 1
        if self.here and most >= SHARED_CORES * cores:
            note = (
                f"The service runs on this machine too, and sending took up to {most:.0%} of one of its {cores} cores: "
                "alone it may do better."
            )
            return [note]
        return []


def replicas_for(report: LoadReport, rate: float, *, headroom: float = HEADROOM) -> int | None:
    """How many replicas a rate needs: the rate over what is planned for one, rounded up.

    It takes for granted that the rate grows with the replicas, which holds while each has a device of its own.

    Args:
        report: of a measurement.
        rate: requests per second, of the kind that was measured.
        headroom: the part of its sustained rate that is planned for a replica.

    Returns:
        ``None`` where no level was acceptable.

    Raises:
        ValueError: a rate that is not above 0, or a headroom that is not in (0, 1].
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"The rate must be a number of requests per second above 0, not {rate!r}.")
    if not 0 < headroom <= 1:
        raise ValueError(f"headroom must be above 0 and up to 1, not {headroom!r}.")
    each = report.rate_per_replica
    # Ten at 1.0 each are ten, whatever the last digit of a float says.
    return None if not each else max(1, math.ceil(rate / (each * headroom) - 1e-9))


def percentile(values: Sequence[float], part: float) -> float:
    """The least of the values that at least ``part`` (0 to 1) of them do not exceed; 0 where there are none.

    Args:
        values: in ascending order.
        part: 0.99 for the 99th percentile.
    """
    if not values:
        return 0.0
    return values[min(len(values), max(1, math.ceil(part * len(values) - 1e-9))) - 1]


def _rounded(level: Level) -> dict[str, Any]:
    digits = {"rate": 2, "seconds": 2, "batch": 2, "client_cores": 2}
    return {
        key: round(value, digits.get(key, 3)) if isinstance(value, float) else value
        for key, value in asdict(level).items()
    }


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
