"""The clocks and the die of a conversation, so that tests can put their own there, and what a time-out may be."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

__all__ = ["Timing", "check_timeout"]

LONGEST_TIMEOUT = 10_000_000
"""Seconds: about four months. The clocks of threads and sockets end somewhere beyond."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The outside world of a conversation; tests put their own in its place."""

    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def seconds(self) -> float:
        """The time of day in seconds since 1970, as tokens state when they expire."""
        return self.now().timestamp()


def check_timeout(timeout: float) -> float:
    """The time-out that a caller sets, in seconds.

    Raises:
        ValueError: no number, none above 0, or more than any clock takes.
    """
    is_number = isinstance(cast("object", timeout), int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout <= LONGEST_TIMEOUT:
        raise ValueError(
            f"timeout must be a number of seconds, above 0 and up to {LONGEST_TIMEOUT:,}, not {timeout!r}."
        )
    return float(timeout)
