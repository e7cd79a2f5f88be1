"""Items on their way, and which of them may share a request."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from ...errors import ScoringError
from ..answers import problem_of
from ..arrays import array_of, is_array_like, is_number, nested_list_to_array
from ..codecs import NPY_MAGIC
from ..messages import Outcome

__all__ = ["Answer", "Attempts", "Group", "Kind", "Piece", "error_of_item", "piece_of", "split_answer"]

Kind: TypeAlias = tuple[Any, ...] | None
"""Items of one kind may share a request; ``None`` goes alone."""

FILE_BYTES = 1 << 17
"""What a file or picture is taken for before it is read: a photograph."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One item.

    Attributes:
        index: its place among the items.
        item: what is encoded.
        kind: with which others it may share a request.
        size: bytes, roughly.
        digest: CRC-32 of what it is, 0 where that cannot be said cheaply.
    """

    index: int
    item: Any = field(repr=False)
    kind: Kind
    size: int
    digest: int


@dataclass(eq=False, slots=True)
class Group:
    """Items that share a request.

    Attributes:
        pieces: the items, in their order.
        begun: when the request first went out.
        under_way: how many requests for it are out; two where the first was late.
        hedged: a second request has been sent.
        settled: its results are known, and what else comes of it is nothing new.
    """

    pieces: Sequence[Piece]
    begun: float = 0.0
    under_way: int = 0
    hedged: bool = False
    settled: bool = False

    @property
    def items(self) -> list[Any]:
        """What is encoded."""
        return [piece.item for piece in self.pieces]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    Attributes:
        value: the result, when there is one.
        seconds: how long the attempt took that had it.
        error: why there is none.
    """

    value: Any = field(default=None, repr=False)
    seconds: float = 0.0
    error: ScoringError | None = None


class Attempts:
    """Watches the attempts of one request.

    Args:
        refused: is called when the service has no room.
    """

    def __init__(self, refused: Callable[[], None]) -> None:
        self._refused = refused
        self.seconds: float = 0.0

    def __call__(self, outcome: Outcome, seconds: float) -> None:
        """What came of an attempt, and how long it took."""
        self.seconds = seconds
        problem = problem_of(outcome)
        if problem is not None and problem.cause == "overloaded":
            self._refused()


def piece_of(index: int, item: Any) -> Piece:
    """Look at an item without reading it.

    Raises:
        BadInputError: nested lists that are no array.
    """
    if isinstance(item, list | tuple | range):
        numbers = list(cast("Sequence[Any]", item))
        item = nested_list_to_array(numbers) if _is_numbers(numbers) else numbers
    elif is_array_like(item) and not _is_picture(item):
        item = array_of(item)
    elif isinstance(item, int | float | complex):
        item = np.asarray(item)
    if isinstance(item, np.ndarray):
        array = cast("np.ndarray[Any, Any]", item)
        kind = ("array", array.dtype.str, array.shape) if array.dtype.kind in "biufc" else None
        return Piece(index, array, kind, array.nbytes, _digest(array))
    if isinstance(item, bytes | bytearray | memoryview):
        data = cast("bytes", item)
        is_array = bytes(data[: len(NPY_MAGIC)]) == NPY_MAGIC
        return Piece(index, data, None if is_array else ("file",), len(data), zlib.crc32(data))
    if isinstance(item, str | Path):
        kind = None if Path(item).suffix.lower() in (".npy", ".json") else ("file",)
        return Piece(index, item, kind, FILE_BYTES, zlib.crc32(str(item).encode("utf-8", "surrogateescape")))
    if _is_picture(item):
        return Piece(index, item, ("file",), FILE_BYTES, 0)
    return Piece(index, item, None, FILE_BYTES, 0)


def _is_numbers(items: Sequence[Any]) -> bool:
    return bool(items) and all(is_number(one) or isinstance(one, list | tuple | range) for one in items)


def _is_picture(item: Any) -> bool:
    return hasattr(item, "mode") and hasattr(item, "getbands")


def _digest(array: np.ndarray[Any, Any]) -> int:
    return 0 if array.dtype.hasobject else zlib.crc32(cast("bytes", np.ascontiguousarray(array)))


def split_answer(value: Any, count: int) -> Sequence[Any] | None:
    """The result of each item; ``None`` where the answer is not one result per item."""
    if count == 1:
        return [value]
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return [row for row in array] if array.ndim and len(array) == count else None  # noqa: C416  (rows, not a list of lists)
    if isinstance(value, list):
        return cast("list[Any]", value) if len(cast("list[Any]", value)) == count else None
    return None


def error_of_item(error: ScoringError, index: int, *, shared: bool) -> ScoringError:
    """The error for one item, with a note of which.

    Args:
        error: what a request came to.
        index: of the item.
        shared: other items get the same error; each has a copy, since each has its own note.
    """
    own = error
    if shared:
        own = copy.copy(error)
        own.__cause__, own.__traceback__ = error.__cause__, error.__traceback__
        own.__notes__ = list(getattr(error, "__notes__", ()))
    own.add_note(f"This was item {index} of score_many().")
    return own
