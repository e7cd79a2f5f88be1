"""Any number of items for ``score``: sent, written or shown in bounded memory, gone on with where it stopped."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import typer

from gpu_infer.cli import options, results, screen
from gpu_infer.cli.score_inputs import TABLES, Choice, Items, Label, Takes, find, items_of, source_of
from gpu_infer.cli.score_outputs import json_line, sink_for
from gpu_infer.client import ClassScores
from gpu_infer.client.many.progress import Progress, numbers_of
from gpu_infer.errors import AuthenticationError, GpuInferError, ScoringConnectionError, ScoringError

if TYPE_CHECKING:
    from gpu_infer.client import ScoringClient

__all__ = ["Asked", "check_columns", "run"]

LISTED = 10
"""Items that failed, whose errors are told one by one."""

UNREACHABLE = 16
"""Items in a row that found no service: it is gone, and asking for all the others would take hours."""

REPORT_EVERY = 30.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, checked.

    Attributes:
        own_checkpoint: the checkpoint was not named, and goes when all is done.
    """

    name: str
    inputs: list[str]
    columns: list[str]
    without: list[str]
    lines: bool
    rows: bool
    top: int | None
    out: Path | None
    checkpoint: Path | None
    own_checkpoint: bool
    concurrency: int | None
    items_per_request: int | None
    timeout: float | None
    workspace: str | None
    as_json: bool

    @property
    def hint(self) -> str:
        """The command to type next, empty where there is none."""
        is_address = self.name.startswith(("http://", "https://"))
        return "" if is_address else f"gpu-infer stats {self.name}{options.again(self.workspace)}"

    @property
    def how_to_go_on(self) -> str:
        """What to type after an interruption."""
        return "the same command with --resume" if self.own_checkpoint else "the same command"


@dataclass
class _Tally:
    """What came of the items so far."""

    items: int = 0
    failed: int = 0
    resumed: int = 0
    out_of_reach: int = 0
    errors: list[str] = field(default_factory=list[str])
    shown: list[tuple[Label, Any]] = field(default_factory=list[tuple[Label, Any]])

    def take(self, label: Label, outcome: Any) -> None:
        """Count an item.

        Raises:
            AuthenticationError: the key or token is wrong, for this item as for all.
            ScoringConnectionError: there is no service any more.
        """
        self.items += 1
        if not isinstance(outcome, ScoringError):
            self.out_of_reach = 0
            if len(self.shown) < results.ROWS:
                self.shown.append((label, outcome))
            return
        self.failed += 1
        self.out_of_reach = self.out_of_reach + 1 if isinstance(outcome, ScoringConnectionError) else 0
        if isinstance(outcome, AuthenticationError) or self.out_of_reach >= UNREACHABLE:
            outcome.__notes__ = []  # it is about the service, and not about this item
            raise outcome
        if len(self.errors) < LISTED:
            self.errors.append(f"{label}: {outcome}")


def check_columns(asked: Asked, files: list[str]) -> None:
    """See that there is something to choose columns of.

    Raises:
        typer.BadParameter: there is not.
    """
    if (asked.columns or asked.without) and not any(Path(file).suffix.lower() in {*TABLES, ".npz"} for file in files):
        option = "--column" if asked.columns else "--without"
        raise typer.BadParameter("there is no table among the inputs.", param_hint=option)


def run(asked: Asked, client: ScoringClient, takes: Takes) -> None:
    """Score all items.

    Raises:
        ValueError: the inputs are not there, or not what the service takes; nothing was sent. Or results of several
            forms, for a kind of file that has one.
        GpuInferError: the service is gone, or refuses the key; or the checkpoint is of other items.
        typer.Exit: with 1, some items failed.
    """
    files = find(asked.inputs, screen.note)
    check_columns(asked, files)
    choice = Choice(tuple(asked.columns), tuple(asked.without))
    items = items_of([source_of(file, choice, lines=asked.lines, rows=asked.rows, takes=takes) for file in files])
    begun, tally = time.monotonic(), _Tally()
    went_on = asked.checkpoint is not None and asked.checkpoint.exists()
    try:
        _go(asked, client, items, takes, tally)
    except (GpuInferError, ValueError, KeyboardInterrupt) as error:
        screen.given_up.set()
        if tally.items or went_on:
            _tell_how_to_go_on(asked, tally, error)
        else:
            _remove_checkpoint(asked)
        raise
    if not tally.failed:
        _remove_checkpoint(asked)
    _tell(asked, tally, time.monotonic() - begun)


def _remove_checkpoint(asked: Asked) -> None:
    """Remove what only had to be there while it ran; a file that was named stays."""
    if asked.checkpoint is not None and asked.own_checkpoint:
        for ending in ("", "-wal", "-shm"):  # SQLite's own, which a killed process leaves
            asked.checkpoint.with_name(asked.checkpoint.name + ending).unlink(missing_ok=True)


def _go(asked: Asked, client: ScoringClient, items: Items, takes: Takes, tally: _Tally) -> None:
    labels = takes.signature.labels if takes.signature else None
    stream = sys.stdout  # a bar on standard error puts something else in its place while it is there
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(sink_for(asked.out, labels)) if asked.out else None
        if sink is None and asked.as_json:
            sink = stack.enter_context(_JsonList(stream))
        progress = False if isinstance(sink, _JsonList) and stream.isatty() else _progress(stack, tally)
        found = client.score_many(
            items,
            concurrency=asked.concurrency,
            on_error="return",
            timeout=asked.timeout,
            result=ClassScores if asked.top else None,
            items_per_request=asked.items_per_request,
            progress=progress,
            checkpoint=asked.checkpoint,
        )
        stack.callback(found.close)
        for _, outcome in found.with_index():
            label = items.labels.popleft()
            if sink is not None:
                sink.add(label, results.best_of(outcome, asked.top))
            tally.take(label, outcome)
        if tally.items == 0:
            raise ValueError("There is nothing to score: the input has no lines.")


class _JsonList:
    """One JSON document on standard output, an object per line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before = "[\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._stream.write("[]\n" if self._before == "[\n" else "\n]\n")

    def add(self, label: Label, outcome: Any) -> None:
        """Write an item."""
        self._stream.write(self._before + json_line(label, outcome).decode())
        self._before = ",\n"


def _progress(stack: contextlib.ExitStack, tally: _Tally) -> Callable[[Progress], None]:
    """A bar on a terminal; elsewhere a line now and then, so that a log shows that it moves."""
    shown = stack.enter_context(screen.progress("scoring"))
    is_terminal, due = screen.err().is_terminal, REPORT_EVERY

    def follow(now: Progress) -> None:
        nonlocal due
        tally.resumed = now.resumed
        if is_terminal:
            shown.follow(now.done, now.total, numbers_of(now))
        elif now.seconds >= due:
            due = now.seconds + REPORT_EVERY
            screen.note(f"scored {numbers_of(now)}")

    return follow


# --- what is said at the end ------------------------------------------------------------------------------------------


def _tell(asked: Asked, tally: _Tally, seconds: float) -> None:
    """Say what came of it.

    Raises:
        typer.Exit: with 1, some items failed.
    """
    if asked.as_json and asked.out is not None:
        numbers = {"items": tally.items, "failed": tally.failed, "resumed": tally.resumed}
        screen.print_json({"out": str(asked.out), **numbers, "seconds": round(seconds, 3)})
    elif not asked.as_json:
        _show(asked, tally, seconds)
    for error in tally.errors:
        screen.complain(error)
    if tally.failed > len(tally.errors):
        where = f"; {asked.out} has all errors" if asked.out and asked.out.suffix.lower() != ".npy" else ""
        screen.complain(f"{tally.failed - len(tally.errors):,} more items failed{where}.")
    if tally.failed:
        if asked.checkpoint is not None and not asked.as_json:
            screen.hint(asked.how_to_go_on, because=f"sends only the {_count(tally.failed, 'item')} that failed")
        raise typer.Exit(1)
    if asked.hint and not asked.as_json:
        screen.hint(asked.hint)


def _show(asked: Asked, tally: _Tally, seconds: float) -> None:
    fresh = tally.items - tally.resumed - tally.failed
    rate = f", {fresh / seconds:,.0f} per second" if fresh > 1 and fresh >= seconds > 0 else ""
    took = f"{_count(tally.items, 'item')} in {seconds:,.1f} s{rate}"
    took += f"; {tally.resumed:,} of them done before" if tally.resumed else ""
    if asked.out is not None:
        failed = f"; {tally.failed:,} failed" if tally.failed else ""
        screen.out().print(f"{asked.out}: {took}{failed}", soft_wrap=True)
        return
    width = max((len(str(label)) for label, _ in tally.shown), default=0)
    for label, outcome in tally.shown:
        screen.out().print(screen.named(f"{label!s:<{width}}", results.line(outcome, asked.top)), soft_wrap=True)
    if more := tally.items - tally.failed - len(tally.shown):
        screen.note(f"... and {more:,} more; --out FILE keeps all, --json prints all")
    screen.note(took)


def _tell_how_to_go_on(asked: Asked, tally: _Tally, error: BaseException) -> None:
    """Note on an error what of the work is kept."""
    if asked.checkpoint is not None and asked.checkpoint.exists():
        error.add_note(
            f"{_count(tally.items - tally.failed, 'result')} so far, kept in {asked.checkpoint}. To go on, type "
            f"{asked.how_to_go_on}."
        )
    elif isinstance(error, KeyboardInterrupt) and tally.items:
        error.add_note("Nothing of it is kept. With --out FILE, what is done would be.")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
