"""Wire of the long operations of online endpoints: the headers that lead to them, their status and their result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..operations import Operation
from ..routing import Route
from ..state import State
from ..wire import Refusal, Request, Response, answer

__all__ = ["ROUTES", "begun", "looked_at"]

_LOCATIONS = "/subscriptions/<sub>/providers/Microsoft.MachineLearningServices/locations/<location>"
_STATES = {"Running": "InProgress", "TimedOut": "Failed"}
_POLL = {"Retry-After": "1"}
"""Without it the SDK waits for 30 s between two looks; 0 it takes for absent."""
_LIMIT = {"x-ms-async-operation-timeout": "PT1H"}


def begun(state: State, request: Request, operation: Operation, *, kind: str) -> dict[str, str]:
    """The headers with which a long operation begins: where to look, and for how long it may run.

    Args:
        state: of the emulator.
        request: that begins it.
        operation: what was begun.
        kind: ``"oeidp"`` of an endpoint, ``"odidp"`` of a deployment.
    """
    style = state.settings.polling
    if style == "azure":
        style = "async-operation" if request.method == "PUT" else "location"
    if style == "resource":
        return {}
    if style == "async-operation":
        address = _address(state, request, "mfeOperationsStatus", operation, kind)
        return {"Azure-AsyncOperation": address, **_LIMIT}
    return {"Location": _address(state, request, "mfeOperationResults", operation, kind), **_LIMIT, **_POLL}


def looked_at(state: State, operation: Operation | None) -> dict[str, str]:
    """The headers of a resource that is asked for while an operation is about it."""
    running = operation is not None and operation.look() == "Running"
    return dict(_POLL) if running and state.settings.polling == "resource" else {}


def _address(state: State, request: Request, what: str, operation: Operation, kind: str) -> str:
    settings = state.settings
    number = f"{kind}:{settings.workspace_id}:{operation.id}"
    return (
        f"{request.base}/subscriptions/{settings.subscription_id}/providers/Microsoft.MachineLearningServices/locations/"
        f"{settings.location}/{what}/{number}?api-version={request.query.get('api-version', '2022-02-01-preview')}"
    )


def _find(state: State, request: Request) -> Operation:
    operation = state.operations.find(request.args["id"].rpartition(":")[2])
    if operation is None:
        raise Refusal(404, "NotFound", f"There is no operation {request.args['id']!r}.")
    return operation


def _status(state: State, request: Request) -> Response:
    operation = _find(state, request)
    found = operation.look()
    shown: dict[str, Any] = {
        "id": request.path,
        "name": request.args["id"],
        "status": _STATES.get(found, found),
        "startTime": _moment(operation.created),
    }
    if operation.ended is not None:
        shown["endTime"] = _moment(operation.ended)
    if operation.error is not None:
        shown["error"] = _error(operation)
    return answer(shown, headers=_POLL if found == "Running" else {})


def _result(state: State, request: Request) -> Response:
    operation = _find(state, request)
    found = operation.look()
    if found == "Running":
        return Response(202, b"", {"Location": f"{request.base}{request.target}", **_POLL})
    if operation.error is not None:
        code = operation.error.get("statusCode")
        return answer({"error": _error(operation)}, code if isinstance(code, int) and code >= 400 else 400)
    if found == "Canceled":
        raise Refusal(409, "Canceled", "Another operation overtook this one.")
    return answer(operation.result()) if operation.result else Response(204)


def _error(operation: Operation) -> dict[str, Any]:
    return {name: value for name, value in (operation.error or {}).items() if name != "statusCode"}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


ROUTES = (
    Route("GET", f"{_LOCATIONS}/mfeOperationsStatus/<id>", "online.operation", _status, "arm"),
    Route("GET", f"{_LOCATIONS}/mfeOperationResults/<id>", "online.result", _result, "arm"),
)
