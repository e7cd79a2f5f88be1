"""Wire of an endpoint's scoring URI: a request goes to one deployment's front."""

from __future__ import annotations

import threading

from ..scoring.forwarding import forward, routes
from ..scoring.rollout import Rollout
from ..state import State
from ..wire import Refusal, Request, Response
from . import triton

__all__ = ["ROUTES"]

_URI = "/api/v1/endpoint/<name>"
_CHOICE = "azureml-model-deployment"
"""The header that names a deployment."""


def _score(state: State, request: Request) -> Response:
    """Choose under the lock, and be counted there: who is chosen answers, even if the next moment it is removed."""
    name, wanted = request.args["name"], request.headers.get(_CHOICE, "")
    below = f"/endpoint/{name}"
    with state.lock:
        state.operations.end_due()
        endpoint = state.endpoints.find(name)
        state.traffic.note(name)
        deployment = endpoint.choose(wanted)
        rollout, copied = deployment.rollout, None if wanted else endpoint.choose_copy()
        if rollout:
            rollout.enter()
        if copied and copied.rollout:
            asked = triton.led(request, below) if copied.spec.files.entry_script == triton.SCRIPT else request
            _copy(state, copied.rollout, asked, below=below, what=f"deployment {copied.name}")
    try:
        front = rollout.front if rollout else None
        asked = triton.led(request, below) if deployment.spec.files.entry_script == triton.SCRIPT else request
        return forward(state, front, asked, below=below, what=f"deployment {deployment.name}")
    finally:
        if rollout:
            rollout.leave()


def _copy(state: State, rollout: Rollout, request: Request, *, below: str, what: str) -> None:
    """Send a request to a second deployment, whose answer nobody gets."""

    def send() -> None:
        try:
            forward(state, rollout.front, request, below=below, what=what)
        except Refusal:
            pass  # it is not up: that is nobody's business but its own
        except Exception as error:  # noqa: BLE001 (nobody waits for this thread)
            state.report(error)
        finally:
            rollout.leave()

    rollout.enter()
    threading.Thread(target=send, name=f"mirror-{request.number}", daemon=True).start()


ROUTES = routes(_URI, _score)
