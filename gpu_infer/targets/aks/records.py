"""What is written down about things in Azure: in the ledger before they are created, and in tags where they can be.

Services take tags. A cluster that ``azureml-core`` creates takes none, so a service also carries what is known of the
cluster below it.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpu_infer.catalog import find_size
from gpu_infer.ledger import Entry, Ledger
from gpu_infer.spec import DEFAULT_TTL, ServiceSpec
from gpu_infer.targets._supervisor import process_alive, process_start

__all__ = [
    "CLUSTER",
    "SERVICE",
    "Run",
    "begin",
    "cluster_price",
    "entries",
    "find",
    "forget",
    "is_abandoned",
    "new_run",
    "read_tags",
    "settle",
    "tags_of",
    "unwritten",
    "workspace_key",
]

CLUSTER, SERVICE = "cluster", "service"
_PREFIX = "gpu-infer-"


@dataclass(frozen=True, slots=True)
class Run:
    """One call of ``deploy()`` or ``provision_cluster()``: what it creates carries its id.

    Args:
        id: unique.
        expires: when what it creates may be removed, seconds since the epoch; ``None`` for never.
        kept: whether it was told to outlive the process.
    """

    id: str
    expires: float | None
    kept: bool


def new_run(*, ttl: float | None, keep: bool) -> Run:
    """A run that begins now; what it creates expires after ``ttl`` seconds, by default 8 hours, or never if kept."""
    expires = None if keep and ttl is None else time.time() + (ttl or DEFAULT_TTL)
    return Run(uuid.uuid4().hex[:12], expires, keep)


def workspace_key(workspace: Any) -> str:
    """How the ledger names a workspace."""
    return f"aks:{workspace.subscription_id}/{workspace.resource_group}/{workspace.name}"


def begin(key: str, kind: str, name: str, run: Run, details: Mapping[str, Any]) -> Entry:
    """Write down what is about to be created; an entry of an earlier one of that name, which is gone, makes room."""
    details = {
        "state": "creating",
        "run": run.id,
        "kept": run.kept,
        "block": False,
        "owner": [socket.gethostname(), os.getpid(), process_start(os.getpid())],
        **details,
    }
    while True:
        entry = Ledger().record(kind, key, name, details=details, expires=run.expires)
        if entry is not None:
            return entry
        stale = find(key, kind, name)
        if stale is not None:
            forget(stale)


def settle(entry: Entry, **changes: Any) -> Entry:
    """Note what has become of a thing: ``state="live"``, ``kept=True``, ...; ``expires=`` changes when it ends."""
    expires = changes.pop("expires", entry.expires)
    changed = replace(entry, details={**entry.details, **changes}, expires=expires)
    Ledger().update(entry.kind, entry.target, entry.name, details=changed.details, expires=expires)
    return changed


def forget(entry: Entry) -> None:
    """Strike out what is gone."""
    Ledger().remove(entry)


def find(key: str, kind: str, name: str) -> Entry | None:
    """The entry of a thing, ``None`` where we have not created it."""
    return Ledger().find(kind, key, name)


def entries(key: str | None = None) -> list[Entry]:
    """All entries of a workspace, or of all of them: services first, as they are removed."""
    found = [entry for entry in Ledger().entries(target=key) if entry.target.startswith("aks:")]
    return sorted(found, key=lambda entry: (entry.kind != SERVICE, entry.created))


def is_abandoned(entry: Entry) -> bool:
    """Whether nobody minds a thing any more: half made, or made for a ``with`` block, by a process that has ended."""
    host, pid, started = entry.details["owner"]
    state = entry.details["state"]
    if state == "failed":
        return True
    if host != socket.gethostname() or (state == "live" and not entry.details["block"]):
        return False
    return not process_alive(pid, started)


def cluster_price(vm_size: str, nodes: int) -> float:
    """US dollars per hour of a cluster; 0 where its size is not known."""
    size = find_size(vm_size)
    return (size.price_per_hour or 0.0) * nodes if size else 0.0


def tags_of(spec: ServiceSpec, run: Run, *, created: float, cluster: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a service: the user's own, and what the next process has to know.

    Args:
        spec: of the service.
        run: that creates it.
        created: seconds since the epoch.
        cluster: ``vm_size``, ``nodes`` and whether this library has created it.
    """
    ours = {
        "owner": _user(),
        "created": str(int(created)),
        "expires": "never" if run.expires is None else str(int(run.expires)),
        "run": run.id,
        "nodes": f"{cluster['nodes']} x {cluster['vm_size']}",
        "cluster": "created" if cluster["created"] else "existing",
        "script": "own" if spec.entry_script is not None else "bundled",
    }
    return {**spec.tags, **{_PREFIX + name: value for name, value in ours.items()}}


def read_tags(tags: Mapping[str, str] | None) -> dict[str, Any]:
    """Our tags of a service in their types; empty where it is not one of ours."""
    ours = {name.removeprefix(_PREFIX): text for name, text in (tags or {}).items() if name.startswith(_PREFIX)}
    if "run" not in ours:
        return {}
    nodes, _, vm_size = ours.get("nodes", "").partition(" x ")
    return {
        "owner": ours.get("owner", ""),
        "created": _number(ours.get("created", "")) or 0.0,
        "expires": _number(ours.get("expires", "")),
        "run": ours["run"],
        "vm_size": vm_size,
        "nodes": int(nodes) if nodes.isdecimal() else 0,
        "cluster_created": ours.get("cluster") == "created",
        "own_script": ours.get("script") == "own",
    }


def unwritten(key: str, kind: str, name: str, known: Mapping[str, Any]) -> Entry:
    """An entry for what the ledger of this machine does not have, and tags tell of."""
    details = {
        "state": "live",
        "run": known["run"],
        "kept": known["expires"] is None,
        "block": False,
        "owner": ["", 0, ""],
        "attached": False,
        "vm_size": known["vm_size"],
        "nodes": known["nodes"],
    }
    return Entry(kind, key, name, known["created"], known["expires"], details)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())
