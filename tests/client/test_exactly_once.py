"""Each item has exactly one right result, whatever the service does, and however the process ends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gpu_infer.client import AsyncScoringClient, RetryPolicy, ScoringClient
from gpu_infer.client.budget import BUDGET_RESERVE, BUDGET_TRICKLE

SUPPORT = Path(__file__).parents[1] / "support"
GROUP = 4
"""Items in a request: enough requests to meet each fault many times."""

POLICY = RetryPolicy(base=0.01, cap=0.1, attempt_timeout=0.2, idempotent=True)


@dataclass
class Faulty:
    process: subprocess.Popen[str]
    port: int

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/score"

    def report(self) -> dict[str, Any]:
        """Ends it."""
        return json.loads(self.process.communicate(timeout=20)[0])


@pytest.fixture
def faulty() -> Iterator[Callable[[float], Faulty]]:
    started: list[subprocess.Popen[str]] = []

    def start(share: float) -> Faulty:
        command = [sys.executable, str(SUPPORT / "faulty_server.py"), str(share)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return Faulty(process, int(process.stdout.readline()))

    yield start
    for process in started:
        if process.returncode is None:
            process.communicate(timeout=20)  # closes its standard input, which ends it


def items(count: int) -> Iterator[Any]:
    return (np.array([float(number)]) for number in range(count))


def collect(kind: str, uri: str, count: int, ordered: bool, memory: list[int]) -> tuple[list[tuple[int, int]], float]:
    """Index and result of each item as they came, and how many seconds it took."""
    found: list[tuple[int, int]] = []
    process = psutil.Process()

    def take(index: int, result: Any) -> None:
        found.append((index, int(result[0])))
        if len(found) % (count // 10) == 0:
            memory.append(process.memory_info().rss)

    async def run() -> None:
        async with AsyncScoringClient(uri, retries=POLICY) as client:
            await client.score_many(items(count), ordered=ordered, items_per_request=GROUP).for_each(take)

    began = time.monotonic()
    if kind == "async":
        asyncio.run(run())
    else:
        with ScoringClient(uri, retries=POLICY) as client:
            client.score_many(items(count), ordered=ordered, items_per_request=GROUP).for_each(take)
    return found, time.monotonic() - began


def check(faulty: Callable[[float], Faulty], kind: str, count: int, *, ordered: bool) -> None:
    service = faulty(0.2)
    memory: list[int] = []
    found, seconds = collect(kind, service.uri, count, ordered, memory)
    report = service.report()
    indices = [index for index, _ in found]
    assert (indices if ordered else sorted(indices)) == list(range(count))
    assert all(result == 2 * index for index, result in found)
    assert report["items"] == count
    needed = report["different"]
    requests = sum(number for fate, number in report["requests"].items() if fate != "left")
    extra = requests - needed
    allowed = BUDGET_RESERVE + (POLICY.budget or 0.0) * needed + BUDGET_TRICKLE * seconds
    print(f"{kind}: {count:,} items, {needed:,} requests, {extra:,} more of {allowed:,.0f} allowed, {seconds:.1f} s")
    print(report, [f"{size / 2**20:.0f} MiB" for size in memory])
    assert needed * 0.15 < extra <= allowed
    # The list of the results grows by itself: a tuple and two numbers for each.
    grown = memory[-1] - memory[1] - 200 * (count - count // 5)
    assert grown < 16 * 2**20


@pytest.mark.parametrize(
    ("kind", "ordered"), [("sync", True), ("async", False)], ids=["sync, ordered", "async, as they come"]
)
def test_each_item_has_one_right_result_though_a_fifth_of_the_answers_is_none(faulty, kind, ordered):
    check(faulty, kind, 5_000, ordered=ordered)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as they come"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_same_for_a_hundred_thousand(faulty, kind, ordered):
    check(faulty, kind, 100_000, ordered=ordered)


def run_until(command: list[str], stop: int | None) -> list[tuple[int, int]]:
    """Read what the client prints; kill it after so many results, or let it come to its end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found: list[tuple[int, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "end\n":
                break
            index, result = line.split()
            found.append((int(index), int(result)))
            if len(found) == stop:
                process.kill()
                break
        process.stdout.read()
    assert process.returncode == (0 if stop is None else -9)
    return found


def check_kills(faulty: Callable[[float], Faulty], count: int, tmp_path: Path) -> None:
    service = faulty(0.2)
    script = str(SUPPORT / "many_client.py")
    command = [sys.executable, "-u", script, str(service.port), str(count), str(tmp_path / "checkpoint")]
    for stop in (count // 4, count // 2):
        found = run_until(command, stop)
        assert [index for index, _ in found] == list(range(stop))
    found = run_until(command, None)
    assert [index for index, _ in found] == list(range(count))
    assert all(result == 2 * index for index, result in found)
    report = service.report()
    print(f"{count:,} items, two kills: {report}")
    assert report["items"] == count
    # Sent again is at most what was under way or not yet committed, each time: half a second of work.
    assert report["most"] <= 3
    assert report["answered"] < 2 * count


@pytest.mark.slow
def test_after_two_kills_each_item_has_one_right_result(faulty, tmp_path):
    check_kills(faulty, 5_000, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_two_kills_each_of_a_hundred_thousand_has(faulty, tmp_path):
    check_kills(faulty, 100_000, tmp_path)
