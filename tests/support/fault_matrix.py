"""The fault matrix: every request of a deployment, an update and a deletion, broken in every way, one at a time.

A cell is one request and one way to break it. A process of its own deploys (or updates, or deletes) against an emulator
of its own that breaks this request and, in the lasting kinds, all later ones of its operation. Afterwards each billed
resource that exists must be named by the ledger or by tags. Once the fault is over, ``sweep(workspace)`` as it is
called without more must remove everything, but for a deployment that ``deploy()`` has handed over and nobody has begun
to delete: that must stay, until ``older_than=0`` takes it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clouds import AKS, Cloud

from gpu_infer.emulator import Emulator, Fault, LoggedRequest
from gpu_infer.ledger import Ledger

STATUSES = (401, 403, 404, 409, 429, 500, 503)
KINDS = (
    *(f"status {status}" for status in STATUSES),
    "hang",
    "reset before",
    "reset after",
    "killed before",
    "killed after",
    "failed",
)
"""``failed``: the request succeeds, and the long operation that it begins fails; where the cloud has such."""

ONCE = ("status 500", "status 503", "reset before", "reset after")
"""Also tried on one request alone, where it changes something: then the SDK sends it a second time."""

CALL_SECONDS = 4.0
"""What one call of the SDK may take in a cell: a hang is noticed, and the SDK's long retries are cut short."""


@dataclass(frozen=True)
class Cell:
    """One request of a job, and how it is broken.

    Args:
        job: ``deploy``, ``update`` or ``delete``.
        operation: the emulator's name of the request.
        occurrence: how many of that operation come before it.
        kind: one of ``KINDS``.
        once: whether later requests of the operation are answered again.
    """

    job: str
    operation: str
    occurrence: int
    kind: str
    once: bool = False

    def __str__(self) -> str:
        return f"{self.job}: {self.operation}#{self.occurrence} {self.kind}{' once' if self.once else ''}"


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Args:
        cell: it.
        result: ``ok``, ``typed``, ``untyped`` or ``killed``.
        error: the type raised, and its text.
        billed: clusters or deployments that existed afterwards.
        unrecorded: those of them that neither ledger nor tags name.
        left: what existed after the sweep and should not.
        lost: what the sweep has removed and should not.
    """

    cell: Cell
    result: str
    error: str
    billed: tuple[str, ...]
    unrecorded: tuple[str, ...]
    left: tuple[str, ...]
    lost: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the promise held."""
        ended = "killed" if self.cell.kind.startswith("killed") else "typed"
        return self.result in ("ok", ended) and not self.unrecorded and not self.left and not self.lost


class Zygote:
    """A process with the SDK of a cloud imported, which forks one for each job."""

    def __init__(self, cloud: Cloud = AKS) -> None:
        self.cloud = cloud
        short = {f"AZUREML_DEFAULT_{name}": "0" for name in ("BACKOFF", "500_BACKOFF", "503_BACKOFF")}
        environment = {**os.environ, **short}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("_zygote.py")), cloud.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read()

    def run(self, started: Callable[[int], None] | None = None, **job: Any) -> dict[str, Any]:
        """Run a job to its end.

        Args:
            started: gets the pid of its process.
            job: ``action``, ``url``, ``home``, ...
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        pid = self._read()["pid"]
        if started is not None:
            started(pid)
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote has ended")
        return json.loads(line)


class Scene:
    """One emulator with a registered model, one ledger, and jobs that run against them."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.zygote = zygote
        self.cloud = zygote.cloud
        self.home = folder
        self.pid = 0
        self.emulator = Emulator(run_services=False, transitions=self.cloud.transitions)

    def __enter__(self) -> Self:
        self.emulator.start()
        self.cloud.register(self.emulator)
        self.emulator.clear_log()
        return self

    def __exit__(self, *_: object) -> None:
        self.emulator.stop()

    @property
    def begun(self) -> bool:
        """Whether the job has come to what it is about: the deletion, or the update."""
        return (self.home / "begun").exists()

    def run(self, action: str, *, before: Callable[[], None] | None = None, **job: Any) -> dict[str, Any]:
        """Run a job to its end.

        Args:
            action: name of the job.
            before: called when an ``update`` has deployed what it is to update.
            job: its options.
        """

        def started(pid: int) -> None:
            self.pid = pid
            if before is not None:
                self._wait_until_begun()
                before()
                (self.home / "go").touch()

        return self.zygote.run(started, action=action, url=self.emulator.url, home=str(self.home), **job)

    def _wait_until_begun(self) -> None:
        end = time.monotonic() + 60
        while not self.begun:
            if time.monotonic() > end:
                raise TimeoutError("the job has not begun")
            time.sleep(0.005)

    def kill(self, _: LoggedRequest) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def there(self) -> set[str]:
        """Names of the services that exist, and of all that is billed."""
        return {*self.emulator.billed(), *self.cloud.services(self.emulator)}

    def recorded(self) -> set[str]:
        """Names of what is billed in the ledger or in tags."""
        self.home.mkdir(parents=True, exist_ok=True)
        entries = Ledger(self.home / "ledger.sqlite3").entries(self.cloud.billed)
        return {*(entry.name for entry in entries), *self.cloud.tagged(self.emulator)}


def requests_of(zygote: Zygote, job: str, folder: Path) -> list[tuple[str, int]]:
    """The control-plane requests of a job that nothing disturbs: operation, and how many of it came before."""
    with Scene(zygote, folder) as scene:
        if job == "delete":
            assert scene.run("deploy")["outcome"] == "ok"
            scene.emulator.clear_log()
        answer = scene.run(job, before=scene.emulator.clear_log if job == "update" else None)
        assert answer["outcome"] == "ok", answer
        seen: Counter[str] = Counter()
        found: list[tuple[str, int]] = []
        for request in scene.emulator.requests:
            found.append((request.operation, seen[request.operation]))
            seen[request.operation] += 1
        own = ("workspace.get", 0) if zygote.cloud is AKS else ()
        return [one for one in found if one != own]  # made by the user's own Workspace()


def cells(
    job: str, requests: Iterable[tuple[str, int]], changing: Callable[[str], bool], cloud: Cloud = AKS
) -> list[Cell]:
    """All cells of a job."""
    found: list[Cell] = []
    for operation, occurrence in requests:
        kinds = [kind for kind in KINDS if kind != "failed" or operation in cloud.long]
        found += [Cell(job, operation, occurrence, kind) for kind in kinds]
        if changing(operation):
            found += [Cell(job, operation, occurrence, kind, once=True) for kind in ONCE]
    return found


def changes(operation: str) -> bool:
    """Whether an operation changes something in Azure."""
    return operation.rpartition(".")[2] in ("create", "update", "delete", "detach", "put", "register")


def every_cell(cloud: Cloud, jobs: Iterable[str], folder: Path) -> list[Cell]:
    """All cells of some jobs."""
    zygote = Zygote(cloud)
    found: list[Cell] = []
    try:
        for job in jobs:
            (folder / job).mkdir()
            found += cells(job, requests_of(zygote, job, folder / job), changes, cloud)
    finally:
        zygote.close()
    return found


def play(cell: Cell, zygote: Zygote) -> Outcome:
    """Run one cell."""
    with tempfile.TemporaryDirectory() as folder, Scene(zygote, Path(folder)) as scene:
        if cell.job == "delete":
            answer = scene.run("deploy")
            assert answer["outcome"] == "ok", answer

        def arm() -> None:
            scene.emulator.add_fault(fault_of(cell, scene))

        if cell.job != "update":
            arm()
        answer = scene.run(cell.job, timeout=CALL_SECONDS, before=arm if cell.job == "update" else None)
        begun = scene.begun
        scene.emulator.clear_faults()
        billed = tuple(scene.emulator.billed())
        unrecorded = tuple(sorted(set(billed) - scene.recorded()))
        # An update that is broken leaves the service in use, whatever it serves.
        in_use = {"deploy": answer["outcome"] == "ok", "delete": not begun, "update": True}[cell.job]
        swept = scene.run("sweep")
        wanted = zygote.cloud.in_use(scene.emulator) if in_use else set[str]()
        there = scene.there()
        if in_use and swept["outcome"] == "ok":
            swept = scene.run("sweep", older_than=0)
        left = [*sorted(there - wanted), *(scene.there() if in_use else ())]
        if swept["outcome"] != "ok":
            left.append(f"sweep: {swept}")
        pieces = (f"{answer['type']}:", answer["text"], answer.get("notes", "")) if "type" in answer else ()
        error = " ".join(pieces)
        lost = tuple(sorted(wanted - there))
        return Outcome(cell, answer["outcome"], error, billed, unrecorded, tuple(left), lost)


def fault_of(cell: Cell, scene: Scene) -> Fault:
    common: dict[str, Any] = {
        "operation": cell.operation,
        "skip": cell.occurrence,
        "times": 1 if cell.once else None,
    }
    if cell.kind.startswith("status"):
        return Fault(kind="status", status=int(cell.kind.split()[1]), **common)
    if cell.kind.startswith("killed"):
        kind = "call_before" if cell.kind.endswith("before") else "call_after"
        return Fault(kind=kind, call=scene.kill, **{**common, "times": 1})
    if cell.kind == "hang":
        return Fault(kind="hang", seconds=60, **common)
    if cell.kind == "failed":
        return Fault(kind="fail_operation", error="InternalServerError", **common)
    return Fault(kind="reset_before" if cell.kind.endswith("before") else "reset_after", **common)


def play_all(
    chosen: list[Cell],
    *,
    cloud: Cloud = AKS,
    at_once: int = 2,
    told: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run cells, some beside each other."""
    zygotes: queue.Queue[Zygote] = queue.Queue()
    for _ in range(at_once):
        zygotes.put(Zygote(cloud))

    def one(cell: Cell) -> Outcome:
        zygote = zygotes.get()
        try:
            outcome = play(cell, zygote)
        finally:
            zygotes.put(zygote)
        if told is not None:
            told(outcome)
        return outcome

    try:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(one, chosen))
    finally:
        while not zygotes.empty():
            zygotes.get().close()


def table(outcomes: list[Outcome]) -> str:
    """How many cells of each kind ended how, in Markdown."""
    lines = [
        "| job | fault | cells | succeeded | typed error | killed | billed left | unrecorded | left after sweep |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for job in dict.fromkeys(outcome.cell.job for outcome in outcomes):
        for kind in KINDS:
            for once in (False, True):
                rows = [o for o in outcomes if (o.cell.job, o.cell.kind, o.cell.once) == (job, kind, once)]
                if not rows:
                    continue
                results = Counter(outcome.result for outcome in rows)
                lines.append(
                    f"| {job} | {kind}{', once' if once else ''} | {len(rows)} | {results['ok']} | {results['typed']} "
                    f"| {results['killed']} | {sum(bool(o.billed) for o in rows)} "
                    f"| {sum(bool(o.unrecorded) for o in rows)} | {sum(bool(o.left) for o in rows)} |"
                )
    total = Counter(outcome.result for outcome in outcomes)
    lines.append(
        f"| **all** | | {len(outcomes)} | {total['ok']} | {total['typed']} | {total['killed']} "
        f"| {sum(bool(o.billed) for o in outcomes)} | {sum(bool(o.unrecorded) for o in outcomes)} "
        f"| {sum(bool(o.left) for o in outcomes)} |"
    )
    return "\n".join(lines)


def write_report(path: Path, outcomes: list[Outcome]) -> None:
    """Put the table into the page, between its two marks."""
    begin, end = "<!-- matrix -->\n", "<!-- /matrix -->"
    text = path.read_text("utf-8")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    path.write_text(f"{head}{begin}{table(outcomes)}\n{end}{tail}", "utf-8")
