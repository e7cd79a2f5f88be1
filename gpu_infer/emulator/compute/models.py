"""AKS clusters: who made them, what they cost in quota, how many GPUs their nodes have left."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ... import catalog
from ..operations import Operation
from ..wire import Refusal, mapping
from .quota import Quota, is_offered

__all__ = ["INSTANCE_TYPE", "Aks", "Cluster", "Clusters", "Kind", "Pod", "unschedulable"]

Kind = Literal["AKS", "Kubernetes"]
"""What the workspace calls a cluster: one of azureml-core's web services, or one of azure-ai-ml's online endpoints."""

INSTANCE_TYPE = "defaultinstancetype"
"""What the extension on a cluster calls the one instance type that it brings."""

_DEFAULT_SIZE = "Standard_D3_v2"
_DEFAULT_NODES = {"FastProd": 3, "DevTest": 1}


@dataclass(frozen=True, slots=True)
class Pod:
    """What one replica of a service asks of a node."""

    gpus: int = 0
    cpu: float = 0.0
    memory_gb: float = 0.0


@dataclass(slots=True)
class Aks:
    """An AKS cluster, known to the workspace or not.

    Attributes:
        name: by which Azure bills it.
        resource_id: its ARM path.
        vm_size: of all its nodes.
        nodes: how many.
        ours: the workspace created it.
    """

    name: str
    resource_id: str
    vm_size: str
    nodes: int
    ours: bool

    @property
    def gpus_per_node(self) -> int:
        """GPUs that a node offers to pods. A node with a fraction of a card offers one."""
        size = catalog.find_size(self.vm_size)
        return math.ceil(size.gpus) if size else 0


@dataclass(slots=True)
class Cluster:
    """An entry among the workspace's compute targets.

    Attributes:
        name: in the workspace.
        aks: the cluster behind it.
        attached: the workspace did not create it.
        kind: ``computeType``.
        body: ``properties.properties`` as it was sent.
        location: of the cluster.
        state: ``Creating``, ``Updating``, ``Succeeded``, ``Failed`` or ``Deleting``.
        errors: why it failed.
        operation: the latest one on it.
    """

    name: str
    aks: Aks
    attached: bool
    body: dict[str, Any]
    location: str
    tags: dict[str, str]
    kind: Kind = "AKS"
    description: str | None = None
    state: str = "Creating"
    errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    operation: Operation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))


class Clusters:
    """The compute targets of the workspace, and the AKS clusters of the subscription."""

    def __init__(self, subscription_id: str, resource_group: str, location: str, quota: Quota) -> None:
        self._prefix = (
            f"/subscriptions/{subscription_id}/resourcegroups/{resource_group}"
            "/providers/Microsoft.ContainerService/managedClusters/"
        )
        self._location = location
        self._quota = quota
        self.targets: dict[str, Cluster] = {}
        self.aks: dict[str, Aks] = {}

    def create(self, name: str, properties: Mapping[str, Any], location: str, tags: dict[str, str]) -> Cluster:
        """Begin a new cluster.

        Raises:
            Refusal: 400, a name or size that Azure does not take; 409, the name is taken.
        """
        self._check_name(name)
        body = dict(mapping(properties.get("properties")))
        purpose = body.get("clusterPurpose") or "FastProd"
        size = _known_size(str(body.get("agentVmSize") or _DEFAULT_SIZE))
        nodes = int(body.get("agentCount") or _DEFAULT_NODES.get(purpose, 3))
        if nodes < 1:
            raise Refusal(400, "BadArgument", f"The agent count {nodes} is out of range: it must be 1 or more.")
        known = f"{name}{uuid.uuid4().hex[:12]}"
        aks = Aks(known, self._prefix + known, size, nodes, ours=True)
        body = {**body, "agentVmSize": size, "agentCount": nodes, "clusterPurpose": purpose}
        cluster = Cluster(name, aks, attached=False, body=body, location=location, tags=tags)
        self.targets[name] = cluster
        self.aks[aks.resource_id.lower()] = aks
        return cluster

    def attach(self, name: str, properties: Mapping[str, Any], tags: dict[str, str], kind: Kind = "AKS") -> Cluster:
        """Make an existing AKS cluster a compute target.

        Raises:
            Refusal: 404, there is no such AKS cluster; 409, the name is taken.
        """
        self._check_name(name)
        resource_id = str(properties["resourceId"])
        aks = self.aks.get(resource_id.lower())
        if aks is None:
            raise Refusal(404, "ResourceNotFound", f"The AKS cluster {resource_id!r} was not found.")
        body = dict(mapping(properties.get("properties")))
        cluster = Cluster(name, aks, attached=True, body=body, location=self._location, tags=tags, kind=kind)
        self.targets[name] = cluster
        return cluster

    def find(self, name: str) -> Cluster:
        """A compute target.

        Raises:
            Refusal: 404, there is none of that name.
        """
        cluster = self.targets.get(name)
        if cluster is None:
            raise Refusal(404, "ResourceNotFound", f"Compute target {name!r} was not found in the workspace.")
        return cluster

    def remove(self, cluster: Cluster, how: Literal["delete", "detach"]) -> None:
        """Forget a compute target, and with ``delete`` the AKS cluster behind it."""
        self.targets.pop(cluster.name, None)
        if how == "delete":
            self.aks.pop(cluster.aks.resource_id.lower(), None)

    def over_quota(self, cluster: Cluster) -> dict[str, Any] | None:
        """The error of creating this cluster, if the quota does not cover it."""
        found = self.lacking(cluster.aks, without=cluster.aks)
        if found is None:
            return None
        key, limit, used, needed = found
        return _quota_error(cluster, key, limit=limit, used=used, needed=needed)

    def lacking(self, wanted: Aks, *, without: Aks) -> tuple[str, int, int, int] | None:
        """What the quota does not cover of a cluster's nodes.

        Args:
            wanted: the cluster.
            without: the same as it is now: it does not count.

        Returns:
            the quota, and its limit, what is used of it and what is needed, in vCPUs; ``None``: it is covered.
        """
        size = catalog.find_size(wanted.vm_size)
        if size is None:
            return None
        failed = [target.aks for target in self.targets.values() if target.state == "Failed"]
        for key in (size.family, size.name, "total"):
            limit = self._quota.get(key) if key else None
            if limit is None:
                continue
            used = sum(
                _vcpus(aks)
                for aks in self.aks.values()
                if aks is not without and aks not in failed and (key == "total" or key in _keys(aks.vm_size))
            )
            needed = _vcpus(wanted)
            if used + needed > limit:
                return key, limit, used, needed
        return None

    def billed(self) -> list[str]:
        """Names of the clusters that exist and were created here, detached ones included."""
        names = {cluster.aks.name: cluster.name for cluster in self.targets.values() if not cluster.attached}
        return sorted(names.get(aks.name, aks.name) for aks in self.aks.values() if aks.ours)

    def _check_name(self, name: str) -> None:
        if name in self.targets:
            raise Refusal(409, "Conflict", f"A compute target named {name!r} exists already in the workspace.")
        valid = 2 <= len(name) <= 24 and name[0].isalpha() and name.isascii()
        if not valid or not all(letter.isalnum() or letter == "-" for letter in name):
            raise Refusal(
                400,
                "BadArgument",
                f"The compute name {name!r} is invalid: 2 to 24 letters, digits and hyphens, the first a letter.",
            )


def unschedulable(aks: Aks, running: Iterable[Pod], wanted: Iterable[Pod]) -> str | None:
    """What Kubernetes says when pods find no node, or ``None``: they all do.

    Args:
        aks: whose nodes.
        running: pods that have their place already.
        wanted: pods that look for one.
    """
    size = catalog.find_size(aks.vm_size)
    free = [aks.gpus_per_node] * aks.nodes
    for pod in sorted(running, key=lambda pod: -pod.gpus):
        _place(free, pod)
    for pod in sorted(wanted, key=lambda pod: -pod.gpus):
        short = ""
        if size and pod.cpu > size.vcpus:
            short = "cpu"
        elif size and pod.memory_gb > size.memory_gb:
            short = "memory"
        elif not _place(free, pod):
            short = "nvidia.com/gpu"
        if short:
            return f"0/{aks.nodes} nodes are available: {aks.nodes} Insufficient {short}."
    return None


def _place(free: list[int], pod: Pod) -> bool:
    """Take a pod's GPUs from the fullest node that still has them."""
    nodes = [index for index, gpus in enumerate(free) if gpus >= pod.gpus]
    if not nodes:
        return False
    best = min(nodes, key=lambda index: free[index])
    free[best] -= pod.gpus
    return True


def _known_size(asked: str) -> str:
    """The size's proper name.

    Raises:
        Refusal: 400, Azure does not have it, or no longer.
    """
    size = catalog.find_size(asked)
    if size is None or not is_offered(size):
        raise Refusal(
            400,
            "BadArgument",
            f"The specified value {asked!r} for property AgentVMSize is not a supported VM size in this region.",
        )
    return size.name


def _keys(vm_size: str) -> tuple[str, ...]:
    size = catalog.find_size(vm_size)
    return (size.family, size.name) if size else ()


def _vcpus(aks: Aks) -> int:
    size = catalog.find_size(aks.vm_size)
    return size.vcpus * aks.nodes if size else 0


def _quota_error(cluster: Cluster, key: str, *, limit: int, used: int, needed: int) -> dict[str, Any]:
    message = (
        f'Creating or updating managed cluster failed for {cluster.aks.name}. Code="QuotaExceeded" Message="'
        f"Operation could not be completed as it results in exceeding approved {key} Cores quota. Additional "
        f"details - Deployment Model: Resource Manager, Location: {cluster.location}, Current Limit: {limit}, "
        f'Current Usage: {used}, Additional Required: {needed}, (Minimum) New Limit Required: {used + needed}."'
    )
    return {"code": "BadArgument", "statusCode": 400, "message": message}
