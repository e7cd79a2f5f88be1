"""``gpu-infer bench``: load on a service, how it answers, and how many replicas a rate needs."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import gpu_infer
from gpu_infer.cli import options, screen
from gpu_infer.spec import seconds_of

if TYPE_CHECKING:
    from gpu_infer.load import Level, LoadReport
    from gpu_infer.service import Service

__all__ = ["bench"]

_INTERRUPTED = 130
_PARTS = (("p50", "█", "green"), ("p90", "▓", "yellow"), ("p99", "▒", "red"))
_LEAST_BAR, _MOST_BAR = 10, 60


def bench(
    name: options.ServiceName,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="What to send, as for `score`: image, .npy, .json, any bytes; - for standard input. Made up without.",
            show_default=False,
        ),
    ] = None,
    *,
    concurrency: Annotated[
        str, typer.Option(metavar="N,N,...", help="Requests under way at once; each number is a level of its own.")
    ] = "1,4,16,64",
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="N", help="To measure at each level, after a warm-up of 1 s.")
    ] = 5,
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Requests per second that are to be answered: tells how many replicas."),
    ] = None,
    p99_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="The limit of an acceptable p99.", show_default="3 x p50, 50 ms at least"),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="That the service runs on now.", show_default="as the service tells"),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="For each request.", show_default="the service's own")
    ] = None,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Put load on a service: its rate, its latency, and how many replicas a rate needs. Ctrl-C shows what there is."""
    workspace = options.place(workspace, online=online)
    levels = _levels(concurrency)
    for option, number in (("--rate", rate), ("--p99-ms", p99_ms)):
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise typer.BadParameter(f"{number:g} is no number above 0.", param_hint=option)
    limit = None if timeout is None else seconds_of(timeout)
    from gpu_infer.load import measure, replicas_for

    with screen.progress(f"asking {name}") as shown:
        service = gpu_infer.attach(name, options.open_workspace(workspace))
        count = _replicas(service, replicas, rate=rate)
        report = measure(
            service,
            _item(service, file),
            concurrency=levels,
            seconds=seconds,
            timeout=limit,
            replicas=count,
            p99_ms=p99_ms,
            on_tick=lambda done, total: shown.count(int(done), int(total)),
        )
    needed = None if rate is None else replicas_for(report, rate)
    if as_json:
        screen.print_json({**report.to_dict(), "rate": rate, "replicas_needed": needed})
    else:
        _show(report, rate, needed)
    if report.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if not as_json:
        command, because = _next(service, report, needed, workspace)
        screen.hint(command, because=because)


def _levels(text: str) -> list[int]:
    from gpu_infer.load import MAX_CONCURRENCY

    try:
        levels = [int(number) for number in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(1 <= level <= MAX_CONCURRENCY for level in levels):
        message = f"{text!r} is no list of numbers from 1 to {MAX_CONCURRENCY}, such as 1,4,16,64."
        raise typer.BadParameter(message, param_hint="--concurrency")
    return levels


def _replicas(service: Service, told: int | None, *, rate: float | None) -> int:
    from gpu_infer.load import replicas_of

    count = told or replicas_of(service)
    if count is None and rate is not None:
        message = "Azure chooses by load how many replicas this service has; say how many it runs on now."
        raise typer.BadParameter(message, param_hint="--replicas")
    return count or 1


def _item(service: Service, file: str | None) -> Any:
    from gpu_infer.cli import results
    from gpu_infer.load import item_for

    if file is None:
        return item_for(service)
    if file != results.STDIN and not Path(file).exists():
        raise typer.BadParameter(f"there is no file {file}.", param_hint="INPUT")
    return results.read(file)


def _next(service: Service, report: LoadReport, needed: int | None, workspace: str | None) -> tuple[str, str]:
    where = options.again(workspace)
    if report.sustained is None and (not report.levels or any(level.errors for level in report.levels)):
        return f"gpu-infer logs {service.name}{where}", "why requests failed"
    if report.sustained is None:
        least = min(level.p99_ms for level in report.levels)
        return f"gpu-infer bench {service.name} --p99-ms {int(least) + 1}{where}", "with a limit of your own"
    if needed is not None and workspace is not None and service.model:
        command = f"gpu-infer plan {shlex.quote(service.model)} --replicas {needed}{where}"
        return command, "whether the cluster has room, and the price"
    return f"gpu-infer stats {service.name}{where}", "the batches that it made"


# --- how it is shown --------------------------------------------------------------------------------------------------


def _show(report: LoadReport, rate: float | None, needed: int | None) -> None:
    console = screen.out()
    if not report.levels:
        console.print("Nothing was measured.")
        return
    console.print(_figures(report, console.width))
    console.print()
    answered = [level for level in report.levels if level.results]
    if answered:
        for line in _picture(answered, console):
            console.print(line)
        console.print()
    for level in report.levels:
        if level.errors:
            counts = ", ".join(f"{count:,} x {kind}" for kind, count in level.errors.items())
            console.print(Text.assemble(("Errors", "bold red"), f" at {level.concurrency} at a time: {counts}"))
    for sentence in _sentences(report, rate, needed):
        console.print(sentence)
    for note in report.notes:
        console.print(Text.assemble(("Note: ", "bold yellow"), note))


def _figures(report: LoadReport, width: int) -> Table:
    """A level per line; what a narrow terminal has no room for is left out, never cut."""
    levels = report.levels
    columns = {
        "AT ONCE": [str(level.concurrency) for level in levels],
        "RESULTS/S": [_number(level.rate) for level in levels],
        "P50 MS": [_number(level.p50_ms) for level in levels],
        "P90 MS": [_number(level.p90_ms) for level in levels],
        "P99 MS": [_number(level.p99_ms) for level in levels],
        "MAX MS": [_number(level.max_ms) for level in levels],
        "BATCH": [_number(level.batch) for level in levels if level.batch is not None],
        "QUEUE MS": [_number(level.queue_ms) for level in levels if level.queue_ms is not None],
        "ERRORS": [f"{sum(level.errors.values()):,}" for level in levels],
    }
    columns = {title: cells for title, cells in columns.items() if len(cells) == len(levels)}
    for title in ("QUEUE MS", "MAX MS", "P90 MS", "BATCH"):
        if sum(max(map(len, [title, *cells])) + 2 for title, cells in columns.items()) - 2 > width:
            columns.pop(title, None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in columns:
        table.add_column(title, no_wrap=True, justify="right")
    for level, cells in zip(levels, zip(*columns.values(), strict=True), strict=True):
        table.add_row(*cells, style="red" if level.errors else "bold" if level is report.sustained else "")
    return table


def _picture(levels: Sequence[Level], console: Console) -> list[Text]:
    """A bar per level, in three parts that end at p50, p90 and p99; they differ without colours too, as in a log."""
    longest = max(level.p99_ms for level in levels)
    labels = [str(level.concurrency) for level in levels]
    ends = [f"{_number(level.p99_ms)} ms" for level in levels]
    left, right = max(7, *map(len, labels)), max(map(len, ends))
    room = max(_LEAST_BAR, min(_MOST_BAR, console.width - left - right - 4))
    lines = [Text.assemble((f"{'AT ONCE':>{left}}  ", "dim"), *_legend())]
    for level, label, end in zip(levels, labels, ends, strict=True):
        line = Text(f"{label:>{left}}  ")
        drawn = 0
        for value, (_, character, style) in zip((level.p50_ms, level.p90_ms, level.p99_ms), _PARTS, strict=True):
            until = max(drawn, round(value / longest * room), 1)
            line.append(character * (until - drawn), style=style)
            drawn = until
        lines.append(line.append(f"  {end}", style="dim"))
    return lines


def _legend() -> list[tuple[str, str]]:
    return [(f"{character} {name}  ", style) for name, character, style in _PARTS]


def _sentences(report: LoadReport, rate: float | None, needed: int | None) -> list[str]:
    """What the figures mean, in words."""
    from gpu_infer.load import HEADROOM, QUICK_MS, TAIL

    best, each = report.sustained, report.rate_per_replica
    limit = f"{TAIL:g} x its p50 and {QUICK_MS:g} ms" if report.p99_ms is None else f"{_number(report.p99_ms)} ms"
    if best is None or each is None:
        return [f"No level is sustained: each had errors, or a p99 above {limit}."]
    least, most = ("at least ", "at most ") if best.client_bound else ("", "")
    on = f" on {report.replicas} replicas, {_number(each)} each" if report.replicas > 1 else ""
    sustains = (
        f"{report.service} sustains {least}{_number(best.rate)} requests per second{on}: with {best.concurrency} at a "
        f"time half of them take {_number(best.p50_ms)} ms, 99 % up to {_number(best.p99_ms)} ms, and none fails."
    )
    more = max(report.levels, key=lambda level: level.rate)
    if more.rate > best.rate and not more.acceptable(report.p99_ms):
        why = "there were errors" if more.errors else f"the p99 is above {limit} (--p99-ms sets another limit)"
        sustains += f" The {_number(more.rate)} with {more.concurrency} at a time do not count: {why}."
    if rate is None or needed is None:
        return [sustains]
    need = "1 replica" if needed == 1 else f"{most}{needed:,} replicas"
    planned = (
        f"{_number(rate)} requests per second need {need}: {HEADROOM:.0%} of {_number(each)} is planned for each, and "
        "the rest is for peaks."
    )
    return [sustains, planned]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
