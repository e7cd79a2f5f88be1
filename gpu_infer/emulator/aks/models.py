"""Managed clusters: what was said of each, and the nodes that the workspace knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ... import catalog
from ..compute.models import Aks
from ..compute.quota import is_offered
from ..operations import Operation
from ..wire import Refusal, items, mapping

__all__ = ["ManagedCluster", "ManagedClusters", "pools"]


@dataclass(slots=True)
class ManagedCluster:
    """One cluster.

    Attributes:
        aks: its nodes.
        body: as it was sent.
        state: ``Creating``, ``Updating``, ``Succeeded``, ``Failed`` or ``Deleting``.
        operation: the latest one on it.
        created: when.
    """

    aks: Aks
    body: dict[str, Any]
    state: str = "Creating"
    operation: Operation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class ManagedClusters:
    """The clusters that were made here, by their ARM paths in small letters."""

    def __init__(self) -> None:
        self._all: dict[str, ManagedCluster] = {}

    def of(self, aks: Aks) -> ManagedCluster:
        """What is known of a cluster; of one that azureml-core has made, its nodes."""
        known = self._all.get(aks.resource_id.lower())
        if known is not None:
            return known
        pool = {"name": "agentpool", "count": aks.nodes, "vmSize": aks.vm_size, "mode": "System"}
        return ManagedCluster(aks, {"properties": {"agentPoolProfiles": [pool]}}, state="Succeeded")

    def keep(self, cluster: ManagedCluster) -> None:
        """Keep what was said of one."""
        self._all[cluster.aks.resource_id.lower()] = cluster

    def remove(self, cluster: ManagedCluster) -> None:
        """Forget it."""
        self._all.pop(cluster.aks.resource_id.lower(), None)


def pools(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The node pools of a cluster.

    Raises:
        Refusal: 400, there are none, or one of a size that cannot be had or without nodes.
    """
    found = [mapping(pool) for pool in items(mapping(body.get("properties")).get("agentPoolProfiles"))]
    if not found:
        raise Refusal(400, "InvalidParameter", "Required parameter agentPoolProfiles is missing (null).")
    for pool in found:
        size = catalog.find_size(str(pool.get("vmSize")))
        if size is None or not is_offered(size):
            message = f"The VM size of {pool.get('vmSize')} is not allowed in your subscription in this location."
            raise Refusal(400, "VMSizeNotSupported", message)
        if not isinstance(pool.get("count"), int) or pool["count"] < 1:
            message = f"The value of parameter agentPoolProfile.count is invalid: {pool.get('count')!r}."
            raise Refusal(400, "InvalidParameter", message)
    return found
