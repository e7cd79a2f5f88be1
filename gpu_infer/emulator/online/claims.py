"""What deployments take: quota of vCPUs where they are managed, nodes of the cluster where they are not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ... import catalog
from ..compute.models import INSTANCE_TYPE, Cluster, Pod, unschedulable
from ..compute.quota import Claim, is_offered
from ..services.models import pods
from ..state import State
from ..wire import Refusal, mapping
from .models import Deployment, Endpoint

__all__ = ["check_instance_type", "check_managed", "claims", "cluster_of", "obstacle"]

_OUT_OF_QUOTA = "https://aka.ms/oe-tsg#error-outofquota"
_UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "k": 1e3, "M": 1e6, "G": 1e9}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]*)")


def claims(state: State, *, without: Deployment | None = None) -> Iterator[Claim]:
    """What the managed deployments that exist take, failed ones included: they keep their machines."""
    for endpoint in state.endpoints.all.values():
        for deployment in endpoint.deployments.values():
            size = catalog.find_size(str(deployment.shown.sent.get("instanceType")))
            if endpoint.compute is None and deployment is not without and size is not None:
                yield Claim(size, deployment.shown.replicas)


def check_managed(state: State, asked: Any, instances: int, *, replaced: Deployment | None) -> None:
    """Refuse a managed deployment that the region or the quota does not allow.

    Args:
        state: of the emulator.
        asked: the VM size.
        instances: how many.
        replaced: the deployment that this one updates.

    Raises:
        Refusal: 400, in the words that users report of Azure.
    """
    size = catalog.find_size(str(asked))
    if size is None or not is_offered(size):
        raise _refusal("VmSize", f"The specified value {asked!r} for property VmSize is not a supported VM size.")
    lacking = state.quota.missing(Claim(size, instances), claims(state, without=replaced))
    if lacking:
        used, limit, needed = lacking
        text = (
            f"Not enough quota available for {size.name} in SubscriptionId {state.settings.subscription_id}. "
            f"Current usage/limit: {used}/{limit}. Additional needed: {needed} "
            f"Please see troubleshooting guide, available here: {_OUT_OF_QUOTA}"
        )
        raise _refusal("VmSize", text)


def check_instance_type(state: State, endpoint: Endpoint, asked: Any) -> None:
    """Refuse a deployment of an instance type that the cluster of its endpoint does not have.

    Raises:
        Refusal: 400.
    """
    cluster = cluster_of(state, endpoint)
    if cluster is None or asked is None:
        return
    known = mapping(cluster.body.get("instanceTypes")) or {INSTANCE_TYPE: {}}
    if str(asked) not in known:
        names = ", ".join(known)
        message = f"The instance type {asked!r} was not found on the compute {cluster.name!r}. It has: {names}."
        raise Refusal(400, "BadRequest", message)


def _refusal(field: str, text: str) -> Refusal:
    """A 400 as Azure nests it: the reason is JSON in a text of a detail."""
    inner = json.dumps({"errors": {field: [text]}, "title": "One or more validation errors occurred.", "status": 400})
    message = f"InferencingClient HttpRequest error, error detail: {inner}"
    details = [{"code": "InferencingClientCreateDeploymentFailed", "message": message}]
    return Refusal(400, "BadRequest", "The request is invalid.", details=details)


def cluster_of(state: State, endpoint: Endpoint) -> Cluster | None:
    """The attached cluster that an endpoint is on; ``None``: it is a managed one, or its cluster is not known."""
    if endpoint.compute is None:
        return None
    return state.clusters.targets.get(endpoint.compute.rstrip("/").rpartition("/")[2])


def obstacle(state: State, endpoint: Endpoint, deployment: Deployment) -> str | None:
    """What Kubernetes says when the pods of a deployment find no node, or ``None``: they do, or are no pods."""
    cluster = cluster_of(state, endpoint)
    if cluster is None:
        return None
    mine = cluster.aks.resource_id
    taken: list[Pod] = []
    for service in state.services.all.values():
        target = state.clusters.targets.get(str(service.spec.get("computeName")))
        if service.placed and target and target.aks.resource_id == mine:
            taken += pods(service.spec)
    for other in state.endpoints.all.values():
        target = cluster_of(state, other)
        if target and target.aks.resource_id == mine:
            for one in other.deployments.values():
                taken += _pods(one) if one is not deployment and one.state != "Failed" else []
    return unschedulable(cluster.aks, taken, _pods(deployment))


def _pods(deployment: Deployment) -> list[Pod]:
    wants = mapping(deployment.shown.sent.get("containerResourceRequirements"))
    most: Mapping[str, Any] = {
        **mapping(wants.get("containerResourceRequests")),
        **mapping(wants.get("containerResourceLimits")),
    }
    gpus = most.get("gpu") or most.get("nvidia.com/gpu")
    pod = Pod(int(_quantity(gpus)), _quantity(most.get("cpu")), _quantity(most.get("memory")) / _UNITS["Gi"])
    return [pod] * deployment.shown.replicas


def _quantity(value: Any) -> float:
    """A number as Kubernetes writes it, ``500m`` or ``2Gi``; 0 where there is none."""
    found = _QUANTITY.fullmatch(str(value))
    return float(found[1]) * _UNITS.get(found[2], 1.0) if found else 0.0
