"""GPU clusters that AKS itself makes, with a Standard load balancer: made, seen, kept, and deleted.

They lie in the resource group of the workspace under the name that they are attached by. Their tags say what they are,
so a machine whose ledger does not have them finds them, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from gpu_infer.diagnose import azure_error
from gpu_infer.errors import Finding, GpuInferError, PreflightError, ProvisioningError, TeardownError, WorkspaceError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Cluster
from gpu_infer.targets import records
from gpu_infer.targets.arm import Arm, containers, installed
from gpu_infer.targets.calls import call, call_timeout
from gpu_infer.targets.operations import (
    begin,
    finish,
    is_conflict,
    operate,
    seen,
    settle_failure,
)
from gpu_infer.targets.waiting import Pauses, remove

__all__ = ["delete", "keep", "look", "make", "state_of", "tagged"]

POOL = "gpu"
"""The one node pool. Azure ML of the first SDK runs on it what it needs itself, and cannot be led to a second one."""

_WORKSPACE = "gpu-infer-workspace"
_FAILED = ("Failed", "Canceled")


def look(arm: Arm, name: str, *, twice: bool = False) -> Any | None:
    """The AKS cluster of that name in the resource group, ``None`` where there is none.

    Args:
        arm: of the resource group.
        name: of the cluster.
        twice: believe that there is none only where the list of all does not have it either.

    Raises:
        WorkspaceError: Azure refused or did not answer.
    """

    def listed() -> Any | None:
        return next((one for one in _list(arm) if one.name.lower() == name.lower()), None)

    with containers(arm) as service:
        return seen(
            lambda: service.managed_clusters.get(arm.resource_group, name),
            doing=f"looking for AKS cluster {name!r}",
            otherwise=listed if twice else None,
        )


def state_of(cluster: Any) -> str:
    """How Azure calls the state of its provisioning."""
    return str(cluster.provisioning_state or "unknown")


def make(
    arm: Arm, cluster: Cluster, run: records.Run, *, key: str, location: str, workspace: str, left: Callable[[], float]
) -> str:
    """Have AKS make a cluster, written down before, and wait until it is there.

    One that a killed run of ours has left under the name is gone on with.

    Args:
        arm: of the resource group.
        cluster: its name, VM size and number of nodes.
        run: that it belongs to.
        key: of the workspace in the ledger.
        location: Azure region.
        workspace: name of the workspace that it is made for.
        left: gives the seconds that are left.

    Returns:
        its resource id.

    Raises:
        PreflightError: there is one of that name that is not ours, or in use.
        ProvisioningError: it could not be made, or not in time.
    """
    name = cluster.name
    there = look(arm, name, twice=True)
    if there is None:
        _create(arm, cluster, run, key=key, location=cluster.location or location, workspace=workspace, left=left)
    elif not records.inherit(key, name, run):
        message = f"Resource group {arm.resource_group!r} has an AKS cluster {name!r} already: {there.id}."
        fix = "Cluster.attach(its resource id) uses it; or give another name."
        raise PreflightError([Finding("error", "cluster-taken", message, fix)])
    return _wait_ready(arm, name, left)


def delete(arm: Arm, name: str, *, timeout: float) -> None:
    """Delete a cluster that this library has made, and see that it is gone; one that has no tag of ours is left alone.

    Raises:
        TeardownError: it is still there.
    """
    doing = f"deleting AKS cluster {name!r}"

    def find() -> Any | None:
        found = look(arm, name, twice=True)
        return found if found is not None and records.read_tags(found.tags) else None

    def act(_: Any) -> None:
        with containers(arm) as service:
            operate(
                service.managed_clusters.begin_delete,
                arm.resource_group,
                name,
                name=name,
                what="delete_cluster",
                doing=doing,
                seconds=timeout,
                error=TeardownError,
            )

    emit(Event(name, "delete_cluster", "start"))
    remove(
        f"AKS cluster {name!r}",
        look=find,
        delete=act,
        is_going=lambda cluster: state_of(cluster) == "Deleting",
        is_conflict=is_conflict,
        timeout=timeout,
    )
    emit(Event(name, "delete_cluster", "ok"))


def keep(arm: Arm, name: str, *, kept: bool, expires: float | None) -> None:
    """Note on a cluster how long it lives, for ``sweep()`` on other machines; where that fails it is a warning."""
    try:
        found = look(arm, name)
        if found is None:
            return
        before: dict[str, str] = dict(found.tags or {})
        tags = {"tags": {**before, **records.lifetime_tags(kept=kept, expires=expires)}}
        with containers(arm) as service:
            operate(
                service.managed_clusters.begin_update_tags,
                arm.resource_group,
                name,
                tags,
                name=name,
                what="keep",
                doing=f"noting how long AKS cluster {name!r} lives on",
                seconds=call_timeout(),
                error=GpuInferError,
            )
    except GpuInferError as error:
        text = f"its tags do not say how long it lives, for sweep() on other machines; keep() does: {error}"
        emit(Event(name, "keep", "warning", text))


def tagged(arm: Arm, *, key: str, workspace: str) -> list[Entry]:
    """What the tags of clusters tell that were made for a workspace.

    None where the package is not installed here: then none was made from here, and the ledger of who did has it.
    """
    if not installed("azure.mgmt.containerservice"):
        return []
    try:
        listed = _list(arm)
    except GpuInferError as error:
        emit(Event(workspace, "clusters", "warning", f"AKS clusters made elsewhere are not seen: {error}"))
        return []
    found: list[Entry] = []
    for one in listed:
        tags: Mapping[str, str] = one.tags or {}
        known = records.read_tags(tags)
        if known and tags.get(_WORKSPACE) == workspace:
            found.append(records.unwritten(key, records.CLUSTER, one.name, known))
    return found


# --- inside -----------------------------------------------------------------------------------------------------------


def _list(arm: Arm) -> list[Any]:
    def fetch() -> list[Any]:
        with containers(arm) as service:
            return list(service.managed_clusters.list_by_resource_group(arm.resource_group))

    return call(fetch, doing="listing the AKS clusters of the resource group", default=WorkspaceError)


def _create(
    arm: Arm,
    cluster: Cluster,
    run: records.Run,
    *,
    key: str,
    location: str,
    workspace: str,
    left: Callable[[], float],
) -> None:
    """Have it made; a lost answer is looked up, a refusal takes the entry back."""
    name = cluster.name
    nodes = {"vm_size": cluster.vm_size, "nodes": cluster.nodes}
    entry = records.begin(key, records.CLUSTER, name, run, {"attached": False, "aks": True, **nodes})
    tags = {**records.own_tags(run, created=entry.created, nodes=nodes, cluster="aks"), _WORKSPACE: workspace}
    doing = f"creating AKS cluster {name!r}"
    emit(Event(name, "create_cluster", "start", f"{cluster.nodes} x {cluster.vm_size}, by AKS itself"))
    with containers(arm) as service:
        try:
            poller = begin(
                service.managed_clusters.begin_create_or_update,
                arm.resource_group,
                name,
                _body(cluster, location=location, tags=tags),
                headers={"If-None-Match": "*"},  # not over one that has come up since: that would change it
            )
        except Exception as error:  # noqa: BLE001 - raised again there, but where all was done
            typed = azure_error(error, doing=doing, default=ProvisioningError)
            settle_failure(entry, error, typed, look=lambda: look(arm, name, twice=True))
            return
        finish(poller, name, what="cluster", doing=doing, left=left, default=ProvisioningError)


def _wait_ready(arm: Arm, name: str, left: Callable[[], float]) -> str:
    """Wait until a cluster is there."""
    doing = f"creating AKS cluster {name!r}"
    pauses = Pauses()
    began = time.monotonic()
    while True:
        try:
            found = look(arm, name)
            state = "absent" if found is None else state_of(found)
            pauses.succeeded()
        except WorkspaceError:
            if pauses.failed():
                raise
            found, state = None, "not readable"
        if found is not None and state == "Succeeded":
            return str(found.id)
        if state in (*_FAILED, "absent", "Deleting"):
            raise azure_error(None, doing=doing, default=ProvisioningError, text=f"Provisioning ended {state}.")
        emit(Event(name, "cluster", "start", f"{state}, {time.monotonic() - began:.0f} s"))
        pauses.sleep(left, what=f"AKS cluster {name!r} is still {state}", error=ProvisioningError)


def _body(cluster: Cluster, *, location: str, tags: dict[str, str]) -> dict[str, Any]:
    """What AKS is told, in the words of its REST interface: those of the SDK's classes change between its versions."""
    pool = {
        "name": POOL,
        "mode": "System",
        "count": cluster.nodes,
        "vmSize": cluster.vm_size,
        "type": "VirtualMachineScaleSets",
        "osType": "Linux",
        # Driver and device plugin: without the latter no pod gets a GPU.
        "gpuProfile": {"driver": "Install", "nvidia": {"managementMode": "Managed"}},
    }
    return {
        "location": location,
        "tags": tags,
        "identity": {"type": "SystemAssigned"},
        "sku": {"name": "Base", "tier": "Free"},
        "properties": {
            "dnsPrefix": cluster.name,
            "enableRBAC": True,
            "agentPoolProfiles": [pool],
            "networkProfile": {"loadBalancerSku": "standard"},
        },
    }
