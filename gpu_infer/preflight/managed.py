"""Checks of a managed online endpoint: an instance is a whole virtual machine, and Azure ML has it, not the user."""

from __future__ import annotations

from gpu_infer.catalog import VmSize, find_size, sizes
from gpu_infer.errors import Finding
from gpu_infer.preflight.facts import OnlineFacts, SizeFacts
from gpu_infer.preflight.vm_sizes import ANOTHER, gpus_per_node, price
from gpu_infer.spec import ServiceSpec

__all__ = ["check_machine", "disk_findings", "gpus_listed", "listed_size"]

MAX_INSTANCES = 50
"""Of one managed deployment (azure-ai-docs, how-to-manage-quotas, 2026-01-27)."""

IMAGE_GB = 15.0
"""What the image with CUDA and a framework takes of a disk, unpacked, about."""


def check_machine(spec: ServiceSpec, facts: OnlineFacts) -> list[Finding]:
    """The VM size, which ``resolve_size`` has passed, the instances of it, and what means nothing there.

    Args:
        spec: its ``resources.vm_size`` is the size.
        facts: of the workspace.
    """
    vm_size = spec.resources.vm_size or ""
    return [
        *_check_managed(vm_size, facts),
        *_check_gpus(spec, vm_size, facts),
        *_check_instances(spec),
        *_check_without_meaning(spec),
    ]


def disk_findings(vm_size: str, model_bytes: int | None, facts: OnlineFacts) -> list[Finding]:
    """The model against the disk of an instance, where the region's list says how large that is."""
    listed = listed_size(vm_size, facts)
    if model_bytes is None or listed is None or not listed.disk_gb:
        return []
    gb = model_bytes / 1e9
    if gb + IMAGE_GB <= listed.disk_gb:
        return []
    message = (
        f"The disk of {listed.name} has {listed.disk_gb:.0f} GB, and the model of {gb:.1f} GB and its image of about "
        f"{IMAGE_GB:.0f} GB go there."
    )
    sure = gb > listed.disk_gb
    return [Finding("error" if sure else "warning", "disk", message, "Take a size with a larger temporary disk.")]


def listed_size(vm_size: str, facts: OnlineFacts) -> SizeFacts | None:
    """The size as the region's list has it."""
    return next((one for one in facts.sizes or () if one.name.lower() == vm_size.lower()), None)


def gpus_listed(facts: OnlineFacts) -> dict[str, int] | None:
    """The region's sizes, each with its GPUs, ``None`` where the list could not be read."""
    return None if facts.sizes is None else {size.name: size.gpus for size in facts.sizes}


# --- inside -----------------------------------------------------------------------------------------------------------


def _check_managed(vm_size: str, facts: OnlineFacts) -> list[Finding]:
    """Two lists say which sizes managed endpoints take; what both of them deny is refused."""
    listed, size = listed_size(vm_size, facts), find_size(vm_size) if vm_size else None
    live, known = listed.managed if listed else None, size.managed if size else None
    if live is False and known is False:
        message = f"Managed online endpoints do not take {vm_size}, as Azure's documentation and the region's list say."
        return [Finding("error", "vm-managed", message, ANOTHER)]
    if live is False:
        message = f"The region's list does not offer {vm_size} to managed online endpoints, so Azure may refuse it."
        return [Finding("warning", "vm-managed", message, ANOTHER)]
    if live is None and known is False:
        message = f"Azure's documentation does not name {vm_size} among the sizes that managed online endpoints take."
        return [Finding("warning", "vm-managed", message, ANOTHER)]
    return []


def _check_gpus(spec: ServiceSpec, vm_size: str, facts: OnlineFacts) -> list[Finding]:
    """A replica is an instance, and has all GPUs of it."""
    asked, has = spec.resources.gpus, gpus_per_node(vm_size, gpus_listed(facts)) if vm_size else None
    if not has or asked == has:
        return []
    if asked > has:
        message = f"A replica asks for {asked} GPUs and is one instance, and an instance of {vm_size} has {has}."
        return [Finding("error", "gpu-node", message, "Lower gpus_per_replica, or take a size with more GPUs.")]
    if asked == 0:
        message = f"gpus_per_replica=0: the GPUs of {spec.scale.replicas} x {vm_size} are paid for and not used."
        return [Finding("warning", "gpu-unused", message, "Leave gpus_per_replica at 1.")]
    message = (
        f"An instance of {vm_size} has {has} GPUs and a replica uses {asked} of them: the other {has - asked} are paid "
        "for and not used."
    )
    return [Finding("info", "gpu-idle", message, _with_as_many(vm_size, asked))]


def _with_as_many(vm_size: str, gpus: int) -> str:
    """The cheapest size with so many of the same GPU."""
    model = size.gpu if (size := find_size(vm_size)) else ""
    same = [one for one in sizes() if one.gpu == model and one.gpus == gpus and one.managed and not one.retired]
    cheapest: VmSize | None = min(same, key=lambda one: one.price_per_hour or float("inf"), default=None)
    if cheapest is None:
        return "A size with fewer GPUs costs less."
    return f'vm_size="{cheapest.name}" ({cheapest.hardware}, {price(cheapest, "instance")}) has as many as are used.'


def _check_instances(spec: ServiceSpec) -> list[Finding]:
    if spec.scale.most <= MAX_INSTANCES:
        return []
    message = f"replicas={spec.scale.most}: a managed deployment has {MAX_INSTANCES} instances at most."
    fix = f"Lower replicas= to {MAX_INSTANCES}, or share the load between several services."
    return [Finding("error", "instance-count", message, fix)]


def _check_without_meaning(spec: ServiceSpec) -> list[Finding]:
    given = {"cpu_cores": spec.resources.cpu_cores, "memory_gb": spec.resources.memory_gb}
    named = [f"{what}=" for what, value in given.items() if value is not None]
    if not named:
        return []
    message = (
        f"{' and '.join(named)} {'mean' if len(named) > 1 else 'means'} nothing on a managed online endpoint: a "
        "replica has a virtual machine to itself."
    )
    return [Finding("info", "resources-managed", message, "vm_size= says how large that is.")]
