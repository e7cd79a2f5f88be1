"""``bench/client.py`` runs from end to end on a small scale, and what it measures is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.slow
def test_the_clients_are_measured(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow, which reads the network, is not installed")
    small = ["--rounds", "1", "--seconds", "0.2", "--items", "200", "--concurrency", "2", "--out", str(tmp_path)]
    ways = ["--ways", "requests", "aiohttp", "Scoring", "Async", "Aks", "MLC"]  # without what needs another environment
    command = [sys.executable, str(BENCH / "client.py"), *small, *ways]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    if "skipped:" in done.stdout:
        pytest.skip(done.stdout.strip())
    found = json.loads((tmp_path / "client.json").read_text())
    unavailable = [one["unavailable"] for one in found["calls"] if one["unavailable"]]
    assert set(unavailable) <= {"azure.ai.ml is not installed here: make setup"}
    cells = [cell for one in found["calls"] for cell in one["cells"]]
    assert len(cells) + len(unavailable) == len(found["calls"]) == 15
    assert all(cell["per_second"] > 0 and cell["wrong"] == 0 for cell in [*cells, *found["bulk"]])
    assert {body["way"] for body in found["bodies"]} == {
        "tutorial",
        "json",
        "orjson",
        "ours, JSON",
        "ours, npy",
        "ours, bytes",
    }
    assert found["overhead"]["score"] > 0
    assert "| ScoringClient | npy |" in (tmp_path / "client.md").read_text()
