"""Levels of load, one after the other, on a service."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpu_infer.errors import UnsupportedError
from gpu_infer.load.report import Level, LoadReport
from gpu_infer.load.senders import Senders
from gpu_infer.progress import Event, emit
from gpu_infer.samples import made_up

if TYPE_CHECKING:
    from gpu_infer.service import Service

__all__ = ["CONCURRENCY", "MAX_CONCURRENCY", "SECONDS", "WARM_UP", "item_for", "measure", "replicas_of"]

CONCURRENCY = (1, 4, 16, 64)
MAX_CONCURRENCY = 256
SECONDS = 5.0
WARM_UP = 1.0
"""Seconds before each level that count nowhere: connections are opened, and the service gets into step."""

_HERE = ("127.0.0.1", "localhost", "::1")


def measure(
    service: Service,
    item: Any,
    *,
    concurrency: Sequence[int] = CONCURRENCY,
    seconds: float = SECONDS,
    warm_up: float = WARM_UP,
    timeout: float | None = None,
    replicas: int = 1,
    p99_ms: float | None = None,
    on_tick: Callable[[float, float], None] | None = None,
) -> LoadReport:
    """Send one item again and again, and measure.

    A first request goes through the service's client, so that what is wrong with the item, the key or the address is
    said in its words. Then each level keeps its number of requests under way, each sender sending its next one when it
    has the answer to the last. Requests are not tried again; who is turned away waits as the service asks, 1 s at most.
    A level takes ``warm_up + seconds``, and longer where single requests do: each sender has one answer before it is
    measured and one that counts, with up to ``timeout`` for each and for its last. After a level without any result no
    other one is tried. Ctrl-C ends the measurement, and what there is by then comes back.

    Args:
        service: any that is healthy.
        item: what ``service.score()`` takes.
        concurrency: requests under way at once, a level each; 1 to 256.
        seconds: that are measured at each level.
        warm_up: seconds before each level that count nowhere.
        timeout: seconds for each request; the service's own where ``None``.
        replicas: how many the service runs on, among which its rate is divided.
        p99_ms: milliseconds, the limit of an acceptable p99; where ``None``, 3 times the p50 of the level, and 50 ms at
            least.
        on_tick: told the seconds that are over, and those that all levels take.

    Raises:
        ScoringError: the first request got no result.
        ValueError: a number that cannot be.
    """
    _check(concurrency, seconds=seconds, warm_up=warm_up, replicas=replicas, p99_ms=p99_ms)
    first = service.client.score_response(item, timeout=timeout)
    repeated = service.client.repeated(item, timeout=timeout)
    found: list[Level] = []
    interrupted = False
    each = warm_up + seconds
    for number, count in enumerate(concurrency):
        stage = f"{count} at a time"
        emit(Event(service.name, stage, "start"))
        senders = Senders(repeated, count, seconds=seconds, warm_up=warm_up)

        def tick(spent: float, before: float = number * each) -> None:
            if on_tick is not None:
                on_tick(before + min(spent, each), each * len(concurrency))

        interrupted = senders.run(tick)
        level = senders.level()
        if level is not None and (level.results or level.errors):
            found.append(level)
            emit(Event(service.name, stage, "ok", f"{level.rate:,.0f} results/s"))
        if interrupted or level is None or not level.results:
            break
    return LoadReport(
        service=service.name,
        levels=tuple(found),
        device=first.device,
        replicas=replicas,
        p99_ms=p99_ms,
        here=urlsplit(service.scoring_uri).hostname in _HERE,
        interrupted=interrupted,
    )


def replicas_of(service: Service) -> int | None:
    """How many replicas a service runs on: 1 on this machine; ``None`` where Azure chooses by load."""
    raw = service.raw
    if service.target == "local":
        return 1
    if getattr(getattr(raw, "autoscaler", None), "autoscale_enabled", False):
        return None
    count = getattr(raw, "num_replicas", None)
    return count if isinstance(count, int) and count > 0 else None


def item_for(service: Service) -> Any:
    """An item made up from what the service says it takes.

    Raises:
        UnsupportedError: it does not say.
        ScoringError: it does not answer.
    """
    try:
        return made_up(service.describe())
    except (UnsupportedError, ValueError) as error:
        message = f"No item can be made up for service {service.name!r}: {error} Give one that it can score."
        raise UnsupportedError(message) from error


def _check(concurrency: Sequence[int], *, seconds: float, warm_up: float, replicas: int, p99_ms: float | None) -> None:
    wrong = [count for count in concurrency if not 1 <= count <= MAX_CONCURRENCY]
    if wrong or not concurrency:
        raise ValueError(f"concurrency must be numbers from 1 to {MAX_CONCURRENCY}, got {list(concurrency)}.")
    if not (seconds > 0 and math.isfinite(seconds)) or not (warm_up >= 0 and math.isfinite(warm_up)):
        raise ValueError(f"seconds must be above 0 and warm_up at least 0, got {seconds!r} and {warm_up!r}.")
    if replicas < 1:
        raise ValueError(f"replicas must be 1 or more, got {replicas}.")
    if p99_ms is not None and not p99_ms > 0:
        raise ValueError(f"p99_ms must be a number of milliseconds above 0, got {p99_ms!r}.")
