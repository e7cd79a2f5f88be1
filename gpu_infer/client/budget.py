"""How many retries a client may make beside its first attempts: a bucket of tokens that successes fill.

When a service is down, each call by itself has a good reason to try again, and all of them together keep it down. So
the retries of a client are a share of what it gets done. The time is passed in; nothing here waits.
"""

from __future__ import annotations

import threading

__all__ = ["BUDGET_CAP", "BUDGET_RESERVE", "BUDGET_TRICKLE", "RetryBudget"]

BUDGET_RESERVE = 10.0
"""Tokens at the start: one call alone may use all its retries."""

BUDGET_CAP = 100.0
"""Tokens that can be saved: only recent successes count."""

BUDGET_TRICKLE = 1.0
"""Tokens per second up to the reserve, whatever happens: one call after the other is never held back by the budget,
since its own waits take longer, and nothing is stuck for ever."""


class RetryBudget:
    """A bucket of tokens, of which each retry takes one. Threads may share it.

    At any time, retries are at most ``reserve + share * successes + trickle * seconds``.

    Args:
        share: tokens for each success; ``None`` for a bucket that is never empty.
        reserve: tokens at the start, up to which the trickle fills.
        cap: tokens at most.
        trickle: tokens per second.
    """

    def __init__(
        self,
        share: float | None,
        *,
        reserve: float = BUDGET_RESERVE,
        cap: float = BUDGET_CAP,
        trickle: float = BUDGET_TRICKLE,
    ) -> None:
        self._share, self._reserve, self._cap, self._trickle = share, reserve, max(cap, reserve), trickle
        self._tokens = reserve
        self._filled_at: float | None = None
        self._lock = threading.Lock()

    def succeed(self, now: float) -> None:
        """Add the share of one success.

        Args:
            now: seconds of any clock that does not go backwards, the same for all calls.
        """
        if self._share is None:
            return
        with self._lock:
            self._fill(now)
            self._tokens = min(self._cap, self._tokens + self._share)

    def take(self, now: float) -> bool:
        """Take the token for one retry; false when there is none."""
        if self._share is None:
            return True
        with self._lock:
            self._fill(now)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def seconds_until_token(self, now: float) -> float | None:
        """Seconds until the trickle alone has filled up one token; ``None`` where it never will."""
        if self._share is None:
            return 0.0
        with self._lock:
            self._fill(now)
            missing = 1 - self._tokens
            if missing <= 0:
                return 0.0
            return missing / self._trickle if self._trickle > 0 and self._reserve >= 1 else None

    def _fill(self, now: float) -> None:
        since = self._filled_at
        # Another thread may have read the clock earlier and come later.
        self._filled_at = now if since is None else max(since, now)
        dripped = self._tokens + self._trickle * max(0.0, now - (now if since is None else since))
        self._tokens = max(self._tokens, min(self._reserve, dripped))
