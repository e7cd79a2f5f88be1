"""Checks of a deployment to AKS, before anything is uploaded, created or billed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

from gpu_infer.bundle import Template
from gpu_infer.catalog import VmSize, find_size
from gpu_infer.errors import Finding
from gpu_infer.preflight.clusters import check_cluster, nodes_of, size_of
from gpu_infer.preflight.common import check_files, check_name, check_settings, check_template
from gpu_infer.preflight.conda_files import lint_conda
from gpu_infer.preflight.entry_script import check_entry_script, check_hooks
from gpu_infer.preflight.facts import WorkspaceFacts
from gpu_infer.preflight.vm_sizes import gpus_per_node
from gpu_infer.serving.model_finder import FoundModel
from gpu_infer.spec import DEFAULT_CPU_CORES, DEFAULT_MEMORY_GB, Cluster, ServiceSpec

__all__ = ["check_aks", "check_container", "check_room"]

MAX_TIMEOUT = 300.0
MAX_PAYLOAD_MB = 100.0
"""What the router in front of AKS services waits and takes at most (azure-ai-docs, how-to-deploy-azure-kubernetes)."""

MAX_MODEL_FILES = 1500
"""Of one registered model (azure-ai-docs, resource-limits-capacity)."""

GPU_OVERHEAD = 1.2
"""Memory that a framework takes on top of the weights, as a factor."""

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
        *_check_model(spec, size_of(cluster, facts), found, model_bytes),
        *check_template(spec, found),
        *check_container(spec, template, today=today),
    ]


def check_container(spec: ServiceSpec, template: Template | None, *, today: date) -> list[Finding]:
    """The checks of what goes into the container, wherever it will run: scripts, hooks, conda file, settings.

    Args:
        spec: its scripts, hooks, conda file and settings.
        template: that is used, ``None`` where the entry script and the conda file do without.
        today: the day that decides what is out of date.
    """
    from gpu_infer.preflight.imports import check_imports  # needs packages of the extra

    conda = _conda_text(spec, template)
    return [
        *_check_limits(spec),
        *check_hooks(spec),
        *check_entry_script(spec),
        *check_files(spec),
        *check_settings(spec),
        *_check_device(spec),
        *(lint_conda(conda, gpu=spec.resources.gpus > 0, today=today) if _has_conda_file(spec) else []),
        *check_imports(spec, conda),
    ]


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


def _has_conda_file(spec: ServiceSpec) -> bool:
    return spec.conda_file is not None and spec.conda_file.is_file()


def _conda_text(spec: ServiceSpec, template: Template | None) -> str:
    if spec.conda_file is None:
        return template.conda if template is not None else ""
    try:
        return spec.conda_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # check_files() and lint_conda() say what is wrong with it


def _check_service(spec: ServiceSpec, facts: WorkspaceFacts) -> list[Finding]:
    if not facts.service_exists:
        return []
    if spec.overwrite:
        return [Finding("info", "replaces", f"Service {spec.name!r} is there; it is replaced by this one.")]
    message = f"There is a service {spec.name!r} in the workspace already."
    fix = f"Give another name=, overwrite=True, or use gpu_infer.attach({spec.name!r}, workspace)."
    return [Finding("error", "name-taken", message, fix)]


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


def _check_model(spec: ServiceSpec, vm_size: str, found: FoundModel | None, model_bytes: int | None) -> list[Finding]:
    findings = _check_model_files(spec)
    if model_bytes is None:
        return findings
    # Our own runtime loads one model for all its workers; what a user's script loads, each worker does.
    gb, workers = model_bytes / 1e9, spec.scale.workers if spec.entry_script else 1
    size = find_size(vm_size)
    copies = f"{workers} workers x {gb:.1f} GB" if workers > 1 else f"a model of {gb:.1f} GB"
    if size is not None and size.gpu and spec.resources.gpus:
        memory = size.gpu_memory_gb / max(1.0, size.gpus) * spec.resources.gpus
        needed = gb * workers * GPU_OVERHEAD
        # What an optimizer keeps lies in a checkpoint too, and is not loaded.
        sure = gb * workers > memory and (found is None or found.format != "tf1_checkpoint")
        if needed > memory:
            message = (
                f"The GPU may be too small: {copies} needs about {needed:.1f} GB there with what the framework adds, "
                f"and a replica on {size.name} has {memory:g} GB."
            )
            fix = "Take a size with more GPU memory" + (", or fewer workers." if workers > 1 else ".")
            findings.append(Finding("error" if sure else "warning", "gpu-memory", message, fix))
    asked = spec.resources.memory_gb or DEFAULT_MEMORY_GB
    if gb * workers > asked:
        message = f"On its way to the GPU {copies} passes through main memory, and a replica has {asked:g} GB of that."
        fix = f"Give memory_gb={math.ceil(gb * workers * GPU_OVERHEAD + 1)}."
        findings.append(Finding("warning", "memory", message, fix))
    return findings


def _check_model_files(spec: ServiceSpec) -> list[Finding]:
    path = spec.model.path
    if path is None or not path.is_dir():
        return []
    count = 0
    for entry in path.rglob("*"):
        count += entry.is_file()
        if count > MAX_MODEL_FILES:
            message = f"{path} holds more than {MAX_MODEL_FILES:,} files, the most of a registered model."
            return [
                Finding("error", "model-files", message, "Give the path of the model alone, without data beside it.")
            ]
    return []


def _check_limits(spec: ServiceSpec) -> list[Finding]:
    findings: list[Finding] = []
    if spec.timeout > MAX_TIMEOUT:
        message = f"timeout={spec.timeout:g} s: the router in front of AKS services waits {MAX_TIMEOUT:g} s at most."
        findings.append(
            Finding("error", "timeout", message, f"Give timeout={MAX_TIMEOUT:g} or less, and smaller requests.")
        )
    try:
        body = float(spec.environment_variables.get("GPU_INFER_MAX_BODY_MB", "0"))
    except ValueError:
        return findings  # check_settings() says so
    if body > MAX_PAYLOAD_MB:
        message = f"GPU_INFER_MAX_BODY_MB={body:g}: the router takes requests of {MAX_PAYLOAD_MB:g} MB at most."
        findings.append(Finding("warning", "payload", message, "Send fewer items per request."))
    return findings


def _check_device(spec: ServiceSpec) -> list[Finding]:
    allowed = spec.environment_variables.get("GPU_INFER_ALLOW_CPU", "").strip().lower() in ("1", "true", "yes")
    if not allowed or not spec.resources.gpus:
        return []
    message = "GPU_INFER_ALLOW_CPU=1: a service that finds no GPU will run on the CPU, with the GPU paid for."
    return [Finding("warning", "cpu-allowed", message, "Without it such a service fails at its start and says so.")]
