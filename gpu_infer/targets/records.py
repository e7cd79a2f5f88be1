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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpu_infer.catalog import find_size
from gpu_infer.ledger import Entry, Ledger
from gpu_infer.spec import DEFAULT_TTL, ServiceSpec
from gpu_infer.targets._supervisor import process_alive, process_start

__all__ = [
    "AUTOSCALE",
    "CLUSTER",
    "DEPLOYMENT",
    "SERVICE",
    "Run",
    "adopt",
    "begin",
    "cluster_price",
    "entries",
    "find",
    "forget",
    "inherit",
    "is_abandoned",
    "lifetime_tags",
    "new_run",
    "own_tags",
    "read_tags",
    "remember_service",
    "removal_order",
    "run_tag",
    "settle",
    "settle_all",
    "tags_of",
    "take_over",
    "unwritten",
    "workspace_key",
]

CLUSTER, DEPLOYMENT, SERVICE, AUTOSCALE = "cluster", "deployment", "service", "autoscale"
"""What entries are of. Deployments are those of an online endpoint, which is the service; they are what is billed. An
autoscale setting has none in the ledger: it is free, and has one made from its tags where its deployment is gone."""

_ORDER = (SERVICE, DEPLOYMENT, AUTOSCALE, CLUSTER)
"""In which things are removed: an endpoint takes its deployments along."""

_PLACES = ("aks:", "online:")
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
    """How the ledger names an ``azureml.core.Workspace``."""
    return f"aks:{workspace.subscription_id}/{workspace.resource_group}/{workspace.name}"


def begin(key: str, kind: str, name: str, run: Run, details: Mapping[str, Any]) -> Entry:
    """Write down what is about to be created; an entry of an earlier one of that name, which is gone, makes room."""
    details = {"state": "creating", "run": run.id, "kept": run.kept, "block": False, "owner": _me(), **details}
    while True:
        entry = Ledger().record(kind, key, name, details=details, expires=run.expires)
        if entry is not None:
            return entry
        stale = find(key, kind, name)
        if stale is not None:
            forget(stale)


def settle(entry: Entry, **changes: Any) -> Entry:
    """Note what has become of one thing, as ``settle_all()`` does."""
    return settle_all([entry], **changes)[0]


def settle_all(entries: Sequence[Entry], **changes: Any) -> list[Entry]:
    """Note what has become of things, of all at once.

    Args:
        entries: of the things; one that was struck out, or begun anew, meanwhile is left alone.
        changes: ``state="creating"`` and ``"deleting"`` while its owner works on it, ``"live"`` when that is done,
            ``"failed"`` when it was given up; ``kept=``, ``block=``; ``expires=`` changes when it ends.
    """
    details = {name: value for name, value in changes.items() if name != "expires"}
    changed = [
        replace(one, details={**one.details, **details}, expires=changes.get("expires", one.expires)) for one in entries
    ]
    Ledger().rewrite(changed)
    return changed


def take_over(entries: Sequence[Entry], **changes: Any) -> list[Entry]:
    """Note that from here on this process works on things: they are nobody's if it ends before it is done."""
    return settle_all(entries, owner=_me(), **changes)


def inherit(key: str, name: str, run: Run) -> bool:
    """Take over a cluster that its maker has left behind, which the next ``sweep()`` would delete below our service."""
    entry = find(key, CLUSTER, name)
    if entry is None or not is_abandoned(entry):
        return False
    take_over([entry], state="creating", run=run.id, kept=run.kept, block=False, expires=run.expires)
    return True


def remember_service(cluster: Entry, name: str) -> Entry:
    """Note on a cluster which service it has had: asked by that name, it is found when the service is gone."""
    names: list[str] = cluster.details.get("services", [])
    return cluster if name in names else settle(cluster, services=[*names, name])


def adopt(entry: Entry) -> Entry:
    """Write down what only tags have told of, before the service goes that carries them."""
    written = Ledger().record(
        entry.kind, entry.target, entry.name, details=entry.details, expires=entry.expires, created=entry.created
    )
    return written or find(entry.target, entry.kind, entry.name) or entry


def forget(entry: Entry) -> None:
    """Strike out what is gone."""
    Ledger().remove(entry)


def find(key: str, kind: str, name: str) -> Entry | None:
    """The entry of a thing, ``None`` where we have not created it."""
    return Ledger().find(kind, key, name)


def entries(key: str | None = None) -> list[Entry]:
    """All entries of a workspace, or of all of them, in the order in which they are removed."""
    found = [entry for entry in Ledger().entries(target=key) if entry.target.startswith(_PLACES)]
    return sorted(found, key=removal_order)


def removal_order(entry: Entry) -> tuple[int, float]:
    """What to sort entries by, so that each can be removed once those before it are."""
    return _ORDER.index(entry.kind), entry.created


def is_abandoned(entry: Entry) -> bool:
    """Whether nobody minds a thing any more.

    Half made or half removed, by a process that has ended or given up; or made for a ``with`` block, and its process
    has ended. Of a process of another machine that shares the ledger only time tells.
    """
    host, pid, started = entry.details["owner"]
    state = entry.details["state"]
    if state == "failed":
        return True
    if state == "live" and not entry.details["block"]:
        return False
    if host != socket.gethostname():
        return state != "live" and time.time() - entry.created > DEFAULT_TTL
    return not process_alive(pid, started)


def cluster_price(vm_size: str, nodes: int) -> float:
    """US dollars per hour of a cluster; 0 where its size is not known."""
    size = find_size(vm_size)
    return (size.price_per_hour or 0.0) * nodes if size else 0.0


def tags_of(
    spec: ServiceSpec, run: Run, *, created: float, nodes: Mapping[str, Any], cluster: str = ""
) -> dict[str, str]:
    """The tags of a service: the user's own, and what the next process has to know.

    Args:
        spec: of the service.
        run: that creates it.
        created: seconds since the epoch.
        nodes: that are paid for it: ``vm_size``, and how many (``nodes``).
        cluster: whose nodes they are: ``created`` by this call, by AKS itself (``aks``), ``attached`` by it, or
            ``existing`` before; empty where there is none.
    """
    script = {f"{_PREFIX}script": "own" if spec.entry_script is not None else "bundled"}
    return {**spec.tags, **own_tags(run, created=created, nodes=nodes, cluster=cluster), **script}


def own_tags(run: Run, *, created: float, nodes: Mapping[str, Any], cluster: str = "") -> dict[str, str]:
    """Our tags of whatever a run creates; see ``tags_of()``."""
    ours = {
        "owner": _user(),
        "created": str(int(created)),
        "run": run.id,
        "nodes": f"{nodes['nodes']} x {nodes['vm_size']}",
        **({"cluster": cluster} if cluster else {}),
    }
    # That it is kept for good is said when it is done: no other machine could see that its maker was killed before.
    life = lifetime_tags(kept=run.kept and run.expires is not None, expires=run.expires or created + DEFAULT_TTL)
    return {**{_PREFIX + name: value for name, value in ours.items()}, **life}


def run_tag(run: Run, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tag that tells by which run something was made; a second one by which it was first, where it was before."""
    first = read_tags(before).get("made")
    return {f"{_PREFIX}run": run.id, **({f"{_PREFIX}made": first} if first else {})}


def lifetime_tags(*, kept: bool, expires: float | None) -> dict[str, str]:
    """The tags that tell other machines how long a service lives."""
    text = "never" if expires is None else str(int(expires))
    return {f"{_PREFIX}expires": text, f"{_PREFIX}kept": "yes" if kept else "no"}


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
        "kept": ours.get("kept") == "yes",
        "run": ours["run"],
        "made": ours.get("made", ours["run"]),
        "vm_size": vm_size,
        "nodes": int(nodes) if nodes.isdecimal() else 0,
        "cluster_created": ours.get("cluster") in ("created", "attached", "aks"),
        "aks": ours.get("cluster") == "aks",
        "attached": ours.get("cluster") == "attached",
        "own_script": ours.get("script") == "own",
    }


def unwritten(key: str, kind: str, name: str, known: Mapping[str, Any]) -> Entry:
    """An entry for what the ledger of this machine does not have, and tags tell of."""
    details = {
        "state": "live",
        "run": known["run"],
        "kept": known["kept"],
        "block": False,
        "owner": ["", 0, ""],
        "attached": known["attached"],
        "aks": known["aks"],
        "vm_size": known["vm_size"],
        "nodes": known["nodes"],
    }
    return Entry(kind, key, name, known["created"], known["expires"], details)


def _me() -> list[Any]:
    """This process: a pid alone is given to another one some day."""
    return [socket.gethostname(), os.getpid(), process_start(os.getpid())]


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
