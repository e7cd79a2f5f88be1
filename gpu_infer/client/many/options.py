"""How a ``score_many`` goes about it, checked before anything is read or sent."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np

from ..results import check_result
from ..timing import check_timeout
from .progress import Progress

__all__ = ["MAX_CONCURRENCY", "START_CONCURRENCY", "ManyOptions", "MoreOptions", "OnError", "ShowProgress"]

MAX_CONCURRENCY = 256
"""Requests in flight at once, and connections kept open."""

START_CONCURRENCY = 8
MOST_CONCURRENCY = 64
"""Where the caller names no number: requests at once in the beginning, and at most."""

MAX_HEDGE = 1.0

ShowProgress: TypeAlias = "bool | Callable[[Progress], object]"

OnError: TypeAlias = Literal["raise", "return"]


class MoreOptions(TypedDict, total=False):
    """The options of ``score_many`` that do not change what it gives, for type checkers."""

    concurrency: int | None
    ordered: bool
    timeout: float | None
    items_per_request: int | None
    hedge: float
    progress: ShowProgress
    checkpoint: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyOptions:
    """What the caller asked for; :meth:`ScoringClient.score_many` explains each.

    Raises:
        ValueError: a number, or a way to treat errors, that there is not.
        TypeError: ``progress`` is nothing that can report, or ``result`` nothing that can be read.
    """

    concurrency: int | None = None
    ordered: bool = True
    on_error: OnError = "raise"
    timeout: float | None = None
    result: type[Any] | None = None
    items_per_request: int | None = None
    hedge: float = 0.0
    progress: ShowProgress = False
    checkpoint: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_result(self.result)
        if self.concurrency is not None and not (_is_whole(self.concurrency) and self.concurrency <= MAX_CONCURRENCY):
            raise ValueError(
                f"concurrency must be a whole number from 1 to {MAX_CONCURRENCY}, not {self.concurrency!r}."
            )
        if self.on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', not {self.on_error!r}.")
        if self.timeout is not None:
            check_timeout(self.timeout)
        if self.items_per_request is not None and not _is_whole(self.items_per_request):
            raise ValueError(f"items_per_request must be a whole number from 1, not {self.items_per_request!r}.")
        if not 0 <= self.hedge <= MAX_HEDGE:
            raise ValueError(f"hedge must be a share from 0 to {MAX_HEDGE:g} of the requests, not {self.hedge!r}.")
        if not isinstance(self.progress, bool) and not callable(self.progress):
            raise TypeError(f"progress must be True, False or a function, not {self.progress!r}.")
        if self.checkpoint is not None and Path(self.checkpoint).is_dir():
            raise ValueError(f"checkpoint must be a file, {os.fspath(self.checkpoint)!r} is a folder.")

    @property
    def start(self) -> int:
        """Requests at once in the beginning."""
        return self.concurrency or START_CONCURRENCY

    @property
    def most(self) -> int:
        """Requests at once at most."""
        return self.concurrency or MOST_CONCURRENCY


def _is_whole(number: object) -> bool:
    """Whether it counts something: an integer, NumPy's too, from 1."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(cast("Any", number)) >= 1
