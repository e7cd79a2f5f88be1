"""Removal of what was made for an online endpoint, and the ledger struck out behind each."""

from __future__ import annotations

from typing import Any

from gpu_infer.errors import GpuInferError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.targets import records
from gpu_infer.targets.online import autoscale, deployments, endpoints
from gpu_infer.targets.online.models import archive_models_of
from gpu_infer.targets.online.sdk import key_of

__all__ = ["delete", "drop_deployment", "remove", "roll_back"]

DELETE_SECONDS = 2400.0
"""For an endpoint to be gone: some minutes as a rule."""


def delete(client: Any, name: str, *, model: bool) -> None:
    """The endpoint with all its deployments, then the models that we have registered for it.

    From the first moment on all of it counts as being removed: wherever this process ends, ``sweep()`` goes on.

    Raises:
        TeardownError: something is left.
        WorkspaceError: a model could not be archived.
    """
    entry = records.find(key_of(client), records.SERVICE, name)
    below = _deployments_below(client, name)
    endpoint = endpoints.look(client, name) if entry is None and model else None
    run = entry.details["run"] if entry else records.read_tags(endpoint.tags if endpoint else None).get("run", "")
    going = records.take_over([*([] if entry is None else [entry]), *below], state="deleting")
    try:
        there = deployments.list_deployments(client, name)
        endpoints.delete_endpoint(client, name, timeout=DELETE_SECONDS)
        autoscale.drop(client, there)
    except BaseException:
        records.settle_all(going, state="failed")  # given up, so the next sweep() has it
        raise
    for one in going:
        records.forget(one)
    if model:
        archived = archive_models_of(client, run) if run else []
        if not archived:
            emit(Event(name, "delete_model", "warning", "its model stays: it was not registered for this service"))


def drop_deployment(client: Any, endpoint: str, name: str) -> None:
    """Delete one deployment; what traffic it has goes to the others before.

    Raises:
        TeardownError: it is still there.
        DeploymentError: its traffic could not be moved.
    """
    found = endpoints.look(client, endpoint)
    if found is not None:
        traffic: dict[str, int] = dict(found.traffic or {})
        mirror: dict[str, int] = dict(found.mirror_traffic or {})
        if traffic.pop(name.lower(), 0) or mirror.pop(name.lower(), 0):
            endpoints.send_traffic(client, endpoint, _to_hundred(traffic), mirror=mirror)
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
    there = deployments.list_deployments(client, entry.name)
    endpoints.delete_endpoint(client, entry.name, timeout=DELETE_SECONDS)
    autoscale.drop(client, there)
    for one in _deployments_below(client, entry.name):
        records.forget(one)
    records.forget(entry)


def roll_back(client: Any, run: records.Run, error: BaseException) -> None:
    """Remove what a run has created; what cannot be removed stays written down, and the error names it."""
    made = [one for one in records.entries(key_of(client)) if one.details["run"] == run.id]
    # The endpoint takes its deployments along.
    whole = {one.name for one in made if one.kind == records.SERVICE}
    alone = [one for one in made if one.kind == records.SERVICE or one.name.partition("/")[0] not in whole]
    # Given up before it is removed: whatever comes in between, the next sweep() has it.
    records.settle_all(made, state="failed")
    for entry in alone:
        emit(Event(entry.name, f"remove_{entry.kind}", "start"))
        try:
            remove(client, entry)
        except GpuInferError as problem:
            left = (
                f"{entry.kind} {entry.name!r} may exist and be billed; gpu_infer.sweep(ml_client) removes it once "
                f"Azure lets it: {problem}"
            )
            error.add_note(left)
            emit(Event(entry.name, f"remove_{entry.kind}", "warning", left))


# --- inside -----------------------------------------------------------------------------------------------------------


def _deployments_below(client: Any, endpoint: str) -> list[Entry]:
    below = f"{endpoint}/"
    found = records.entries(key_of(client))
    return [one for one in found if one.kind == records.DEPLOYMENT and one.name.startswith(below)]


def _to_hundred(traffic: dict[str, int]) -> dict[str, int]:
    """Shares that add up to a hundred, as Azure demands, in the proportion that they have."""
    total = sum(traffic.values())
    if not total:
        return {}
    names = list(traffic)
    shares = {name: round(100 * traffic[name] / total) for name in names}
    shares[names[0]] += 100 - sum(shares.values())
    return shares
