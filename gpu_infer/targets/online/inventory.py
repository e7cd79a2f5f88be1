"""What is there in a workspace of what this library has made: by the tags of endpoints, deployments and settings."""

from __future__ import annotations

from typing import Any

from gpu_infer.ledger import Entry
from gpu_infer.targets import records
from gpu_infer.targets.online import autoscale, compute, deployments, endpoints
from gpu_infer.targets.online.sdk import key_of, state_of

__all__ = ["state_of_entry", "tagged"]


def tagged(client: Any) -> list[Entry]:
    """What the tags of endpoints, deployments and computes tell of, and autoscale settings whose deployment is gone.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    key = key_of(client)
    found: list[Entry] = []
    lives: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints.list_endpoints(client):
        life = records.read_tags(endpoint.tags)
        if not life:
            continue
        found.append(records.unwritten(key, records.SERVICE, endpoint.name, life))
        lives[compute.name_of(endpoint)] = life
        for one in deployments.list_deployments(client, endpoint.name):
            known = records.read_tags(one.tags)
            if known:
                # How long it lives is changed on the endpoint.
                known = {**known, "kept": life["kept"], "expires": life["expires"]}
                name = deployments.entry_name(endpoint.name, one.name)
                found.append(records.unwritten(key, records.DEPLOYMENT, name, known))
    for one in compute.list_computes(client):
        known = records.read_tags(one.tags)
        if known:
            life = lives.get(one.name, known)  # how long a compute lives is changed on the endpoint, too
            known = {**known, "kept": life["kept"], "expires": life["expires"]}
            found.append(records.unwritten(key, records.CLUSTER, one.name, known))
    there = {one.name.lower() for one in found}
    orphans = [one for one in autoscale.settings(client) if one.name.lower() not in there and not _serves(client, one)]
    return [*found, *orphans]


def state_of_entry(client: Any, entry: Entry) -> str:
    """How Azure calls the state of what an entry names; ``absent`` where it is not there.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    if entry.kind == records.AUTOSCALE:
        setting = autoscale.look(client, entry)
        return "absent" if setting is None else "Enabled" if setting.enabled else "Disabled"
    if entry.kind == records.CLUSTER:
        found = compute.look(client, entry.name, twice=True)
    elif entry.kind == records.SERVICE:
        found = endpoints.look(client, entry.name, twice=True)
    else:
        endpoint, _, name = entry.name.partition("/")
        found = deployments.look(client, endpoint, name, twice=True)
    return "absent" if found is None else state_of(found)


# --- inside -----------------------------------------------------------------------------------------------------------


def _serves(client: Any, setting: Entry) -> bool:
    """Whether the deployment of a setting is there: in an endpoint that is not ours it was not among those seen."""
    endpoint, _, name = setting.name.partition("/")
    return deployments.look(client, endpoint, name, twice=True) is not None
