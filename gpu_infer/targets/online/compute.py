"""Kubernetes clusters (AKS or Arc) that are attached to a workspace: look, get or attach, wait, detach."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpu_infer.diagnose import azure_error
from gpu_infer.errors import Finding, PreflightError, ProvisioningError, TeardownError, WorkspaceError
from gpu_infer.ledger import Entry, exclusive
from gpu_infer.preflight.facts import OnlineFacts
from gpu_infer.preflight.kubernetes import check_absent, check_compute, choose_instance_type
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Cluster, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.calls import call, deadline
from gpu_infer.targets.online.reading import compute_facts
from gpu_infer.targets.online.sdk import (
    begin,
    entity,
    finish,
    is_conflict,
    key_of,
    operate,
    seen,
    settle_failure,
    state_of,
)
from gpu_infer.targets.waiting import Pauses, remove

__all__ = ["WAIT_SECONDS", "detach", "ensure_compute", "list_computes", "look", "name_of", "prepare"]

WAIT_SECONDS = 1800.0
"""For a cluster to be attached: about five minutes as a rule."""

_KIND = "kubernetes"
_LOCK_SECONDS = 120.0
_FAILED = ("Failed", "Canceled")
_GOING = ("Deleting", "Detaching")


def look(client: Any, name: str, *, twice: bool = False) -> Any | None:
    """The compute of that name, ``None`` where there is none.

    Args:
        client: of the workspace.
        name: of the compute.
        twice: believe that there is none only where the list of all does not have it either.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """

    def listed() -> Any | None:
        return next((one for one in list_computes(client) if one.name.lower() == name.lower()), None)

    doing = f"looking for compute {name!r}"
    return seen(lambda: client.compute.get(name), doing=doing, otherwise=listed if twice else None)


def list_computes(client: Any) -> list[Any]:
    """All computes of the workspace, of whatever kind.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    return call(lambda: list(client.compute.list()), doing="listing the computes", default=WorkspaceError)


def name_of(endpoint: Any) -> str:
    """The name of the compute that an endpoint is on; empty for a managed one."""
    return str(getattr(endpoint, "compute", None) or "").rstrip("/").rpartition("/")[2].removeprefix("azureml:")


def prepare(client: Any, spec: ServiceSpec, run: records.Run) -> tuple[ServiceSpec, bool]:
    """Have the compute of a service ready; nothing for a managed one.

    Returns:
        the spec, with an instance type of the compute where it names none; and whether the compute is this run's.

    Raises:
        PreflightError: there is none and nothing to attach, or it does not fit.
        ProvisioningError: it could not be attached.
    """
    if spec.cluster is None:
        return spec, False
    found, ours = ensure_compute(client, spec.cluster, run, timeout=WAIT_SECONDS)
    below = records.find(key_of(client), records.CLUSTER, found.name)
    if below is not None:
        records.remember_service(below, spec.name)
    if ours:  # what it has could not be seen before
        facts = OnlineFacts(compute=compute_facts(found))
        spec = replace(spec, resources=replace(spec.resources, vm_size=choose_instance_type(spec, facts.compute)))
        findings = check_compute(spec, spec.cluster or Cluster(), facts)
        if any(finding.level == "error" for finding in findings):
            raise PreflightError(findings)
        for finding in findings:
            emit(Event(spec.name, finding.code, "warning" if finding.level == "warning" else "ok", str(finding)))
    return spec, ours


def ensure_compute(client: Any, cluster: Cluster, run: records.Run, *, timeout: float) -> tuple[Any, bool]:
    """Get the compute of a cluster, or attach it, and wait until it can be used.

    Args:
        client: of the workspace.
        cluster: by its name; with a resource id it is attached where no compute has the name.
        run: that a new one belongs to.
        timeout: seconds in all.

    Returns:
        the SDK's compute, and whether it is this run's: attached by this call, or left behind by one that was killed.

    Raises:
        PreflightError: there is none and nothing to attach, or an existing one does not fit.
        ProvisioningError: it could not be attached, or not in time.
    """
    left = deadline(timeout)
    key = key_of(client)
    with exclusive(_lock_name(key, cluster.name), wait=_LOCK_SECONDS):
        compute = _usable(client, cluster, left)
        ours = compute is None or records.inherit(key, cluster.name, run)
        if compute is None:
            _attach(client, cluster, run, left)
    return _wait(client, cluster.name, left), ours


def detach(client: Any, entry: Entry, *, timeout: float) -> None:
    """Detach a compute, and see that it is gone; the cluster behind it goes on.

    Raises:
        TeardownError: it is still attached.
    """
    doing = f"detaching cluster {entry.name!r}"

    def act(_: Any) -> None:
        operate(
            client.compute.begin_delete,
            entry.name,
            action="Detach",
            name=entry.name,
            what="detach_cluster",
            doing=doing,
            seconds=timeout,
            error=TeardownError,
        )

    emit(Event(entry.name, "detach_cluster", "start"))
    remove(
        f"cluster {entry.name!r}",
        look=functools.partial(look, client, entry.name, twice=True),
        delete=act,
        is_going=lambda compute: state_of(compute) in _GOING,
        is_conflict=is_conflict,
        timeout=timeout,
    )
    emit(Event(entry.name, "detach_cluster", "ok"))


# --- inside -----------------------------------------------------------------------------------------------------------


def _usable(client: Any, cluster: Cluster, left: Callable[[], float]) -> Any | None:
    """The existing compute, once it is neither going nor failed; ``None`` where one has to be attached."""
    pauses = Pauses()
    while True:
        # Twice: what we take for absent now we would take for ours after an attachment that Azure refuses.
        compute = look(client, cluster.name, twice=True)
        if compute is None:
            if cluster.resource_id is None:
                raise PreflightError(check_absent(cluster))
            return None
        if state_of(compute) in _FAILED and cluster.replace_failed:
            known = records.find(key_of(client), records.CLUSTER, cluster.name)
            detach(client, known or Entry(records.CLUSTER, "", cluster.name, 0, None, {}), timeout=left())
            if known is not None:
                records.forget(known)
            return None
        if state_of(compute) not in _GOING:
            _check_fits(compute, cluster)
            return compute
        emit(Event(cluster.name, "wait_for_detachment", "start"))
        pauses.sleep(left, what=f"cluster {cluster.name!r} is still being detached", error=ProvisioningError)


def _check_fits(compute: Any, cluster: Cluster) -> None:
    name = cluster.name
    if str(compute.type).lower() != _KIND:
        message = f"The compute {name!r} of this workspace is of type {compute.type!r}, which runs no online endpoints."
        raise PreflightError([Finding("error", "cluster-type", message, "Attach a cluster under another name.")])
    there = str(compute.resource_id or "")
    if cluster.resource_id and there.lower() != cluster.resource_id.lower():
        message = f"The compute {name!r} exists and is another cluster: {there}."
        raise PreflightError([Finding("error", "cluster-taken", message, "Attach yours under another name.")])


def _attach(client: Any, cluster: Cluster, run: records.Run, left: Callable[[], float]) -> None:
    """Attach a cluster, written down before; a lost answer is looked up, a refusal takes the entry back."""
    name = cluster.name
    details = {"attached": True, "vm_size": "", "nodes": 0, "resource_id": cluster.resource_id}
    entry = records.begin(key_of(client), records.CLUSTER, name, run, details)
    doing = f"attaching cluster {name!r}"
    emit(Event(name, "attach_cluster", "start"))
    try:
        tags = records.own_tags(run, created=entry.created, nodes=details, cluster="attached")
        wanted = entity("KubernetesCompute")(name=name, resource_id=cluster.resource_id, tags=tags)
    except BaseException:
        records.forget(entry)  # nothing was sent
        raise
    try:
        poller = begin(client.compute.begin_attach, wanted)
    except Exception as error:  # noqa: BLE001 - raised again there, but where all was done
        typed = azure_error(error, doing=doing, default=ProvisioningError)
        settle_failure(entry, error, typed, look=lambda: look(client, name, twice=True))
        return
    finish(poller, name, what="cluster", doing=doing, left=left, default=ProvisioningError)


def _wait(client: Any, name: str, left: Callable[[], float]) -> Any:
    """Poll with the public getter until the compute has a state that does not pass."""
    pauses = Pauses()
    began = time.monotonic()
    while True:
        try:
            compute = look(client, name)
            state = "absent" if compute is None else state_of(compute)
            pauses.succeeded()
        except WorkspaceError:
            if pauses.failed():
                raise
            compute, state = None, "not readable"
        if compute is not None and state in ("Succeeded", "unknown"):
            emit(Event(name, "cluster", "ok", "ready"))
            return compute
        if state in _FAILED or state == "absent":
            text = f"It is {state}: {getattr(compute, 'provisioning_errors', None) or 'Azure gives no reason.'}"
            raise azure_error(None, doing=f"attaching cluster {name!r}", default=ProvisioningError, text=text)
        emit(Event(name, "cluster", "start", f"{state}, {time.monotonic() - began:.0f} s"))
        pauses.sleep(left, what=f"cluster {name!r} is still {state}", error=ProvisioningError)


def _lock_name(key: str, name: str) -> str:
    return f"compute-{hashlib.sha256(f'{key}/{name}'.encode()).hexdigest()[:16]}"
