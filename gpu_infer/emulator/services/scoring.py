"""Wire of the scoring URI: whatever comes in goes to the service's front."""

from __future__ import annotations

from ..routing import Route
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
    if front is None:
        why = "" if state.settings.run_services else ": this emulator was started with run_services=False"
        raise Refusal(503, "ServiceUnavailable", f"No ready replicas for service {name}{why}")
    path = request.target.partition(f"/service/{name}")[2] or "/"
    status, headers, body = front.handle(request.method, path, request.headers, request.body)
    return Response(status, body, dict(headers))


_READ, _WRITE = "GET HEAD", "POST PUT PATCH DELETE OPTIONS"

ROUTES = tuple(
    Route(methods, rule, operation, _score, "scoring", locked=False, signed=False)
    for rule in (_URI, f"{_URI}/<path:rest>")
    for methods, operation in ((_READ, "scoring.get"), (_WRITE, "scoring.post"))
)
