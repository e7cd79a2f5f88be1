"""Items on their way, and which of them may share a request."""

from __future__ import annotations

import copy
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from ...errors import ScoringError
from ..answers import problem_of
from ..arrays import array_of, holds_numbers, is_array_like, nested_list_to_array
from ..codecs import NPY_MAGIC
from ..failures import chain_of
from ..inputs import is_picture
from ..json_text import encode_json
from ..messages import Outcome

__all__ = ["Answer", "Attempts", "Group", "Kind", "Piece", "error_of_item", "let_go", "piece_of", "split_answer"]

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


def piece_of(index: int, item: Any, *, own: bool = False, digest: bool = True) -> Piece:
    """Look at an item without reading it.

    Args:
        index: its place among the items.
        item: what the caller handed in.
        own: keep a copy of what the caller can change: a generator may fill one buffer again and again, and items are
            encoded when it has long gone on.
        digest: say what it is, for a checkpoint.

    Raises:
        BadInputError: nested lists that are no array.
    """
    given = item
    if isinstance(item, list | tuple | range):
        numbers = list(cast("Sequence[Any]", item))
        item = nested_list_to_array(numbers) if numbers and holds_numbers(numbers) else numbers
    elif is_array_like(item) and not is_picture(item):
        item = array_of(item)
    elif isinstance(item, int | float | complex):
        item = np.asarray(item)
    elif isinstance(item, memoryview) or (own and isinstance(item, bytearray)):
        item = bytes(cast("bytearray", item))
    # What was made here of numbers is nobody else's.
    if own and not isinstance(given, list | tuple | range | int | float | complex):
        item = _owned(item)
    crc = _digest(item) if digest else 0
    if isinstance(item, np.ndarray):
        array = cast("np.ndarray[Any, Any]", item)
        kind = ("array", array.dtype.str, array.shape) if array.dtype.kind in "biufc" else None
        return Piece(index, array, kind, array.nbytes, crc)
    if isinstance(item, bytes | bytearray):
        is_array = item[: len(NPY_MAGIC)] == NPY_MAGIC
        return Piece(index, item, None if is_array else ("file",), len(item), crc)
    if isinstance(item, str | Path):
        kind = None if Path(item).suffix.lower() in (".npy", ".json") else ("file",)
        return Piece(index, item, kind, FILE_BYTES, crc)
    return Piece(index, item, ("file",) if is_picture(item) else None, FILE_BYTES, crc)


def _owned(item: Any) -> Any:
    """The same, with copies of all that the caller could change."""
    if isinstance(item, np.ndarray):
        return cast("np.ndarray[Any, Any]", item).copy()
    if isinstance(item, bytearray):
        return bytes(item)
    if isinstance(item, dict):
        return {name: _owned(value) for name, value in cast("dict[Any, Any]", item).items()}
    if isinstance(item, list):
        return [_owned(value) for value in cast("list[Any]", item)]
    # One that still is its file is left to be read from there; the frames of a film are one object.
    if is_picture(item) and (getattr(item, "is_animated", False) or getattr(item, "fp", None) is None):
        return item.copy()
    return item


def _digest(item: Any) -> int:
    """CRC-32 of what an item is, of a file its path; 0 where that cannot be said cheaply."""
    if isinstance(item, np.ndarray):
        return _digest_of_array(cast("np.ndarray[Any, Any]", item))
    if isinstance(item, dict):
        try:
            item = encode_json(item)
        except ValueError:  # nothing that can be sent either, which is said when that is tried
            return 0
    elif isinstance(item, str | Path):
        item = str(item).encode("utf-8", "surrogateescape")
    return zlib.crc32(item) if isinstance(item, bytes | bytearray) else 0


def _digest_of_array(array: np.ndarray[Any, Any]) -> int:
    if array.dtype.hasobject:
        return 0
    # Not every dtype shows its memory as it is: those of dates do not.
    data = np.ascontiguousarray(array) if array.dtype.kind in "biufc" else array.tobytes()
    return zlib.crc32(cast("bytes", data), zlib.crc32(f"{array.dtype.str}{array.shape}".encode()))


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


def let_go(error: ScoringError | None) -> None:
    """Take the variables out of an error's traceback: a list of errors would hold the body of every request in them."""
    if error is None:
        return
    for inner in chain_of(error):
        traceback.clear_frames(inner.__traceback__)
    error.__traceback__ = None  # of the way through the client, which says nothing; the causes keep theirs
