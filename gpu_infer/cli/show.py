"""Tables: of services, plans, counters, checks, and of the demo."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table
from rich.text import Text

from gpu_infer.cli import screen
from gpu_infer.cli.words import typed

if TYPE_CHECKING:
    from gpu_infer.cli.doctor import Check
    from gpu_infer.cli.project import Written
    from gpu_infer.demo import DemoReport, Digit
    from gpu_infer.errors import Finding
    from gpu_infer.migration import MigrationPlan
    from gpu_infer.plans import Plan
    from gpu_infer.service import Service
    from gpu_infer.teardown import Leftover

__all__ = ["checks", "demo", "files", "leftovers", "migration", "plan", "service", "service_dict", "services", "stats"]

_STATE_STYLES = {"Healthy": "green", "Starting": "yellow", "Unhealthy": "yellow", "Failed": "red"}
_MARKS = {"ok": ("✓", "green"), "missing": ("·", "dim"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
_DIGIT_WIDTH, _DIGIT_GAP = 24, 1
_SHOWN_MODEL = 34


def service_dict(found: Service) -> dict[str, Any]:
    """A service as plain values, for JSON."""
    expires = None if found.expires is None else datetime.fromtimestamp(found.expires, UTC).isoformat("T", "seconds")
    return {
        "name": found.name,
        "state": found.state,
        "target": found.target,
        "cluster": found.cluster,
        "model": found.model,
        "scoring_uri": found.scoring_uri,
        "price_per_hour": found.price_per_hour,
        "kept": found.kept,
        "expires": expires,
    }


def service(found: Service, device: str | None) -> None:
    """One service, after its deployment."""
    rows: list[tuple[str, str | Text]] = [
        ("service", Text(found.name, style="bold cyan")),
        ("state", _state(found.state)),
        ("model", found.model),
        ("device", device or ""),
        ("scoring URI", found.scoring_uri),
        ("price", f"${found.price_per_hour:.2f} per hour"),
        ("expires", f"in {_expires_in(found)}"),
    ]
    screen.out().print(screen.rows_table((key, value) for key, value in rows if value))


def services(found: Sequence[Service]) -> None:
    """All services, one per line; columns that a narrow terminal has no room for are left out, never cut."""
    console = screen.out()
    columns: dict[str, list[Text]] = {
        "NAME": [Text(one.name, style="bold") for one in found],
        "STATE": [_state(one.state) for one in found],
        "MODEL": [Text(_shortened(Path(one.model).name)) for one in found],
        "SCORING URI": [Text(one.scoring_uri) for one in found],
        "$/H": [Text(_price(one, found)) for one in found],
        "EXPIRES IN": [Text(_expires_in(one)) for one in found],
    }
    widths = {title: max(len(title), *(len(cell) for cell in cells)) for title, cells in columns.items()}
    for title in ("MODEL", "$/H", "EXPIRES IN", "SCORING URI"):
        if sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
            del widths[title]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title, width in widths.items():
        table.add_column(title, no_wrap=True, min_width=width, justify="right" if title == "$/H" else "left")
    for cells in zip(*(columns[title] for title in widths), strict=True):
        table.add_row(*cells)
    console.print(table)


def leftovers(found: Sequence[Leftover]) -> None:
    """What is left over, one per line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("WHAT", "STATE", "AGE", "$/H", "SO FAR", "WHY"):
        table.add_column(title, no_wrap=True, justify="right" if title in ("AGE", "$/H", "SO FAR") else "left")
    for one in found:
        table.add_row(
            Text.assemble(f"{one.kind} ", (one.name, "bold")),
            one.state,
            one.age,
            f"{one.price_per_hour:.2f}",
            f"{one.cost:,.2f}",
            Text(one.why, style="yellow" if one.why in ("expired", "abandoned") else ""),
        )
    screen.out().print(table)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_MODEL else text[: _SHOWN_MODEL - 1] + "…"


def plan(made: Plan) -> None:
    """A plan: what it is, what it would create, what it costs, and what the checks have found."""
    console = screen.out()
    styles = {"service": "bold cyan", "price": "bold"}
    shown = [(key, Text(value, style=styles.get(key, ""))) for key, value in made.rows() if key != "creates"]
    creates = Text("\n").join(Text.assemble(("+ ", "green"), what) for what in made.creates)
    if made.creates:
        shown.insert(-1, ("creates", creates))
    console.print(screen.rows_table(shown))
    _findings(made.findings)
    if made.errors:
        count = "An error stands" if len(made.errors) == 1 else f"{len(made.errors)} errors stand"
        console.print()
        console.print(Text(f"{count} in the way: nothing would be started.", style="bold red"))


def migration(made: MigrationPlan) -> None:
    """What a web service on AKS becomes: what maps to what, and what does not."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "AKS WEB SERVICE", "ONLINE ENDPOINT"):
        table.add_column(title, style="bold" if not title else None, no_wrap=not title, overflow="fold")
    for move in made.moves:
        style = "bold cyan" if move.what == "service" else "bold" if move.what == "price" else ""
        table.add_row(move.what, Text(move.before), Text(move.after, style=style))
    screen.out().print(table)
    _findings(made.findings)


def _findings(found: Sequence[Finding]) -> None:
    """What checks have found, each with what to do about it."""
    console = screen.out()
    styles = {"error": "bold red", "warning": "bold yellow", "info": "bold"}
    for finding in found:
        console.print()
        console.print(Text.assemble((f"{finding.level.capitalize()}: ", styles[finding.level]), typed(finding.message)))
        if finding.fix:
            console.print(Text(typed(finding.fix), style="cyan"))


def stats(counters: Mapping[str, Any], device: Mapping[str, Any]) -> None:
    """The counters of a service, and its device."""
    rows: list[tuple[str, str | Text]] = [("device", str(device.get("device", "")))]
    rows += [(key.replace("_", " "), _counter(value)) for key, value in counters.items()]
    rows += [
        (f"GPU {gpu.get('index', '')}", _gpu(gpu)) for gpu in cast("list[dict[str, Any]]", device.get("nvidia_smi", []))
    ]
    screen.out().print(screen.rows_table(rows))


def checks(found: Sequence[Check]) -> None:
    """What the doctor has found, by group."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    group = ""
    for check in found:
        if check.group != group:
            if group:
                table.add_row()
            group = check.group
            table.add_row("", Text(group, style="bold"))
        mark, style = _MARKS[check.state]
        detail = Text.assemble((check.detail, "dim" if check.state == "missing" else ""))
        if check.fix:
            detail.append(f"\n{check.fix}", style="cyan")
        table.add_row(Text(mark, style=style), Text(check.name), detail)
    screen.out().print(table)


def files(written: Sequence[Written]) -> None:
    """The files of ``init``."""
    console = screen.out()
    console.print(f"Written to {written[0].path.parent}:", soft_wrap=True)
    console.print(screen.rows_table([(file.path.name, file.purpose) for file in written]))


def demo(report: DemoReport) -> None:
    """The figures of the demo, and a few digits."""
    console = screen.out()
    per_row = max(1, min(4, (console.width + _DIGIT_GAP) // (_DIGIT_WIDTH + _DIGIT_GAP)))
    console.print(_digits(report.digits[:per_row]))
    console.print()
    rows: list[tuple[str, str | Text]] = [
        ("trained", f"784-300-100-10 network on {report.training_items:,} digits in {report.training_seconds:.1f} s"),
        ("deployed", f"in {report.deploy_seconds:.1f} s, on this machine"),
        ("scored", f"{report.items:,} test digits, one per request, {report.concurrency} at a time"),
        ("accuracy", Text.assemble((f"{report.accuracy:.2%}", "bold green"), f"  ({report.correct:,} right)")),
        ("throughput", f"{report.throughput:,.0f} digits per second"),
        ("latency", f"p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms"),
        ("batches", f"{report.mean_batch:.1f} requests together on average"),
        ("device", report.device),
        ("torn down", f"after {report.total_seconds:.0f} s; nothing is left running"),
    ]
    console.print(screen.rows_table(rows))


def _digits(found: Sequence[Digit]) -> Table:
    """Digits side by side: two pixels in each character, the prediction below."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _DIGIT_GAP, 0, 0))
    for _ in found:
        table.add_column(no_wrap=True, width=_DIGIT_WIDTH)
    table.add_row(*(Text(_picture(digit)) for digit in found))
    captions: list[Text] = []
    for digit in found:
        right = digit.predicted == digit.label
        caption = Text.assemble(
            (f"  {digit.predicted}", "bold green" if right else "bold red"),
            (f" ({digit.probability:.0%})", "dim"),
            ("" if right else f" wrong: {digit.label}", "red"),
        )
        captions.append(caption)
    table.add_row(*captions)
    return table


def _picture(digit: Digit) -> str:
    """A digit as text. Characters, not colours: it is the same in a log and on any terminal."""
    rows = [[value > 96 for value in row[2:26]] for row in digit.pixels[2:26]]
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join(
        "".join(" ▀▄█"[upper + 2 * lower] for upper, lower in zip(*pair, strict=True)).rstrip() for pair in pairs
    )


def _state(state: str) -> Text:
    return Text(state, style=_STATE_STYLES.get(state, ""))


def _price(one: Service, found: Sequence[Service]) -> str:
    """The price of the cluster below a service, once: it does not grow with the services on it."""
    paid = (
        one.cluster
        and not one.price_per_hour
        and any(other.cluster == one.cluster and other.price_per_hour for other in found)
    )
    return "shared" if paid else f"{one.price_per_hour:.2f}"


def _expires_in(found: Service) -> str:
    if not found.kept:
        return "its process"
    if found.expires is None:
        return "never"
    minutes = max(0, round((found.expires - time.time()) / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} days"


def _counter(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return ", ".join(f"{key}: {_counter(count)}" for key, count in pairs) or "none"
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _gpu(gpu: Mapping[str, Any]) -> str:
    memory = f"{gpu.get('memory_used_mib', '?')} of {gpu.get('memory_total_mib', '?')} MiB"
    busy = f"{gpu.get('utilization_percent', '?')} % busy"
    return f"{gpu.get('name', '')}, {memory}, {busy}, driver {gpu.get('driver', '?')}"
