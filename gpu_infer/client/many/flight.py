"""The whole of a ``score_many`` without socket, thread or clock: what goes out when, and what came of it.

Both clients drive it alike: give it items, send the groups it names, tell it what came, hand on the results it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import BadInputError, ModelError, ScoringError, ScoringTimeoutError
from .options import ManyOptions
from .pieces import Answer, Group, Piece, error_of_item, split_answer
from .tuning import GROUP_BYTES, GROUP_MOST, GroupSize, Hedges, Window

__all__ = ["Flight", "Result"]

AHEAD = 2
"""Windows of items that are read ahead of the results: a slow one must not leave the others idle."""

AHEAD_BYTES = 64 << 20
"""Bytes of items that are read ahead, beyond those that fill the window with single items."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one item came to."""

    index: int
    value: Any = field(default=None, repr=False)
    error: ScoringError | None = None
    resumed: bool = False


class Flight:
    """Items in, groups to send, results out.

    Args:
        options: what the caller asked for.
    """

    def __init__(self, options: ManyOptions) -> None:
        self.size: GroupSize = GroupSize(options.items_per_request)
        self.window: Window = Window(start=options.start, most=options.most)
        self.hedges: Hedges = Hedges(options.hedge)
        self._ordered = options.ordered
        self._waiting: deque[Piece] = deque()
        self._again: deque[Group] = deque()
        self._out: dict[int, Group] = {}
        self._ready: dict[int, Result] = {}
        self._next = 0
        self._taken = 0
        self._given = 0
        self._bytes = 0
        self._ended = False
        self._alone_is_array: bool | None = None

    # --- items --------------------------------------------------------------------------------------------------------

    @property
    def wants_item(self) -> bool:
        """Whether another item should be read."""
        ahead = self._taken - self._given
        if self._ended or ahead >= AHEAD * self.window.size * self.size.size:
            return False
        return self._bytes < AHEAD_BYTES or ahead < self.window.size

    @property
    def taken(self) -> int:
        """How many items were read: the index of the next one."""
        return self._taken

    @property
    def finished(self) -> bool:
        """Whether all items have their results, and those were handed on."""
        return self._ended and self._taken == self._given

    def take(self, piece: Piece) -> None:
        """An item was read."""
        self._taken += 1
        self._bytes += piece.size
        self._waiting.append(piece)

    def settle(self, result: Result) -> None:
        """An item was read that needs no request: its result is known, or it cannot be sent."""
        self._taken += 1
        self._ready[result.index] = result

    def end(self) -> None:
        """There are no more items."""
        self._ended = True

    def allow_groups(self) -> None:
        """The service is one that is known to take several items in a request."""
        self.size.allow(GROUP_MOST)

    # --- requests -----------------------------------------------------------------------------------------------------

    def to_send(self, now: float, *, hold: bool = False) -> Iterator[Group]:
        """The groups to send now.

        Args:
            now: seconds.
            hold: more items come at once, so that a group which is not full had better wait for them.
        """
        while len(self._out) < self.window.size:
            if self._again:
                group = self._again.popleft()
            elif self._waiting and (len(self._waiting) >= self.size.size or not self._holds_back(hold=hold)):
                group = Group(self._same_kind())
            else:
                return
            group.begun, group.under_way = now, 1
            self._out[id(group)] = group
            self.hedges.sent()
            yield group

    def _holds_back(self, *, hold: bool) -> bool:
        """Whether a group that is not full waits: for items that come at once, or for room to read them."""
        return not self._ended and (hold if self.wants_item else bool(self._out))

    def late(self, now: float) -> list[Group]:
        """The groups that are worth a second request, which counts as sent."""
        chosen: list[Group] = []
        for group in self._out.values():
            after = self.hedges.late_after
            if after is None:
                break
            if not group.hedged and now - group.begun >= after:
                group.hedged, group.under_way = True, 2
                self.hedges.take()
                chosen.append(group)
        return chosen

    def next_late(self, now: float) -> float | None:
        """Seconds until a group may be late; ``None`` where none can be."""
        after = self.hedges.late_after
        begun = [group.begun for group in self._out.values() if not group.hedged]
        return None if after is None or not begun else max(0.0, min(begun) + after - now)

    def _same_kind(self) -> Sequence[Piece]:
        pieces = [self._waiting.popleft()]
        kind, size = pieces[0].kind, pieces[0].size
        while kind is not None and len(pieces) < self.size.size and self._waiting:
            following = self._waiting[0]
            if following.kind != kind or (size + following.size > GROUP_BYTES and not self.size.fixed):
                break
            pieces.append(self._waiting.popleft())
            size += following.size
        return pieces

    # --- answers ------------------------------------------------------------------------------------------------------

    def refused(self) -> None:
        """The service had no room for a request, which will be tried again."""
        self.window.refused()

    def answered(self, group: Group, answer: Answer) -> Sequence[tuple[Piece, Any]]:
        """What came of a request.

        Returns:
            the items that have a result now, with it.
        """
        group.under_way -= 1
        # The other request for it was quicker, or may still have the result.
        if group.settled or (answer.error is not None and group.under_way > 0):
            return ()
        group.settled = True
        del self._out[id(group)]
        if answer.error is not None:
            self._failed(group, answer.error)
            return ()
        return self._scored(group, answer)

    def _scored(self, group: Group, answer: Answer) -> Sequence[tuple[Piece, Any]]:
        count = len(group.pieces)
        self.size.answered(count, answer.seconds)
        self.window.answered(count, answer.seconds)
        self.hedges.answered(count, answer.seconds)
        values = split_answer(answer.value, count)
        is_array = isinstance(answer.value, np.ndarray | np.generic)
        if count == 1:
            self._alone_is_array = is_array
        elif not self.size.fixed and (values is None or (self._alone_is_array and not is_array)):
            # Results of several shapes come as arrays when alone and as JSON when together. What an item's result is
            # must not depend on its neighbours. Only services of ours are sent groups unasked: asking again is free.
            self.size.at_most(1)
            self._again.extend(Group([piece]) for piece in group.pieces)
            return ()
        if values is None:
            self._failed(group, _not_split(answer.value, count))
            return ()
        for piece, value in zip(group.pieces, values, strict=True):
            self._settled(piece, Result(piece.index, value))
        return list(zip(group.pieces, values, strict=True))

    def _failed(self, group: Group, error: ScoringError) -> None:
        pieces = group.pieces
        if len(pieces) > 1 and isinstance(error, BadInputError | ModelError | ScoringTimeoutError):
            if isinstance(error, ScoringTimeoutError):
                self.size.at_most(len(pieces) // 2)
            self._again.extendleft(reversed([Group(part) for part in _parts(pieces, error)]))
            return
        for piece in pieces:
            own = error_of_item(error, piece.index, shared=len(pieces) > 1)
            self._settled(piece, Result(piece.index, error=own))

    def _settled(self, piece: Piece, result: Result) -> None:
        self._bytes -= piece.size
        self._ready[piece.index] = result

    # --- results ------------------------------------------------------------------------------------------------------

    def pop(self) -> Result | None:
        """The next result to hand on, ``None`` while there is none."""
        if self._ordered:
            result = self._ready.pop(self._next, None)
        else:
            result = self._ready.pop(next(iter(self._ready))) if self._ready else None
        if result is not None:
            self._next += 1
            self._given += 1
        return result


def _parts(pieces: Sequence[Piece], error: ScoringError) -> Sequence[Sequence[Piece]]:
    """The groups to send instead of one that failed, so that in the end only the items at fault have an error.

    The one that the service names goes alone, for an error that is all its own; without a name, both halves go.
    """
    at = error.item if isinstance(error, BadInputError | ModelError) else None
    if at is not None and 0 <= at < len(pieces):
        return [pieces[at : at + 1], [*pieces[:at], *pieces[at + 1 :]]]
    half = len(pieces) // 2
    return [pieces[:half], pieces[half:]]


def _not_split(value: Any, count: int) -> ScoringError:
    entries = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return ScoringError(
        f"The answer to {count} items is not one result for each, but one {type(value).__name__}{entries}; leave "
        "items_per_request= out, or make it 1."
    )
