"""Wire of web services."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..aad import models as aad
from ..models.models import matches
from ..models.routes import shown as shown_model
from ..operations import Operation, Transition
from ..routing import MMS, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer, mapping
from . import deploy
from .models import Service, new_key

__all__ = ["ROUTES"]

_SERVICES = f"{MMS}/services"
_SERVICE = f"{_SERVICES}/<name>"


def _validate_name(state: State, request: Request) -> Response:
    return answer(_objection(_taken(state, request.args["name"])))


def _validate(state: State, request: Request) -> Response:
    body = request.document
    name = str(body.get("serviceName"))
    if body.get("type") == "Create":
        spec = mapping(body.get("createRequest"))
        taken = "" if spec.get("overwrite") else _taken(state, name)
        return answer(_objection(taken or state.services.objection(spec)))
    if body.get("type") == "Update" and name in state.services.all:
        spec = deploy.changed(state.services.all[name].spec, body.get("updateRequest"))
        return answer(_objection(state.services.objection(spec)))
    return answer({})


def _validate_resource(_state: State, _request: Request) -> Response:
    """Nothing to object here: too few GPUs show when the pods look for nodes, which gives the error its details."""
    return answer({})


def _taken(state: State, name: str) -> str:
    if name not in state.services.all:
        return ""
    return f"Service {name} with the same name already exists, please use a different service name or delete it."


def _objection(message: str) -> dict[str, Any]:
    """A refusal, in the one shape that the SDK reads; ``{"error": null}`` would break it."""
    return {"error": {"message": message}} if message else {}


def _create(state: State, request: Request) -> Response:
    operation = deploy.create(state, request.document, request.failing)
    return answer({"operationId": operation.id}, 202, _location(request, operation))


def _update(state: State, request: Request) -> Response:
    service = state.services.find(request.args["name"])
    operation = deploy.update(state, service, request.json, request.failing)
    return answer({"operationId": operation.id}, 202, _location(request, operation))


def _delete(state: State, request: Request) -> Response:
    service = state.services.all.get(request.args["name"])
    if service is None:
        return Response(204)
    operation = deploy.delete(state, service, request.failing)
    return answer({}, 202, _location(request, operation)) if operation else answer({})


def _location(request: Request, operation: Operation) -> dict[str, str]:
    """The SDK takes the last part of the path and puts its own address before it."""
    scope = request.path.partition("/services")[0]
    return {"Operation-Location": f"{request.base}{scope}/operations/{operation.id}"}


def _get(state: State, request: Request) -> Response:
    service = state.services.find(request.args["name"])
    if service.operation:
        service.operation.look()
    return answer(_shown(state, state.services.find(service.name)))  # it may be gone now


def _list(state: State, request: Request) -> Response:
    for service in list(state.services.all.values()):
        if service.operation:
            service.operation.look()
    found = [service for service in state.services.all.values() if _is_wanted(service, request.query)]
    return answer({"value": [_shown(state, service) for service in found]})


def _is_wanted(service: Service, query: Mapping[str, str]) -> bool:
    spec = service.spec
    names = [model_id.partition(":")[0] for model_id in service.model_ids]
    return (
        query.get("computeType", "AKS").upper() == "AKS"
        and (not query.get("modelId") or query["modelId"] in service.model_ids)
        and (not query.get("modelName") or query["modelName"] in names)
        and (not query.get("tags") or matches(query["tags"], spec["kvTags"]))
        and (not query.get("properties") or matches(query["properties"], spec["properties"]))
    )


def _shown(state: State, service: Service) -> dict[str, Any]:
    """A service as the service shows it."""
    found = [state.models.find(model_id) for model_id in service.model_ids]
    status = service.state
    if status == "Healthy" and service.running and service.running.is_unhealthy():
        status = "Unhealthy"
    return {
        **service.spec,
        "id": service.name,
        "state": status,
        "error": service.error,
        "createdTime": service.created.isoformat(),
        "updatedTime": service.updated.isoformat(),
        "createdBy": {"userObjectId": "emulator", "userName": "emulator"},
        "models": [shown_model(model) for model in found if model],
        "scoringUri": f"{state.settings.url}/api/v1/service/{service.name}/score",
        "swaggerUri": f"{state.settings.url}/api/v1/service/{service.name}/swagger.json",
        "deploymentStatus": {"Deployed": "Succeeded"}.get(status, status),
        "isDefault": None,
        "trafficPercentile": None,
        "type": None,
    }


def _keys(state: State, request: Request) -> Response:
    primary, secondary = state.services.find(request.args["name"]).keys
    return answer({"primaryKey": primary, "secondaryKey": secondary})


def _regenerate(state: State, request: Request) -> Response:
    service = state.services.find(request.args["name"])
    body = request.document
    kind = str(body.get("keyType"))
    if kind not in ("Primary", "Secondary"):
        raise Refusal(400, "BadRequest", f"There is no key of type {kind!r}: Primary or Secondary.")

    def finish() -> Mapping[str, Any] | None:
        if request.failing is None:
            new = body.get("keyValue") or new_key()
            service.keys = (new, service.keys[1]) if kind == "Primary" else (service.keys[0], new)
            deploy.open_doors(service)
        return request.failing

    operation = state.operations.begin("services.regenerate", finish)
    if operation.transition == Transition.at_once():
        operation.end()  # the SDK looks after five seconds only
    return answer({}, 202, _location(request, operation))


def _token(state: State, request: Request) -> Response:
    service = state.services.find(request.args["name"])
    if not service.spec["aadAuthEnabled"]:
        raise Refusal(400, "BadRequest", f"Token authentication is not enabled for service {service.name!r}.")
    now = time.time()
    token = aad.token(
        state.settings.signing_key,
        tenant=state.settings.tenant_id,
        audience=f"{state.settings.scope}/services/{service.name}",
        subject=service.name,
    )
    service.tokens[token] = now + aad.LIFETIME
    deploy.open_doors(service)
    refresh = int(now + aad.LIFETIME * 0.8)
    return answer(
        {
            "accessToken": token,
            "tokenType": "Bearer",
            "refreshAfter": refresh,
            "expiryOn": int(now + aad.LIFETIME),
        }
    )


def _logs(state: State, request: Request) -> Response:
    service = state.services.find(request.args["name"])
    if request.query.get("init", "").lower() == "true":
        text = "Models are laid out by the emulator; there is no init container.\n"
    elif not state.settings.run_services:
        text = "This emulator was started with run_services=False: no container runs.\n"
    else:
        # Of all containers: those that serve, those that are coming, and those that have failed to.
        written = [*(rollout.logs() for rollout in service.rollouts()), service.log]
        text = "\n".join(log for log in written if log)
    tail = int(request.query.get("tail") or 5000)
    return answer({"content": "".join(text.splitlines(keepends=True)[-tail:])})


def _operation(state: State, request: Request) -> Response:
    operation = state.operations.find(request.args["id"])
    if operation is None:
        raise Refusal(404, "NotFound", f"There is no operation {request.args['id']!r}.")
    state_now = operation.look()
    log = f"{_stamp(operation.created)}|Checking the status of the deployment."
    if operation.ended:
        log += f"#{_stamp(operation.ended)}|The operation ended: {state_now}."
    shown: dict[str, Any] = {
        "id": operation.id,
        "operationType": "Service",
        "state": "Cancelled" if state_now == "Canceled" else state_now,
        "createdTime": datetime.fromtimestamp(operation.created, UTC).isoformat(),
        "operationDetails": {"subOperationType": "DeployService", "subOperationState": state_now},
        "operationLog": None,
    }
    if operation.ended:
        shown["endTime"] = datetime.fromtimestamp(operation.ended, UTC).isoformat()
    if operation.error:
        shown["error"] = dict(operation.error)
    if "offset" in request.query:
        shown["streamingOperationLog"] = log[int(request.query["offset"]) :]
    return answer(shown)


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%d%H%M%S")


ROUTES = (
    Route("POST", f"{_SERVICES}/validate/name/<name>", "services.validate", _validate_name),
    Route("POST", f"{_SERVICES}/validate", "services.validate", _validate),
    Route("POST", f"{_SERVICES}/validate/resource", "services.validate", _validate_resource),
    Route("POST", _SERVICES, "services.create", _create),
    Route("GET", _SERVICES, "services.list", _list),
    Route("GET", _SERVICE, "services.get", _get),
    Route("PATCH", _SERVICE, "services.update", _update),
    Route("DELETE", _SERVICE, "services.delete", _delete),
    Route("POST", f"{_SERVICE}/listkeys", "services.keys", _keys),
    Route("POST", f"{_SERVICE}/regenerateKeys", "services.regenerate", _regenerate),
    Route("POST", f"{_SERVICE}/token", "services.token", _token),
    Route("GET", f"{_SERVICE}/logs", "services.logs", _logs),
    Route("GET", f"{MMS}/operations/<id>", "services.operation", _operation),
)
