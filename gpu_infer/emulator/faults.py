"""Faults on any call, and the log of all calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from .failures import NAMES, failure

__all__ = ["Fault", "FaultKind", "Faults", "Log", "LoggedRequest"]

FaultKind = Literal["status", "hang", "reset_before", "reset_after", "fail_operation", "call_before", "call_after"]


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One call to the emulator.

    Attributes:
        number: counts from 1 and goes on when the log is cleared.
        operation: for instance ``"compute.create"``; ``"unmatched"`` for a path that the emulator does not know.
        method: in capitals.
        path: decoded, without the query.
        query: the last value of each name.
        body: parsed JSON; the number of bytes for blobs and scoring; ``None`` for anything else.
        status: of the answer, also of one that a fault kept from arriving; ``None`` until there is one.
        fault: the kinds of the faults that acted, joined by ``"+"``.
    """

    number: int
    operation: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Any = None
    status: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """What shall go wrong, on which calls, how often.

    Attributes:
        operation: name of the calls it acts on; ``*`` stands for any text.
        kind: ``"status"`` answers with ``status`` and does nothing. ``"hang"`` waits ``seconds`` and then does the
            work. ``"reset_before"`` breaks the connection instead of doing the work, ``"reset_after"`` does the work
            and breaks the connection instead of answering. ``"fail_operation"`` lets the call succeed and the long
            operation that it begins fail with ``error``. ``"call_before"`` and ``"call_after"`` call ``call`` before
            the work, and between the work and the answer.
        status: of a ``"status"`` fault.
        retry_after: its ``Retry-After`` header.
        body: its JSON body; without one, the service's own shape for that status.
        seconds: how long a ``"hang"`` lasts. It ends early, without work and answer, when the emulator stops.
        skip: so many matching calls go through first.
        times: on how many it then acts; ``None``: on all.
        call: gets the request as logged so far. What it raises ends up in :attr:`Emulator.errors` and breaks the
            connection.
        error: code, message and the like, or one of Azure's failures of deployments by its name: ``"OutOfQuota"``,
            ``"OutOfCapacity"``, ``"ImageBuildFailure"``, ``"ResourceNotReady"``, ``"InternalServerError"``. The code
            ``DeploymentTimedOut`` ends the operation as timed out, ``Canceled`` as cancelled, any other as failed.
    """

    operation: str = "*"
    kind: FaultKind = "status"
    status: int = 500
    retry_after: str | None = None
    body: Mapping[str, Any] | None = None
    seconds: float = 3600.0
    skip: int = 0
    times: int | None = 1
    call: Callable[[LoggedRequest], None] | None = None
    error: Mapping[str, Any] | str | None = None

    def __post_init__(self) -> None:
        """Refuse a fault that could never act.

        Raises:
            ValueError: an unknown kind, or ``call`` is missing.
        """
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"There is no kind of fault {self.kind!r}. There are: {', '.join(get_args(FaultKind))}.")
        if isinstance(self.error, str) and self.error not in NAMES:
            raise ValueError(f"No failure is named {self.error!r}. There are: {', '.join(NAMES)}; or give a mapping.")
        if self.kind in ("call_before", "call_after") and self.call is None:
            raise ValueError(f"A fault of kind {self.kind!r} needs call=, the function to call.")

    @property
    def failure(self) -> Mapping[str, Any]:
        """The error with which an operation is to end."""
        if isinstance(self.error, str):
            return failure(self.error)
        message = "An internal server error occurred."
        return self.error or {"code": "InternalServerError", "statusCode": 500, "message": message}


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0


@dataclass(slots=True)
class Faults:
    """The faults of one emulator, and how often each has been met."""

    known: frozenset[str]
    _armed: list[_Armed] = field(default_factory=list[_Armed])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Arm a fault.

        Raises:
            ValueError: no call of the emulator has such a name.
        """
        if not any(fnmatchcase(name, fault.operation) for name in self.known):
            raise ValueError(
                f"No operation is named {fault.operation!r}, so this fault would never act. There are: "
                f"{', '.join(sorted(self.known))}."
            )
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed.clear()

    def meet(self, operation: str) -> list[Fault]:
        """The faults that act on this call, in the order they were added; each match is counted."""
        acting: list[Fault] = []
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                if not fnmatchcase(operation, fault.operation):
                    continue
                armed.seen += 1
                nth = armed.seen - fault.skip
                if nth > 0 and (fault.times is None or nth <= fault.times):
                    acting.append(fault)
        return acting


class Log:
    """All calls, in the order they came in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[int, LoggedRequest] = {}
        self._last = 0

    def number(self) -> int:
        """A number for the next call."""
        with self._lock:
            self._last += 1
            return self._last

    def put(self, entry: LoggedRequest) -> None:
        """Note a call, or how it went on."""
        with self._lock:
            self._entries[entry.number] = entry

    def answered(self, number: int, status: int | None) -> None:
        """Note the status of an answer. A call that was cleared from the log meanwhile stays cleared."""
        with self._lock:
            if number in self._entries:
                self._entries[number] = replace(self._entries[number], status=status)

    def entries(self) -> list[LoggedRequest]:
        """A copy."""
        with self._lock:
            return [entry for _, entry in sorted(self._entries.items())]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()


def kinds(faults: Iterable[Fault]) -> str:
    """For the log."""
    return "+".join(fault.kind for fault in faults)
