"""The clocks and the die of a conversation, in one place, so that tests can put their own there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """The outside world of a conversation; tests put their own in its place."""

    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def seconds(self) -> float:
        """The time of day in seconds since 1970, as tokens state when they expire."""
        return self.now().timestamp()
