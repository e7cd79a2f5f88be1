"""What a service does with more requests than it can answer: how many it still answers in time, and what the rest get.

Run: ``python bench/overload.py`` (or ``make bench``); ``--help`` lists what can be chosen. First the highest rate is
sought that the service sustains within a bound of latency; then it is offered once, one and a half times, twice and
three times that rate, by callers who do not wait for each other. Goodput is the number of right answers within the
deadline, per second. Prints a table per workload and writes ``bench/results/overload.{md,json,png}``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from _serving.hardware import describe
from _serving.openloop import Offered, OpenLoop
from _serving.overload_report import Conditions, Measured, as_json, as_table, write
from _serving.processes import Server
from _serving.questions import Question, plain
from _serving.stock import IMAGE, deployed, forget_settings
from _serving.workloads import WORKLOADS, Assets, missing, prepare

RESULTS = Path(__file__).parent / "results"
LOADS = (1.0, 1.5, 2.0, 3.0)
PATIENT = "patient"
CALLERS = (PATIENT, "stubborn")
"""Who is turned away rests for as long as he is asked to, or sends the next request at once."""

_FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Of the rate of callers who wait: at the first of these that the service sustains, the search ends."""

_TRIES = 2
"""At each rate: a machine that does something else for a moment should not make the service look worse."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What counts as sustained, and as good.

    Args:
        p99_ms: the limit of the 99th percentile at a sustained rate.
        deadline_ms: after which an answer is worth nothing.
    """

    p99_ms: float
    deadline_ms: float


BOUNDS = {
    "mnist-binary": Bounds(50, 250),
    "mnist-json": Bounds(50, 250),
    "images": Bounds(500, 1000),
}


def main() -> None:
    """Measure what the command line asks for."""
    options = read_options()
    reason = missing()
    if reason:
        print(reason)
        return
    forget_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the service is stopped then, too
    hardware = describe()
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="gpu-infer-bench-") as folder:
        os.environ["GPU_INFER_HOME"] = f"{folder}/state"  # a ledger of its own, not the user's
        assets = prepare(Path(folder))
        for name in options.workloads:
            for workers in options.workers:
                found += measure(name, workers, assets, options)
    kept = as_json(found, hardware=hardware, rounds=options.rounds, seconds=options.seconds)
    print("\n" + as_table(kept), flush=True)
    stem = (options.out or RESULTS) / "overload"
    problem = write(kept, stem)
    print(f"Written: {stem}.md, .json" + (f"; no picture: {problem}" if problem else ", .png"), flush=True)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Offers a service more than it can do.")
    names = list(BOUNDS)
    parser.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--workers", nargs="+", type=int, default=[1], metavar="N", help="services to measure (1)")
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS), metavar="X", help="times the rate")
    parser.add_argument(
        "--callers", nargs="+", choices=CALLERS, default=CALLERS, metavar="KIND", help=", ".join(CALLERS)
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each load (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn (10)")
    parser.add_argument("--connections", type=int, default=900, help="the most that are open at once (900)")
    parser.add_argument("--p99-ms", type=float, help="bound of a sustained rate, instead of the workload's")
    parser.add_argument("--deadline-ms", type=float, help="of a good answer, instead of the workload's")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="variables of the service")
    parser.add_argument("--share-cores", action="store_true", help="let the load run on the service's cores, too")
    parser.add_argument("--out", type=Path, help="folder of the results (bench/results)")
    return parser.parse_args()


def measure(name: str, workers: int, assets: Assets, options: argparse.Namespace) -> list[Measured]:
    """One workload on one service."""
    workload = next(one for one in WORKLOADS if one.name == name)
    bounds = Bounds(options.p99_ms or BOUNDS[name].p99_ms, options.deadline_ms or BOUNDS[name].deadline_ms)
    question = plain("/score")(workload, assets)
    environment = dict(pair.split("=", 1) for pair in options.set)
    arguments: dict[str, Any] = {"workers": workers, "environment_variables": environment}
    if name == "images":
        arguments |= {"preprocess": IMAGE, "postprocess": "top_k:5"}
    everything = sorted(_usable_cores())
    ours, theirs = (everything, everything) if options.share_cores else divided(everything)
    print(f"{name}, {workers} worker{'s' if workers > 1 else ''}: {workload.title}", flush=True)
    _use_cores(theirs)  # what is started here stays there
    log = assets.folder / f"overload-{name}-{workers}.txt"
    try:
        with deployed(assets.model(workload), log, **arguments) as server:
            _use_cores(ours)
            problem = question.check(server.port, threads=4)
            if problem:
                raise SystemExit(f"The service answers wrongly: {problem}")
            made = {"deadline": bounds.deadline_ms / 1e3, "connections": options.connections}
            loads = {kind: OpenLoop(server.port, question, patient=kind == PATIENT, **made) for kind in CALLERS}
            closed, searched = search(server, loads[PATIENT], question, bounds, seconds=min(5.0, options.seconds))
            found = {kind: turns(server, loads[kind], searched[-1].rate, options) for kind in options.callers}
    finally:
        _use_cores(everything)
    conditions = Conditions(
        workload=name,
        title=workload.title,
        workers=workers,
        p99_ms=bounds.p99_ms,
        deadline_ms=bounds.deadline_ms,
        connections=options.connections,
        settings=environment,
        service_cores=len(theirs),
        shared=options.share_cores or len(everything) == 1,
        closed=closed,
        searched=searched,
    )
    return [Measured(conditions, kind, levels) for kind, levels in found.items()]


def search(
    server: Server, load: OpenLoop, question: Question, bounds: Bounds, *, seconds: float
) -> tuple[float, list[Offered]]:
    """Seek the highest rate that the service sustains.

    Returns:
        the rate at which it answers what it is always behind with, and the tries, of which the last one held.

    Raises:
        SystemExit: none held.
    """
    rough = load.saturate(16, seconds=seconds)
    question.settle(server.port)
    print(f"  answers {rough:,.0f}/s when it has always something to do", flush=True)
    tries: list[Offered] = []
    for fraction in [fraction for fraction in _FRACTIONS for _ in range(_TRIES)]:
        tried = load.offer(rough * fraction, seconds=seconds)
        tries.append(tried)
        p99 = _p99(tried)
        holds = p99 <= bounds.p99_ms and tried.counts["good"] >= 0.999 * tried.sent
        print(f"  {tried.rate:,.0f}/s: {told(tried)}: {'holds' if holds else 'too much'}", flush=True)
        question.settle(server.port)
        if holds:
            return rough, tries
    raise SystemExit(f"Not even {tries[-1].rate:,.0f} requests per second are answered within {bounds.p99_ms:g} ms.")


def turns(server: Server, load: OpenLoop, rate: float, options: argparse.Namespace) -> dict[float, list[Offered]]:
    """Every load once per round, and each round begins with the next one."""
    levels: dict[float, list[Offered]] = {times: [] for times in options.loads}
    order: Sequence[float] = list(levels)
    for number in range(options.rounds):
        for times in [*order[number % len(order) :], *order[: number % len(order)]]:
            before = cpu_seconds(server)
            offered = load.offer(rate * times, seconds=options.seconds)
            offered.service_cores = (cpu_seconds(server) - before) / offered.spent
            levels[times].append(offered)
            print(f"  round {number + 1} of {options.rounds}: {times:g}x: {told(offered)}", flush=True)
    return levels


def told(offered: Offered) -> str:
    """A level of load in a line."""
    others = ", ".join(
        f"{count:,} {name}" for name, count in sorted(offered.counts.items()) if count and name != "good"
    )
    problem = f" ({offered.problem})" if offered.problem else ""
    return (
        f"{offered.goodput:,.0f}/s good of {offered.sent / offered.seconds:,.0f}/s, p99 {_p99(offered):.0f} ms"
        f"{', ' + others if others else ''}{problem}; sending took {offered.cores:.0%} of a core"
    )


def divided(cores: Sequence[int]) -> tuple[list[int], list[int]]:
    """The last core for the load, the others for the service; one core is for both."""
    return ([cores[-1]], list(cores[:-1])) if len(cores) > 1 else (list(cores), list(cores))


def cpu_seconds(server: Server) -> float:
    """Processor time of all processes of a service."""
    times = [psutil.Process(pid).cpu_times() for pid in server.pids if psutil.pid_exists(pid)]
    return sum(one.user + one.system for one in times)


def _p99(offered: Offered) -> float:
    values = offered.latencies_ms
    return values[min(len(values) - 1, int(0.99 * len(values)))] if values else float("inf")


def _usable_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _use_cores(cores: Sequence[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    main()
