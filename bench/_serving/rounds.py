"""The measurement: every round runs every contender once, in turn, so that what the machine does meets all of them."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from .contenders import A, Contender, Entrant, Loop
from .network import inside
from .processes import NotAvailableError, Server
from .questions import Question
from .workloads import Workload
from .wrk import Load, run_wrk, write_script

IDLE_LIMIT = 0.03
"""Share of a core. A server that uses more while nobody asks is stopped between its turns."""

WARM_UP_SECONDS = 1.0
NO_CONCURRENCY = 0
"""The row of a loop, which has no connections."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is measured.

    Args:
        rounds: how often each contender has its turn.
        seconds: per contender, concurrency and round, after a second of warm-up.
        concurrency: numbers of connections.
        device_mb: tells how much of the GPU's memory is in use, in MB.
    """

    rounds: int
    seconds: float
    concurrency: tuple[int, ...]
    device_mb: Callable[[], float] = lambda: 0.0


@dataclass(slots=True)
class Result:
    """What has been found out about a contender.

    Args:
        name, settings: of the contender.
        unavailable: why there is nothing; empty where there is something.
        loads: per concurrency, one for each round.
        memory_mb, device_mb, idle_cpu: of its processes, after the first turn.
    """

    name: str
    settings: str
    unavailable: str = ""
    loads: dict[int, list[Load]] = field(default_factory=dict[int, list[Load]])
    memory_mb: float | None = None
    device_mb: float = 0.0
    idle_cpu: float | None = None

    def median(self, concurrency: int) -> Load:
        """The medians over the rounds; errors are added up."""
        loads = self.loads[concurrency]
        return Load(
            per_second=statistics.median(load.per_second for load in loads),
            p50_ms=statistics.median(load.p50_ms for load in loads),
            p99_ms=statistics.median(load.p99_ms for load in loads),
            errors=sum(load.errors for load in loads),
            note=loads[-1].note,
        )


class _Turn(Generic[A]):
    """A contender over all rounds: its server, which stays up between the rounds where it is quiet."""

    def __init__(self, entrant: Entrant[A], workload: Workload, assets: A) -> None:
        self.result = Result(entrant.name, entrant.settings)
        self._entrant, self._workload, self._assets = entrant, workload, assets
        self._up = contextlib.ExitStack()
        self._server: Server | None = None
        self._folder = assets.folder / f"{workload.name}-{entrant.name}"
        self.result.unavailable = entrant.lacks.get(workload.name, "")

    def take(self, plan: Plan) -> None:
        """Measure once."""
        if self.result.unavailable:
            return
        try:
            if isinstance(self._entrant, Loop):
                load = self._entrant.measure(self._workload, self._assets, plan.seconds)
                self.result.loads.setdefault(NO_CONCURRENCY, []).append(load)
            else:
                self._measure(self._entrant, plan)
        except Exception as error:  # noqa: BLE001 - whatever one server does, the others have their turn
            kind = "" if isinstance(error, NotAvailableError) else f"{type(error).__name__}: "
            self.result.unavailable = kind + " ".join(str(error).split())
            self.close()

    def _measure(self, contender: Contender[A], plan: Plan) -> None:
        question = contender.ask(self._workload, self._assets)
        before = plan.device_mb()
        server = self._server or self._start(contender, question)
        script = self._folder / "load" / "load.lua"
        for concurrency in plan.concurrency:
            with inside(server.network):
                run_wrk(server.port, script, concurrency=concurrency, seconds=WARM_UP_SECONDS)
                question.settle(server.port)
                load = run_wrk(server.port, script, concurrency=concurrency, seconds=plan.seconds)
            self.result.loads.setdefault(concurrency, []).append(load)
        if self.result.idle_cpu is None:
            with inside(server.network):
                question.settle(server.port)
            self.result.memory_mb = server.memory_mb()
            self.result.device_mb = plan.device_mb() - before
            self.result.idle_cpu = server.idle_cpu()
        if self.result.idle_cpu > IDLE_LIMIT:
            self.close()

    def _start(self, contender: Contender[A], question: Question) -> Server:
        """Start the server and see that its answers are right."""
        self._folder.mkdir(exist_ok=True)
        if not (self._folder / "load").exists():
            write_script(question, self._folder / "load")
        server = self._up.enter_context(contender.start(self._workload, self._assets, self._folder / "log.txt"))
        with inside(server.network):
            problem = question.check(server.port)
        if problem:
            raise NotAvailableError(f"wrong answer: {problem}")
        self._server = server
        return server

    def close(self) -> None:
        """Stop the server."""
        self._server = None
        self._up.close()


@contextlib.contextmanager
def _turns(entrants: Sequence[Entrant[A]], workload: Workload, assets: A) -> Iterator[list[_Turn[A]]]:
    turns = [_Turn(entrant, workload, assets) for entrant in entrants]
    with contextlib.ExitStack() as stack:
        for turn in turns:
            stack.callback(turn.close)
        yield turns


def measure(
    entrants: Sequence[Entrant[A]], workload: Workload, assets: A, plan: Plan, *, say: Callable[[str], None]
) -> list[Result]:
    """Measure all entrants on a workload, in rounds; the one who begins changes from round to round."""
    with _turns(entrants, workload, assets) as turns:
        for number in range(plan.rounds):
            for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
                turn.take(plan)
                say(f"  round {number + 1} of {plan.rounds}: {turn.result.name}: {_told(turn.result)}")
    return [turn.result for turn in turns]


def _told(result: Result) -> str:
    if result.unavailable:
        return f"not available: {result.unavailable}"
    return ", ".join(
        f"{loads[-1].per_second:,.0f}/s" + (f" at {concurrency}" if concurrency else "")
        for concurrency, loads in result.loads.items()
    )
