"""Wire of deployments: what ``online_deployments`` of azure-ai-ml asks ARM for."""

from __future__ import annotations

from typing import Any

from ..failures import failure
from ..operations import Outcome, Pending
from ..routing import WORKSPACE, Route
from ..scoring.rollout import Rollout
from ..state import State
from ..wire import Refusal, Request, Response, answer
from . import lro
from .claims import check_instance_type, check_managed, obstacle
from .container import build_problem, spec
from .deploy import new_rollout
from .models import MOST_DEPLOYMENTS, Deployment, Endpoint, Spec, check_name

__all__ = ["ROUTES"]

_ENDPOINT = f"{WORKSPACE}/onlineEndpoints/<name>"
_DEPLOYMENT = f"{_ENDPOINT}/deployments/<deployment>"
_TYPE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"


def _name_put(state: State, request: Request) -> str:
    endpoint = state.endpoints.all.get(request.args["name"])
    known = endpoint is not None and request.args["deployment"] in endpoint.deployments
    return "deployments.update" if known else "deployments.create"


def _put(state: State, request: Request) -> Response:
    """Create a deployment, or replace one: the containers only where what they are made of is another."""
    endpoint, name = state.endpoints.find(request.args["name"]), request.args["deployment"]
    endpoint.check_idle()
    kind = _name_put(state, request)
    wanted = spec(state, request.document)
    known = endpoint.deployments.get(name)
    if known is None:
        _check_new(endpoint, name)
    else:
        known.check_idle()
    _check_place(state, endpoint, wanted, known)
    deployment = endpoint.deployments.setdefault(name, Deployment(name, wanted))
    deployment.coming = wanted
    foreseen = request.failing or _foreseen(state, endpoint, deployment)
    rollout = None if foreseen else _begin(state, endpoint, deployment)

    def finish() -> Outcome:
        same = rollout is deployment.rollout  # those that run already are Kubernetes' business: it starts them anew
        error = foreseen or (None if same else _crashed(endpoint, wanted, rollout))
        deployment.settle(rollout, error)
        if error is None:
            endpoint.open_doors()
        return error

    deployment.state = "Creating" if known is None else "Updating"
    deployment.operation = state.operations.begin(kind, finish, lambda: _shown(state, endpoint, deployment))
    headers = lro.begun(state, request, deployment.operation, kind="odidp")
    return answer(_shown(state, endpoint, deployment), 201 if known is None else 200, headers)


def _check_new(endpoint: Endpoint, name: str) -> None:
    try:
        check_name("a deployment", name)
    except ValueError as error:
        raise Refusal(400, "BadRequest", str(error)) from error
    if len(endpoint.deployments) >= MOST_DEPLOYMENTS:
        message = f"Endpoint {endpoint.name!r} has {MOST_DEPLOYMENTS} deployments, as many as it may have. Delete one."
        raise Refusal(400, "BadRequest", message)


def _check_place(state: State, endpoint: Endpoint, wanted: Spec, known: Deployment | None) -> None:
    """Refuse a deployment that its endpoint has no place for.

    Raises:
        Refusal: 400, it is of the other kind, of an unknown VM size or instance type, or more than the quota.
    """
    kind, asked = wanted.sent.get("endpointComputeType"), wanted.sent.get("instanceType")
    if kind != ("Kubernetes" if endpoint.compute else "Managed"):
        what = f"on Kubernetes ({endpoint.compute})" if endpoint.compute else "a managed one"
        message = f"The endpoint {endpoint.name!r} is {what}, and the deployment is of the kind {kind!r}."
        raise Refusal(400, "BadRequest", message)
    if endpoint.compute:
        check_instance_type(state, endpoint, asked)
    else:
        check_managed(state, asked, wanted.replicas, replaced=known)


def _foreseen(state: State, endpoint: Endpoint, deployment: Deployment) -> Outcome:
    """The error with which this will end, before any container starts."""
    why = build_problem(state, deployment.shown.sent)
    if why:
        return failure("ImageBuildFailure", why=why)
    why = obstacle(state, endpoint, deployment)
    return failure("PodUnschedulable", why=why) if why else None


def _begin(state: State, endpoint: Endpoint, deployment: Deployment) -> Rollout | None:
    """Start containers, unless those that run are made of the same, or the emulator runs none."""
    if not state.settings.run_services:
        return None
    same = deployment.spec.files == deployment.shown.files
    if deployment.rollout is not None and same and deployment.state == "Succeeded":
        return deployment.rollout
    rollout = new_rollout(state, endpoint, deployment)
    rollout.start()
    return rollout


def _crashed(endpoint: Endpoint, wanted: Spec, rollout: Rollout | None) -> Outcome:
    """The error of containers that did not come up, or not in time.

    Raises:
        Pending: they are still starting.
    """
    if rollout is None:
        return None
    try:
        if rollout.is_healthy():
            return None
    except Pending:
        if rollout.age() <= wanted.patience:
            raise
    rollout.end()
    return failure("DeploymentCrashLoopBackOff" if endpoint.compute else "ResourceNotReady")


def _find(state: State, request: Request) -> tuple[Endpoint, Deployment]:
    endpoint, name = state.endpoints.find(request.args["name"]), request.args["deployment"]
    if name not in endpoint.deployments:
        message = f"Deployment {name!r} was not found in the online endpoint {endpoint.name!r}."
        raise Refusal(404, "ResourceNotFound", message)
    return endpoint, endpoint.deployments[name]


def _get(state: State, request: Request) -> Response:
    _, deployment = _find(state, request)
    headers = lro.looked_at(state, deployment.operation)
    return answer(_shown(state, *_find(state, request)), headers=headers)  # it may be gone now


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
    return Response(202, b"", lro.begun(state, request, deployment.operation, kind="odidp"))


def _logs(state: State, request: Request) -> Response:
    """The last lines of one of the two containers: the one that serves, or the one that fetched its files before."""
    endpoint, deployment = _find(state, request)
    wanted = str(request.document.get("containerType") or "InferenceServer").lower()
    if wanted not in ("inferenceserver", "storageinitializer"):
        raise Refusal(400, "BadRequest", f"The containers are InferenceServer and StorageInitializer, not {wanted!r}.")
    rollout = deployment.latest or deployment.rollout
    if rollout is None and not state.settings.run_services:
        text = f"{endpoint.name}/{deployment.name}: this emulator was started with run_services=False."
    elif rollout is None:
        text = ""  # no container ever started: Azure has no more to say
    else:
        text = rollout.logs() if wanted == "inferenceserver" else rollout.fetched()
    lines = text.splitlines()
    tail = int(request.document.get("tail") or len(lines))
    return answer({"content": "\n".join(lines[-tail:] if tail else [])})


def _shown(state: State, endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """A deployment as the service shows it."""
    settings, said = state.settings, deployment.shown
    properties: dict[str, Any] = {"appInsightsEnabled": False, "properties": {}}
    properties |= said.sent or _made_here(state, endpoint, deployment)
    properties["scaleSettings"] = properties.get("scaleSettings") or {"scaleType": "Default"}
    if properties.get("endpointComputeType") == "Kubernetes":
        properties["containerResourceRequirements"] = properties.get("containerResourceRequirements") or {}
    moment = deployment.created.isoformat()
    return {
        "id": f"{settings.scope}/onlineEndpoints/{endpoint.name}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": _TYPE,
        "location": settings.location,
        "tags": said.tags,
        "sku": {"name": "Default", "capacity": said.replicas},
        "properties": {**properties, "provisioningState": deployment.state},
        "systemData": {"createdBy": "emulator", "createdAt": moment, "lastModifiedAt": moment},
    }


def _made_here(state: State, endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """What is said of a deployment of ``Emulator.add_deployment``."""
    made = deployment.spec
    return {
        "endpointComputeType": "Kubernetes" if endpoint.compute else "Managed",
        "codeConfiguration": {
            "codeId": f"{state.settings.scope}/codes/{endpoint.name}-{deployment.name}/versions/1",
            "scoringScript": made.files.entry_script,
        },
        "environmentVariables": made.files.environment,
        "requestSettings": {
            "maxConcurrentRequestsPerInstance": made.limits.max_concurrent,
            "requestTimeout": f"PT{made.limits.timeout_ms / 1000:g}S",
        },
    }


ROUTES = (
    Route("PUT", _DEPLOYMENT, "deployments.create deployments.update", _put, "arm", _name_put),
    Route("GET", _DEPLOYMENT, "deployments.get", _get, "arm"),
    Route("DELETE", _DEPLOYMENT, "deployments.delete", _delete, "arm"),
    Route("POST", f"{_DEPLOYMENT}/getLogs", "deployments.logs", _logs, "arm"),
    Route("GET", f"{_ENDPOINT}/deployments", "deployments.list", _list, "arm"),
)
