"""What overload did to a service, as a table, as JSON and as a picture."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .hardware import sentence
from .keeping import keep
from .openloop import Offered

COLUMNS = ("late", "shed", "expired", "unsent", "wrong", "lost")
REST = ("p50 ms", "p99 ms", "shed p50 ms", "service cores", "load cores")


@dataclass(frozen=True, slots=True)
class Conditions:
    """One workload on one service, and the rate that it sustains.

    Args:
        workload, title: what was asked.
        workers: of the service.
        p99_ms: bound of a sustained rate.
        deadline_ms: of a good answer.
        connections: the most that were open at once.
        settings: variables of the service.
        service_cores: how many it could use.
        shared: whether the load ran on the same cores.
        closed: answers per second of the service when it has always something to do.
        searched: tries at rates, of which the last one is the one that the service sustains.
    """

    workload: str
    title: str
    workers: int
    p99_ms: float
    deadline_ms: float
    connections: int
    settings: Mapping[str, str]
    service_cores: int
    shared: bool
    closed: float
    searched: Sequence[Offered]


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of multiples of that rate.

    Args:
        conditions: under which.
        callers: ``patient`` or ``stubborn``: whether they rest when they are told when to come back.
        levels: times the sustained rate, to one result per round.
    """

    conditions: Conditions
    callers: str
    levels: Mapping[float, Sequence[Offered]]


def as_json(measured: Sequence[Measured], *, hardware: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """Everything, for the file."""
    return {
        "title": "What a service does with more requests than it can answer",
        "hardware": hardware,
        "rounds": rounds,
        "seconds": seconds,
        "services": [_service(one) for one in measured],
    }


def _service(measured: Measured) -> dict[str, Any]:
    one = measured.conditions
    levels = [_level(times, offered) for times, offered in sorted(measured.levels.items())]
    peak = max((level["goodput"] for level in levels), default=0.0)
    for level in levels:
        level["of_peak"] = round(level["goodput"] / peak, 3) if peak else 0.0
    return {
        "workload": one.workload,
        "title": one.title,
        "workers": one.workers,
        "callers": measured.callers,
        "p99_bound_ms": one.p99_ms,
        "deadline_ms": one.deadline_ms,
        "most_connections": one.connections,
        "settings": dict(one.settings),
        "service_cores": one.service_cores,
        "load_shares_cores": one.shared,
        "always_busy_per_second": round(one.closed, 1),
        "sustained_per_second": round(one.searched[-1].rate, 1),
        "peak_goodput": round(peak, 1),
        "levels": levels,
        "search": [_turn(offered) for offered in one.searched],
    }


def _level(times: float, rounds: Sequence[Offered]) -> dict[str, Any]:
    """Medians over the rounds; requests by outcome are added up."""
    turns = [_turn(offered) for offered in rounds]
    medians = {
        name: statistics.median(turn[name] for turn in turns)
        for name in ("offered", "goodput", "p50_ms", "p99_ms", "shed_p50_ms", "service_cores", "load_cores")
    }
    counts: Counter[str] = Counter()
    for offered in rounds:
        counts.update(offered.counts)
    most = {name: max(turn[name] for turn in turns) for name in ("lag_ms", "connections")}
    problems = [offered.problem for offered in rounds if offered.problem]
    return {"times": times, **medians, **most, "counts": dict(counts), "problems": problems, "rounds": turns}


def _turn(offered: Offered) -> dict[str, Any]:
    return {
        "rate": round(offered.rate, 1),
        "offered": round(offered.sent / offered.seconds, 1),
        "goodput": round(offered.goodput, 1),
        "p50_ms": _percentile(offered.latencies_ms, 0.5),
        "p99_ms": _percentile(offered.latencies_ms, 0.99),
        "shed_p50_ms": _percentile(offered.shed_ms, 0.5),
        "service_cores": round(offered.service_cores, 2),
        "load_cores": round(offered.cores, 2),
        "lag_ms": round(offered.lag_ms, 1),
        "connections": offered.connections,
        "counts": dict(offered.counts),
    }


def _percentile(values: Sequence[float], part: float) -> float:
    return round(values[min(len(values) - 1, int(part * len(values)))], 2) if values else 0.0


def as_table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"# {found['title']}",
        "",
        f"{sentence(found['hardware'])}. Medians of {found['rounds']} rounds of {found['seconds']:g} s; requests by",
        "outcome are those of all rounds together.",
        "",
        "Requests come at random times, as from callers who do not wait for each other; latency counts from when a",
        "request was due. `good` is a right answer within the deadline, `late` a right one after it, `shed` a 503 that",
        "says when to come back, `expired` a 504, `unsent` a request for which no connection was free, `lost` one",
        "without an answer. Patient callers rest for as long as a 503 asks, and keep their connection; stubborn ones",
        "go on.",
    ]
    for one in found["services"]:
        noun = "worker" if one["workers"] == 1 else "workers"
        settings = "".join(f", {name}={value}" for name, value in one["settings"].items())
        where = "the same as the load" if one["load_shares_cores"] else "the load has another"
        conditions = (
            f"{one['title']}. Cores of the service: {one['service_cores']}, {where}. It sustains "
            f"{one['sustained_per_second']:,.0f}/s with a p99 of up to {one['p99_bound_ms']:g} ms (always busy: "
            f"{one['always_busy_per_second']:,.0f}/s). Deadline {one['deadline_ms']:g} ms, up to "
            f"{one['most_connections']:,} connections."
        )
        columns = ("load", "offered/s", "good/s", "of peak", *COLUMNS, *REST)
        lines += [
            "",
            f"## {one['workload']}, {one['workers']} {noun}{settings}, {one['callers']} callers",
            "",
            conditions,
            "",
        ]
        lines += [f"| {' | '.join(columns)} |", f"|{'--:|' * len(columns)}"]
        lines += [_row(level) for level in one["levels"]]
        lines += [f"\nWrong: {problem}." for level in one["levels"] for problem in level["problems"][:1]]
    ours = ", ".join(f"{name} {version}" for name, version in found["hardware"]["versions"].items() if name != "wrk")
    return "\n".join([*lines, "", f"Versions: {ours}."]) + "\n"


def _row(level: dict[str, Any]) -> str:
    counts: dict[str, int] = level["counts"]
    others = [f"{counts.get(name, 0):,}" for name in COLUMNS]
    unknown = sorted(set(counts) - {"good", *COLUMNS})
    note = "".join(f" + {counts[name]:,} of {name}" for name in unknown)
    cells = [
        f"{level['times']:g}x",
        f"{level['offered']:,.0f}",
        f"{level['goodput']:,.0f}",
        f"{level['of_peak']:.2f}",
        *others[:-1],
        others[-1] + note,
        f"{level['p50_ms']:.1f}",
        f"{level['p99_ms']:.1f}",
        f"{level['shed_p50_ms']:.1f}",
        f"{level['service_cores']:.2f}",
        f"{level['load_cores']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def write(found: dict[str, Any], stem: Path) -> str:
    """Write ``.json``, ``.md`` and ``.png``; returns why there is no picture, empty where there is one."""
    return keep(found, as_table(found), stem, picture="plot_overload.py")
