"""Results of ``score`` into a file: JSON lines, CSV, Parquet or one NumPy array, each in the memory of some rows."""

from __future__ import annotations

import csv
import glob
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np
import typer

from gpu_infer.cli import screen
from gpu_infer.cli.score_inputs import Label
from gpu_infer.client.json_text import encode_json
from gpu_infer.client.many.flight import Result
from gpu_infer.client.many.parquet import ParquetWriter
from gpu_infer.errors import ScoringError

__all__ = ["SUFFIXES", "Sink", "check_out", "json_line", "sink_for"]


def json_line(label: Label, outcome: Any) -> bytes:
    """One item as a JSON object: ``file``, ``row`` where the file has rows, and ``result`` or ``error``."""
    record: dict[str, Any] = {"file": label.file}
    if label.row is not None:
        record["row"] = label.row
    if isinstance(outcome, ScoringError):
        return encode_json({**record, "error": str(outcome)})
    try:
        return encode_json({**record, "result": outcome})
    except ValueError:  # infinities become null as from a service, and so on
        record["result"] = screen.plain(outcome)
        return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class Sink(ABC):
    """Writes beside the file, and moves it into place when it is whole. Use it in ``with``.

    Args:
        path: of the file.
        labels: names of the classes, for columns.
    """

    def __init__(self, path: Path, labels: Sequence[str] | None) -> None:
        self._path = path
        self._labels = labels
        self._part = path.with_name(f"{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close(whole=kind is None)
            if kind is None:
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)

    @abstractmethod
    def add(self, label: Label, outcome: Any) -> None:
        """Take what the next item came to, a result or a :class:`ScoringError`."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self, *, whole: bool) -> None: ...


class _JsonLines(Sink):
    _file: IO[bytes]

    def _open(self) -> None:
        self._file = self._part.open("wb")

    def add(self, label: Label, outcome: Any) -> None:
        self._file.write(json_line(label, outcome) + b"\n")

    def _close(self, *, whole: bool) -> None:  # noqa: ARG002  (half a file is closed like a whole one)
        self._file.close()


class _Csv(Sink):
    """The first result says which columns there are; errors before it wait."""

    _file: IO[str]

    def _open(self) -> None:
        self._file = self._part.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._columns: list[str] | None = None
        self._early: list[tuple[Label, str]] = []

    def add(self, label: Label, outcome: Any) -> None:
        if isinstance(outcome, ScoringError):
            if self._columns is None:
                self._early.append((label, str(outcome)))
            else:
                self._write(label, [""] * len(self._columns), str(outcome))
            return
        cells = _cells(outcome, self._labels)
        columns = list(cells)
        if self._columns is None:
            self._begin(columns)
        elif columns != self._columns:
            raise ValueError(
                f"The result of {label} has the columns {_short(columns)}, those before it {_short(self._columns)}: "
                f"that makes no table. Write JSON lines instead: --out {self._path.stem}.jsonl"
            )
        self._write(label, list(cells.values()), "")

    def _begin(self, columns: list[str]) -> None:
        self._columns = columns
        self._writer.writerow(["file", "row", *columns, "error"])
        for label, error in self._early:
            self._write(label, [""] * len(columns), error)
        self._early = []

    def _write(self, label: Label, cells: Sequence[Any], error: str) -> None:
        self._writer.writerow([label.file, "" if label.row is None else label.row, *cells, error])

    def _close(self, *, whole: bool) -> None:
        if whole and self._columns is None:
            self._begin([])
        self._file.close()


class _Npy(Sink):
    """Rows behind a header that gets its first axis at the end; NumPy leaves room in it for just that."""

    _file: IO[bytes]

    def _open(self) -> None:
        self._file = self._part.open("wb")
        self._form: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._rows = 0
        self._missing = 0

    def add(self, label: Label, outcome: Any) -> None:
        if isinstance(outcome, ScoringError):
            self._missing += 1
            if self._form is not None:
                self._fill()
            return
        row = np.asarray(outcome)
        if row.dtype.kind not in "biufc":
            raise ValueError(
                f"The result of {label} is no array of numbers. Write JSON lines instead: --out {self._path.stem}.jsonl"
            )
        if self._form is None:
            self._form = row.shape, row.dtype
            self._header()
            self._fill()
        elif self._form != (row.shape, row.dtype):
            raise ValueError(
                f"The result of {label} is {row.dtype} {list(row.shape)}, those before it are {self._form[1]} "
                f"{list(self._form[0])}: that makes no array. Write JSON lines instead: --out {self._path.stem}.jsonl"
            )
        self._file.write(np.ascontiguousarray(row).tobytes())
        self._rows += 1

    def _fill(self) -> None:
        """Write the rows of items that failed: NaN."""
        if self._form is None or not self._missing:
            return
        shape, dtype = self._form
        if dtype.kind not in "fc":
            raise ValueError(
                f"{self._missing:,} item{' has' if self._missing == 1 else 's have'} failed, and an array of {dtype} "
                f"has no room for that (floats have NaN). Write another kind of file: --out {self._path.stem}.jsonl"
            )
        hole = np.full(shape, np.nan, dtype).tobytes()
        for _ in range(self._missing):
            self._file.write(hole)
        self._rows += self._missing
        self._missing = 0

    def _header(self) -> None:
        if self._form is not None:
            shape, dtype = self._form
            described = np.lib.format.dtype_to_descr(dtype)
            header = {"descr": described, "fortran_order": False, "shape": (self._rows, *shape)}
            np.lib.format.write_array_header_1_0(cast("Any", self._file), header)

    def _close(self, *, whole: bool) -> None:
        try:
            if whole and self._form is None:
                raise ValueError(f"No item has a result: there is nothing to write to {str(self._path)!r}.")
            if whole:
                self._file.seek(0)
                self._header()
        finally:
            self._file.close()


class _Parquet(Sink):
    def _open(self) -> None:
        self._writer = ParquetWriter(self._path, labelled=True)
        self._writer.__enter__()

    def add(self, label: Label, outcome: Any) -> None:
        index = self._writer.rows
        result = Result(index, error=outcome) if isinstance(outcome, ScoringError) else Result(index, outcome)
        self._writer.add(result, file=label.file, row=label.row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def _close(self, *, whole: bool) -> None:
        """The writer does it."""


_KINDS: dict[str, type[Sink]] = {".jsonl": _JsonLines, ".csv": _Csv, ".parquet": _Parquet, ".npy": _Npy}
SUFFIXES = ", ".join(_KINDS)


def check_out(path: Path | None, *, top: int | None) -> Path | None:
    """See that results can be written to a file of this name.

    Raises:
        typer.BadParameter: another kind of file, no such folder, or one that cannot hold what is asked for.
    """
    if path is None:
        return None
    problem = ""
    if path.suffix.lower() not in _KINDS:
        problem = f"{path.name} is of no kind that results are written to: {SUFFIXES}."
    elif path.suffix.lower() == ".npy" and top is not None:
        problem = "an .npy holds all scores; --top goes into .jsonl, .csv or .parquet."
    elif path.is_dir():
        problem = f"{path} is a folder."
    elif not path.absolute().parent.is_dir():
        problem = f"there is no folder {path.parent}."
    if problem:
        raise typer.BadParameter(problem, param_hint="--out")
    return path


def sink_for(path: Path, labels: Sequence[str] | None) -> Sink:
    """What writes to this file; half a file that a killed run has left beside it is removed.

    Raises:
        MissingDependencyError: pyarrow is not installed, for ``.parquet``.
    """
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        pid = part.name.removeprefix(f"{path.name}.").removesuffix(".part")
        if pid.isdigit() and not _runs(int(pid)):
            part.unlink(missing_ok=True)
    return _KINDS[path.suffix.lower()](path, labels)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


# --- a result as cells ------------------------------------------------------------------------------------------------


def _cells(value: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    """A result as columns and their cells."""
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for name, inner in cast("Mapping[Any, Any]", value).items():
            found |= _columns(str(name), inner, None)
        return found
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in cast("list[Any]", value)):
        best = cast("list[dict[str, Any]]", value)
        if len(best) == 1:
            return dict(best[0])
        return {f"{name}_{at}": cell for at, one in enumerate(best, 1) for name, cell in one.items()}
    return _columns("result", value, labels)


def _columns(name: str, value: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    if isinstance(value, str | int | float | bool) or value is None:
        return {name: value}
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return {name: _text(value)}
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        return {name: _text(value)}
    if array.ndim == 0:
        return {name: array[()]}
    ends = labels if labels is not None and len(labels) == len(array) else range(len(array))
    # NumPy's own scalars are written with the few digits that tell them apart.
    return {f"{name}_{end}": cell for end, cell in zip(ends, array, strict=True)}


def _text(value: Any) -> str:
    return json.dumps(screen.plain(value), ensure_ascii=False, allow_nan=False)


def _short(columns: Sequence[str]) -> str:
    return ", ".join(columns) if len(columns) <= 4 else f"{columns[0]} to {columns[-1]}"
