"""Who is measured: a contender starts a server for a workload and knows how to ask it, or runs the model in a loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from .environments import python_of
from .processes import Server, free_port, serve
from .questions import Question
from .workloads import HERE, Assets, Workload
from .wrk import Load


class HasFolder(Protocol):
    """What servers and questions are made from; differs between the scripts."""

    @property
    def folder(self) -> Path:
        """Of this run, temporary."""
        ...


A = TypeVar("A", bound=HasFolder)


@dataclass(frozen=True, slots=True)
class Contender(Generic[A]):
    """A server that is measured through HTTP.

    Args:
        name: groups are joined with dashes; a prefix selects the group.
        settings: what it was given, in a line.
        start: starts it; the path is where its log goes.
        ask: what is sent to it.
        lacks: by workload that it cannot take, why.
    """

    name: str
    settings: str
    start: Callable[[Workload, A, Path], AbstractContextManager[Server]]
    ask: Callable[[Workload, A], Question]
    lacks: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Loop(Generic[A]):
    """The model in a loop, without a server: what the machine itself can do.

    Args:
        name, settings, lacks: as of a contender.
        measure: runs it for some seconds in a process of its own.
    """

    name: str
    settings: str
    measure: Callable[[Workload, A, float], Load]
    lacks: Mapping[str, str] = field(default_factory=dict[str, str])


Entrant = Contender[A] | Loop[A]


def chosen(entrants: Iterable[Entrant[A]], prefixes: Iterable[str]) -> list[Entrant[A]]:
    """The entrants whose names are, or start with, one of the names; all where no name is given.

    Raises:
        SystemExit: a name that nobody has.
    """
    known, wanted = list(entrants), list(prefixes)
    for prefix in wanted:
        if not any(_matches(entrant.name, prefix) for entrant in known):
            raise SystemExit(f"There is no contender {prefix!r}; there are: {', '.join(one.name for one in known)}")
    return [one for one in known if not wanted or any(_matches(one.name, prefix) for prefix in wanted)]


def in_environment(
    environment: str, script: str, *, health: str = "/", variables: dict[str, str] | None = None
) -> Callable[[Workload, Assets, Path], AbstractContextManager[Server]]:
    """Starts ``servers/SCRIPT`` with the Python of a virtual environment; it reads ``BENCH_*`` variables."""

    def start(workload: Workload, assets: Assets, log: Path) -> AbstractContextManager[Server]:
        port = free_port()
        told = {
            "BENCH_MODEL": str(assets.model(workload)),
            "BENCH_PORT": str(port),
            "BENCH_WORKLOAD": workload.name,
            "BENCH_CORES": str(os.cpu_count() or 1),
            "BENCH_FOLDER": str(assets.folder),
            **(variables or {}),
        }
        command = [str(python_of(environment)), str(HERE / "servers" / script)]
        return serve(command, port=port, log=log, health=health, environment=told)

    return start


def _matches(name: str, prefix: str) -> bool:
    """Whether a name is in a group: ``ours-onnx`` takes ``ours-onnx-1``, ``ray`` not ``raytrace``."""
    return name == prefix or name.startswith(f"{prefix.rstrip('-')}-")
