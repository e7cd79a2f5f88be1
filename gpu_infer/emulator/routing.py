"""Which handler answers which call, and what the call is named in the log and in faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .state import State
from .wire import Plane, Request, Response

__all__ = ["MMS", "RP", "UNMATCHED", "WORKSPACE", "Route", "Table"]

UNMATCHED = "unmatched"
"""What a call is named that has no route."""

WORKSPACE = (
    "/subscriptions/<sub>/resourceGroups/<rg>/providers/Microsoft.MachineLearningServices/workspaces/<workspace>"
)
RP = f"/rp/workspaces{WORKSPACE}"
MMS = f"/modelmanagement/v1.0{WORKSPACE}"

Handler = Callable[[State, Request], Response]


@dataclass(frozen=True)
class Route:
    """One kind of call.

    Attributes:
        methods: HTTP methods, joined by spaces.
        rule: werkzeug's pattern of the path.
        operation: the call's name. Several joined by spaces where ``name`` chooses.
        handler: answers.
        plane: in whose shape errors are written.
        name: chooses the name by what was sent.
        locked: the handler runs under the state's lock; ``False`` for those that move many bytes or wait.
        signed: the call must carry a bearer token.
        streams: the body goes to a file.
        hidden: neither logged nor subject to faults.
    """

    methods: str
    rule: str
    operation: str
    handler: Handler
    plane: Plane = "mms"
    name: Callable[[State, Request], str] | None = None
    locked: bool = True
    signed: bool = True
    streams: bool = False
    hidden: bool = False

    @property
    def operations(self) -> tuple[str, ...]:
        """All names that calls on this route may get."""
        return tuple(self.operation.split())


class Table:
    """All routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: tuple[Route, ...] = tuple(routes)

    @cached_property
    def operations(self) -> frozenset[str]:
        """The names of all calls that can be logged and faulted."""
        return frozenset(name for route in self.routes if not route.hidden for name in route.operations)

    @cached_property
    def _adapter(self) -> Any:
        from werkzeug.routing import Map, Rule

        rules = [
            Rule(route.rule, methods=route.methods.split(), endpoint=str(index))
            for index, route in enumerate(self.routes)
        ]
        return Map(rules, strict_slashes=False, merge_slashes=False).bind("127.0.0.1")

    def find(self, method: str, path: str) -> tuple[Route | None, Mapping[str, str], int]:
        """The route of a call.

        Returns:
            the route, what its pattern took from the path, and 0; or ``None``, nothing, and the status of the refusal.
        """
        from werkzeug.exceptions import MethodNotAllowed, NotFound

        try:
            index, arguments = self._adapter.match(path, method=method)
        except NotFound:
            return None, {}, 404
        except MethodNotAllowed:
            return None, {}, 405
        return self.routes[int(index)], arguments, 0
