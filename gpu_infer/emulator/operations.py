"""Long operations: what is begun by one call and ends some polls, or seconds, later."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

__all__ = ["Operation", "Operations", "Outcome", "Pending", "Polling", "Transition"]

Polling = Literal["azure", "async-operation", "location", "resource"]
"""Where the client of a long operation of an online endpoint is told to look: see ``Emulator``."""

Outcome = Mapping[str, Any] | None
"""The error an operation ends with, or ``None``: it succeeded."""


@dataclass(frozen=True, slots=True)
class Transition:
    """When a long operation may end: at once, after it was looked at some times, or after some seconds."""

    polls: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what can never be meant."""
        if self.polls < 0 or self.seconds < 0:
            raise ValueError(f"A transition cannot take {self.polls} polls or {self.seconds} s: give 0 or more.")

    @classmethod
    def at_once(cls) -> Transition:
        """The first look finds it ended."""
        return cls()

    @classmethod
    def after_polls(cls, number: int) -> Transition:
        """So many looks find it running. A look is a GET of the operation or of the resource itself.

        ``ComputeTarget.create`` and ``Model.deploy`` look once themselves, right after the call that creates.
        """
        return cls(polls=number)

    @classmethod
    def after_seconds(cls, seconds: float) -> Transition:
        """It runs for so many seconds, however often one looks."""
        return cls(seconds=seconds)


class Pending(Exception):  # noqa: N818 (not a failure)
    """Raised by ``finish`` when what the operation waits for is not there yet."""


@dataclass(slots=True)
class Operation:
    """One long operation.

    Attributes:
        kind: name of the call that began it, for instance ``"compute.create"``.
        finish: called once the transition is over, until it no longer raises :class:`Pending`: does the work that
            ends the operation, and returns its error.
        result: what there is to see of what it was about; ``None``: nothing.
    """

    kind: str
    transition: Transition
    finish: Callable[[], Outcome]
    result: Callable[[], Mapping[str, Any]] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.monotonic)
    created: float = field(default_factory=time.time)
    ended: float | None = None
    polls: int = 0
    error: Outcome = None
    canceled: bool = False

    @property
    def state(self) -> str:
        """``Running``, ``Succeeded``, ``Failed``, ``TimedOut`` or ``Canceled``."""
        if self.canceled:
            return "Canceled"
        if self.ended is None:
            return "Running"
        if self.error is None:
            return "Succeeded"
        code = str(self.error.get("code", ""))
        return {"DeploymentTimedOut": "TimedOut", "Canceled": "Canceled", "Cancelled": "Canceled"}.get(code, "Failed")

    def look(self) -> str:
        """Count a look, end the operation if it is due, and return the state."""
        if self.ended is None and not self.canceled:
            self.end_if_due()
            self.polls += 1
        return self.state

    def end_if_due(self) -> None:
        """End it, if it ran long enough and nothing overtook it."""
        passed = time.monotonic() - self.started >= self.transition.seconds
        if self.state == "Running" and passed and self.polls >= self.transition.polls:
            self.end()

    def end(self) -> None:
        """End it now, if what it waits for is there."""
        try:
            self.error = self.finish()
        except Pending:
            return
        self.ended = time.time()

    def cancel(self) -> None:
        """Another call overtook it."""
        if self.ended is None:
            self.canceled = True


class Operations:
    """All operations of one emulator, and how long each kind takes."""

    def __init__(self, transitions: Mapping[str, Transition] | Transition) -> None:
        self._transitions = {"*": transitions} if isinstance(transitions, Transition) else dict(transitions)
        self._all: dict[str, Operation] = {}
        self._running: list[Operation] = []

    def begin(
        self, kind: str, finish: Callable[[], Outcome], result: Callable[[], Mapping[str, Any]] | None = None
    ) -> Operation:
        """Begin an operation of this kind; see :class:`Operation` for ``finish`` and ``result``."""
        operation = Operation(kind, self.transition(kind), finish, result)
        self._all[operation.id] = operation
        self._running.append(operation)
        return operation

    def transition(self, kind: str) -> Transition:
        """How long operations of this kind take."""
        return next((value for glob, value in self._transitions.items() if fnmatchcase(kind, glob)), Transition())

    def end_due(self) -> None:
        """End what ran long enough, whether anybody looks or not: in Azure such things end by themselves."""
        for operation in self._running:
            operation.end_if_due()
        self._running = [operation for operation in self._running if operation.state == "Running"]

    def find(self, number: str) -> Operation | None:
        """The operation of this id."""
        return self._all.get(number)
