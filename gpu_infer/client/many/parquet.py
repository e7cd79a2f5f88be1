"""Results into a Parquet file, some thousand rows at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from ..extras import missing_package
from .flight import Result

__all__ = ["ParquetWriter"]

ROWS = 8192
"""Rows that are written at once, a row group of the file."""


class ParquetWriter:
    """Writes beside the file and moves it into place at the end. Use it in ``with``.

    Args:
        path: of the file.
        labelled: with the columns ``file`` and ``row`` in the place of ``item``: where each item comes from.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        FileNotFoundError: there is no folder for it; before anything is scored in vain.
    """

    def __init__(self, path: str | os.PathLike[str], *, labelled: bool = False) -> None:
        try:
            self._arrow: Any = import_module("pyarrow")
            import_module("pyarrow.parquet")
        except ImportError as error:
            raise missing_package("Parquet files are written with pyarrow", install="'gpu-infer[parquet]'") from error
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {str(self._path.parent)!r} to write {self._path.name!r} to.")
        self._part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        self._writer: Any = None
        self._labelled = labelled
        self._pending: list[tuple[Result, str, int | None]] = []
        self.rows: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write(last=True)
        finally:
            if self._writer is not None:
                self._writer.close()
            if kind is None and self._writer is not None:
                self._part.replace(self._path)
            else:
                self._part.unlink(missing_ok=True)

    def add(self, result: Result, *, file: str = "", row: int | None = None) -> None:
        """Take the next result, and where its item comes from."""
        self._pending.append((result, file, row))
        self.rows += 1
        if len(self._pending) % ROWS == 0:
            self._write()

    def _write(self, *, last: bool = False) -> None:
        if not self._pending and (self._writer is not None or not last):
            return
        if self._writer is None and not last and all(result.error is not None for result, _, _ in self._pending):
            return  # what kind of column the results are is not known yet
        arrow, pending = self._arrow, [result for result, _, _ in self._pending]
        known = None if self._writer is None else self._writer.schema.field("result").type
        try:
            results = _column(arrow, [result.value for result in pending], known)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError) as error:
            raise ValueError(_no_column(pending, error)) from error
        errors = [None if one.error is None else str(one.error) for one in pending]
        table = arrow.table({**self._whence(), "result": results, "error": arrow.array(errors, arrow.string())})
        if self._writer is None:
            self._writer = arrow.parquet.ParquetWriter(self._part, table.schema)
        self._writer.write_table(table)
        self._pending = []

    def _whence(self) -> dict[str, Any]:
        arrow, pending = self._arrow, self._pending
        if not self._labelled:
            return {"item": arrow.array([result.index for result, _, _ in pending], arrow.int64())}
        return {
            "file": arrow.array([file for _, file, _ in pending], arrow.string()),
            "row": arrow.array([row for _, _, row in pending], arrow.int64()),
        }


def _no_column(pending: Sequence[Result], error: Exception) -> str:
    return (
        f"The results of items {pending[0].index} to {pending[-1].index} make no column of a Parquet file: {error}. "
        "All results need one type, which the first ones set; for_each() takes what they are."
    )


def _column(arrow: Any, values: Sequence[Any], known: Any) -> Any:
    """The results as a column; of arrays with one axis a list of their dtype, deeper ones nested lists.

    The type of the first rows holds for all that follow; an error among them is a null.
    """
    rows = [_plain(value) for value in values]
    if known is None:
        first = next((row for row in rows if row is not None), None)
        known = arrow.null() if first is None else _type_of(arrow, first, rows)
    if arrow.types.is_struct(known):
        _refuse_new_fields(rows, {field.name for field in known})
    return arrow.array([row.tolist() if isinstance(row, np.ndarray) and row.ndim > 1 else row for row in rows], known)


def _refuse_new_fields(rows: Sequence[Any], known: set[str]) -> None:
    """Arrow would leave them out without a word."""
    fields = {name for row in rows if isinstance(row, dict) for name in cast("dict[str, Any]", row)}
    if new := sorted(fields - known):
        raise ValueError(
            f"The results have fields that the first ones do not have, {', '.join(new)}, which make no column of a "
            "Parquet file; for_each() takes what they are."
        )


def _plain(value: Any) -> Any:
    if hasattr(value, "scores"):
        value = value.scores
    if isinstance(value, Mapping):
        fields = cast("Mapping[Any, Any]", value)
        return {str(name): one.tolist() if hasattr(one, "tolist") else one for name, one in fields.items()}
    return value


def _type_of(arrow: Any, first: Any, rows: Sequence[Any]) -> Any:
    if isinstance(first, np.ndarray | np.generic):
        array = np.asarray(cast("Any", first))
        made: Any = arrow.from_numpy_dtype(array.dtype)
        for _ in range(array.ndim):
            made = arrow.list_(made)
        return made
    return arrow.infer_type([row for row in rows if row is not None])
