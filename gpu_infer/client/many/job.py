"""What both drivers of ``score_many`` do between reading an item and handing on its result."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ...errors import BadInputError, ScoringError
from .checkpoint import Checkpoint
from .flight import Flight, Result
from .options import ManyOptions
from .pieces import Answer, Group, error_of_item, piece_of
from .progress import Bar, Meter

__all__ = ["Job"]


class Job:
    """One ``score_many`` from its first item to its last result. Use it in ``with``.

    Args:
        options: what the caller asked for.
        total: how many items there are, where that is known.
        read: makes of a value what the caller wants, or raises :class:`ScoringError`.
        clock: seconds, monotonic.
        own: keep copies of items that the caller can change, see :func:`piece_of`.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        MissingDependencyError: a bar is wanted, and Rich is not installed.
    """

    def __init__(
        self,
        options: ManyOptions,
        *,
        total: int | None,
        read: Callable[[Any], Any],
        clock: Callable[[], float],
        own: bool = False,
    ) -> None:
        self.flight: Flight = Flight(options)
        self.clock: Callable[[], float] = clock
        self.broken: Exception | None = None
        self._raises = options.on_error == "raise"
        self._read = read
        self._own = own
        self._checkpoint = None if options.checkpoint is None else Checkpoint(options.checkpoint, clock=clock)
        self._bar = Bar() if options.progress is True else None
        report = self._bar or (options.progress if callable(options.progress) else None)
        self._meter = Meter(report, total, clock) if report is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()
        if self._meter is not None:
            self._tell(last=True)
        if self._bar is not None:
            self._bar.close()

    def take(self, item: Any) -> None:
        """An item was read: it is done already, cannot be sent, or waits to be."""
        index = self.flight.taken
        try:
            piece = piece_of(index, item, own=self._own, digest=self._checkpoint is not None)
        except BadInputError as error:
            self.flight.settle(Result(index, error=error_of_item(error, index, shared=False)))
            return
        found = None if self._checkpoint is None else self._checkpoint.find(piece)
        if found is None:
            self.flight.take(piece)
        else:
            self.flight.settle(Result(index, found[0], resumed=True))

    def fail_source(self, error: Exception) -> None:
        """The caller's iterable raised; that is raised again once the items before it are done."""
        self.broken = error
        self.flight.end()

    def answered(self, group: Group, answer: Answer) -> None:
        """What came of a request; results are on disk before they are handed on."""
        for piece, value in self.flight.answered(group, answer):
            if self._checkpoint is not None:
                self._checkpoint.keep(piece, value)

    def next_result(self) -> Result | None:
        """The next result to hand on, ``None`` while there is none.

        Raises:
            ScoringError: the item has none, and the caller wants it raised.
        """
        result = self.flight.pop()
        if result is None:
            return None
        if result.error is None:
            try:
                result = Result(result.index, self._read(result.value), resumed=result.resumed)
            except ScoringError as error:
                result = Result(result.index, error=error_of_item(error, result.index, shared=False))
        if self._meter is not None:
            self._meter.done += 1
            self._meter.failed += result.error is not None
            self._meter.resumed += result.resumed
            self._tell()
        if result.error is not None and self._raises:
            raise result.error
        return result

    def _tell(self, *, last: bool = False) -> None:
        if self._meter is not None:
            flight = self.flight
            self._meter.tell(concurrency=flight.window.size, items_per_request=flight.size.size, last=last)
