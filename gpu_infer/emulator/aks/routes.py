"""Wire of Azure Kubernetes Service, as azure-mgmt-containerservice speaks it."""

from __future__ import annotations

from typing import Any

from ... import catalog
from ..compute.models import Aks
from ..operations import Operation, Outcome
from ..routing import Route
from ..state import State
from ..wire import Refusal, Request, Response, answer, mapping
from .models import ManagedCluster, pools

__all__ = ["ROUTES"]

_PROVIDER = "providers/Microsoft.ContainerService"
_CLUSTERS = f"/subscriptions/<sub>/resourceGroups/<group>/{_PROVIDER}/managedClusters"
_OPERATION = f"/subscriptions/<sub>/{_PROVIDER}/locations/<location>/operations/<id>"
_POLL = {"Retry-After": "1"}


def _id(state: State, request: Request) -> str:
    group = f"/subscriptions/{state.settings.subscription_id}/resourcegroups/{request.args['group']}"
    return f"{group}/{_PROVIDER}/managedClusters/{request.args['name']}"


def _find(state: State, request: Request) -> ManagedCluster:
    aks = state.clusters.aks.get(_id(state, request).lower())
    if aks is None:
        message = f"The Resource 'Microsoft.ContainerService/managedClusters/{request.args['name']}' was not found."
        raise Refusal(404, "ResourceNotFound", message)
    return state.managed.of(aks)


def _name_put(state: State, request: Request) -> str:
    return "aks.update" if _id(state, request).lower() in state.clusters.aks else "aks.create"


def _put(state: State, request: Request) -> Response:
    """Make a cluster, or say anew what it is. Its nodes are those of the pool with the most GPUs."""
    kind, body = _name_put(state, request), request.document
    if not body.get("location"):
        raise Refusal(400, "LocationRequired", "The location property is required for this definition.")
    found = pools(body)
    pool = max(found, key=_gpus)
    if kind == "aks.create":
        aks = Aks(request.args["name"], _id(state, request), str(pool["vmSize"]), int(pool["count"]), ours=True)
        cluster = ManagedCluster(aks, body)
    else:
        cluster = _find(state, request)
        _check_idle(cluster)
    wanted = Aks(cluster.aks.name, cluster.aks.resource_id, str(pool["vmSize"]), int(pool["count"]), ours=True)
    _check_quota(state, wanted, replaced=cluster.aks)
    state.clusters.aks[cluster.aks.resource_id.lower()] = cluster.aks
    state.managed.keep(cluster)

    def finish() -> Outcome:
        if request.failing is None:
            cluster.body, cluster.aks.vm_size, cluster.aks.nodes = body, wanted.vm_size, wanted.nodes
        cluster.state = "Failed" if request.failing else "Succeeded"
        return request.failing

    cluster.state = "Creating" if kind == "aks.create" else "Updating"
    cluster.operation = state.operations.begin(kind, finish)
    headers = _headers(state, request, cluster.operation)
    return answer(_shown(state, cluster), 201 if kind == "aks.create" else 200, headers)


def _gpus(pool: dict[str, Any]) -> float:
    size = catalog.find_size(str(pool.get("vmSize")))
    return size.gpus * int(pool["count"]) if size else 0.0


def _check_quota(state: State, wanted: Aks, *, replaced: Aks) -> None:
    lacking = state.clusters.lacking(wanted, without=replaced)
    if lacking:
        key, limit, used, needed = lacking
        message = (
            f"Insufficient vcpu quota requested {needed}, remaining {max(0, limit - used)} for family {key} "
            f"for region {state.settings.location}."
        )
        raise Refusal(400, "ErrCode_InsufficientVCPUQuota", message)


def _check_idle(cluster: ManagedCluster) -> None:
    if cluster.operation and cluster.operation.state == "Running":
        message = "Operation is not allowed: Another operation is in progress on this managed cluster."
        raise Refusal(409, "OperationNotAllowed", message)


def _tag(state: State, request: Request) -> Response:
    cluster = _find(state, request)
    _check_idle(cluster)
    cluster.body = {**cluster.body, "tags": mapping(request.document.get("tags"))}
    state.managed.keep(cluster)
    return answer(_shown(state, cluster))


def _get(state: State, request: Request) -> Response:
    cluster = _find(state, request)
    if cluster.operation:
        cluster.operation.look()
    return answer(_shown(state, _find(state, request)))  # it may be gone now


def _list(state: State, request: Request) -> Response:
    scope = f"/subscriptions/{state.settings.subscription_id.lower()}/"
    if "group" in request.args:
        scope += f"resourcegroups/{request.args['group'].lower()}/"
    found = [aks for known, aks in state.clusters.aks.items() if known.startswith(scope)]
    return answer({"value": [_shown(state, state.managed.of(aks)) for aks in found]})


def _delete(state: State, request: Request) -> Response:
    if _id(state, request).lower() not in state.clusters.aks:
        return Response(204)
    cluster = _find(state, request)
    _check_idle(cluster)

    def finish() -> Outcome:
        if request.failing is None:
            for target in state.clusters.targets.values():
                if target.aks is cluster.aks:
                    state.services.cluster_gone(target.name)
                    state.endpoints.cluster_gone(target.name)
            state.clusters.aks.pop(cluster.aks.resource_id.lower(), None)
            state.managed.remove(cluster)
        else:
            cluster.state = "Failed"
        return request.failing

    state.managed.keep(cluster)
    cluster.state = "Deleting"
    cluster.operation = state.operations.begin("aks.delete", finish)
    return Response(202, b"", _headers(state, request, cluster.operation))


def _headers(state: State, request: Request, operation: Operation) -> dict[str, str]:
    settings = state.settings
    where = f"/subscriptions/{settings.subscription_id}/{_PROVIDER}/locations/{settings.location}"
    version = request.query.get("api-version", "")
    return {"Azure-AsyncOperation": f"{request.base}{where}/operations/{operation.id}?api-version={version}", **_POLL}


def _operation(state: State, request: Request) -> Response:
    operation = state.operations.find(request.args["id"])
    if operation is None:
        raise Refusal(404, "NotFound", f"There is no operation {request.args['id']!r}.")
    found = operation.look()
    shown: dict[str, Any] = {"name": operation.id, "status": "InProgress" if found == "Running" else found}
    if operation.error:
        shown["error"] = {name: value for name, value in operation.error.items() if name != "statusCode"}
    return answer(shown, headers=_POLL if found == "Running" else {})


def _shown(state: State, cluster: ManagedCluster) -> dict[str, Any]:
    """A cluster as the service shows it."""
    aks, body = cluster.aks, cluster.body
    properties = {
        "kubernetesVersion": "1.33",
        "fqdn": f"{aks.name}.hcp.azmk8s.io".lower(),
        "nodeResourceGroup": f"MC_{aks.name}",
        **mapping(body.get("properties")),
        "provisioningState": cluster.state,
        "powerState": {"code": "Running"},
    }
    kept = {name: body[name] for name in ("location", "tags", "sku", "identity") if body.get(name)}
    return {
        "id": aks.resource_id,
        "name": aks.name,
        "type": "Microsoft.ContainerService/ManagedClusters",
        "systemData": {"createdBy": "emulator", "createdAt": cluster.created.isoformat()},
        "location": state.settings.location,
        **kept,
        "properties": properties,
    }


ROUTES = (
    Route("PUT", f"{_CLUSTERS}/<name>", "aks.create aks.update", _put, "arm", _name_put),
    Route("PATCH", f"{_CLUSTERS}/<name>", "aks.tags", _tag, "arm"),
    Route("GET", f"{_CLUSTERS}/<name>", "aks.get", _get, "arm"),
    Route("DELETE", f"{_CLUSTERS}/<name>", "aks.delete", _delete, "arm"),
    Route("GET", _CLUSTERS, "aks.list", _list, "arm"),
    Route("GET", f"/subscriptions/<sub>/{_PROVIDER}/managedClusters", "aks.list", _list, "arm"),
    Route("GET", _OPERATION, "aks.operation", _operation, "arm"),
)
