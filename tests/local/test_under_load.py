"""Many requests: each gets its own answer, whatever the number of workers and clients."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import gpu_infer

CLIENTS = Path(__file__).parents[1] / "support" / "clients.py"


def load(uri: str, *, processes: int, clients: int, requests: int) -> Counter[str]:
    """What became of the requests of several processes of clients."""
    port = str(urlsplit(uri).port)
    command = [sys.executable, str(CLIENTS), port, str(clients), str(requests // processes)]
    running = [
        subprocess.Popen([*command, str(number * requests)], stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    total: Counter[str] = Counter()
    for process in running:
        out, _ = process.communicate(timeout=1000)
        assert process.returncode == 0
        total.update(json.loads(out))
    return total


@pytest.mark.parametrize("workers", [1, 2])
def test_each_gets_its_own_answer(tiny_model: Path, workers: int) -> None:
    with gpu_infer.deploy(tiny_model, workers=workers) as service:
        assert load(service.scoring_uri, processes=2, clients=20, requests=4000) == {"right": 4000}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("workers", "environment"), [(1, {}), (2, {}), (2, {"GPU_INFER_MAX_CONCURRENCY": "40"})])
def test_200_000_requests_get_each_their_own_answer(
    tiny_model: Path, workers: int, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with gpu_infer.deploy(tiny_model, workers=workers, environment_variables=environment) as service:
        outcomes = load(service.scoring_uri, processes=2, clients=64, requests=2 * 64 * 1600)
        stats = service.stats()
    with capsys.disabled():
        print(f"\nworkers={workers} {environment}: {dict(outcomes)}")
    assert sum(outcomes.values()) == 204_800, "none is lost"
    assert set(outcomes) == ({"right", "503"} if environment else {"right"})
    assert stats["items"] == outcomes["right"]
