"""Whole calls: a process for each way to call, each of which has its turn in every round."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _serving.environments import python_of
from _serving.processes import NotAvailableError, stop
from _serving.workloads import Assets

from .ways import ASYNC, SYNC, Form, Target

HERE = Path(__file__).parent
START_SECONDS = 120

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One way to call one target.

    Args:
        door: ``"service"``: a local one. ``"aks"``, ``"online"``: those of the emulator.
        way: of ``ways.py``.
        form: what it sends.
        environment: of ``_serving/requirements``; empty for this process's own.
        needs: a module that must be there: it makes the door, or calls.
    """

    door: str
    way: str
    form: Form
    environment: str = ""
    needs: str = ""


DOORS = {
    "service": "A service on this machine",
    "aks": "An AKS web service of the emulator, which checks the key",
    "online": "An online endpoint of the emulator, which checks the key",
}
ENTRANTS: tuple[Entrant, ...] = (
    Entrant("service", "requests.post", "json"),
    Entrant("service", "requests.Session", "json"),
    Entrant("service", "requests.Session", "npy"),
    Entrant("service", "ScoringClient", "json"),
    Entrant("service", "ScoringClient", "npy"),
    Entrant("service", "httpx", "json", environment="httpx"),
    Entrant("service", "httpx", "npy", environment="httpx"),
    Entrant("service", "aiohttp", "json"),
    Entrant("service", "aiohttp", "npy"),
    Entrant("service", "AsyncScoringClient", "json"),
    Entrant("service", "AsyncScoringClient", "npy"),
    Entrant("aks", "requests.Session", "json", needs="azureml.core"),
    Entrant("aks", "AksWebservice.run", "json", needs="azureml.core"),
    Entrant("aks", "ScoringClient", "json", needs="azureml.core"),
    Entrant("online", "requests.Session", "json", needs="azure.ai.ml"),
    Entrant("online", "MLClient.invoke", "json", needs="azure.ai.ml"),
    Entrant("online", "ScoringClient", "json", needs="azure.ai.ml"),
)
assert {entrant.way for entrant in ENTRANTS} == {*SYNC, *ASYNC}

BULK = (
    ("requests.post in a loop", 20),
    ("requests.Session in a loop", 10),
    ("ScoringClient.score_many", 1),
    ("AsyncScoringClient.score_many", 1),
)
"""Ways with many rows, and by how much fewer rows each gets: the rate of a loop does not depend on their number."""


@dataclass(slots=True)
class Result:
    """What has been measured of one entrant.

    Args:
        door, way, form: of the entrant.
        unavailable: why there is nothing; empty where there is something.
        cells: per concurrency, one for each round.
    """

    door: str
    way: str
    form: str
    unavailable: str = ""
    cells: dict[int, list[dict[str, float]]] = field(default_factory=dict[int, list[dict[str, float]]])

    def as_json(self) -> dict[str, Any]:
        """For the file: medians, wrong answers added up, and the rounds."""
        cells = [{"concurrency": level, **_medians(rounds), "rounds": rounds} for level, rounds in self.cells.items()]
        return {**asdict(self), "cells": cells}


class Process:
    """One way, in a process that waits for orders."""

    def __init__(self, way: str, form: str, target: Target, assets: Assets, python: Path) -> None:
        told = {"way": way, "form": form, **asdict(target)}
        told |= {"rows": str(assets.folder / "rows.npy"), "expected": str(assets.folder / "logits.npy")}
        self._log = assets.folder / f"{way}-{form}-{target.name or 'service'}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), str(HERE / "caller.py"), json.dumps(told)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def order(self, **what: Any) -> dict[str, float]:
        """Have it do something, and wait for that.

        Raises:
            NotAvailableError: it ended instead; with the end of what it wrote.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            written = self._log.read_text("utf-8", "replace").strip().splitlines()
            raise NotAvailableError(written[-1][-300:] if written else "it ended and wrote nothing")
        return json.loads(line)

    def stop(self) -> None:
        """End it."""
        stop(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def measure(
    entrants: Sequence[Entrant],
    targets: dict[str, Target],
    assets: Assets,
    *,
    rounds: int,
    seconds: float,
    concurrency: Sequence[int],
    say: Say,
) -> list[Result]:
    """Every entrant once per round and concurrency, and each round begins with the next one."""
    results = [Result(entrant.door, entrant.way, entrant.form) for entrant in entrants]
    with contextlib.ExitStack() as stack:
        running: list[tuple[Result, Process]] = []
        for entrant, result in zip(entrants, results, strict=True):
            try:
                python = python_for(entrant)
                made = Process(entrant.way, entrant.form, targets[entrant.door], assets, python)
                stack.callback(made.stop)
                made.order(concurrency=1, seconds=0.2)  # its imports, and the service's first answers
                running.append((result, made))
            except NotAvailableError as error:
                result.unavailable = str(error)
                say(f"  {entrant.way}: not available: {error}")
        for number in range(rounds):
            for result, made in _beginning_with(running, number):
                for level in concurrency:
                    cell = made.order(concurrency=level, seconds=seconds)
                    result.cells.setdefault(level, []).append(cell)
            say(f"  round {number + 1} of {rounds}: calls")
    return results


def measure_bulk(target: Target, assets: Assets, *, rounds: int, items: int, say: Say) -> list[dict[str, Any]]:
    """Many rows, as the tutorials would and as ours do; rows per second."""
    cells: dict[str, list[dict[str, float]]] = {way: [] for way, _ in BULK}
    with contextlib.ExitStack() as stack:
        running: list[tuple[str, int, Process]] = []
        for way, divisor in BULK:
            made = Process(way, "npy", target, assets, Path(sys.executable))
            stack.callback(made.stop)
            made.order(items=64)
            running.append((way, max(1, items // divisor), made))
        for number in range(rounds):
            for way, count, made in _beginning_with(running, number):
                cells[way].append({"items": count, **made.order(items=count)})
            say(f"  round {number + 1} of {rounds}: {items:,} rows")
    base = statistics.median(cell["per_second"] for cell in cells[BULK[0][0]])
    return [
        {"way": way, **_medians(rounds), "times": _medians(rounds)["per_second"] / base}
        for way, rounds in cells.items()
    ]


def python_for(entrant: Entrant) -> Path:
    """The interpreter of an entrant.

    Raises:
        NotAvailableError: what it needs is not there.
    """
    if entrant.needs and not is_there(entrant.needs):
        raise NotAvailableError(f"{entrant.needs} is not installed here: make setup")
    return python_of(entrant.environment) if entrant.environment else Path(sys.executable)


def is_there(module: str) -> bool:
    """Whether a module can be imported here."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False


@contextlib.contextmanager
def emulated(model: Path, folder: Path) -> Iterator[dict[str, Target]]:
    """Both doors of an emulator in a process of its own.

    Raises:
        NotAvailableError: it did not start.
    """
    folder.mkdir()
    log = folder / "emulated.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "emulated.py"), str(model), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            line = process.stdout.readline()
            if not line:
                written = log.read_text("utf-8", "replace").strip().splitlines()
                raise NotAvailableError(written[-1][-300:] if written else "the emulator ended and wrote nothing")
            said = json.loads(line)
            yield {door: Target(**one, emulator=said["emulator"]) for door, one in said["doors"].items()}
            process.stdin.close()
            process.wait(START_SECONDS)
        finally:
            stop(process)


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    found = {name: statistics.median(cell[name] for cell in rounds) for name in rounds[0]}
    return {**found, "wrong": sum(cell["wrong"] for cell in rounds)}


def _beginning_with(all_of_them: list[Any], number: int) -> list[Any]:
    start = number % max(1, len(all_of_them))
    return [*all_of_them[start:], *all_of_them[:start]]
