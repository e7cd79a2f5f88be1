"""Half an hour of callers of all kinds: memory, threads and descriptors of a service stay what they are.

``GPU_INFER_SOAK_MINUTES`` sets another length, ``GPU_INFER_SOAK_KEEP`` names a folder that gets ``soak.{md,json,png}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from soak import Sample, Watch, growth, of_process, totals, trend, write_csv

import gpu_infer

BENCH = Path(__file__).parents[2] / "bench"
CALLERS = Path(__file__).parents[1] / "support" / "soak_load.py"

MINUTES = float(os.environ.get("GPU_INFER_SOAK_MINUTES") or 30)
KEEP = os.environ.get("GPU_INFER_SOAK_KEEP", "")
EVERY = 5.0 if MINUTES >= 10 else 1.0
"""Seconds between two samples."""

WARM_UP = max(20.0, 6.0 * MINUTES)
"""Seconds, a tenth of the time where that is longer, in which pools fill and allocators find their size; nothing is
compared with what was before."""

TURNED_AWAY = 0.02
"""The part of good requests that may be answered with 503."""

PROCESS_MB = 12.0
SERVICE_MB = 24.0
"""How much more a process, or all of a service, may use at the end than after the warm-up: what allocators need to
settle. Losing a kilobyte per request would come to hundreds of megabytes."""

THREADS = 1
DESCRIPTORS = 12
"""By how much the medians under load may differ: connections come and go."""

QUIET_SECONDS = 30.0


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, shared_models: Path, mnist_test: Any) -> Path:
    """A folder with the MNIST network as ONNX, some digits, and the logits that NumPy computes for them."""
    script = BENCH / "_serving" / "export_mnist.py"
    if not script.exists():
        pytest.skip("no bench/ beside the tests")
    folder = tmp_path_factory.mktemp("digits")
    np.save(folder / "rows.npy", mnist_test[0][:256])
    command = [sys.executable, str(script), str(shared_models / "mnist_savedmodel"), str(folder)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    return folder


@contextlib.contextmanager
def deployed(model: Path, workers: int) -> Iterator[tuple[int, psutil.Process]]:
    """A service: its port, and the process that all others of it descend from."""
    before = set(psutil.Process().children())
    with gpu_infer.deploy(model, workers=workers) as service:
        (root,) = set(psutil.Process().children()) - before
        yield urlsplit(service.scoring_uri).port or 0, root


def call_all(ports: dict[str, int], seconds: float, folder: Path) -> dict[str, Any]:
    """Callers of all services side by side; what came of it, by service."""
    running = {
        name: subprocess.Popen(
            [sys.executable, str(CALLERS), str(port), str(seconds), str(folder)], stdout=subprocess.PIPE, text=True
        )
        for name, port in ports.items()
    }
    found: dict[str, Any] = {}
    for name, process in running.items():
        out, _ = process.communicate(timeout=seconds + 300)
        assert process.returncode == 0
        found[name] = json.loads(out)
    return found


def when_quiet(watch: Watch) -> list[Sample]:
    """The first of two looks, a second apart, between which no process got or lost a descriptor or a thread."""
    end = time.monotonic() + QUIET_SECONDS
    last = watch.look()
    while True:
        time.sleep(2)
        now = watch.look()
        if used(now) == used(last) or time.monotonic() > end:
            return now
        last = now


def used(samples: list[Sample]) -> dict[int, tuple[int, int]]:
    """Threads and descriptors, by process."""
    return {sample.pid: (sample.threads, sample.descriptors) for sample in samples}


@pytest.mark.slow
@pytest.mark.timeout(int(MINUTES * 60) + 900)
def test_it_stays_as_it_is(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with deployed(digits / "mnist.onnx", 1) as (one, first), deployed(digits / "mnist.onnx", 2) as (two, second):
        ports = {"1 worker": one, "2 workers": two}
        with Watch({"1 worker": first, "2 workers": second}, EVERY) as watch:
            warm = call_all(ports, WARM_UP, digits)
            before = when_quiet(watch)
            begin = watch.now
            found = call_all(ports, max(WARM_UP, MINUTES * 60 - WARM_UP), digits)
            end = watch.now
            after = when_quiet(watch)
    write_csv(tmp_path / "soak.csv", watch.samples)
    measured = [sample for sample in watch.samples if begin <= sample.seconds <= end]
    report = summary(watch.samples, measured, before, after, found)
    report |= {"begin": round(begin, 1), "end": round(end, 1)}
    with capsys.disabled():
        for name, service in report["services"].items():
            short = {key: value for key, value in service.items() if key != "series"}
            print(f"\n{name}, samples in {tmp_path / 'soak.csv'}: {json.dumps(short)}")
    if KEEP:
        keep(report, tmp_path)
    for name, told in warm.items():
        assert not told["unexpected"], (name, told)
    for name, told in found.items():
        check_answers(name, told)
    for name, service in report["services"].items():
        check_use(name, service)


def summary(
    every: list[Sample], measured: list[Sample], before: list[Sample], after: list[Sample], found: dict[str, Any]
) -> dict[str, Any]:
    """The figures that are compared, and what is drawn."""
    services: dict[str, Any] = {}
    for name, told in found.items():
        mine = [sample for sample in before if sample.service == name]
        ended = [sample for sample in after if sample.service == name]
        memory = totals(measured, name, lambda sample: sample.pss_mb)
        services[name] = {
            "answers": told["outcomes"],
            "unexpected": told["unexpected"],
            "requests": sum(told["outcomes"].values()),
            "memory_mb": {"growth": round(growth(memory), 2), "trend": round(trend(memory), 2)},
            "threads_growth": growth(totals(measured, name, lambda sample: sample.threads)),
            "descriptors_growth": growth(totals(measured, name, lambda sample: sample.descriptors)),
            "processes": [
                {
                    "role": sample.role,
                    "pid": sample.pid,
                    "rss_mb": sample.rss_mb,
                    "rss_growth_mb": round(growth(of_process(measured, sample.pid, lambda one: one.rss_mb)), 2),
                    "rss_trend_mb": round(trend(of_process(measured, sample.pid, lambda one: one.rss_mb)), 2),
                    "quiet_before": used(mine)[sample.pid],
                    "quiet_after": used(ended).get(sample.pid),
                }
                for sample in mine
            ],
            "pids_after": sorted(used(ended)),
            "series": {
                key: [[at, round(value, 2)] for at, value in totals(every, name, read)]
                for key, read in (
                    ("pss_mb", lambda sample: sample.pss_mb),
                    ("threads", lambda sample: sample.threads),
                    ("descriptors", lambda sample: sample.descriptors),
                )
            },
        }
    return {"minutes": MINUTES, "every_seconds": EVERY, "warm_up_seconds": WARM_UP, "services": services}


def check_answers(name: str, told: dict[str, Any]) -> None:
    """Every kind of caller got what it should, and every answer was right."""
    wanted = {"kept: right", "new: right", "dribbled: right", "read slowly: right", "bad: 400", "bad: 413", "bad: 404"}
    got = set(told["outcomes"])
    assert not told["unexpected"], (name, told)
    assert wanted <= got, (name, wanted - got)
    odd = {kind for kind in got if "right" not in kind and not kind.startswith(("bad: 4", "aborted", "report: /"))}
    assert odd <= {"turned away"}, (name, told)
    right = sum(count for kind, count in told["outcomes"].items() if kind.endswith("right"))
    assert told["outcomes"].get("turned away", 0) <= TURNED_AWAY * right, (name, told)


def check_use(name: str, service: dict[str, Any]) -> None:
    """Nothing has grown, and what load took has come back."""
    processes = service["processes"]
    assert sorted(one["pid"] for one in processes) == service["pids_after"], f"{name}: a process ended or came"
    assert service["memory_mb"]["growth"] < SERVICE_MB, (name, service["memory_mb"])
    assert service["memory_mb"]["trend"] < SERVICE_MB, (name, service["memory_mb"])
    assert abs(service["threads_growth"]) <= THREADS, (name, service["threads_growth"])
    assert abs(service["descriptors_growth"]) <= DESCRIPTORS, (name, service["descriptors_growth"])
    for one in processes:
        assert one["rss_growth_mb"] < PROCESS_MB, (name, one)
        assert one["rss_trend_mb"] < PROCESS_MB, (name, one)
        threads, descriptors = one["quiet_before"]
        assert one["quiet_after"][0] <= threads + THREADS, (name, one)
        assert one["quiet_after"][1] == descriptors, (name, one)


def keep(report: dict[str, Any], folder: Path) -> None:
    """Write the table and the picture."""
    source = folder / "soak.json"
    source.write_text(json.dumps(report), "utf-8")
    command = [sys.executable, "-m", "_serving.soak_report", str(source), str(Path(KEEP).resolve() / "soak")]
    subprocess.run(command, cwd=BENCH, check=True, timeout=300)
