"""From files to requests, and from the results of a model to what people read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.text import Text

from gpu_infer.cli import screen
from gpu_infer.client import ClassScores, ScoreResponse, ScoringClient
from gpu_infer.errors import ScoringError

__all__ = ["ROWS", "STDIN", "Answer", "ask", "best_of", "line", "lines", "read", "show"]

STDIN = "-"
TOP = 5
SHORT = 12
"""A row of up to so many numbers is shown whole."""

ROWS = 20
"""Results of one request that are shown."""

_BAR = 24


@dataclass(frozen=True)
class Answer:
    """What came of one file."""

    file: str
    response: ScoreResponse[Any] | None = None
    error: str = ""
    top: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        if self.response is None:
            return {"file": self.file, "error": self.error}
        return {
            "file": self.file,
            "result": best_of(self.response.value, self.top),
            "device": self.response.device,
            "milliseconds": round(self.response.elapsed * 1e3, 3),
        }


def ask(client: ScoringClient, file: str, *, timeout: float | None, top: int | None = None) -> Answer:
    """Score one file, or standard input; an error becomes part of the answer, so that the other files go on.

    Args:
        client: of the service.
        file: its path, ``-`` for standard input.
        timeout: seconds for the request, the client's where ``None``.
        top: read the result as scores of classes, to show so many; ``None``: as it comes.
    """
    if file != STDIN and not Path(file).exists():
        return Answer(file, error="there is no such file")
    try:
        if top is None:
            return Answer(file, client.score_response(read(file), timeout=timeout))
        return Answer(file, client.score_response(read(file), timeout=timeout, result=ClassScores), top=top)
    except ScoringError as error:
        return Answer(file, error=str(error))


def show(answers: Sequence[Answer]) -> None:
    """Print the results; file names only where there are several."""
    console = screen.out()
    good = [(answer.file, answer.response, answer.top) for answer in answers if answer.response is not None]
    for file, response, top in good:
        found = lines(response.value, top)
        name = Text(file, style="bold") if len(answers) > 1 else Text("")
        if len(found) == 1:
            console.print(Text.assemble(name, "  " if name else "", found[0]), soft_wrap=True)
            continue
        if name:
            console.print(name, soft_wrap=True)
        for line in found:
            console.print(Text.assemble("  " if name else "", line), soft_wrap=True)
    if good:
        milliseconds = sorted(response.elapsed * 1e3 for _, response, _ in good)
        device = next((response.device for _, response, _ in good if response.device), None)
        took = f"{milliseconds[len(milliseconds) // 2]:.0f} ms" + (" each" if len(good) > 1 else "")
        screen.err().print(Text(f"{took}, {device}" if device else took, style="dim"))


def best_of(value: Any, top: int | None) -> Any:
    """The classes with the largest scores as plain values; anything but scores of classes as it is."""
    if not isinstance(value, ClassScores):
        return value
    if value.several:
        return [best_of(one, top) for one in value]
    return [
        {
            "index": one.index,
            **({} if one.label is None else {"label": one.label}),
            "score": screen.plain(value.scores[one.index]),
        }
        for one in value.top(top or TOP)
    ]


def line(value: Any, top: int | None = None) -> Text:
    """A result in one line, where it is one of many."""
    if isinstance(value, ClassScores) and not value.several:
        return Text(", ".join(f"{one.name}: {one.score:.4g}" for one in value.top(top or TOP)))
    array = _numbers(value)
    if array is not None and array.ndim == 1:
        return Text(_row(array))
    return Text("; ").join(lines(value, top))


def lines(value: Any, top: int | None = None) -> list[Text]:
    """A result as lines to read: long rows of scores by their largest values, everything else whole or begun."""
    if isinstance(value, ClassScores):
        return _class_lines(value, top or TOP)
    if isinstance(value, Mapping):
        return _named(cast("Mapping[Any, Any]", value).items())
    array = _numbers(value)
    if array is not None:
        return _array_lines(array)
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        return _begun(_named((index, item) for index, item in enumerate(items[:ROWS])), shown=ROWS, total=len(items))
    return [Text(str(screen.plain(value)))]


def read(file: str) -> Any:
    """What the client takes for a file: its path; of standard input JSON as it is, else bytes, which it looks into."""
    if file != STDIN:
        return file
    data = sys.stdin.buffer.read()
    if data.lstrip()[:1] in (b"{", b"["):
        try:
            value = json.loads(data)
        except ValueError:
            return data
        return cast("object", value) if isinstance(value, dict) else {"data": value}
    return data


def _numbers(value: Any) -> np.ndarray[Any, Any] | None:
    """An array of numbers, ``None`` for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:  # a list of rows of different lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def _class_lines(scores: ClassScores, top: int) -> list[Text]:
    if scores.several:
        width = len(str(len(scores) - 1))
        shown = (scores[at] for at in range(min(len(scores), ROWS)))
        rows = [Text.assemble((f"{at:>{width}}  ", "dim"), line(one, top)) for at, one in enumerate(shown)]
        return _begun(rows, shown=ROWS, total=len(scores))
    best = scores.top(top)
    width = max(len(one.name) for one in best)
    bars = bool(np.nanmin(scores.scores) >= 0 and np.nanmax(scores.scores) <= 1)
    found = [Text(f"{one.name:>{width}}  {_number(np.float64(one.score)):<9}") for one in best]
    if bars:
        for text, one in zip(found, best, strict=True):
            text.append("█" * round(one.score * _BAR), style="cyan")
    return found


def _array_lines(array: np.ndarray[Any, Any]) -> list[Text]:
    if array.ndim == 0:
        return [Text(_number(array))]
    if array.ndim == 1:
        return _row_lines(array)
    if array.ndim == 2:
        width = len(str(len(array) - 1))
        rows = [Text.assemble((f"{index:>{width}}  ", "dim"), _row(row)) for index, row in enumerate(array[:ROWS])]
        return _begun(rows, shown=ROWS, total=len(array))
    span = f", from {_number(array.min())} to {_number(array.max())}" if array.size else ""
    return [Text(f"{array.dtype} {list(array.shape)}{span}; --json prints all values")]


def _row_lines(row: np.ndarray[Any, Any]) -> list[Text]:
    if len(row) <= SHORT or row.dtype.kind != "f":
        return [Text(_row(row))]
    top = _largest(row)
    width = max(len(str(index)) for index in top)
    bars = bool(np.nanmin(row) >= 0 and np.nanmax(row) <= 1)
    found = [Text(f"{len(row):,} values, the largest:", style="dim")]
    for index in top:
        line = Text(f"  {index:>{width}}  {_number(row[index]):<9}")
        if bars:
            line.append("█" * round(float(row[index]) * _BAR), style="cyan")
        found.append(line)
    return found


def _row(row: np.ndarray[Any, Any]) -> str:
    """One row in one line."""
    if len(row) <= SHORT:
        return "  ".join(_number(number) for number in row)
    if row.dtype.kind == "f":
        top = ", ".join(f"{index}: {_number(row[index])}" for index in _largest(row)[:3])
        return f"{top}; the largest of {len(row):,}"
    return "  ".join(_number(number) for number in row[:SHORT]) + f"  ... {len(row):,} values"


def _largest(row: np.ndarray[Any, Any]) -> list[int]:
    return [int(index) for index in np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:TOP]]


def _number(number: Any) -> str:
    return f"{number:.4g}" if np.asarray(number).dtype.kind == "f" else str(number)


def _named(pairs: Iterable[tuple[Any, Any]]) -> list[Text]:
    """Values under names: beside the name where they take one line, else below it."""
    found: list[Text] = []
    for key, value in pairs:
        inner = lines(value)
        if len(inner) == 1:
            found.append(Text.assemble((f"{key}  ", "bold"), inner[0]))
        else:
            found += [Text(str(key), style="bold"), *(Text.assemble("  ", line) for line in inner)]
    return found


def _begun(found: list[Text], *, shown: int, total: int) -> list[Text]:
    if total <= shown:
        return found or [Text("nothing: no items")]
    return [*found, Text(f"... and {total - shown:,} more; --json prints all", style="dim")]
