"""Wire of compute: writes go to ARM, reads to the workspace's own API."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from ..operations import Operation, Outcome
from ..routing import RP, WORKSPACE, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer, mapping
from .models import INSTANCE_TYPE, Cluster, Kind

__all__ = ["ROUTES"]

_COMPUTE = f"{WORKSPACE}/computes/<name>"
_LOCATIONS = "/subscriptions/<sub>/providers/Microsoft.MachineLearningServices/locations/<location>"
_INSTANCE = {
    "nodeSelector": {},
    "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
}
"""What the extension on the cluster has where nobody made any: without a GPU."""
_CHANGEABLE = ("sslConfiguration", "loadBalancerType", "loadBalancerSubnet")


def _name_put(state: State, request: Request) -> str:
    """Create, attach and update are one verb on one path; what is sent tells them apart."""
    properties = mapping(mapping(request.json).get("properties"))
    if "provisioningState" in properties:  # an update of azureml-core sends back what it has read
        return "compute.update"
    there = state.clusters.targets.get(request.args["name"])
    if there and there.kind == properties.get("computeType") == "Kubernetes":  # azure-ai-ml attaches it again
        return "compute.update"
    return "compute.attach" if properties.get("resourceId") else "compute.create"


def _name_delete(_state: State, request: Request) -> str:
    return (
        "compute.detach" if request.query.get("underlyingResourceAction", "").lower() == "detach" else "compute.delete"
    )


def _put(state: State, request: Request) -> Response:
    kind = _name_put(state, request)
    body = request.document
    properties = mapping(body.get("properties"))
    name, clusters, of = request.args["name"], state.clusters, _kind(properties)
    if of == "Kubernetes" and not properties.get("resourceId"):
        message = "A Kubernetes cluster is attached, not created: name an AKS or Arc cluster as the resourceId."
        raise Refusal(400, "BadArgument", message)
    tags: dict[str, str] = mapping(body.get("tags"))
    if kind == "compute.update":
        cluster = clusters.find(name)
        _begin(state, cluster, kind, lambda: _updated(cluster, properties, request.failing))
        cluster.state = "Updating"
    elif kind == "compute.attach":
        cluster = clusters.attach(name, properties, tags, of)
        cluster.description = properties.get("description")
        _begin(state, cluster, kind, lambda: _settled(cluster, request.failing))
    else:
        location = properties.get("computeLocation") or state.settings.location
        cluster = clusters.create(name, properties, location, tags)
        cluster.description = properties.get("description")
        _begin(state, cluster, kind, lambda: _settled(cluster, request.failing or clusters.over_quota(cluster)))
    return answer(_shown(state, cluster), 201, _operation_header(state, request, cluster.operation))


def _kind(properties: Mapping[str, Any]) -> Kind:
    """What is to be made.

    Raises:
        Refusal: 400, the emulator cannot make it.
    """
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if properties.get("computeType") == kind:
            return kind
    message = f"The emulator has compute of type {' and '.join(kinds)} only, not {properties.get('computeType')!r}."
    raise Refusal(400, "BadArgument", message)


def _begin(state: State, cluster: Cluster, kind: str, finish: Any) -> None:
    if cluster.operation:
        cluster.operation.cancel()
    cluster.modified = datetime.now(UTC)
    cluster.operation = state.operations.begin(kind, finish)


def _settled(cluster: Cluster, error: Outcome) -> Outcome:
    """A cluster has come up, or not."""
    cluster.state = "Failed" if error else "Succeeded"
    if error:
        inner = {name: value for name, value in error.items() if name != "statusCode"}
        cluster.errors = [{"error": inner}]
        if error.get("code") in ("Canceled", "Cancelled"):
            cluster.state = "Canceled"
    return error


def _updated(cluster: Cluster, properties: Mapping[str, Any], error: Outcome) -> Outcome:
    if not error:
        sent = mapping(properties.get("properties"))
        if cluster.kind == "Kubernetes":
            cluster.body = dict(sent)
        cluster.body.update({name: sent[name] for name in _CHANGEABLE if name in sent})
        cluster.errors = []
    return _settled(cluster, error)


def _delete(state: State, request: Request) -> Response:
    kind = _name_delete(state, request)
    how: Literal["delete", "detach"] = "detach" if kind == "compute.detach" else "delete"
    cluster = state.clusters.targets.get(request.args["name"])
    if cluster is None:
        return Response(204)  # and no header: the SDK stumbles over that, as with Azure
    if cluster.attached and how == "delete":
        message = (
            f"Compute target {cluster.name!r} was attached, not created here: it cannot be deleted, only detached."
        )
        raise Refusal(400, "BadRequest", message)
    _begin(state, cluster, kind, lambda: _removed(state, cluster, how, request.failing))
    cluster.state = "Deleting"
    return answer({}, 202, _operation_header(state, request, cluster.operation))


def _removed(state: State, cluster: Cluster, how: Literal["delete", "detach"], error: Outcome) -> Outcome:
    if error:
        return _settled(cluster, error)
    state.services.cluster_gone(cluster.name)
    state.endpoints.cluster_gone(cluster.name)
    state.clusters.remove(cluster, how)
    return None


def _operation_header(state: State, request: Request, operation: Operation | None) -> dict[str, str]:
    settings = state.settings
    path = (
        f"/subscriptions/{settings.subscription_id}/providers/Microsoft.MachineLearningServices/locations/"
        f"{settings.location}/computeOperationsStatus/{operation.id if operation else ''}?api-version=2020-02-02"
    )
    return {"Azure-AsyncOperation": request.base + path}


def _operation(state: State, request: Request) -> Response:
    operation = state.operations.find(request.args["id"])
    if operation is None:
        raise Refusal(404, "NotFound", f"There is no operation {request.args['id']!r}.")
    status = operation.look()
    shown: dict[str, Any] = {"id": request.path, "name": operation.id}
    shown["status"] = "InProgress" if status == "Running" else "Failed" if status == "TimedOut" else status
    if operation.error:
        shown["error"] = dict(operation.error)
    return answer(shown, headers={"Retry-After": "1"} if status == "Running" else {})


def _get(state: State, request: Request) -> Response:
    cluster = state.clusters.find(request.args["name"])
    if cluster.operation:
        cluster.operation.look()
    return answer(_shown(state, state.clusters.find(cluster.name)))  # it may be gone now


def _list(state: State, _request: Request) -> Response:
    for cluster in list(state.clusters.targets.values()):
        if cluster.operation:
            cluster.operation.look()
    return answer({"value": [_shown(state, cluster) for cluster in state.clusters.targets.values()]})


def _shown(state: State, cluster: Cluster) -> dict[str, Any]:
    """A compute target as the service shows it."""
    return {
        "id": f"{state.settings.scope}/computes/{cluster.name}",
        "name": cluster.name,
        "type": "Microsoft.MachineLearningServices/workspaces/computes",
        "location": state.settings.location,
        "tags": cluster.tags,
        "properties": {
            "computeType": cluster.kind,
            "computeLocation": cluster.location,
            "description": cluster.description,
            "createdOn": cluster.created.isoformat(),
            "modifiedOn": cluster.modified.isoformat(),
            "resourceId": cluster.aks.resource_id,
            "provisioningState": cluster.state,
            "provisioningErrors": cluster.errors or None,
            "isAttachedCompute": cluster.attached,
            "properties": _shown_body(cluster),
        },
    }


def _shown_body(cluster: Cluster) -> dict[str, Any] | None:
    """What is known of the nodes: of an attached cluster only what was said when it was attached."""
    body = cluster.body
    if cluster.kind == "Kubernetes":
        kinds = mapping(body.get("instanceTypes")) or {INSTANCE_TYPE: _INSTANCE}
        named = {"defaultInstanceType": body.get("defaultInstanceType") or next(iter(kinds)), "instanceTypes": kinds}
        return {"namespace": "default", **{key: value for key, value in body.items() if value is not None}, **named}
    if cluster.attached and not body:
        return None
    ssl = mapping(body.get("sslConfiguration")) or {"status": "Disabled"}
    ssl = {name: None if name in ("cert", "key") else value for name, value in ssl.items()}
    service = {"systemServiceType": "ScoringFrontEnd", "publicIpAddress": "127.0.0.1", "version": "emulator"}
    return {
        "agentVmSize": body.get("agentVmSize"),
        "agentCount": body.get("agentCount"),
        "clusterPurpose": body.get("clusterPurpose") or "FastProd",
        "clusterFqdn": f"{cluster.aks.name}.hcp.{cluster.location}.azmk8s.io".lower(),
        "systemServices": [service] if cluster.state == "Succeeded" else [],
        "sslConfiguration": ssl,
        "aksNetworkingConfiguration": body.get("aksNetworkingConfiguration"),
        "loadBalancerType": body.get("loadBalancerType") or "PublicIp",
        "loadBalancerSubnet": body.get("loadBalancerSubnet"),
    }


def _keys(state: State, request: Request) -> Response:
    cluster = state.clusters.find(request.args["name"])
    config = base64.b64encode(f"# kubeconfig of {cluster.aks.name}: there is no Kubernetes here\n".encode()).decode()
    return answer(
        {
            "computeType": "AKS",
            "userKubeConfig": config,
            "adminKubeConfig": config,
            "imagePullSecretName": "emulator",
        }
    )


ROUTES = (
    Route("PUT", _COMPUTE, "compute.create compute.attach compute.update", _put, "arm", _name_put),
    Route("DELETE", _COMPUTE, "compute.delete compute.detach", _delete, "arm", _name_delete),
    Route("POST", f"{_COMPUTE}/listKeys", "compute.keys", _keys, "arm"),
    Route("GET", f"{_LOCATIONS}/computeOperationsStatus/<id>", "compute.operation", _operation, "arm"),
    Route("GET", f"{RP}/computes/<name>", "compute.get", _get, "arm"),
    Route("GET", f"{RP}/computes", "compute.list", _list, "arm"),
    Route("GET", _COMPUTE, "compute.get", _get, "arm"),
    Route("GET", f"{WORKSPACE}/computes", "compute.list", _list, "arm"),
)
