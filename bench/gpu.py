"""The same on a GPU: ResNet-50 in a loop, the tutorials' way, and this project with one worker and with more.

Run: ``python bench/gpu.py`` on a machine with an NVIDIA GPU, PyTorch and this package; where there is none it
says so and ends. Prints a table per workload and writes ``bench/results/serving_gpu-*.{md,json,png}``. The weights are
random: rates do not depend on them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from _serving.contenders import chosen
from _serving.gpu_entrants import PICTURES, TENSORS, GpuAssets, entrants, prepare
from _serving.hardware import describe
from _serving.report import as_json, as_table, write
from _serving.rounds import Plan, measure
from _serving.stock import forget_settings
from _serving.workloads import Workload
from _serving.wrk import find_wrk

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure what the command line asks for."""
    options = read_options()
    gpu = ask_driver("name,memory.total,driver_version")
    if not gpu and not options.allow_cpu:
        print("no GPU here: nvidia-smi finds none")
        return
    find_wrk()
    forget_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that servers are stopped then, too
    with tempfile.TemporaryDirectory(prefix="gpu-infer-bench-") as folder:
        os.environ["GPU_INFER_HOME"] = f"{folder}/state"  # a ledger of its own, not the user's
        assets = prepare(Path(folder), "cuda" if gpu else "cpu")
        for workload in (TENSORS, PICTURES):
            if workload.name in options.workloads:
                run(workload, assets, gpu, options)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures inference on a GPU.")
    names = [TENSORS.name, PICTURES.name]
    parser.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help="names or their beginnings")
    parser.add_argument("--concurrency", nargs="+", type=int, default=[], metavar="N", help="connections")
    parser.add_argument("--workers", type=int, default=4, help="of ours, compared with one (4)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (5)")
    parser.add_argument("--seconds", type=float, help="of a turn per concurrency (4)")
    parser.add_argument(
        "--out", type=Path, help="folder of the results; without it, a choice of contenders is not kept"
    )
    parser.add_argument("--allow-cpu", action="store_true", help="run without a GPU, to try this script itself")
    return parser.parse_args()


def run(workload: Workload, assets: GpuAssets, gpu: str, options: argparse.Namespace) -> None:
    """One workload: measure, print, keep."""
    concurrency = tuple(options.concurrency) or workload.concurrency
    plan = Plan(options.rounds, options.seconds or workload.seconds, concurrency, device_mb=memory_in_use)
    print(f"{workload.name}: {workload.title}", flush=True)
    hardware = {**describe(), "gpu": gpu}
    running = chosen(entrants(options.workers), options.contenders)
    results = measure(running, workload, assets, plan, say=lambda line: print(line, flush=True))
    found = as_json(workload.title, workload.base, results, plan, hardware=hardware, servers=[])
    print("\n" + as_table(found), flush=True)
    if (options.contenders or not gpu) and options.out is None:
        print("Not kept: these are not all contenders, or not on a GPU. --out FOLDER keeps them.", flush=True)
        return
    stem = (options.out or RESULTS) / f"serving_{workload.name}"
    problem = write(found, stem)
    print(f"Written: {stem}.md, .json" + (f"; no picture: {problem}" if problem else ", .png"), flush=True)


def memory_in_use() -> float:
    """MB of the first GPU's memory in use, by whomever: in containers the driver cannot tell processes apart."""
    return float(ask_driver("memory.used", units="nounits,") or 0)


def ask_driver(what: str, *, units: str = "") -> str:
    """What ``nvidia-smi`` says of the first GPU; empty where there is none."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={what}", f"--format=csv,{units}noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
