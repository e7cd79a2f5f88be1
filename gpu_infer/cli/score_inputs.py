"""What ``score`` is given on the command line, to items with a label each; looked at before any of it is sent."""

from __future__ import annotations

import glob
import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from gpu_infer.client.many.source import IMAGE_SUFFIXES, images_in
from gpu_infer.client.signature import Signature, array_misfit

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile

__all__ = [
    "ARRAYS",
    "LINES",
    "STDIN",
    "TABLES",
    "Choice",
    "CountedItems",
    "Items",
    "Label",
    "Row",
    "Source",
    "Takes",
    "find",
    "has_pattern",
    "holds_rows",
    "items_of",
    "number_item",
    "source_of",
]

STDIN = "-"
ARRAYS = frozenset({".npy", ".npz"})
TABLES = frozenset({".csv", ".tsv", ".parquet"})
LINES = frozenset({".jsonl", ".ndjson"})

BLOCK_BYTES = 4 << 20
"""Bytes of an array file that are in memory at once."""


@dataclass(frozen=True, slots=True)
class Label:
    """Where an item comes from.

    Attributes:
        file: as given, or found.
        row: in the file, from 0; ``None`` where the file is one item.
    """

    file: str
    row: int | None = None

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}:{self.row}"


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        read: its items from the beginning, one after the other.
        count: how many, ``None`` where that is not known without reading them.
    """

    read: Callable[[], Iterator[tuple[Label, Any]]]
    count: int | None


@dataclass(frozen=True, slots=True)
class Takes:
    """What the service takes as one item, as far as it tells.

    Attributes:
        signature: inputs, hooks and labels, ``None`` where it does not tell.
        axes: of an array that is one item, ``None`` where that is not known.
    """

    signature: Signature | None = None
    axes: int | None = None

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """Of an item, ``None`` where a hook decides, or nobody knows."""
        return None if self.signature is None else self.signature.item_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That numbers in text are read as: the model's, float64 where it is not known."""
        try:
            dtype = np.dtype((self.signature and self.signature.dtype) or "float64")
        except TypeError:  # bfloat16, which the service makes of float32
            return np.dtype(np.float32)
        return dtype if dtype.kind in "biuf" else np.dtype(np.float64)

    def shaped(self, row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A row of numbers in the shape of an item, where it has as many."""
        shape = self.shape
        if shape is None or None in shape or math.prod(cast("Sequence[int]", shape)) != row.size:
            return row
        return row.reshape(cast("Sequence[int]", shape))

    def misfit(self, shape: Sequence[int], dtype: np.dtype[Any], *, many: bool) -> str:
        """Why the service would refuse an array, empty where it may take it."""
        if self.signature is None or self.signature.preprocess:
            return ""
        return array_misfit(shape, dtype, self.signature.input, items="many" if many else "one")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which columns of a table, or which array of several.

    Attributes:
        columns: names, or patterns as ``p*``; all with numbers where there are none.
        without: names or patterns of those that are left out.
    """

    columns: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


class Row:
    """A row of a table that is no item: it fails by itself, when its turn comes."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise ValueError(self._problem)


class Items:
    """The items of all sources; :attr:`labels` has those of the items that were read and whose results are to come."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.labels: deque[Label] = deque()

    def __iter__(self) -> Iterator[Any]:
        for source in self._sources:
            for label, item in source.read():
                self.labels.append(label)
                yield item


class CountedItems(Items):
    """Items whose number is known beforehand."""

    def __init__(self, sources: Sequence[Source], count: int) -> None:
        super().__init__(sources)
        self._count = count

    def __len__(self) -> int:
        return self._count


def items_of(sources: Sequence[Source]) -> Items:
    """The items of all sources, one source after the other."""
    counts = [source.count for source in sources]
    if any(count is None for count in counts):
        return Items(sources)
    return CountedItems(sources, sum(count for count in counts if count is not None))


# --- which files ------------------------------------------------------------------------------------------------------


def has_pattern(name: str) -> bool:
    """Whether it is a pattern such as ``photos/**/*.jpg``, and no file of that very name."""
    return any(sign in name for sign in "*?[") and not Path(name).exists()


def find(names: Sequence[str], note: Callable[[str], object]) -> list[str]:
    """The files that the arguments name: folders give their images, patterns what fits them, both by name.

    Args:
        names: of files, folders, patterns; ``-`` for standard input.
        note: is told what a folder or pattern gave.

    Raises:
        ValueError: no such file, one with nothing in it, a folder without images, a pattern that nothing fits.
    """
    found: list[str] = []
    for name in names:
        if name == STDIN:
            found.append(name)
        elif Path(name).is_dir():
            found += _told(name, _images(name), "image", note)
        elif has_pattern(name):
            # Not Path.glob(), which takes no pattern that begins at the root.
            fitting = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
            if not fitting:
                raise ValueError(f"No file fits {name!r}.")
            found += _told(name, fitting, "file", note)
        else:
            found.append(name)
    for name in found:
        _check(name)
    return found


def _told(name: str, found: list[str], what: str, note: Callable[[str], object]) -> list[str]:
    note(f"{name}: {len(found):,} {what}{'' if len(found) == 1 else 's'}")
    return found


def _images(folder: str) -> list[str]:
    if images := images_in(Path(folder)):
        return [str(path) for path in images]
    inner = next((path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES), None)
    if inner is not None:
        hint = f"; those below it are named by a pattern in quotes: '{folder.rstrip('/')}/**/*{inner.suffix}'"
    elif any(path.is_file() for path in Path(folder).iterdir()):
        hint = f"; other files are named by a pattern in quotes: '{folder.rstrip('/')}/*'"
    else:
        hint = ", nor any file"
    raise ValueError(f"There are no images in the folder {folder!r}{hint}.")


def _check(name: str) -> None:
    if name == STDIN:
        return
    if not Path(name).exists():
        raise ValueError(f"There is no file {name!r}. Nothing was sent.")
    if Path(name).stat().st_size == 0:
        raise ValueError(f"The file {name!r} is empty. Nothing was sent.")


# --- what is in them --------------------------------------------------------------------------------------------------


def holds_rows(file: str, *, takes: Takes, rows: bool) -> bool:
    """Whether an array file holds an item in each row, and is not one item as a whole.

    Raises:
        ValueError: it is no array of numbers.
    """
    return _rows(_array(file, ()), takes, rows)


def _rows(array: np.ndarray[Any, Any], takes: Takes, rows: bool) -> bool:
    return array.ndim > 0 and (rows or (takes.axes is not None and array.ndim == takes.axes + 1))


def source_of(file: str, choice: Choice, *, lines: bool, rows: bool, takes: Takes) -> Source:
    """The items of one file.

    Args:
        file: its path; ``-`` for standard input.
        choice: the columns of a table that make an item; the array in an ``.npz``.
        lines: a line is an item each.
        rows: a row of an array is an item each, whatever the service says.
        takes: what the service takes.

    Raises:
        ValueError: it holds nothing to score, or something that the service would refuse.
    """
    suffix = Path(file).suffix.lower()
    if suffix in TABLES:
        from gpu_infer.cli.score_tables import csv_source, parquet_source

        return (parquet_source if suffix == ".parquet" else csv_source)(file, choice, takes)
    if suffix in ARRAYS:
        return _array_source(file, choice.columns, rows=rows, takes=takes)
    if lines or suffix in LINES:
        return Source(lambda: _lines(file, takes), None)
    if file == STDIN:
        data = sys.stdin.buffer.read()
        if not data:
            raise ValueError("There is nothing on standard input.")
        return Source(lambda: iter([(Label(STDIN), data)]), 1)
    return Source(lambda: iter([(Label(file), file)]), 1)


def _array_source(file: str, columns: Sequence[str], *, rows: bool, takes: Takes) -> Source:
    array = _array(file, columns)
    if not _rows(array, takes, rows):
        item = file if file.lower().endswith(".npy") else array
        return Source(lambda: iter([(Label(file), item)]), 1)
    if len(array) == 0:
        raise ValueError(f"The array in {file!r} has no rows: {array.dtype} {list(array.shape)}.")
    if problem := takes.misfit(array.shape, array.dtype, many=True):
        raise ValueError(f"{file}: {problem[:1].upper()}{problem[1:]}. Nothing was sent.")
    if file.lower().endswith(".npy"):
        return Source(lambda: ((Label(file, at), row) for at, row in enumerate(_rows_of(file))), len(array))
    return Source(lambda: ((Label(file, at), row) for at, row in enumerate(array)), len(array))


def _rows_of(file: str) -> Iterator[Any]:
    """The rows of an array file, some megabytes at a time."""
    start = 0
    # Each through a mapping of its own: what was read through one is memory of this process as long as that is there.
    while True:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        if start >= len(array):
            return
        count = max(1, BLOCK_BYTES // max(1, array[0].nbytes))
        block = np.array(array[start : start + count])
        del array
        start += count
        yield from block


def _array(file: str, columns: Sequence[str]) -> np.ndarray[Any, Any]:
    """The array in a file; that of an ``.npy`` stays on disk until its rows are read."""
    try:
        loaded = cast("NpzFile | np.ndarray[Any, Any]", np.load(file, mmap_mode="r", allow_pickle=False))
        if isinstance(loaded, np.ndarray):
            return np.asarray(loaded)
        with loaded:
            if len(columns) == 1 and columns[0] in loaded.files:
                return loaded[columns[0]]
            if len(loaded.files) == 1 and not columns:
                return loaded[loaded.files[0]]
            names = ", ".join(loaded.files)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"The file {file!r} is no array that can be sent: {error}") from error
    raise ValueError(f"The file {file!r} holds the arrays {names}: choose one with --column NAME.")


def _lines(file: str, takes: Takes) -> Iterator[tuple[Label, Any]]:
    if file == STDIN:
        yield from _line_items(file, sys.stdin.buffer, takes)
    else:
        with Path(file).open("rb") as stream:
            yield from _line_items(file, stream, takes)


def _line_items(file: str, stream: IO[bytes] | Iterable[bytes], takes: Takes) -> Iterator[tuple[Label, Any]]:
    row = 0
    for line in stream:
        if text := line.strip():
            yield Label(file, row), _line_item(text, takes)
            row += 1


def _line_item(line: bytes, takes: Takes) -> Any:
    """JSON as it is, with a list of numbers as an array; else a path."""
    text = line.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
    except ValueError:
        return Row(f"it is no JSON: {text[:40]}") if text[:1] in "[{" else text
    return number_item(cast("object", value), takes) if isinstance(value, list | int | float) else value


def number_item(value: object, takes: Takes) -> Any:
    """Numbers as an array in the dtype of the model, so that ``[1, 2]`` and ``[1.5, 2]`` may share a request."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuf" and (takes.dtype.kind == "f" or array.dtype.kind in "biu"):
            return takes.shaped(array.astype(takes.dtype))
    except ValueError:
        pass  # lists of different lengths: the client says where
    return value
