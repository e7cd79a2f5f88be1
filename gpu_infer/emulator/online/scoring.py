"""Wire of an endpoint's scoring URI: a request goes to one deployment's front."""

from __future__ import annotations

from ..routing import Route
from ..state import State
from ..wire import Refusal, Request, Response

__all__ = ["ROUTES"]

_URI = "/api/v1/endpoint/<name>"
_CHOICE = "azureml-model-deployment"
"""The header that names a deployment."""


def _score(state: State, request: Request) -> Response:
    name = request.args["name"]
    with state.lock:
        deployment = state.endpoints.find(name).choose(request.headers.get(_CHOICE, ""))
        front = deployment.rollout.front if deployment.rollout else None
    if front is None:
        why = "" if state.settings.run_services else ": this emulator was started with run_services=False"
        raise Refusal(503, "ServiceUnavailable", f"No ready replicas for deployment {deployment.name}{why}")
    path = request.target.partition(f"/endpoint/{name}")[2] or "/"
    status, headers, body = front.handle(request.method, path, request.headers, request.body)
    return Response(status, body, dict(headers))


_READ, _WRITE = "GET HEAD", "POST PUT PATCH DELETE OPTIONS"

ROUTES = tuple(
    Route(methods, rule, operation, _score, "scoring", locked=False, signed=False)
    for rule in (_URI, f"{_URI}/<path:rest>")
    for methods, operation in ((_READ, "scoring.get"), (_WRITE, "scoring.post"))
)
