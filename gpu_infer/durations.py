"""Durations as people write them: seconds, a ``timedelta``, or text such as ``"8h"``."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["LONGEST", "seconds_of"]

LONGEST = 3650 * 86400.0
"""Seconds: ten years."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*")
_UNIT_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(duration: float | str | timedelta) -> float:
    """A duration in seconds.

    Args:
        duration: seconds, a ``timedelta``, or text such as ``"30m"``, ``"8h"`` or ``"2d"``.

    Raises:
        ValueError: text that is no duration, or a duration that is not above 0.
    """
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, str):
        match = _DURATION.fullmatch(duration)
        if match is None:
            msg = f'{duration!r} is no duration: give seconds, or text such as "30m", "8h" or "2d".'
            raise ValueError(msg)
        seconds = float(match[1]) * _UNIT_SECONDS[match[2]]
    else:
        seconds = float(duration)
    if not 0 < seconds <= LONGEST:
        msg = f"A duration is above 0 and up to ten years, got {duration!r}."
        raise ValueError(msg)
    return seconds
