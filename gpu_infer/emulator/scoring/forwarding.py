"""From a scoring URI to a front, the same for web services and for deployments of online endpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..routing import Route
from ..state import State
from ..wire import Refusal, Request, Response
from .front import Front

__all__ = ["forward", "routes"]


def forward(state: State, front: Front | None, request: Request, *, below: str, what: str) -> Response:
    """Let a front answer.

    Args:
        state: of the emulator.
        front: of what is to answer, ``None`` where nothing runs.
        request: as it came.
        below: the path of the scoring URI without ``/score``, or its end.
        what: is to answer, for the refusal.

    Raises:
        Refusal: 503, nothing runs.
    """
    if front is None:
        why = "" if state.settings.run_services else ": this emulator was started with run_services=False"
        raise Refusal(503, "ServiceUnavailable", f"No ready replicas for {what}{why}")
    path = request.target.partition(below)[2] or "/"
    status, headers, body = front.handle(request.method, path, request.headers, request.body)
    return Response(status, body, dict(headers))


def routes(uri: str, handler: Callable[[State, Request], Response]) -> Sequence[Route]:
    """The routes of everything at and below a scoring URI, whatever the method: the front says what it takes."""
    return tuple(
        Route(methods, rule, operation, handler, "scoring", locked=False, signed=False)
        for rule in (uri, f"{uri}/<path:rest>")
        for methods, operation in (("GET HEAD", "scoring.get"), ("POST PUT PATCH DELETE OPTIONS", "scoring.post"))
    )
