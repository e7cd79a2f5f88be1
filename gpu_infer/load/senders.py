"""Threads that keep a number of requests under way, and count what comes of them."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeGuard

from gpu_infer.client.messages import Failure, Outcome, Response
from gpu_infer.client.protocol import finite_number
from gpu_infer.client.retry import parse_retry_after
from gpu_infer.load.report import Level, percentile

if TYPE_CHECKING:
    from gpu_infer.client.repeated import Line, Repeated

__all__ = ["Senders", "reason"]

PAUSE = 0.1
"""Seconds that a sender waits after an error: else the refused would crowd out the served."""

LONGEST_PAUSE = 1.0
"""Seconds, of what ``Retry-After`` may ask for: a level is short."""

_TICK = 0.1
_GRACE = 1.0
"""Seconds beyond a request's own time-out that a thread gets to end."""

_FAILURES: Mapping[str, str] = {
    "connect": "no connection",
    "connect_timeout": "no connection in time",
    "tls": "certificate refused",
    "read_timeout": "no answer in time",
    "broken": "connection broken",
    "too_large": "answer too large",
    "credential": "no credential",
}


@dataclass
class _Tally:
    """What one sender has seen."""

    line: Line
    latencies: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter[str])
    batches: list[float] = field(default_factory=lambda: [0.0, 0.0])
    queues: list[float] = field(default_factory=lambda: [0.0, 0.0])
    warm: bool = False
    first: float = math.inf
    last: float = -math.inf

    def count(self, outcome: Outcome, begun: float, ended: float) -> None:
        self.first, self.last = min(self.first, begun), ended
        if not _is_result(outcome):
            self.errors[reason(outcome)] += 1
            return
        self.latencies.append(ended - begun)
        for sums, name in ((self.batches, "x-gpu-infer-batch"), (self.queues, "x-gpu-infer-queue-ms")):
            value = finite_number(outcome.headers.get(name))
            if value is not None:
                sums[0] += value
                sums[1] += 1

    @property
    def rate(self) -> float:
        """Results per second of the time that the sender was at it.

        Its own time and not the level's: what is under way at both ends of a level is then neither lost nor counted
        half, so that five seconds of a service that takes four for a request give the right rate too.
        """
        return len(self.latencies) / (self.last - self.first) if self.latencies else 0.0


class Senders:
    """Keeps a number of requests under way; to be used once.

    Args:
        repeated: the request.
        count: of senders, each with a thread and a connection of its own.
        seconds: that are measured.
        warm_up: seconds before that count nowhere. They last until each sender has had one answer.
    """

    def __init__(self, repeated: Repeated, count: int, *, seconds: float, warm_up: float) -> None:
        self._timeout = repeated.timeout
        self._seconds, self._warm_up = seconds, warm_up
        self._tallies = [_Tally(repeated.line()) for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._send, args=(tally,), name=f"gpu-infer-load-{number}", daemon=True)
            for number, tally in enumerate(self._tallies)
        ]
        self._told_to_end = threading.Event()
        self._start = self._end = math.inf
        self._measured = self._cores = 0.0

    def run(self, tick: Callable[[float], None]) -> bool:
        """Send, until the time is over or Ctrl-C is pressed; in the end no thread and no connection is left.

        Args:
            tick: told the seconds that are over, warm-up included, ten times a second.

        Returns:
            whether it was Ctrl-C.
        """
        begun = time.perf_counter()

        def wait(until: float, *, for_all: Callable[[_Tally, threading.Thread], bool] | None = None) -> None:
            while (now := time.perf_counter()) < until:
                if for_all is not None and all(map(for_all, self._tallies, self._threads)):
                    return
                tick(now - begun)
                time.sleep(min(_TICK, until - now))

        try:
            for thread in self._threads:
                thread.start()
            wait(begun + self._warm_up)
            # A dead thread has been shown by its traceback already.
            wait(time.perf_counter() + self._timeout, for_all=lambda tally, thread: tally.warm or not thread.is_alive())
            used, self._start = time.process_time(), time.perf_counter()
            self._end = self._start + self._seconds
            try:
                wait(self._end)
            finally:
                self._measured = time.perf_counter() - self._start
                self._cores = (time.process_time() - used) / self._measured
            wait(self._end + 2 * self._timeout + _GRACE, for_all=lambda _, thread: not thread.is_alive())
        except KeyboardInterrupt:
            return True
        finally:
            self._stop()
        return False

    def level(self) -> Level | None:
        """What was measured; ``None`` where it ended before the warm-up did."""
        if not self._measured:
            return None
        latencies = sorted(1e3 * seconds for tally in self._tallies for seconds in tally.latencies)
        errors = sum((tally.errors for tally in self._tallies), Counter[str]())
        return Level(
            concurrency=len(self._tallies),
            seconds=self._measured,
            results=len(latencies),
            rate=sum(tally.rate for tally in self._tallies),
            p50_ms=percentile(latencies, 0.5),
            p90_ms=percentile(latencies, 0.9),
            p99_ms=percentile(latencies, 0.99),
            max_ms=latencies[-1] if latencies else 0.0,
            errors=dict(errors.most_common()),
            batch=_mean([tally.batches for tally in self._tallies]),
            queue_ms=_mean([tally.queues for tally in self._tallies]),
            client_cores=self._cores,
        )

    def _send(self, tally: _Tally) -> None:
        line, clock, told_to_end = tally.line, time.perf_counter, self._told_to_end
        answered = False
        try:
            # Where one request takes longer than all that is measured, the one that began before is not the last.
            while not told_to_end.is_set() and (
                (begun := clock()) < self._end or (answered and tally.first == math.inf)
            ):
                outcome = line.send()
                ended = clock()
                if told_to_end.is_set():
                    return  # its connection was closed under it
                tally.warm, answered = True, _is_result(outcome)
                if begun >= self._start:
                    tally.count(outcome, begun, ended)
                if not answered:
                    told_to_end.wait(_pause(outcome))
        finally:
            line.close()

    def _stop(self) -> None:
        self._told_to_end.set()
        for tally in self._tallies:
            tally.line.abort()
        until = time.perf_counter() + _GRACE
        for thread in self._threads:
            if thread.ident is not None:  # Ctrl-C may have come before it was started
                thread.join(max(0.0, until - time.perf_counter()))


def reason(outcome: Outcome) -> str:
    """Why there is no result, in a few words: the status with its name, or what became of the connection."""
    if isinstance(outcome, Failure):
        return _FAILURES[outcome.kind]
    called = outcome.headers.get("x-gpu-infer-error")
    if not called:
        known = outcome.status in HTTPStatus._value2member_map_
        called = HTTPStatus(outcome.status).phrase if known else ""
    return f"{outcome.status} {called}".rstrip()


def _is_result(outcome: Outcome) -> TypeGuard[Response]:
    return isinstance(outcome, Response) and 200 <= outcome.status < 300


def _pause(outcome: Outcome) -> float:
    asked = parse_retry_after(outcome.headers) if isinstance(outcome, Response) else None
    return PAUSE if asked is None else min(LONGEST_PAUSE, max(PAUSE, asked))


def _mean(sums: list[list[float]]) -> float | None:
    count = sum(number for _, number in sums)
    return sum(total for total, _ in sums) / count if count else None
