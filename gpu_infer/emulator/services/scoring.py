"""Wire of the scoring URI: whatever comes in goes to the service's front."""

from __future__ import annotations

from ..scoring.forwarding import forward, routes
from ..state import State
from ..wire import Refusal, Request, Response

__all__ = ["ROUTES"]

_URI = "/api/v1/service/<name>"


def _score(state: State, request: Request) -> Response:
    name = request.args["name"]
    with state.lock:
        state.operations.end_due()
        service = state.services.all.get(name)
        front = service.running.front if service and service.running else None
    if service is None:
        raise Refusal(404, "NotFound", f"Service {name} was not found")
    return forward(state, front, request, below=f"/service/{name}", what=f"service {name}")


ROUTES = routes(_URI, _score)
