"""``provision_cluster()``: get or create a GPU cluster, apart from any service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from gpu_infer.catalog import DEFAULT_SIZE
from gpu_infer.errors import GpuInferError, PreflightError
from gpu_infer.ledger import Entry
from gpu_infer.preflight import WorkspaceFacts, check_cluster, check_way, makes_cluster, resolve_size
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Cluster, How, seconds_of
from gpu_infer.targets import records
from gpu_infer.targets.aks import clusters

__all__ = ["provision_cluster"]


def provision_cluster(
    workspace: Any,
    name: str = "aks-gpu",
    vm_size: str = "Standard_NC6",
    nodes: int = 3,
    *,
    purpose: Literal["FastProd", "DevTest"] = "FastProd",
    location: str | None = None,
    resource_id: str | None = None,
    options: Mapping[str, Any] | None = None,
    replace_retired: bool = True,
    replace_failed: bool = False,
    how: How = "azureml",
    ttl: float | str | timedelta | None = None,
    keep: bool = False,
    timeout: float | str | timedelta = clusters.WAIT_SECONDS,
) -> Any:
    """Get a GPU cluster of that name, or create it; wait until it can be used.

    A new one is written down in the ledger first, and billed from then on: ``leftovers()`` lists it, and ``sweep()``
    deletes it when its time is over.

    Args:
        workspace: ``azureml.core.Workspace``.
        name: of the compute target.
        vm_size: of its nodes. Of a retired size, as the default is, the documented successor is taken, with a warning.
        nodes: how many.
        purpose: ``"FastProd"`` needs 3 nodes and 12 vCPUs, ``"DevTest"`` one node.
        location: Azure region; the workspace's where ``None``.
        resource_id: attach this AKS cluster instead of creating one.
        options: more of ``AksCompute.provisioning_configuration``, such as ``ssl_cname`` or ``vnet_name``.
        replace_retired: ``False`` turns a retired size into an error.
        replace_failed: delete an existing cluster of that name whose provisioning has failed, and create it anew.
        how: ``"azureml"`` has Azure ML create it, with a Basic load balancer, which Azure may refuse by now; ``"aks"``
            AKS itself, with a Standard one (extra ``clusters``), and attaches it. Either is deleted by what deletes
            clusters here.
        ttl: how long a new one lives, 8 hours where ``None``.
        keep: let a new one live for good (or for ``ttl``).
        timeout: to wait for it.

    Returns:
        ``azureml.core.compute.AksCompute``.

    Raises:
        PreflightError: the size or an existing cluster does not fit; nothing was created.
        ProvisioningError: Azure could not make it, or not in time. What was created is removed again.
    """
    cluster = Cluster(
        name,
        vm_size=vm_size,
        nodes=nodes,
        location=location,
        resource_id=resource_id,
        purpose=purpose,
        options=dict(options or {}),
        replace_failed=replace_failed,
        how=how,
    )
    compute = clusters.look(workspace, name)
    facts = WorkspaceFacts(
        location=location or workspace.location,
        sizes=clusters.live_sizes(workspace),
        cluster=clusters.facts_of(compute) if compute is not None else None,
        gpus_taken=0,
        service_exists=False,
    )
    findings = []
    today = datetime.now(UTC).date()
    if resource_id is None and makes_cluster(cluster, facts):
        size, findings = resolve_size(
            vm_size or DEFAULT_SIZE, facts.sizes, replace_retired=replace_retired, today=today
        )
        cluster = replace(cluster, vm_size=size)
    findings += [*check_cluster(cluster, facts), *check_way(cluster, facts)]
    if any(finding.level == "error" for finding in findings):
        raise PreflightError(findings)
    for finding in findings:
        emit(Event(name, finding.code, "warning" if finding.level == "warning" else "ok", str(finding)))
    run = records.new_run(ttl=None if ttl is None else seconds_of(ttl), keep=keep)
    try:
        compute = clusters.ensure_cluster(workspace, cluster, run, timeout=seconds_of(timeout))[0]
        made = _made_by(run, workspace, name)
        for entry in made if run.kept and run.expires is None else ():
            clusters.keep_cluster(workspace, entry, kept=True, expires=None)
        records.settle_all(made, state="live")
    except BaseException as error:
        _roll_back(workspace, name, run, error)
        raise
    return compute


def _made_by(run: records.Run, workspace: Any, name: str) -> list[Entry]:
    entry = records.find(records.workspace_key(workspace), records.CLUSTER, name)
    return [entry] if entry is not None and entry.details["run"] == run.id else []


def _roll_back(workspace: Any, name: str, run: records.Run, error: BaseException) -> None:
    # Given up before it is removed: whatever comes in between, the next sweep() has it.
    for entry in records.settle_all(_made_by(run, workspace, name), state="failed"):
        try:
            clusters.delete_cluster(workspace, entry, timeout=clusters.WAIT_SECONDS)
        except GpuInferError as problem:
            error.add_note(
                f"Cluster {name!r} may exist and be billed; gpu_infer.sweep(workspace) removes it: {problem}"
            )
