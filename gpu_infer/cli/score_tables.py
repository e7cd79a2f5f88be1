"""Rows of CSV and Parquet files as items for ``score``. A file is read as it is scored, never as a whole."""

from __future__ import annotations

import csv
import fnmatch
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import typer

from gpu_infer.cli.score_inputs import Choice, Label, Row, Source, Takes, number_item
from gpu_infer.client.extras import missing_package

__all__ = ["csv_source", "parquet_source"]

Kind: TypeAlias = Literal["numbers", "lists", "files", "bytes"]

SAMPLE = 100
"""Rows that say which columns of a CSV file hold numbers."""

BATCH = 1024
"""Rows of a Parquet file that are read at once."""

FIELD_LIMIT = 1 << 28
"""Characters of one field of a CSV file: it may be a picture as a list of numbers."""

SHOWN = 10
"""Columns that a message names."""


def csv_source(file: str, choice: Choice, takes: Takes) -> Source:
    """The rows of a CSV file (comma, semicolon or tab), whose first line names the columns unless it is numbers.

    Raises:
        ValueError: no rows, no column with numbers, too few or too many for the service, or no UTF-8.
        typer.BadParameter: no such column, or one that is no item.
    """
    csv.field_size_limit(FIELD_LIMIT)
    try:
        separator, names, headed = _head(file)
        sample = list(islice(_csv_rows(file, separator, headed=headed), SAMPLE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"The file {file!r} is no CSV in UTF-8: {error}.") from error
    if not sample:
        raise ValueError(f"The file {file!r} has no rows{' below its header' if headed else ''}.")
    kinds: dict[str, Kind | None] = {
        name: _kind_of([row[at] for row in sample if at < len(row)], file) for at, name in enumerate(names)
    }
    chosen, kind = _choose(file, choice, kinds)
    places = [names.index(name) for name in chosen]
    if kind == "numbers":
        _check(file, chosen, takes)

    def read() -> Iterator[tuple[Label, Any]]:
        for at, row in enumerate(_csv_rows(file, separator, headed=headed)):
            if len(row) != len(names):
                yield Label(file, at), Row(f"it has {len(row)} fields, and the table {len(names)} columns")
            elif kind == "numbers":
                yield Label(file, at), _numbers([row[place] for place in places], chosen, takes)
            else:
                yield Label(file, at), _text_item(row[places[0]], kind, file, takes)

    return Source(read, _count(file, headed=headed))


def parquet_source(file: str, choice: Choice, takes: Takes) -> Source:
    """The rows of a Parquet file.

    Raises:
        ValueError: no rows, no column with numbers, too few or too many for the service, or no Parquet.
        typer.BadParameter: no such column, or one that is no item.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise missing_package("Parquet files are read with pyarrow", install="'gpu-infer[parquet]'") from error
    try:
        with parquet.ParquetFile(file) as opened:
            schema, count = opened.schema_arrow, int(opened.metadata.num_rows)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"The file {file!r} is no Parquet file: {error}") from error
    if count == 0:
        raise ValueError(f"The file {file!r} has no rows.")
    chosen, kind = _choose(file, choice, {field.name: _arrow_kind(arrow.types, field.type) for field in schema})
    if kind == "numbers":
        _check(file, chosen, takes)
    elif kind == "files":
        with parquet.ParquetFile(file) as opened:
            text = next(opened.iter_batches(batch_size=1, columns=chosen)).column(0)[0].as_py()
        if text is not None and _path(text, file) is None:
            what = f"column {chosen[0]!r} of {file} holds text, and its first, {text[:40]!r}, is no file."
            raise typer.BadParameter(what, param_hint="--column")

    def read() -> Iterator[tuple[Label, Any]]:
        with parquet.ParquetFile(file) as opened:
            at = 0
            for batch in opened.iter_batches(batch_size=BATCH, columns=chosen):
                for item in _batch_items(batch, chosen, kind, file, takes):
                    yield Label(file, at), item
                    at += 1

    return Source(read, count)


# --- which columns ----------------------------------------------------------------------------------------------------


def _choose(file: str, choice: Choice, kinds: Mapping[str, Kind | None]) -> tuple[list[str], Kind]:
    """The columns that make an item, and what they hold."""
    left_out = _fitting(file, choice.without, kinds, option="--without")
    if not choice.columns:
        numbers = [name for name, kind in kinds.items() if kind == "numbers"]
        chosen = [name for name in numbers if name not in left_out]
        if numbers and not chosen:
            raise typer.BadParameter(f"leaves no column with numbers of {file}.", param_hint="--without")
        if not chosen:
            raise ValueError(
                f"No column of {file!r} holds numbers. It has: {_list(kinds)}. One of files or of lists is named by "
                "--column NAME."
            )
        return chosen, "numbers"
    chosen = [name for name in _fitting(file, choice.columns, kinds, option="--column") if name not in left_out]
    for name in chosen:
        kind = kinds[name]
        if kind is None or (len(chosen) > 1 and kind != "numbers"):
            alone = ", nor files, nor lists" if len(chosen) == 1 else "; one of files or of lists stands alone"
            raise typer.BadParameter(f"column {name!r} of {file} does not hold numbers{alone}.", param_hint="--column")
    if not chosen:
        raise typer.BadParameter(f"leaves no column of {file}.", param_hint="--without")
    return chosen, kinds[chosen[0]] or "numbers"


def _fitting(file: str, wanted: Sequence[str], kinds: Mapping[str, Kind | None], *, option: str) -> list[str]:
    """The columns that names and patterns mean, in the order of those."""
    found: dict[str, None] = {}
    for name in wanted:
        fitting = [name] if name in kinds else fnmatch.filter(kinds, name)
        if not fitting:
            raise typer.BadParameter(f"{file} has no column {name!r}. It has: {_list(kinds)}.", param_hint=option)
        found |= dict.fromkeys(fitting)
    return list(found)


def _check(file: str, chosen: Sequence[str], takes: Takes) -> None:
    """See whether the service takes a row of so many numbers.

    Raises:
        ValueError: it does not.
    """
    row = takes.shaped(np.empty(len(chosen), takes.dtype))
    if problem := takes.misfit(row.shape, row.dtype, many=False):
        raise ValueError(
            f"{file}: {problem[:1].upper()}{problem[1:]}. The row is made of {len(chosen):,} columns: {_list(chosen)}; "
            "--column NAME or 'p*', once or several times, chooses others, --without NAME leaves some out. Nothing was "
            "sent."
        )


def _list(names: Iterable[str]) -> str:
    shown = list(names)
    more = f", ... ({len(shown):,} in all)" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more


# --- CSV --------------------------------------------------------------------------------------------------------------


def _head(file: str) -> tuple[str, list[str], bool]:
    """The separator, the names of the columns, and whether the first line has them."""
    with Path(file).open(encoding="utf-8-sig", newline="") as stream:
        line = stream.readline()
        separator = max(",;\t", key=line.count)
        stream.seek(0)
        first = next(csv.reader(stream, delimiter=separator), list[str]())
    if first and all(_is_number(cell) for cell in first):
        return separator, [str(at) for at in range(len(first))], False
    return separator, [cell.strip() for cell in first], True


def _csv_rows(file: str, separator: str, *, headed: bool) -> Iterator[list[str]]:
    with Path(file).open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, delimiter=separator)
        if headed:
            next(rows, None)
        yield from (row for row in rows if row)


def _count(file: str, *, headed: bool) -> int | None:
    """The rows, where lines are rows: a quoted field may hold line ends, and empty lines are none."""
    lines, last = 0, b""
    with Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            if b'"' in block or b"\n\n" in block or b"\n\r\n" in block:
                return None
            lines += block.count(b"\n")
            last = block
    return lines + (not last.endswith(b"\n")) - headed


def _kind_of(cells: Sequence[str], file: str) -> Kind | None:
    """What a column holds, by the first rows; a cell may be missing or wrong among numbers, not among the rest."""
    cells = [cell for cell in cells if cell.strip()]
    if sum(_is_number(cell) for cell in cells) > len(cells) / 2:
        return "numbers"
    if cells and all(cell.lstrip().startswith("[") for cell in cells):
        return "lists"
    return "files" if cells and _path(cells[0], file) is not None else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(cells: Sequence[str], names: Sequence[str], takes: Takes) -> Any:
    """A row of numbers; a cell without one makes it no item."""
    dtype = takes.dtype
    try:
        row = np.array([float(cell) for cell in cells])
    except ValueError:
        name, cell = next(pair for pair in zip(names, cells, strict=True) if not _is_number(pair[1]))
        return Row(f"column {name!r} " + (f"holds {cell[:40]!r}, which is no number" if cell else "is empty"))
    if dtype.kind in "iu" and not (row == np.rint(row)).all():
        return Row("the model takes whole numbers, and there are others in it")
    return takes.shaped(row.astype(dtype))


def _text_item(cell: Any, kind: Kind, file: str, takes: Takes) -> Any:
    if kind == "lists":
        try:
            return number_item(json.loads(cell), takes)
        except ValueError:
            return Row(f"it is no list of numbers: {cell[:40]}")
    return _path(cell, file) or cell


def _path(cell: str, file: str) -> str | None:
    """A file that a cell names, seen from here or from the table's folder."""
    near = Path(file).parent / cell
    try:
        return cell if cell and Path(cell).is_file() else str(near) if cell and near.is_file() else None
    except (OSError, ValueError):  # a text that is no path: too long, or with a NUL
        return None


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _arrow_kind(types: Any, kind: Any) -> Kind | None:
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return "numbers"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "lists"
    if types.is_string(kind) or types.is_large_string(kind):
        return "files"
    return "bytes" if types.is_binary(kind) or types.is_large_binary(kind) else None


def _batch_items(batch: Any, chosen: Sequence[str], kind: Kind, file: str, takes: Takes) -> Iterator[Any]:
    columns = [batch.column(name) for name in chosen]
    if kind == "numbers":
        yield from _number_rows(columns, chosen, takes)
        return
    for value in columns[0].to_pylist():
        if value is None:
            yield Row(f"column {chosen[0]!r} is empty")
        elif kind == "lists":
            yield number_item(value, takes)
        else:
            yield _path(value, file) or value if kind == "files" else value


def _number_rows(columns: Sequence[Any], names: Sequence[str], takes: Takes) -> Iterator[Any]:
    dtype = takes.dtype
    arrays = [_plain(column.to_numpy(zero_copy_only=False)) for column in columns]
    whole = all(array.dtype.kind in "biu" for array in arrays)
    table = np.stack([array.astype(np.int64 if whole else np.float64) for array in arrays], axis=1)
    empty = [column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None for column in columns]
    for at, row in enumerate(table):
        missing = next((name for name, nulls in zip(names, empty, strict=True) if nulls is not None and nulls[at]), "")
        if missing:
            yield Row(f"column {missing!r} is empty")
        elif dtype.kind in "iu" and not whole and not all(math.isfinite(x) and x == round(x) for x in row.tolist()):
            yield Row("the model takes whole numbers, and there are others in it")
        else:
            yield cast("Any", takes.shaped(row.astype(dtype)))


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers, where pyarrow gives objects: decimals, and booleans of which some are missing."""
    if array.dtype != object:
        return array
    return np.array([np.nan if value is None else float(value) for value in array])
