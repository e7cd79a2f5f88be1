"""Removal of what was made for an online endpoint, and the ledger struck out behind each."""

from __future__ import annotations

from typing import Any

from gpu_infer.errors import GpuInferError, TeardownError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.targets import records
from gpu_infer.targets.online import autoscale, compute, deployments, endpoints
from gpu_infer.targets.online.models import archive_models_of
from gpu_infer.targets.online.sdk import key_of, state_of

__all__ = ["delete", "deployments_below", "drop_deployment", "remove", "roll_back"]

DELETE_SECONDS = 2400.0
"""For an endpoint to be gone: some minutes as a rule."""


def delete(client: Any, name: str, *, cluster: bool, model: bool) -> None:
    """The endpoint with all its deployments, then its compute if it is ours, then the models registered for it.

    From the first moment on all of it counts as being removed: wherever this process ends, ``sweep()`` goes on.

    Args:
        client: of the workspace.
        name: of the endpoint.
        cluster: whether the Kubernetes compute goes, too; one that we have not attached stays.
        model: whether the models that we have registered for it go, too.

    Raises:
        TeardownError: something is left.
        WorkspaceError: a model could not be archived.
    """
    entry = records.find(key_of(client), records.SERVICE, name)
    below = deployments_below(client, name)
    endpoint = endpoints.look(client, name) if entry is None and (model or cluster) else None
    run = entry.details["run"] if entry else records.read_tags(endpoint.tags if endpoint else None).get("run", "")
    kubernetes = _compute_below(client, name, entry, endpoint) if cluster else None
    all_of_it = [*([] if entry is None else [entry]), *below]
    going = records.take_over([*all_of_it, *([] if kubernetes is None else [kubernetes])], state="deleting")
    users: list[str] = []
    try:
        there = deployments.list_deployments(client, name)
        endpoints.delete_endpoint(client, name, timeout=DELETE_SECONDS)
        autoscale.drop(client, there)
        for one in all_of_it:
            records.forget(one)
        if kubernetes is not None:
            users = _users_of(client, kubernetes)
            if not users:
                _remove_compute(client, kubernetes)
    except BaseException:
        records.settle_all(going, state="failed")  # given up, so the next sweep() has it
        raise
    if cluster and kubernetes is None and (compute.name_of(endpoint) or (entry and entry.details.get("cluster"))):
        emit(Event(name, "delete_cluster", "warning", "its cluster stays: this library has not attached it"))
    if model:
        archived = archive_models_of(client, run) if run else []
        if not archived:
            emit(Event(name, "delete_model", "warning", "its model stays: it was not registered for this service"))
    if kubernetes is not None and users:
        records.settle_all([kubernetes])  # as it was before
        raise _still_used(kubernetes, users)


def drop_deployment(client: Any, endpoint: str, name: str) -> None:
    """Delete one deployment; what traffic it has goes to the others before, or to another one that is ready.

    Raises:
        TeardownError: it is still there.
        DeploymentError: its traffic could not be moved.
    """
    found = endpoints.look(client, endpoint, twice=True)
    if found is not None:
        traffic = endpoints.traffic_of(found)
        mirror: dict[str, int] = dict(found.mirror_traffic or {})
        share, copies = traffic.pop(name.lower(), 0), mirror.pop(name.lower(), 0)
        if share or copies:
            left = _to_hundred(traffic) or (_heir(client, endpoint, name) if share else {})
            endpoints.send_traffic(client, endpoint, left, mirror=mirror)
        there = deployments.look(client, endpoint, name)
        deployments.delete_deployment(client, endpoint, name, timeout=DELETE_SECONDS)
        autoscale.drop(client, [] if there is None else [there])
    entry = records.find(key_of(client), records.DEPLOYMENT, deployments.entry_name(endpoint, name))
    if entry is not None:
        records.forget(entry)


def remove(client: Any, entry: Entry) -> None:
    """Remove what one entry names, and strike it out.

    Raises:
        TeardownError: it is still there.
    """
    if entry.kind == records.DEPLOYMENT:
        endpoint, _, name = entry.name.partition("/")
        drop_deployment(client, endpoint, name)
        records.forget(entry)
        return
    if entry.kind == records.AUTOSCALE:
        autoscale.remove(client, entry)
        records.forget(entry)
        return
    if entry.kind == records.CLUSTER:
        users = _users_of(client, entry)
        if users:
            raise _still_used(entry, users)
        _remove_compute(client, entry)
        return
    there = deployments.list_deployments(client, entry.name)
    endpoints.delete_endpoint(client, entry.name, timeout=DELETE_SECONDS)
    autoscale.drop(client, there)
    for one in deployments_below(client, entry.name):
        records.forget(one)
    records.forget(entry)


def roll_back(client: Any, run: records.Run, error: BaseException) -> None:
    """Remove what a run has created; what cannot be removed stays written down, and the error names it."""
    made = [one for one in records.entries(key_of(client)) if one.details["run"] == run.id]
    # The endpoint takes its deployments along.
    whole = {one.name for one in made if one.kind == records.SERVICE}
    alone = [one for one in made if one.kind != records.DEPLOYMENT or one.name.partition("/")[0] not in whole]
    # Given up before it is removed: whatever comes in between, the next sweep() has it.
    records.settle_all(made, state="failed")
    for entry in alone:
        emit(Event(entry.name, f"remove_{entry.kind}", "start"))
        try:
            if _is_another(client, entry):
                records.forget(entry)
            else:
                remove(client, entry)
        except GpuInferError as problem:
            left = (
                f"{entry.kind} {entry.name!r} may exist and be billed; gpu_infer.sweep(ml_client) removes it once "
                f"Azure lets it: {problem}"
            )
            error.add_note(left)
            emit(Event(entry.name, f"remove_{entry.kind}", "warning", left))


def deployments_below(client: Any, endpoint: str) -> list[Entry]:
    """What the ledger has of the deployments of an endpoint."""
    below = f"{endpoint}/"
    found = records.entries(key_of(client))
    return [one for one in found if one.kind == records.DEPLOYMENT and one.name.startswith(below)]


# --- inside -----------------------------------------------------------------------------------------------------------


def _compute_below(client: Any, name: str, entry: Entry | None, endpoint: Any | None) -> Entry | None:
    """The Kubernetes compute of an endpoint where this library has attached it: by the ledger, else by its tags.

    Where the endpoint is gone already, the compute remembers which it had.
    """
    key = key_of(client)
    known = entry.details.get("cluster", "") if entry is not None else compute.name_of(endpoint)
    if not known:
        written = records.entries(key)
        return next((one for one in written if name in one.details.get("services", ())), None)
    below = records.find(key, records.CLUSTER, known)
    if below is None:
        found = compute.look(client, known)
        tags = records.read_tags(found.tags if found is not None else None)
        below = records.adopt(records.unwritten(key, records.CLUSTER, known, tags)) if tags else None
    return below if below is None else records.remember_service(below, name)


def _users_of(client: Any, entry: Entry) -> list[str]:
    """The endpoints that are on a compute."""
    there = endpoints.list_endpoints(client)
    return [one.name for one in there if compute.name_of(one).lower() == entry.name.lower()]


def _still_used(entry: Entry, users: list[str]) -> TeardownError:
    message = (
        f"Cluster {entry.name!r} is still attached: other endpoints are on it ({', '.join(users)}). Delete those first."
    )
    return TeardownError(message, left=[f"cluster {entry.name!r}"])


def _remove_compute(client: Any, entry: Entry) -> None:
    compute.detach(client, entry, timeout=DELETE_SECONDS)
    records.forget(entry)


def _is_another(client: Any, entry: Entry) -> bool:
    """Whether what has the name of an entry was made by another run: somebody was quicker with it."""
    if entry.kind == records.SERVICE:
        found = endpoints.look(client, entry.name)
    elif entry.kind == records.DEPLOYMENT:
        endpoint, _, name = entry.name.partition("/")
        found = deployments.look(client, endpoint, name)
    else:
        return False
    run = records.read_tags(found.tags).get("run") if found is not None else None
    return run is not None and run != entry.details["run"]


def _heir(client: Any, endpoint: str, gone: str) -> dict[str, int]:
    """All requests for another deployment that is ready: an update that was cut off may have left the old one."""
    ready = [
        one.name
        for one in deployments.list_deployments(client, endpoint)
        if one.name != gone and state_of(one) == "Succeeded"
    ]
    return {ready[0]: 100} if ready else {}


def _to_hundred(traffic: dict[str, int]) -> dict[str, int]:
    """Shares that add up to a hundred, as Azure demands, in the proportion that they have."""
    total = sum(traffic.values())
    if not total:
        return {}
    names = list(traffic)
    shares = {name: round(100 * traffic[name] / total) for name in names}
    shares[names[0]] += 100 - sum(shares.values())
    return shares
