"""Scoring clients side by side: by hand, with Azure's SDKs, and ours.

Run: ``python bench/client.py`` (or ``make bench``); ``--help`` lists what can be chosen. Measures what bodies cost to
write and read, whole calls with one row each, what ``score()`` costs beyond a bare ``post``, and many rows at once.
Prints the tables and writes ``bench/results/client.{md,json,png}``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from _client import bodies, calls, overhead
from _client.report import as_table, write
from _client.ways import Target
from _serving.environments import version_of
from _serving.hardware import describe, installed
from _serving.processes import NotAvailableError
from _serving.stock import deployed, forget_settings
from _serving.workloads import Assets, missing, prepare

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("requests", "urllib3", "aiohttp", "orjson", "azureml-core", "azure-ai-ml")


def main() -> None:
    """Measure what the command line asks for."""
    options = read_options()
    reason = missing()
    if reason:
        print(reason)
        return
    forget_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that servers are stopped then, too
    with tempfile.TemporaryDirectory(prefix="gpu-infer-bench-") as folder:
        os.environ["GPU_INFER_HOME"] = f"{folder}/state"  # a ledger of its own, not the user's
        found = measure(prepare(Path(folder)), options)
    print("\n" + as_table(found), flush=True)
    stem = (options.out or RESULTS) / "client"
    problem = write(found, stem)
    print(f"Written: {stem}.md, .json" + (f"; no picture: {problem}" if problem else ", .png"), flush=True)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures scoring clients side by side.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn of calls (1)")
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 16], metavar="N", help="callers (1 16)")
    parser.add_argument("--items", type=int, default=20_000, metavar="N", help="rows for score_many (20000)")
    parser.add_argument("--ways", nargs="+", default=[], metavar="NAME", help="names of ways, or their beginnings")
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser.parse_args()


def measure(assets: Assets, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, one part after the other."""
    hardware = describe()
    hardware["versions"] = {name: version for name, version in hardware["versions"].items() if name != "wrk"}
    hardware["versions"] |= {name: found for name in LIBRARIES if (found := installed(name))}
    hardware["versions"] |= dict([version_of("httpx").split()])
    print("bodies", flush=True)
    written = bodies.measure(assets.jpeg, rounds=options.rounds)
    print("score() beside a bare post", flush=True)
    beyond = overhead.measure(rounds=options.rounds)
    with deployed(assets.mnist_onnx, assets.folder / "service.log") as server:
        service = Target(f"http://127.0.0.1:{server.port}/score")
        bulk = calls.measure_bulk(service, assets, rounds=options.rounds, items=options.items, say=_say)
        results = _calls(service, assets, options)
    return {
        "hardware": hardware,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "bodies": [one.as_json() for one in written],
        "overhead": beyond,
        "calls": [result.as_json() for result in results],
        "bulk": bulk,
    }


def _calls(service: Target, assets: Assets, options: argparse.Namespace) -> list[calls.Result]:
    chosen = [one for one in calls.ENTRANTS if not options.ways or one.way.startswith(tuple(options.ways))]
    told = {"rounds": options.rounds, "seconds": options.seconds, "concurrency": options.concurrency, "say": _say}
    here = [one for one in chosen if one.door == "service"]
    there = [one for one in chosen if one.door != "service"]
    found = calls.measure(here, {"service": service}, assets, **told)
    if not there:
        return found
    try:
        with calls.emulated(assets.mnist_onnx, assets.folder / "emulated") as doors:
            return found + calls.measure(there, doors, assets, **told)
    except NotAvailableError as error:
        print(f"  the emulator: not available: {error}", flush=True)
        return found + [calls.Result(one.door, one.way, one.form, unavailable=str(error)) for one in there]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
