"""What people see: data on standard output, everything else (progress, hints, complaints) on standard error."""

from __future__ import annotations

import base64
import json
import math
import os
import sys
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from gpu_infer.cli.words import typed
from gpu_infer.progress import Event, listening

__all__ = [
    "Shown",
    "complain",
    "err",
    "given_up",
    "hint",
    "named",
    "note",
    "out",
    "print_json",
    "progress",
    "rows_table",
    "taken_back",
]

taken_back: list[str] = []
"""What this command has removed in Azure, to be told where it is interrupted."""

given_up: threading.Event = threading.Event()
"""Set where requests are under way that nobody waits for any more, except Python for their threads."""

WIDE = 240
"""Columns where nobody looks: what is piped into another program must not be cut."""


def out() -> Console:
    """Standard output. Made anew for each use, since tests and notebooks replace the stream."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False)


def err() -> Console:
    """Standard error."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Write one JSON document to standard output; NaN and the infinities become ``null``, as a service writes them."""
    sys.stdout.write(json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, NumPy scalars as numbers, bytes as text or ``{"b64": ...}``."""
    if hasattr(value, "tolist"):  # NumPy's, without importing it
        if value.dtype.kind == "f" and value.dtype.itemsize < 8:
            value = value.astype(str).astype(float)  # 0.1, not the 0.10000000149011612 that a float32 widens to
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in cast("Iterable[Any]", value)]
    return value


def hint(command: str, *, because: str = "") -> None:
    """The next command to type."""
    line = Text.assemble(("Next: ", "dim"), (command, "bold cyan"), (f"   {because}" if because else "", "dim"))
    err().print(line, soft_wrap=True)


def complain(message: str) -> None:
    """An error, as a short message."""
    err().print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


def note(text: str) -> None:
    """Something beside the matter, on standard error."""
    err().print(Text(text, style="dim"), soft_wrap=True)


def named(name: str, text: Text) -> Text:
    """A text behind its name."""
    return Text.assemble((name, "bold"), "  ", text)


def rows_table(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Pairs of what and value, one per line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(key, value if isinstance(value, Text) else Text(value))
    return table


class Shown:
    """The line on standard error that says what goes on."""

    def __init__(self, console: Console) -> None:
        # Off a terminal Rich would write the last state of the line once, to no use.
        self.display: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _Bar(),
            TextColumn("{task.elapsed:.0f} s", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.display.add_task("", total=None, numbers="")

    def say(self, text: str) -> None:
        """Change the text."""
        self.display.update(self._task, description=text)

    def count(self, done: int, total: int) -> None:
        """Show a bar: so many of so many are done."""
        self.display.update(self._task, completed=done, total=total, numbers=f"{done:,.0f} of {total:,.0f}")

    def follow(self, done: int, total: int | None, numbers: str) -> None:
        """Show how far it is: a bar where the total is known, with these numbers behind it."""
        self.display.update(self._task, completed=done, total=total, numbers=numbers)


class _Bar(BarColumn):
    """A bar where the size of the job is known, and the numbers that are told."""

    def render(self, task: Task) -> Any:
        """The bar of a task."""
        if task.total is None:
            return Text(task.fields["numbers"])
        line = Table.grid(padding=(0, 1))
        line.add_row(super().render(task), task.fields["numbers"])
        return line


@contextmanager
def progress(first: str) -> Generator[Shown, None, None]:
    """Show on standard error what goes on: a line that moves on a terminal, else one line per finished stage.

    Args:
        first: what is shown until the library says what it does.

    Yields:
        the line, for what the library does not tell by itself.
    """
    console = err()
    shown = Shown(console)
    shown.say(first)

    def listen(event: Event) -> None:
        stage = event.stage.replace("_", " ")
        _note_removal(event)
        if event.state == "warning":
            shown.display.console.print(_warning(typed(event.text)), soft_wrap=True)
        elif event.state == "start":
            shown.say(f"{event.service}: {stage}")
        elif not console.is_terminal:
            console.print(f"{event.service}: {stage} {event.state} {event.text}".rstrip(), soft_wrap=True)

    with shown.display, listening(listen):
        yield shown


def _note_removal(event: Event) -> None:
    action, _, kind = event.stage.partition("_")
    what = f"{kind} {event.service}"
    if (action, event.state) in (("remove", "start"), ("delete", "ok")) and what not in taken_back:
        taken_back.append(what)
    elif action == "remove" and event.state == "warning" and what in taken_back:
        taken_back.remove(what)  # the note of the error tells why


def _warning(message: str) -> Text:
    return Text.assemble(("Warning: ", "bold yellow"), message)
