"""Wire of deployments: what ``online_deployments`` of azure-ai-ml asks ARM for."""

from __future__ import annotations

from typing import Any

from ..operations import Outcome
from ..routing import WORKSPACE, Route
from ..scoring.rollout import Layout, Rollout
from ..state import State
from ..wire import Refusal, Request, Response, answer, mapping
from . import lro
from .container import limits, plan, whole
from .deploy import new_rollout
from .models import Deployment, Endpoint, check_name

__all__ = ["ROUTES"]

_ENDPOINT = f"{WORKSPACE}/onlineEndpoints/<name>"
_DEPLOYMENT = f"{_ENDPOINT}/deployments/<deployment>"
_TYPE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"
_CRASHED = (
    "User container has crashed or terminated: Liveness probe failed: HTTP probe failed with statuscode: 502. "
    "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg#error-resourcenotready"
)


def _name_put(state: State, request: Request) -> str:
    endpoint = state.endpoints.all.get(request.args["name"])
    known = endpoint is not None and request.args["deployment"] in endpoint.deployments
    return "deployments.update" if known else "deployments.create"


def _put(state: State, request: Request) -> Response:
    """Create a deployment, or replace one: the containers only where what they are made of is another."""
    endpoint, name = state.endpoints.find(request.args["name"]), request.args["deployment"]
    endpoint.check_idle()
    kind = _name_put(state, request)
    body = request.document
    properties = mapping(body.get("properties"))
    files, wanted = plan(state, properties), limits(properties)
    replicas = whole(mapping(body.get("sku")), "capacity", 1)
    if kind == "deployments.create":
        try:
            check_name("a deployment", name)
        except ValueError as error:
            raise Refusal(400, "BadRequest", str(error)) from error
        deployment = endpoint.deployments[name] = Deployment(name, files.entry_script, files.environment, wanted)
    else:
        deployment = endpoint.deployments[name]
        deployment.check_idle()
    before = deployment.sent, deployment.tags, deployment.replicas
    deployment.sent, deployment.tags, deployment.replicas = properties, mapping(body.get("tags")), replicas
    rollout = _begin(state, endpoint, deployment, files)

    def finish() -> Outcome:
        error = request.failing or _crashed(rollout)
        if request.failing and rollout and rollout is not deployment.rollout:
            rollout.end()
        deployment.state = "Failed" if error else "Succeeded"
        if error is None:
            _replace(deployment, rollout)
            deployment.entry_script, deployment.environment = files.entry_script, files.environment
            deployment.limits, deployment.files = wanted, files
            endpoint.open_doors()
        elif deployment.files:  # what ran before runs on, and is what there is to see
            deployment.sent, deployment.tags, deployment.replicas = before
        return error

    deployment.state = "Creating" if kind == "deployments.create" else "Updating"
    deployment.operation = state.operations.begin(kind, finish)
    headers = lro.status(state, request, deployment.operation, kind="odidp")
    return answer(_shown(state, endpoint, deployment), 201 if kind == "deployments.create" else 200, headers)


def _begin(state: State, endpoint: Endpoint, deployment: Deployment, files: Layout) -> Rollout | None:
    """Start containers, unless those that run are made of the same, or the emulator runs none."""
    if not state.settings.run_services:
        return None
    if deployment.rollout is not None and deployment.files == files and deployment.state == "Succeeded":
        return deployment.rollout
    rollout = new_rollout(state, endpoint, deployment, files)
    deployment.latest = rollout
    rollout.start()
    return rollout


def _crashed(rollout: Rollout | None) -> Outcome:
    """The error of containers that did not come up.

    Raises:
        Pending: they are still starting.
    """
    if rollout is None or rollout.is_healthy():
        return None
    return {"code": "ResourceNotReady", "message": _CRASHED, "details": [], "additionalInfo": []}


def _replace(deployment: Deployment, rollout: Rollout | None) -> None:
    """Let the new containers answer in the place of the old ones."""
    before, deployment.rollout = deployment.rollout, rollout
    if before is not None and before is not rollout:
        before.end()


def _find(state: State, request: Request) -> tuple[Endpoint, Deployment]:
    endpoint, name = state.endpoints.find(request.args["name"]), request.args["deployment"]
    if name not in endpoint.deployments:
        message = f"Deployment {name!r} was not found in the online endpoint {endpoint.name!r}."
        raise Refusal(404, "ResourceNotFound", message)
    return endpoint, endpoint.deployments[name]


def _get(state: State, request: Request) -> Response:
    _, deployment = _find(state, request)
    if deployment.operation:
        deployment.operation.look()
    return answer(_shown(state, *_find(state, request)))  # it may be gone now


def _list(state: State, request: Request) -> Response:
    endpoint = state.endpoints.find(request.args["name"])
    return answer({"value": [_shown(state, endpoint, one) for one in endpoint.deployments.values()]})


def _delete(state: State, request: Request) -> Response:
    endpoint = state.endpoints.find(request.args["name"])
    deployment = endpoint.deployments.get(request.args["deployment"])
    if deployment is None:
        return Response(204)
    endpoint.check_idle()
    deployment.check_idle()
    share = endpoint.traffic.get(deployment.name, 0)
    if share:
        message = f"Deployment {deployment.name!r} gets {share} percent of the traffic. Set it to 0, then delete it."
        raise Refusal(400, "BadRequest", message)

    def finish() -> Outcome:
        if request.failing is None:
            endpoint.remove(deployment)
        else:
            deployment.state = "Failed"
        return request.failing

    deployment.state = "Deleting"
    deployment.operation = state.operations.begin("deployments.delete", finish)
    return Response(202, b"", lro.location(state, request, deployment.operation, kind="odidp"))


def _logs(state: State, request: Request) -> Response:
    """The last lines of one of the two containers: the one that serves, or the one that fetched its files before."""
    endpoint, deployment = _find(state, request)
    wanted = str(request.document.get("containerType") or "InferenceServer").lower()
    if wanted not in ("inferenceserver", "storageinitializer"):
        raise Refusal(400, "BadRequest", f"The containers are InferenceServer and StorageInitializer, not {wanted!r}.")
    rollout = deployment.latest or deployment.rollout
    if rollout is None:
        text = f"{endpoint.name}/{deployment.name}: this emulator was started with run_services=False."
    else:
        text = rollout.logs() if wanted == "inferenceserver" else rollout.fetched()
    lines = text.splitlines()
    tail = int(request.document.get("tail") or len(lines))
    return answer({"content": "\n".join(lines[-tail:] if tail else [])})


def _shown(state: State, endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """A deployment as the service shows it."""
    settings = state.settings
    properties: dict[str, Any] = {"appInsightsEnabled": False, "properties": {}}
    properties |= deployment.sent or _made_here(state, endpoint, deployment)
    properties["scaleSettings"] = properties.get("scaleSettings") or {"scaleType": "Default"}
    if properties.get("endpointComputeType") == "Kubernetes":
        properties["containerResourceRequirements"] = properties.get("containerResourceRequirements") or {}
    moment = deployment.created.isoformat()
    return {
        "id": f"{settings.scope}/onlineEndpoints/{endpoint.name}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": _TYPE,
        "location": settings.location,
        "tags": deployment.tags,
        "sku": {"name": "Default", "capacity": deployment.replicas},
        "properties": {**properties, "provisioningState": deployment.state},
        "systemData": {"createdBy": "emulator", "createdAt": moment, "lastModifiedAt": moment},
    }


def _made_here(state: State, endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """What is said of a deployment of ``Emulator.add_deployment``."""
    return {
        "endpointComputeType": "Kubernetes",
        "codeConfiguration": {
            "codeId": f"{state.settings.scope}/codes/{endpoint.name}-{deployment.name}/versions/1",
            "scoringScript": deployment.entry_script,
        },
        "environmentVariables": deployment.environment,
        "requestSettings": {
            "maxConcurrentRequestsPerInstance": deployment.limits.max_concurrent,
            "requestTimeout": f"PT{deployment.limits.timeout_ms / 1000:g}S",
        },
    }


ROUTES = (
    Route("PUT", _DEPLOYMENT, "deployments.create deployments.update", _put, "arm", _name_put),
    Route("GET", _DEPLOYMENT, "deployments.get", _get, "arm"),
    Route("DELETE", _DEPLOYMENT, "deployments.delete", _delete, "arm"),
    Route("POST", f"{_DEPLOYMENT}/getLogs", "deployments.logs", _logs, "arm"),
    Route("GET", f"{_ENDPOINT}/deployments", "deployments.list", _list, "arm"),
)
