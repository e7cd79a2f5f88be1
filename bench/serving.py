"""Whole servers side by side: the tutorials, this project, and other model servers, under the same load.

Run: ``python bench/serving.py`` (or ``make bench``); ``--help`` lists what can be chosen. Each server runs on 127.0.0.1
in a virtual environment of its own (``bench/.venvs``), shows that its answers are right, and then has its turn in every
round. Prints a table per workload and writes ``bench/results/serving_WORKLOAD.{md,json,png}``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from _serving.contenders import Entrant, chosen
from _serving.environments import version_of
from _serving.hardware import describe
from _serving.peers import ENVIRONMENTS, peers
from _serving.raw import loops
from _serving.report import as_json, as_table, write
from _serving.rounds import Plan, measure
from _serving.stock import forget_settings, stock_contenders
from _serving.workloads import WORKLOADS, Assets, Workload, missing, prepare
from _serving.wrk import find_wrk

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure what the command line asks for."""
    entrants: list[Entrant[Assets]] = [*stock_contenders(), *peers(), *loops()]
    options = read_options(entrants)
    running = chosen(entrants, options.contenders)
    reason = missing()
    if reason:
        print(reason)
        return
    find_wrk()
    forget_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that servers are stopped then, too
    with tempfile.TemporaryDirectory(prefix="gpu-infer-bench-") as folder:
        os.environ["GPU_INFER_HOME"] = f"{folder}/state"  # a ledger of its own, not the user's
        assets = prepare(Path(folder))
        for workload in (one for one in WORKLOADS if one.name in options.workloads):
            run(workload, running, assets, options)


def read_options(entrants: list[Entrant[Assets]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures model servers side by side.")
    names = [workload.name for workload in WORKLOADS]
    known = ", ".join(entrant.name for entrant in entrants)
    parser.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--contenders", nargs="+", default=[], metavar="NAME", help=f"names or their beginnings: {known}"
    )
    parser.add_argument("--concurrency", nargs="+", type=int, default=[], metavar="N", help="connections")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (5)")
    parser.add_argument("--seconds", type=float, help="of a turn per concurrency (4; pictures 10)")
    parser.add_argument(
        "--out", type=Path, help="folder of the results; without it, a choice of contenders is not kept"
    )
    return parser.parse_args()


def run(workload: Workload, running: list[Entrant[Assets]], assets: Assets, options: argparse.Namespace) -> None:
    """One workload: measure, print, keep."""
    plan = Plan(options.rounds, options.seconds or workload.seconds, tuple(options.concurrency) or workload.concurrency)
    print(f"{workload.name}: {workload.title}", flush=True)
    hardware = describe()
    results = measure(running, workload, assets, plan, say=lambda line: print(line, flush=True))
    used = {result.name.partition("-")[0] for result in results if not result.unavailable}
    servers = [version_of(name) for name in ENVIRONMENTS if name in used]
    found = as_json(workload.title, workload.base, results, plan, hardware=hardware, servers=servers)
    print("\n" + as_table(found), flush=True)
    if options.contenders and options.out is None:
        print("Not kept: these are not all contenders. --out FOLDER keeps them.", flush=True)
        return
    stem = (options.out or RESULTS) / f"serving_{workload.name}"
    problem = write(found, stem)
    print(f"Written: {stem}.md, .json" + (f"; no picture: {problem}" if problem else ", .png"), flush=True)


if __name__ == "__main__":
    main()
