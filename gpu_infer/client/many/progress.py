"""How far a ``score_many`` is: numbers for a function of the caller, or a bar."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..extras import missing_package

if TYPE_CHECKING:
    import rich.progress

__all__ = ["Bar", "Meter", "Progress"]

EVERY = 0.1
"""Seconds between two reports: a bar that is drawn for each of a million items costs more than the items."""

RATE_OVER = 50
"""Reports that the rate is taken over: some seconds, so that it follows what happens now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is.

    Attributes:
        done: items with a result or an error that the caller has got.
        total: all items, ``None`` where they cannot be counted beforehand.
        failed: items with an error.
        resumed: items whose result came from the checkpoint.
        seconds: since the beginning.
        rate: items per second of late.
        eta: seconds that are left at this rate, ``None`` where it cannot be said.
        concurrency: requests that may be under way now.
        items_per_request: items that share a request now.
    """

    done: int
    total: int | None
    failed: int
    resumed: int
    seconds: float
    rate: float
    eta: float | None
    concurrency: int
    items_per_request: int


class Meter:
    """Counts, and reports now and then.

    Args:
        report: is called with a :class:`Progress`.
        total: all items, where that is known.
        clock: seconds, monotonic.
    """

    def __init__(self, report: Callable[[Progress], object], total: int | None, clock: Callable[[], float]) -> None:
        self._report = report
        self._total = total
        self._clock = clock
        self._began = clock()
        self._next = self._began
        self._points: deque[tuple[float, int]] = deque([(self._began, 0)], maxlen=RATE_OVER)
        self.done = 0
        self.failed = 0
        self.resumed = 0

    def tell(self, *, concurrency: int, items_per_request: int, last: bool = False) -> None:
        """Report, unless the last time was just now."""
        now = self._clock()
        if now < self._next and not last:
            return
        self._next = now + EVERY
        then, before = self._points[0]
        fresh = self.done - self.resumed
        self._points.append((now, fresh))
        rate = (fresh - before) / (now - then) if now > then else 0.0
        left = None if self._total is None or rate <= 0 else max(0, self._total - self.done) / rate
        self._report(
            Progress(
                done=self.done,
                total=self._total,
                failed=self.failed,
                resumed=self.resumed,
                seconds=now - self._began,
                rate=rate,
                eta=left,
                concurrency=concurrency,
                items_per_request=items_per_request,
            )
        )


class Bar:
    """A bar on standard error, with the rate and the time that is left; in notebooks below the cell.

    Raises:
        MissingDependencyError: Rich is not installed.
    """

    def __init__(self) -> None:
        try:
            from rich import progress
            from rich.console import Console
        except ImportError as error:
            raise missing_package("progress=True draws its bar with Rich", install="'gpu-infer[cli]'") from error
        console = Console(stderr=True)
        self._live: rich.progress.Progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[numbers]}"),
            console=console,
            # In a file or pipe it would be written once, at the end, to no use.
            disable=not (console.is_terminal or "ipykernel" in sys.modules),
        )
        self._task = self._live.add_task("scored", total=None, numbers="")
        self._live.start()

    def __call__(self, now: Progress) -> None:
        """Draw it."""
        self._live.update(self._task, completed=now.done, total=now.total, numbers=numbers_of(now))

    def close(self) -> None:
        """Leave the last state standing."""
        self._live.stop()


def numbers_of(now: Progress) -> str:
    """The numbers behind the bar."""
    parts: list[Any] = [f"{now.done:,}" if now.total is None else f"{now.done:,} of {now.total:,}"]
    if now.rate:
        parts.append(f"{now.rate:,.0f}/s" if now.rate >= 10 else f"{now.rate:.1f}/s")
    if now.eta is not None and now.done != now.total:
        parts.append(f"{_duration(now.eta)} left")
    if now.failed:
        parts.append(f"{now.failed:,} failed")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
