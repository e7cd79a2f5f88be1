"""Twice what a service can do: it turns away what it cannot do, and does nearly as much as ever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "overload.py"
KEPT = 0.9
"""Of its peak goodput, at twice the load that it sustains."""


def measured(out: Path, *arguments: str) -> dict[str, Any]:
    """What ``bench/overload.py`` finds of one workload on one service."""
    if not BENCH.exists():
        pytest.skip("no bench/ beside the tests")
    command = [sys.executable, str(BENCH), *arguments, "--loads", "1", "2", "--rounds", "3", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    found = json.loads((out / "overload.json").read_text("utf-8"))["services"]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workload", ["mnist-binary", "mnist-json", "images"])
def test_at_twice_the_load_it_keeps_its_goodput(
    tmp_path: Path, shared_models: Path, workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = measured(tmp_path, "--workloads", workload, "--callers", "patient", "--seconds", "5")
    once, twice = service["levels"]
    with capsys.disabled():
        print(f"\n{workload}: {once['goodput']:,.0f}/s at 1x, {twice['goodput']:,.0f}/s at 2x: {twice['counts']}")
    for level in (once, twice):
        counts = level["counts"]
        assert not level["problems"]
        assert counts.get("wrong", 0) == counts.get("lost", 0) == 0
        assert set(counts) <= {"good", "late", "shed", "expired", "unsent", "wrong", "lost"}
    busy = "not an overload: the machine did something else while the sustained rate was sought"
    assert twice["offered"] > 1.2 * service["always_busy_per_second"], busy
    # Where all connections together are no more than it can answer in time, it has nothing to turn away.
    assert twice["counts"].get("shed", 0) + twice["counts"].get("unsent", 0) > 0
    if workload == "images":
        assert twice["counts"].get("shed", 0) > 0
    assert twice["goodput"] >= KEPT * service["peak_goodput"], service["levels"]
