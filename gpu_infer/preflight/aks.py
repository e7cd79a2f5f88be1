"""Checks of a deployment to AKS, before anything is uploaded, created or billed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

from gpu_infer.bundle import Template
from gpu_infer.catalog import VmSize, find_size
from gpu_infer.errors import Finding
from gpu_infer.preflight.clusters import check_cluster, nodes_of, size_of
from gpu_infer.preflight.common import check_name, check_template
from gpu_infer.preflight.container import Door, check_contents, check_door, check_model, name_taken
from gpu_infer.preflight.facts import WorkspaceFacts
from gpu_infer.preflight.vm_sizes import gpus_per_node
from gpu_infer.serving.model_finder import FoundModel
from gpu_infer.spec import DEFAULT_CPU_CORES, DEFAULT_MEMORY_GB, Cluster, ServiceSpec

__all__ = ["check_aks", "check_container", "check_room"]

DOOR = Door("the router in front of AKS services", max_timeout=300.0, max_payload_mb=100.0)
"""Its limits: azure-ai-docs, how-to-deploy-azure-kubernetes."""

_CPU_RESERVED = ((1, 0.06), (2, 0.10), (4, 0.14), (8, 0.18), (16, 0.26), (32, 0.42))
_MEMORY_RESERVED = ((4.0, 0.25), (4.0, 0.20), (8.0, 0.10), (112.0, 0.06), (math.inf, 0.02))
"""What AKS keeps of a node for Kubernetes (azure-aks-docs, node-resource-reservations)."""

_SYSTEM_CORES = 0.5
"""What AKS's own pods ask for on each node, about."""


def check_aks(
    spec: ServiceSpec,
    facts: WorkspaceFacts,
    found: FoundModel | None,
    template: Template | None,
    *,
    model_bytes: int | None,
    today: date,
) -> list[Finding]:
    """All checks of a deployment to AKS but those of the model's format and of the VM size's name.

    Those two are ``find_local_model`` and ``resolve_size``.

    Args:
        spec: what is to be deployed; the VM size of its cluster is one that ``resolve_size`` has passed.
        facts: of the workspace.
        found: the model, where it is on this machine.
        template: that is used, ``None`` where the entry script and the conda file do without.
        model_bytes: size of the model, ``None`` where it is not known.
        today: the day that decides what is out of date.
    """
    cluster = spec.cluster or Cluster()
    return [
        *check_name(spec),
        *_check_service(spec, facts),
        *check_cluster(cluster, facts),
        *check_room(spec, cluster, facts),
        *check_model(spec, size_of(cluster, facts), found, model_bytes),
        *check_template(spec, found),
        *check_container(spec, template, today=today),
    ]


def check_container(spec: ServiceSpec, template: Template | None, *, today: date) -> list[Finding]:
    """The checks of what goes into a container on AKS, whatever cluster it will run on.

    Args:
        spec: its scripts, hooks, conda file and settings.
        template: that is used, ``None`` where the entry script and the conda file do without.
        today: the day that decides what is out of date.
    """
    return [*check_door(spec, DOOR), *check_contents(spec, template, today=today)]


def check_room(spec: ServiceSpec, cluster: Cluster, facts: WorkspaceFacts) -> list[Finding]:
    """GPUs, cores and memory that all replicas need, against what the nodes have.

    Args:
        spec: its scale, its resources and its name count.
        cluster: that it runs on.
        facts: of the workspace.
    """
    vm_size, nodes = size_of(cluster, facts), nodes_of(cluster, facts)
    gpus = gpus_per_node(vm_size, facts.sizes) if vm_size else None
    if not gpus or not nodes:  # not known, or no GPU, which check_cluster() and resolve_size() have said
        return []
    room = _Room(spec, find_size(vm_size), nodes, gpus, facts.gpus_taken)
    if spec.resources.gpus == 0:
        message = f"gpus_per_replica=0: the GPUs of {nodes} x {vm_size} are paid for and not used by this service."
        return [Finding("warning", "gpu-unused", message, "Leave gpus_per_replica at 1."), *_check_node(room)]
    gpus_wrong = _check_gpus(room)
    return [*gpus_wrong, *_check_node(room), *([] if gpus_wrong else _check_update(room, facts))]


# --- inside -----------------------------------------------------------------------------------------------------------


def _check_service(spec: ServiceSpec, facts: WorkspaceFacts) -> list[Finding]:
    if not facts.service_exists:
        return []
    if spec.overwrite:
        return [Finding("info", "replaces", f"Service {spec.name!r} is there; it is replaced by this one.")]
    return [name_taken(spec, "a service")]


@dataclass(frozen=True)
class _Room:
    """What the replicas ask for and what the nodes have."""

    spec: ServiceSpec
    size: VmSize | None
    nodes: int
    gpus: int
    taken: int

    @property
    def cores(self) -> float:
        return self.spec.resources.cpu_cores or DEFAULT_CPU_CORES

    @property
    def memory(self) -> float:
        return self.spec.resources.memory_gb or DEFAULT_MEMORY_GB


def _check_gpus(room: _Room) -> list[Finding]:
    """Kubernetes gives whole GPUs, to one replica each, and a replica lies on one node."""
    each, replicas = room.spec.resources.gpus, room.spec.scale.most
    if each > room.gpus:
        message = (
            f"A replica asks for {each} GPUs and lies on one node, and a node has {room.gpus}: none can be scheduled."
        )
        return [Finding("error", "gpu-node", message, "Lower gpus_per_replica, or take a size with more GPUs.")]
    has, need = room.nodes * room.gpus, each * replicas
    # A node's GPUs are shared out in whole replicas: of 3 GPUs one replica of 2 leaves one idle.
    fit = room.nodes * (room.gpus // each) if not room.taken else (has - room.taken) // each
    if fit >= replicas:
        return []
    words = "replica" if replicas == 1 else "replicas"
    asked = f"{replicas} {words} x {each} GPU = {need}"
    have = f"{room.nodes} {'node' if room.nodes == 1 else 'nodes'} x {room.gpus} GPU = {has}" + (
        f", of which other services hold {room.taken}" if room.taken else ""
    )
    most = "the most of replicas=" if room.spec.scale.max_replicas else "replicas="
    if need <= has - room.taken:
        have += f", and each node takes {room.gpus // each} of them"
    nodes = math.ceil(replicas / (room.gpus // each)) + math.ceil(room.taken / room.gpus)
    message = f"Too few GPUs: {asked}, and the cluster has {have}."
    fix = f"Lower {most} to {fit}" if fit > 0 else "Remove another service"
    return [Finding("error", "gpu-count", message, f"{fix}, or take {nodes} nodes.")]


def _check_node(room: _Room) -> list[Finding]:
    """Cores and memory of the replicas that share a node, against what Kubernetes may give away there."""
    if room.size is None:
        return []
    per_node = math.ceil(room.spec.scale.most / room.nodes)
    if room.spec.resources.gpus:  # no node gets more than it has GPUs for, however many too many are asked for
        per_node = max(1, min(per_node, room.gpus // room.spec.resources.gpus))
    findings: list[Finding] = []
    for what, unit, asked, total, free in (
        ("cpu_cores", "cores", room.cores, float(room.size.vcpus), _free_cores(room.size)),
        ("memory_gb", "GB of memory", room.memory, room.size.memory_gb, _free_memory(room.size)),
    ):
        need = per_node * asked
        if need <= free:
            continue
        if per_node > 1:
            replicas = f"{per_node} replicas x {asked:g} {unit} = {need:g} do"
        else:
            replicas = f"A replica with {asked:g} {unit} does"
        message = (
            f"{replicas} not fit on a node: of the {total:g} of {room.size.name} about {free:.1f} are left for "
            "services, the rest is Kubernetes' own."
        )
        fix = f"Lower {what}= to {math.floor(free / per_node * 2) / 2:g}, or take a larger size."
        findings.append(Finding("error", "node-room", message, fix))
    return findings


def _check_update(room: _Room, facts: WorkspaceFacts) -> list[Finding]:
    """An update in place starts a new replica before it stops an old one, and that one wants a GPU too."""
    spec = room.spec
    spare = room.nodes * room.gpus - room.taken - spec.resources.gpus * spec.scale.most
    if not facts.service_exists or not spec.overwrite or spare >= spec.resources.gpus:
        return []
    message = (
        f"All GPUs are taken while {spec.name!r} is replaced, so the new replicas may wait for the old ones to stop."
    )
    return [Finding("info", "gpu-update", message, "One node more makes the change seamless.")]


def _free_cores(size: VmSize) -> float:
    reserved = next((kept for cores, kept in _CPU_RESERVED if size.vcpus <= cores), 0.74)
    return size.vcpus - reserved - _SYSTEM_CORES


def _free_memory(size: VmSize) -> float:
    left, reserved = size.memory_gb, 0.75
    for width, share in _MEMORY_RESERVED:
        reserved += min(left, width) * share
        left = max(0.0, left - width)
    return size.memory_gb - reserved
