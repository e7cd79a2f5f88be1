"""When to try again: numbers, ``Retry-After``, and the arithmetic of waiting. No clock, no sleep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast

__all__ = [
    "BACKOFF_BASE",
    "BACKOFF_CAP",
    "CONNECT_RETRIES",
    "DEFAULT_BUDGET",
    "DEFAULT_RETRIES",
    "DEFAULT_TIMEOUT",
    "MIN_ATTEMPT",
    "RETRY_AFTER_CAP",
    "UNANSWERED_RETRIES",
    "RetryPolicy",
    "parse_retry_after",
    "policy_of",
    "wait_before_retry",
]

DEFAULT_TIMEOUT = 60.0
"""Seconds for a call with all its attempts; what an AKS web service allows by default."""

DEFAULT_RETRIES = 8
"""Retries of a call that was turned away (429, 503): with the waits below about 20 seconds on average."""

CONNECT_RETRIES = 3
"""Retries of a call that found no connection: enough for a pod that restarts, short enough for a wrong address."""

UNANSWERED_RETRIES = 2
"""Retries of a call that may have been carried out, but had no answer: its connection broke, or the time of an attempt
was over. A request that kills or blocks its worker must not do so to every replica."""

DEFAULT_BUDGET = 0.3
"""Retries for each success, beside a reserve (see ``budget.py``): under overload at most three in ten of a client's
requests more than it has answers."""

BACKOFF_BASE = 0.25
"""Seconds: the longest wait before the first retry. It doubles with each."""

BACKOFF_CAP = 8.0
"""Seconds: the longest wait that is our own choice."""

RETRY_AFTER_CAP = 60.0
"""Seconds: a service that asks for more gets an error to its caller at once, with the wait named."""

MIN_ATTEMPT = 0.05
"""Seconds that must be left for an attempt: with less, its time-out would hide why the ones before failed."""

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is tried again.

    Attributes:
        limit: retries of a call at most; 0 for none. ``score_many()`` goes on beyond it where the service only has no
            room, until its time-out.
        base: seconds, the longest wait before the first retry; doubles with each.
        cap: seconds, the longest wait where the service does not name one.
        retry_after_cap: seconds, the longest wait a service may ask for before its caller gets an error instead.
        attempt_timeout: seconds for one attempt, ``None`` for all that are left of the call's. An attempt that takes
            longer is given up and tried again where scoring twice does no harm; one replica that hangs then costs the
            caller this long and not the whole time-out.
        idempotent: scoring twice does no harm, so a request is repeated though it may have been carried out: when the
            connection broke, an attempt's time was over, or a front end answered 408 or 504. Services built by
            ``gpu_infer`` are known to be so, and need not be declared.
        budget: retries that each success of the client pays for, 0 or more; ``None`` for no budget. Beside it there are
            10 at the start, and one more each second.
    """

    limit: int = DEFAULT_RETRIES
    base: float = BACKOFF_BASE
    cap: float = BACKOFF_CAP
    retry_after_cap: float = RETRY_AFTER_CAP
    attempt_timeout: float | None = None
    idempotent: bool = False
    budget: float | None = DEFAULT_BUDGET

    def __post_init__(self) -> None:
        for name in ("limit", "base", "cap", "retry_after_cap", "budget"):
            value = getattr(self, name)
            if name == "budget" and value is None:
                continue
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"RetryPolicy.{name} must be a finite number of at least 0, not {value!r}.")
        seconds = self.attempt_timeout
        if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"RetryPolicy.attempt_timeout must be a finite number above 0 or None, not {seconds!r}.")


def policy_of(retries: int | RetryPolicy) -> RetryPolicy:
    """The policy that a client's ``retries=`` means.

    Raises:
        ValueError: neither a number nor a policy.
    """
    if isinstance(retries, RetryPolicy):
        return retries
    if not isinstance(cast("object", retries), int) or isinstance(retries, bool):
        raise ValueError(f"retries must be a whole number, 0 for none, or a RetryPolicy, not {retries!r}.")  # noqa: TRY004
    return RetryPolicy(limit=retries)


def parse_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait, as an answer asks for them.

    Read are ``retry-after-ms`` and ``x-ms-retry-after-ms`` (milliseconds, as Azure sends them), then ``Retry-After`` in
    seconds, with or without a fraction, or as a date.

    Args:
        headers: names in lower case.
        now: what a date is measured against where the answer has no ``Date`` of its own; the service's own clock is
            preferred, since ours may be wrong.

    Returns:
        a finite number of at least 0, or ``None`` where nothing was asked, or nothing that can be understood.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        text = headers.get(name, "").strip()
        if _NUMBER.fullmatch(text):
            return float(text) / 1000
    text = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    until = _http_date(text)
    since = _http_date(headers.get("date", "")) or now
    if until is None or since is None:
        return None
    return max(0.0, (until - since).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    # "-0000" and a missing zone come back without one; HTTP knows only GMT.
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def wait_before_retry(
    policy: RetryPolicy,
    *,
    retry: int,
    asked: float | None,
    remaining: float,
    random: float,
) -> float | None:
    """Seconds to wait before a retry, ``None`` when the deadline does not allow it.

    Full jitter: any moment up to ``base * 2 ** retry`` (at most ``cap``), so that clients which were turned away
    together do not come back together. A wait that the service asked for is added in full. The deadline cuts the
    jitter, never what was asked.

    Args:
        policy: the numbers.
        retry: how many retries there were before this one.
        asked: seconds the service asked for.
        remaining: seconds until the deadline of the call.
        random: a number in [0, 1).
    """
    floor = asked or 0.0
    room = remaining - floor - MIN_ATTEMPT
    if room < 0:
        return None
    # Beyond 2 ** 60 every base is over the cap, and a float cannot hold 2 ** 1024.
    spread = min(policy.cap, policy.base * 2.0 ** min(retry, 60))
    return floor + random * min(spread, room)
