"""How a new deployment takes the place of the old one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from gpu_infer.durations import seconds_of

__all__ = ["MOST_MIRRORED", "Rollout"]

MOST_MIRRORED = 50
"""Per cent of an endpoint's requests that Azure ML mirrors at most (documentation of safe rollout)."""


@dataclass(frozen=True, slots=True, init=False)
class Rollout:
    """How a new deployment of an online endpoint takes the place of the old one, and when it must not.

    Args:
        golden: items that the new one has to answer: before it gets any traffic, and after each step. A list or tuple
            of them; anything else is one item. Without any, one is made up from what the model takes; an entry script
            of the user's is then only watched.
        steps: per cent of the requests that it gets, rising to 100.
        pause: how long each step lasts: seconds, a ``timedelta``, or text such as ``"1m"``. The last one gives the old
            deployment the time for the requests that it still works on.
        mirror: per cent of the requests that it gets a copy of, before the first step; managed endpoints only.

    Raises:
        ValueError: steps that do not rise to 100, or no share or pause.
    """

    golden: tuple[Any, ...] = field(repr=False)
    steps: tuple[int, ...]
    pause: float
    mirror: int

    def __init__(
        self,
        golden: Any = (),
        steps: Sequence[int] = (10, 50, 100),
        pause: float | str | timedelta = 10.0,
        mirror: int = 0,
    ) -> None:
        items = tuple(cast("Sequence[Any]", golden)) if isinstance(golden, list | tuple) else (golden,)
        object.__setattr__(self, "golden", items)
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "pause", _pause_of(pause))
        object.__setattr__(self, "mirror", mirror)
        rising = all(low < high for low, high in itertools.pairwise(self.steps))
        if not self.steps or not rising or self.steps[0] < 1 or self.steps[-1] != 100:
            msg = f"steps rise from 1 or more to 100 per cent, got {self.steps!r}."
            raise ValueError(msg)
        if not 0 <= self.mirror <= MOST_MIRRORED:
            msg = f"mirror is from 0 to {MOST_MIRRORED} per cent, as much as Azure copies, got {self.mirror!r}."
            raise ValueError(msg)


def _pause_of(pause: float | str | timedelta) -> float:
    """Seconds; other durations are above 0, a pause need not be."""
    if pause in (0, timedelta(0), "0", "0s"):
        return 0.0
    try:
        return seconds_of(pause)
    except (ValueError, TypeError) as error:
        msg = f"pause is a number of seconds, or a duration such as '1m', got {pause!r}."
        raise ValueError(msg) from error
