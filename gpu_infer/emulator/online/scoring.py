"""Wire of an endpoint's scoring URI: a request goes to one deployment's front."""

from __future__ import annotations

from ..scoring.forwarding import forward, routes
from ..state import State
from ..wire import Request, Response

__all__ = ["ROUTES"]

_URI = "/api/v1/endpoint/<name>"
_CHOICE = "azureml-model-deployment"
"""The header that names a deployment."""


def _score(state: State, request: Request) -> Response:
    name = request.args["name"]
    with state.lock:
        deployment = state.endpoints.find(name).choose(request.headers.get(_CHOICE, ""))
        front = deployment.rollout.front if deployment.rollout else None
    return forward(state, front, request, below=f"/endpoint/{name}", what=f"deployment {deployment.name}")


ROUTES = routes(_URI, _score)
