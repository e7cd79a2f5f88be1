"""AKS clusters of a workspace: look, get or create, attach, wait, delete."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gpu_infer.diagnose import azure_error
from gpu_infer.errors import Finding, PreflightError, ProvisioningError, TeardownError, WorkspaceError
from gpu_infer.ledger import Entry, exclusive
from gpu_infer.preflight import ClusterFacts
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Cluster
from gpu_infer.targets import managed_clusters, records
from gpu_infer.targets.aks.sdk import arm_of, is_absent, is_conflict, is_refusal, sdk
from gpu_infer.targets.calls import ask, call, deadline
from gpu_infer.targets.waiting import Pauses, remove

__all__ = [
    "WAIT_SECONDS",
    "delete_cluster",
    "ensure_cluster",
    "facts_of",
    "keep_cluster",
    "live_sizes",
    "look",
    "made_elsewhere",
    "state_of",
]

WAIT_SECONDS = 3600.0
"""For a cluster to be made: Azure takes about ten minutes, or fails after up to an hour."""

_LOCK_SECONDS = 120.0
_DELETING = ("Deleting", "Detaching")
_FAILED = ("Failed", "Canceled")


def look(workspace: Any, name: str, *, twice: bool = False) -> Any | None:
    """The compute target of that name, ``None`` where there is none.

    Args:
        workspace: where.
        name: of the compute target.
        twice: believe that there is none only where the list of all does not have it either. One answer may be wrong
            for a while after a change, and what we believe to be gone nobody looks for again.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
        PreflightError: it is no AKS cluster.
    """
    target = sdk("azureml.core.ComputeTarget")
    doing = f"looking for cluster {name!r}"
    found: Any
    try:
        found = ask(target, workspace=workspace, name=name)
    except Exception as error:
        if not is_absent(error):
            raise azure_error(error, doing=doing, default=WorkspaceError) from error
        listed: list[Any] = call(target.list, workspace, doing=doing, default=WorkspaceError) if twice else []
        found = next((one for one in listed if one.name == name), None)
    if found is None:
        return None
    if found.type != "AKS":
        message = f"The compute target {name!r} of this workspace is {found.type}, not an AKS cluster."
        raise PreflightError([Finding("error", "cluster-type", message, "Give the cluster another name.")])
    return found


def facts_of(compute: Any) -> ClusterFacts:
    """A compute target as data."""
    return ClusterFacts(
        name=compute.name,
        state=compute.provisioning_state or "",
        vm_size=compute.agent_vm_size or "",
        nodes=compute.agent_count or 0,
        purpose=compute.cluster_purpose or "",
        attached=bool(compute.is_attached),
        errors=str(compute.provisioning_errors or ""),
    )


def live_sizes(workspace: Any) -> Mapping[str, int] | None:
    """The VM sizes of the workspace's region, each with its GPUs; ``None`` where the list cannot be had."""
    try:
        listed = ask(sdk("azureml.core.compute.AmlCompute").supported_vmsizes, workspace=workspace)
    except PreflightError:
        raise
    except Exception as error:  # noqa: BLE001 - the catalog serves instead; what else is wrong the next call tells
        emit(Event(workspace.name, "vm_sizes", "ok", f"not readable ({type(error).__name__}), the catalog is used"))
        return None
    return {size["name"]: int(size.get("gpus") or 0) for size in listed}


def ensure_cluster(workspace: Any, cluster: Cluster, run: records.Run, *, timeout: float) -> tuple[Any, bool]:
    """Get the cluster, or create or attach it, and wait until it can be used.

    Args:
        workspace: where.
        cluster: with a VM size that exists.
        run: that a new one belongs to.
        timeout: seconds in all.

    Returns:
        the compute target, and whether it is this run's: created or attached by this call, or left behind by one that
        was killed. Then its entry stays ``creating`` until the caller says that all is done.

    Raises:
        ProvisioningError: it could not be made, or was not ready in time.
        PreflightError: an existing one does not fit.
    """
    left = deadline(timeout)
    key = records.workspace_key(workspace)
    # Another process of this machine that creates the same one is waited for, and then its cluster is used.
    patience = timeout if cluster.how == "aks" else _LOCK_SECONDS  # it is only attached when it is there
    with exclusive(_lock_name(key, cluster.name), wait=patience):
        compute = _usable(workspace, cluster, left)
        ours = compute is None or records.inherit(key, cluster.name, run)
        if compute is None:
            make = _make if cluster.how == "aks" and cluster.resource_id is None else _create
            compute = make(workspace, cluster, run, left)
    _wait(compute, cluster.name, left)
    return compute, ours


def delete_cluster(workspace: Any, entry: Entry, *, timeout: float) -> None:
    """Delete a cluster that we have created, or detach one that we have attached, and see that it is gone.

    One that AKS has made for us is detached, then deleted there.

    Raises:
        TeardownError: it is still there.
    """
    made_by_aks = bool(entry.details.get("aks"))
    action = "detach" if entry.details["attached"] or made_by_aks else "delete"
    left = deadline(timeout)

    def act(compute: Any) -> None:
        try:
            call(
                getattr(compute, action),
                doing=f"{action[:6].rstrip('e')}ing cluster {entry.name!r}",
                default=TeardownError,
            )
        except TeardownError as error:
            # Of a cluster that is gone Azure answers 204 without the header that the SDK reads.
            if not isinstance(error.__cause__, KeyError):
                raise

    emit(Event(entry.name, f"{action}_cluster", "start"))
    remove(
        f"cluster {entry.name!r}",
        look=functools.partial(look, workspace, entry.name, twice=True),
        delete=act,
        is_going=lambda compute: compute.provisioning_state in _DELETING,
        is_conflict=is_conflict,
        timeout=timeout,
    )
    emit(Event(entry.name, f"{action}_cluster", "ok"))
    if made_by_aks:
        managed_clusters.delete(arm_of(workspace), entry.name, timeout=left())
    records.forget(entry)


def keep_cluster(workspace: Any, entry: Entry, *, kept: bool, expires: float | None) -> None:
    """Say in the tags of a cluster how long it lives, where it can carry any."""
    if entry.details.get("aks"):
        managed_clusters.keep(arm_of(workspace), entry.name, kept=kept, expires=expires)


def made_elsewhere(workspace: Any) -> list[Entry]:
    """What the tags of AKS clusters tell that were made for a workspace."""
    key = records.workspace_key(workspace)
    return managed_clusters.tagged(arm_of(workspace), key=key, workspace=workspace.name)


def state_of(workspace: Any, entry: Entry) -> str:
    """How Azure calls the state of a cluster: of the compute target, else of the AKS cluster that was made for it."""
    compute = look(workspace, entry.name, twice=True)
    if compute is not None:
        return compute.provisioning_state or "unknown"
    there = managed_clusters.look(arm_of(workspace), entry.name, twice=True) if entry.details.get("aks") else None
    return "absent" if there is None else managed_clusters.state_of(there)


# --- inside -----------------------------------------------------------------------------------------------------------


def _usable(workspace: Any, cluster: Cluster, left: Callable[[], float]) -> Any | None:
    """The existing cluster, once it is neither being deleted nor failed; ``None`` where one has to be made."""
    pauses = Pauses()
    while True:
        # Twice: what we take for absent now we would take for ours after a creation that Azure refuses.
        compute = look(workspace, cluster.name, twice=True)
        if compute is None:
            return None
        if compute.provisioning_state in _FAILED and cluster.replace_failed:
            gone = Entry(records.CLUSTER, "", cluster.name, 0, None, {"attached": bool(compute.is_attached)})
            known = records.find(records.workspace_key(workspace), records.CLUSTER, cluster.name)
            delete_cluster(workspace, known or gone, timeout=left())
            return None
        if compute.provisioning_state not in _DELETING:
            _check_attached(compute, cluster)
            return compute
        emit(Event(cluster.name, "wait_for_deletion", "start"))
        pauses.sleep(left, what=f"cluster {cluster.name!r} is still being deleted", error=ProvisioningError)


def _check_attached(compute: Any, cluster: Cluster) -> None:
    if cluster.resource_id and (compute.cluster_resource_id or "").lower() != cluster.resource_id.lower():
        message = (
            f"The compute target {cluster.name!r} exists and is another AKS cluster: {compute.cluster_resource_id}."
        )
        raise PreflightError([Finding("error", "cluster-taken", message, "Attach yours under another name.")])


def _make(workspace: Any, cluster: Cluster, run: records.Run, left: Callable[[], float]) -> Any:
    """Have AKS make it, then attach it: where that fails it stays written down, and the caller removes it."""
    resource_id = managed_clusters.make(
        arm_of(workspace),
        cluster,
        run,
        key=records.workspace_key(workspace),
        location=workspace.location,
        workspace=workspace.name,
        left=left,
    )
    emit(Event(cluster.name, "attach_cluster", "start"))
    attach = sdk("azureml.core.ComputeTarget").attach
    configuration = _attach_configuration(replace(cluster, resource_id=resource_id))
    try:
        return ask(attach, workspace, cluster.name, configuration)
    except Exception as error:
        found = look(workspace, cluster.name, twice=True)
        if found is not None:
            return found  # our request was done, and its answer lost
        raise azure_error(error, doing=f"attaching cluster {cluster.name!r}", default=ProvisioningError) from error


def _create(workspace: Any, cluster: Cluster, run: records.Run, left: Callable[[], float]) -> Any:
    """Create or attach; a lost answer is looked up, a refusal takes the entry back."""
    del left  # what Azure ML makes is waited for by its compute target
    attached = cluster.resource_id is not None
    key = records.workspace_key(workspace)
    details = {"attached": attached, "vm_size": "" if attached else cluster.vm_size, "nodes": cluster.nodes}
    entry = records.begin(key, records.CLUSTER, cluster.name, run, details)
    doing = f"{'attaching' if attached else 'creating'} cluster {cluster.name!r}"
    emit(Event(cluster.name, "attach_cluster" if attached else "create_cluster", "start"))
    try:
        target = sdk("azureml.core.ComputeTarget")
        make, configuration = (
            (target.attach, _attach_configuration(cluster))
            if attached
            else (target.create, _provisioning_configuration(cluster))
        )
    except BaseException:
        records.forget(entry)  # nothing was sent
        raise
    try:
        return ask(make, workspace, cluster.name, configuration)
    except Exception as error:
        typed = azure_error(error, doing=doing, default=ProvisioningError)
        try:
            found = look(workspace, cluster.name, twice=True)
        except WorkspaceError:
            raise typed from error  # the entry stays: it may exist
        if found is not None:
            return found  # it was absent a moment ago: our request was done, and its answer lost
        if is_refusal(error):
            records.forget(entry)
        else:
            records.settle(entry, state="failed")
        raise typed from error


def _provisioning_configuration(cluster: Cluster) -> Any:
    configure = sdk("azureml.core.compute.AksCompute").provisioning_configuration
    return call(
        configure,
        agent_count=cluster.nodes,
        vm_size=cluster.vm_size,
        location=cluster.location,
        cluster_purpose=cluster.purpose,
        **cluster.options,
        doing=f"configuring cluster {cluster.name!r}",
        default=ProvisioningError,
    )


def _attach_configuration(cluster: Cluster) -> Any:
    configure = sdk("azureml.core.compute.AksCompute").attach_configuration
    return call(
        configure,
        resource_id=cluster.resource_id,
        cluster_purpose=cluster.purpose,
        **cluster.options,
        doing=f"configuring cluster {cluster.name!r}",
        default=ProvisioningError,
    )


def _wait(compute: Any, name: str, left: Callable[[], float]) -> None:
    """Poll with the public getter: ``wait_for_completion()`` sleeps 5 s at a time and has no time-out."""
    pauses = Pauses()
    began = time.monotonic()
    while True:
        try:
            state = ask(compute.get_status)
            pauses.succeeded()
        except Exception as error:
            typed = azure_error(error, doing=f"waiting for cluster {name!r}", default=ProvisioningError)
            if is_absent(error) or pauses.failed():
                raise typed from error
            state = "not readable"
        if state == "Succeeded":
            emit(Event(name, "cluster", "ok", "ready"))
            return
        if state in _FAILED:
            raise azure_error(
                None,
                doing=f"creating cluster {name!r}",
                default=ProvisioningError,
                text=f"Provisioning ended {state}: {compute.provisioning_errors or 'Azure gives no reason.'}",
            )
        emit(Event(name, "cluster", "start", f"{state}, {time.monotonic() - began:.0f} s"))
        pauses.sleep(left, what=f"cluster {name!r} is still {state}", error=ProvisioningError)


def _lock_name(key: str, name: str) -> str:
    return f"aks-{hashlib.sha256(f'{key}/{name}'.encode()).hexdigest()[:16]}"
