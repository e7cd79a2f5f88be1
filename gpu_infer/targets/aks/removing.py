"""Removal of what was made on AKS: service, then cluster, then models, and the ledger struck out behind each."""

from __future__ import annotations

from typing import Any

from gpu_infer.errors import GpuInferError, TeardownError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.targets import records
from gpu_infer.targets.aks import clusters, services
from gpu_infer.targets.aks.models import delete_models_of

__all__ = ["delete", "remove", "roll_back"]

DELETE_SECONDS = 2400.0
"""For a cluster to be gone: minutes as a rule."""


def delete(workspace: Any, name: str, entry: Entry | None, *, cluster: bool, model: bool) -> None:
    """Service, then cluster if it is ours, then the models that we have registered for it.

    From the first moment on all of it counts as being removed: wherever this process ends, ``sweep()`` goes on.

    Args:
        workspace: where.
        name: of the service.
        entry: of it, ``None`` where the ledger has none.
        cluster: whether the cluster goes, too.
        model: whether the models go, too.

    Raises:
        TeardownError: something is left.
        WorkspaceError: a model could not be deleted.
    """
    service = services.look(workspace, name) if entry is None else None
    below = _cluster_below(workspace, name, entry, service)
    doomed = below if cluster else None
    going = records.take_over([one for one in (entry, doomed) if one is not None], state="deleting")
    users: list[str] = []
    try:
        services.delete_service(workspace, name, timeout=DELETE_SECONDS)
        if entry is not None:
            records.forget(entry)
        if doomed is not None:
            users = _users_of(workspace, doomed)
            if not users:
                clusters.delete_cluster(workspace, doomed, timeout=DELETE_SECONDS)
    except BaseException:
        records.settle_all(going, state="failed")  # given up, so the next sweep() has it
        raise
    if cluster and below is None:
        emit(Event(name, "delete_cluster", "warning", "its cluster stays: this library has not created it"))
    if model:
        _delete_models(workspace, name, entry, service)
    if doomed is not None and users:
        records.settle_all([doomed])  # as it was before
        raise _still_used(doomed, users)


def remove(workspace: Any, entry: Entry) -> None:
    """Remove what one entry names, and strike it out.

    Raises:
        TeardownError: it is still there.
    """
    if entry.kind == records.SERVICE:
        if records.find(entry.target, records.SERVICE, entry.name) is None:
            _cluster_below(workspace, entry.name, None, services.look(workspace, entry.name))
        services.delete_service(workspace, entry.name, timeout=DELETE_SECONDS)
        records.forget(entry)
        return
    users = _users_of(workspace, entry)
    if users:
        raise _still_used(entry, users)
    clusters.delete_cluster(workspace, entry, timeout=DELETE_SECONDS)


def roll_back(workspace: Any, run: records.Run, error: BaseException) -> None:
    """Remove what a run has created; what cannot be removed stays written down, and the error names it."""
    written = records.entries(records.workspace_key(workspace))
    made = [one for one in written if one.details["run"] == run.id and not one.details.get("existed")]
    # Given up before it is removed: whatever comes in between, the next sweep() has it.
    for entry in records.settle_all(made, state="failed"):
        emit(Event(entry.name, f"remove_{entry.kind}", "start"))
        try:
            remove(workspace, entry)
        except GpuInferError as problem:
            left = (
                f"{entry.kind} {entry.name!r} may exist and be billed; gpu_infer.sweep(workspace) removes it "
                f"once Azure lets it: {problem}"
            )
            error.add_note(left)
            emit(Event(entry.name, f"remove_{entry.kind}", "warning", left))


# --- inside -----------------------------------------------------------------------------------------------------------


def _cluster_below(workspace: Any, name: str, entry: Entry | None, service: Any | None) -> Entry | None:
    """The cluster of a service where this library has created it.

    The ledger tells, else the tags of the service. Those go with it, so what they tell of the cluster is written down
    here first. Where the service is gone already the cluster remembers which services it had.
    """
    key = records.workspace_key(workspace)
    if entry is not None:
        return records.find(key, records.CLUSTER, entry.details["cluster"])
    if service is None:
        return next((one for one in records.entries(key) if name in one.details.get("services", ())), None)
    below = records.find(key, records.CLUSTER, service.compute_name)
    known = records.read_tags(service.tags)
    if below is None and known.get("cluster_created"):
        below = records.adopt(records.unwritten(key, records.CLUSTER, service.compute_name, known))
    return below if below is None else records.remember_service(below, name)


def _users_of(workspace: Any, entry: Entry) -> list[str]:
    """The services that run on a cluster."""
    return [service.name for service in services.list_services(workspace, cluster=entry.name)]


def _still_used(entry: Entry, users: list[str]) -> TeardownError:
    message = (
        f"Cluster {entry.name!r} was not deleted and is still billed: other services run on it "
        f"({', '.join(users)}). Delete those first."
    )
    return TeardownError(message, left=[f"cluster {entry.name!r}"])


def _delete_models(workspace: Any, name: str, entry: Entry | None, service: Any | None) -> None:
    """Delete what was registered for a service, and say what it has served and stays."""
    if entry is not None:
        run, served = entry.details["run"], [entry.details["model"]]
    elif service is not None:
        run = records.read_tags(service.tags).get("run", "")
        models: list[Any] = service.models or []
        served = [f"{one.name}:{one.version}" for one in models]
    else:
        emit(Event(name, "delete_model", "warning", "the service is gone, and which models it had is not known here"))
        return
    deleted = delete_models_of(workspace, run) if run else []
    for kept in [one for one in served if one not in deleted]:
        emit(Event(name, "delete_model", "warning", f"model {kept} stays: it was not registered for this service"))
