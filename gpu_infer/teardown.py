"""``leftovers()`` and ``sweep()``: what is still there and billed, and how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gpu_infer.errors import GpuInferError, TeardownError
from gpu_infer.ledger import Entry
from gpu_infer.notebook import html_table
from gpu_infer.progress import Event, emit
from gpu_infer.spec import seconds_of

if TYPE_CHECKING:
    from gpu_infer.service import Service
    from gpu_infer.targets.base import CloudTarget, Target

__all__ = ["Leftover", "TakenDown", "leftovers", "naming_what_is_left", "sweep", "take_down"]

DAY_SECONDS = 86400.0

UNSEEN_SECONDS = 900.0
"""How long an entry stays whose thing is not to be seen: a request may still be on its way to Azure."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that this library has created and that may be billed.

    Args:
        kind: ``cluster``, ``service``, or ``deployment`` of an online endpoint, named after both.
        name: of it.
        workspace: ``subscription/resource group/name``.
        state: as Azure calls it; ``absent`` where Azure does not have it yet, ``unknown`` where it was not asked.
        price_per_hour: US dollars; a service costs nothing beside its cluster.
        created: seconds since the epoch.
        expires: when it may be removed, ``None`` for never.
        kept: whether it was told to stay.
        abandoned: whether it is half made or half removed, or of a ``with`` block, and the process that worked on it
            has ended or given up.
        recorded: whether the ledger of this machine has it; else its tags tell of it.
        idle_seconds: how long nobody has asked an online endpoint anything, to 5 minutes, of the last day or as long as
            ``sweep(idle_for=)`` looks back; ``None`` where that is not known.
    """

    kind: str
    name: str
    workspace: str
    state: str
    price_per_hour: float
    created: float
    expires: float | None
    kept: bool
    abandoned: bool
    recorded: bool
    _entry: Entry = field(repr=False, compare=False)
    idle_seconds: float | None = None

    @property
    def age_seconds(self) -> float:
        """Seconds since it was created."""
        return max(0.0, time.time() - self.created)

    @property
    def cost(self) -> float:
        """US dollars so far, at the price of the catalog."""
        return self.price_per_hour * self.age_seconds / 3600

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= time.time()

    @property
    def entry(self) -> Entry:
        """The ledger's entry, or one made from tags."""
        return self._entry

    @property
    def why(self) -> str:
        """Why it is there: ``expired``, ``abandoned``, ``kept`` or ``in use``."""
        return "expired" if self.expired else "abandoned" if self.abandoned else "kept" if self.kept else "in use"

    @property
    def age(self) -> str:
        """Its age in words."""
        return _age(self.age_seconds)

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "workspace": self.workspace,
            "state": self.state,
            "price_per_hour": self.price_per_hour,
            "cost": round(self.cost, 2),
            "age_seconds": round(self.age_seconds),
            "created": self.created,
            "expires": self.expires,
            "expired": self.expired,
            "kept": self.kept,
            "abandoned": self.abandoned,
            "recorded": self.recorded,
            **({} if self.idle_seconds is None else {"idle_seconds": round(self.idle_seconds)}),
        }

    def __str__(self) -> str:
        money = f"${self.price_per_hour:.2f} per hour, ${self.cost:,.2f} so far" if self.price_per_hour else "free"
        idle = "" if self.idle_seconds is None else f", not asked for {_age(self.idle_seconds)}"
        return f"{self.kind} {self.name} ({self.state}, {self.why}): {self.age} old{idle}, {money}"

    def _repr_html_(self) -> str:
        return html_table(f"{self.kind} {self.name}", [(key, str(value)) for key, value in self.to_dict().items()])


def leftovers(workspace: Any = None) -> list[Leftover]:
    """What this library has created in Azure and what is still there, with its age and the money so far.

    What Azure has no more, by its own address and by the list of all, is struck out of the ledger.

    Args:
        workspace: ``azureml.core.Workspace``, or ``azure.ai.ml.MLClient`` for what is online: each thing is looked up
            there, and things are found, too, that another machine has created, by the tags of their services. ``None``
            gives what the ledger of this machine has, of all workspaces, without asking Azure.

    Returns:
        services first, then clusters, as ``sweep()`` removes them.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    if workspace is None:
        from gpu_infer.targets import records

        return [_leftover(entry, "unknown") for entry in records.entries()]
    return _find(_target(workspace), within=DAY_SECONDS)


def sweep(
    workspace: Any = None,
    *,
    older_than: float | str | timedelta | None = None,
    idle_for: float | str | timedelta | None = None,
    dry_run: bool = False,
) -> list[Leftover]:
    """Remove what is left over: what has expired, and what is abandoned.

    Args:
        workspace: ``azureml.core.Workspace`` or ``azure.ai.ml.MLClient``. Without one nothing in Azure can be removed.
        older_than: remove everything else of that age, too, unless it was kept: seconds, a ``timedelta``, or text as
            ``"2h"``; 0 for all.
        idle_for: remove online endpoints that nobody has asked anything for so long, too, with their deployments,
            unless they were kept: by Azure Monitor's count of their requests (extra ``autoscale``). What is younger,
            parked, or whose requests are not counted, stays.
        dry_run: remove nothing.

    Returns:
        what was removed, or would be.

    Raises:
        TeardownError: something could not be removed; ``.left`` names it. Everything else was still tried.
    """
    if workspace is None:
        recorded = leftovers()
        if recorded and not dry_run:
            places = ", ".join(sorted({one.workspace for one in recorded}))
            message = f"{len(recorded)} things are written down in {places}. To remove them: sweep(workspace)."
            raise TeardownError(message, left=[f"{one.kind} {one.name!r}" for one in recorded])
        return recorded
    target = _target(workspace)
    age = None if older_than is None else 0.0 if older_than == 0 else seconds_of(older_than)
    idle = None if idle_for is None else seconds_of(idle_for)
    found = _find(target, within=idle)
    chosen = [one for one in found if one.state != "absent" and _is_due(one, age, idle)]
    if dry_run:
        return chosen
    removed: list[Leftover] = []
    problems: list[str] = []
    left: list[str] = []
    for one in chosen:
        emit(Event(one.name, f"sweep_{one.kind}", "start"))
        try:
            target.remove(one.entry)
        except GpuInferError as error:
            problems.append(str(error))
            left.append(f"{one.kind} {one.name!r}")
            continue
        removed.append(one)
    if left:
        message = f"{', '.join(left)} could not be removed and may still be billed. {' '.join(problems)}"
        raise TeardownError(message, left=left)
    return removed


@dataclass(frozen=True, slots=True)
class TakenDown:
    """What ``take_down()`` has done.

    Args:
        removed: names of the services that were removed.
        absent: names of those that were not there.
        clusters: names of the clusters that were removed with them.
        left: clusters of theirs that this library has created and that go on costing money.
        users: by the name of a cluster that is left, the services that still run on it.
    """

    removed: list[str]
    absent: list[str]
    clusters: list[str]
    left: list[Leftover]
    users: dict[str, list[str]]


def take_down(
    running: Sequence[Service], workspace: Any = None, *, names: Sequence[str] | None = None, cluster: bool = False
) -> TakenDown:
    """Remove services by name, and with them their clusters where this library has created those.

    Args:
        running: all services there.
        workspace: where; ``None`` for this machine.
        names: which; all where ``None``.
        cluster: remove the cluster of each, too, with the last of the services on it; also where the service itself
            is gone already.

    Raises:
        TeardownError: something is left and may still be billed.
    """
    by_name = {service.name: service for service in running}
    wanted = list(by_name) if names is None else list(dict.fromkeys(names))
    doomed = [by_name[name] for name in wanted if name in by_name]
    absent = [name for name in wanted if name not in by_name]
    target = None if workspace is None else _target(workspace)
    before = _clusters(target, None if names is None else wanted)
    for at, service in enumerate(doomed):
        last = all(other.cluster != service.cluster for other in doomed[at + 1 :])
        emit(Event(service.name, "delete_service", "start"))
        service.delete(cluster=cluster and last)
        emit(Event(service.name, "delete_service", "ok"))
    if target is not None:
        for name in absent:
            target.delete(name, cluster=cluster)
        if cluster and names is None:  # those whose services were gone before
            for one in _clusters(target, None):
                target.remove(one.entry)
    left = _clusters(target, None if names is None else wanted)
    remaining = [service for service in running if service not in doomed]
    return TakenDown(
        removed=[service.name for service in doomed],
        absent=absent,
        clusters=sorted({one.name for one in before} - {one.name for one in left}) if cluster else [],
        left=left,
        users={one.name: [user.name for user in remaining if user.cluster == one.name] for one in left},
    )


@contextmanager
def naming_what_is_left(on: Target) -> Generator[None]:
    """Let an interrupt name what the call has made and not removed: a second one ends the removal."""
    entries: Callable[[], list[Entry]] = getattr(on, "entries", list[Entry])  # nothing is billed on this machine
    before = {(entry.kind, entry.name, entry.created) for entry in entries()}
    try:
        yield
    except KeyboardInterrupt as error:
        made = [entry for entry in entries() if (entry.kind, entry.name, entry.created) not in before]
        if made and not getattr(error, "__notes__", None):  # else it tells already what could not be removed
            left = ", ".join(f"{entry.kind} {entry.name!r}" for entry in made)
            error.add_note(
                f"The removal was interrupted: {left} may exist and be billed; gpu_infer.sweep(workspace) removes it."
            )
        raise


# --- inside -----------------------------------------------------------------------------------------------------------


def _clusters(target: CloudTarget | None, services: Sequence[str] | None) -> list[Leftover]:
    """The clusters that are there and have, or had, one of these services; any service where ``None``."""
    if target is None:
        return []
    below = {service.name: service.cluster for service in target.services()}
    found: list[Leftover] = []
    for one in _find(target):
        names = {*one.entry.details.get("services", ()), *(name for name in below if below[name] == one.name)}
        if one.kind == "cluster" and one.state != "absent" and (names if services is None else names & {*services}):
            found.append(one)
    return found


def _target(workspace: Any) -> CloudTarget:
    from gpu_infer.targets.choice import cloud_target

    return cloud_target(workspace)


def _find(target: CloudTarget, *, within: float | None = None) -> list[Leftover]:
    """What the ledger has, looked up, and what only the tags tell of; with ``within`` seconds, also who was asked."""
    from gpu_infer.targets import records

    found = [_leftover(entry, target.state_of(entry)) for entry in target.entries()]
    known = {(one.kind, one.name) for one in found}
    tagged = [entry for entry in target.tagged() if (entry.kind, entry.name) not in known]
    found += [replace(_leftover(entry, target.state_of(entry)), recorded=False) for entry in tagged]
    gone = [one for one in found if _is_gone(one)]
    for one in gone:
        records.forget(one.entry)
    left = sorted((one for one in found if one not in gone), key=lambda one: records.removal_order(one.entry))
    if within is None:
        return left
    # What is parked costs nothing, so nobody minds whether it is asked.
    runs = {one.name.partition("/")[0] for one in left if one.kind == records.DEPLOYMENT and one.state != "absent"}
    return [replace(one, idle_seconds=_idle(target, one, within)) if one.name in runs else one for one in left]


def _idle(target: CloudTarget, one: Leftover, within: float) -> float | None:
    """No thing is idle for longer than it is there."""
    seconds = target.idle_seconds(one.entry, within=within)
    return None if seconds is None else min(seconds, one.age_seconds)


def _leftover(entry: Entry, state: str) -> Leftover:
    from gpu_infer.targets import records

    details = entry.details
    billed = entry.kind == records.DEPLOYMENT or (entry.kind == records.CLUSTER and not details["attached"])
    priced = billed and state != "absent"
    return Leftover(
        kind=entry.kind,
        name=entry.name,
        workspace=entry.target.partition(":")[2],
        state=state,
        price_per_hour=records.cluster_price(details["vm_size"], details["nodes"]) if priced else 0.0,
        created=entry.created,
        expires=entry.expires,
        kept=bool(details["kept"]),
        abandoned=records.is_abandoned(entry),
        recorded=True,
        _entry=entry,
    )


def _is_due(one: Leftover, age: float | None, idle: float | None) -> bool:
    if one.expired or one.abandoned:
        return True
    if idle is not None and not one.kept and one.idle_seconds is not None and one.idle_seconds >= idle:
        return True
    return age is not None and not one.kept and one.age_seconds >= age


def _is_gone(one: Leftover) -> bool:
    """Whether it is not there, and no request that creates it can be on its way any more."""
    begun = one.entry.details["state"] in ("creating", "failed")
    return one.state == "absent" and not (one.recorded and begun and one.age_seconds <= UNSEEN_SECONDS)


def _age(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"
