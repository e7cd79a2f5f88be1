"""Checks of what goes into the container, and of the model that it loads: the same for every service on Azure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date

from gpu_infer.bundle import Template
from gpu_infer.catalog import find_size
from gpu_infer.errors import Finding
from gpu_infer.preflight.common import check_files, check_settings
from gpu_infer.preflight.conda_files import lint_conda
from gpu_infer.preflight.entry_script import check_entry_script, check_hooks
from gpu_infer.serving.model_finder import FoundModel
from gpu_infer.spec import DEFAULT_MEMORY_GB, ServiceSpec

__all__ = ["Door", "check_contents", "check_door", "check_model", "name_taken", "without_port"]

MAX_MODEL_FILES = 1500
"""Of one registered model (azure-ai-docs, resource-limits-capacity)."""

GPU_OVERHEAD = 1.2
"""Memory that a framework takes on top of the weights, as a factor."""


@dataclass(frozen=True, slots=True)
class Door:
    """What stands between the callers and the containers, and its limits.

    Args:
        name: in words, for messages.
        max_timeout: seconds that it waits for a container at most.
        max_payload_mb: MB that a request may have, ``None`` where no limit is documented.
    """

    name: str
    max_timeout: float
    max_payload_mb: float | None = None


def check_contents(spec: ServiceSpec, template: Template | None, *, today: date) -> list[Finding]:
    """The checks of what goes into the container, wherever it will run: scripts, hooks, conda file, settings.

    Args:
        spec: its scripts, hooks, conda file and settings.
        template: that is used, ``None`` where the entry script and the conda file do without.
        today: the day that decides what is out of date.
    """
    from gpu_infer.preflight.imports import check_imports  # needs packages of the extra

    conda = _conda_text(spec, template)
    return [
        *check_hooks(spec),
        *check_entry_script(spec),
        *check_files(spec),
        *check_settings(spec),
        *_check_device(spec),
        *(lint_conda(conda, gpu=spec.resources.gpus > 0, today=today) if _has_conda_file(spec) else []),
        *check_imports(spec, conda),
    ]


def check_door(spec: ServiceSpec, door: Door) -> list[Finding]:
    """How long a request may take, and how large it may be."""
    findings: list[Finding] = []
    if spec.timeout > door.max_timeout:
        message = f"timeout={spec.timeout:g} s: {door.name} waits {door.max_timeout:g} s at most."
        fix = f"Give timeout={door.max_timeout:g} or less, and smaller requests."
        findings.append(Finding("error", "timeout", message, fix))
    try:
        body = float(spec.environment_variables.get("GPU_INFER_MAX_BODY_MB", "0"))
    except ValueError:
        return findings  # check_settings() says so
    if door.max_payload_mb is not None and body > door.max_payload_mb:
        message = f"GPU_INFER_MAX_BODY_MB={body:g}: the router takes requests of {door.max_payload_mb:g} MB at most."
        findings.append(Finding("warning", "payload", message, "Send fewer items per request."))
    return findings


def name_taken(spec: ServiceSpec, what: str) -> Finding:
    """What is said where the name is taken and must not be replaced.

    Args:
        spec: whose name it is.
        what: what has it, with its article: ``a service``, ``an endpoint``.
    """
    message = f"There is {what} {spec.name!r} in the workspace already."
    fix = f"Give another name=, overwrite=True, or use gpu_infer.attach({spec.name!r}, workspace)."
    return Finding("error", "name-taken", message, fix)


def check_model(
    spec: ServiceSpec,
    vm_size: str,
    found: FoundModel | None,
    model_bytes: int | None,
    *,
    whole_machine: bool = False,
) -> list[Finding]:
    """The model against the memory of the GPU and of the machine.

    Args:
        spec: its resources, workers and entry script count.
        vm_size: of the machine, empty where it is not known.
        found: the model, where it is on this machine.
        model_bytes: its size, ``None`` where it is not known.
        whole_machine: whether a replica has a machine to itself, not ``spec.resources.memory_gb`` of one.
    """
    findings = _check_model_files(spec)
    if model_bytes is None:
        return findings
    # Our own runtime loads one model for all its workers; what a user's script loads, each worker does.
    gb, workers = model_bytes / 1e9, spec.scale.workers if spec.entry_script else 1
    size = find_size(vm_size) if vm_size else None
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
    main = (size.memory_gb if size else math.inf) if whole_machine else spec.resources.memory_gb or DEFAULT_MEMORY_GB
    if gb * workers > main:
        message = f"On its way to the GPU {copies} passes through main memory, and a replica has {main:g} GB of that."
        fix = f"Give memory_gb={math.ceil(gb * workers * GPU_OVERHEAD + 1)}."
        if whole_machine:
            fix = "Take a size with more memory" + (", or fewer workers." if workers > 1 else ".")
        findings.append(Finding("warning", "memory", message, fix))
    return findings


def without_port(spec: ServiceSpec) -> tuple[ServiceSpec, list[Finding]]:
    """``SERVER_PORT`` chooses a port of this machine; Azure's router looks for the server where it always is."""
    if "SERVER_PORT" not in spec.environment_variables:
        return spec, []
    variables = {name: value for name, value in spec.environment_variables.items() if name != "SERVER_PORT"}
    message = "environment_variables: SERVER_PORT chooses a port of this machine, and is left out in Azure."
    finding = Finding("warning", "port", message, "The scoring URI says where the service is.")
    return replace(spec, environment_variables=variables), [finding]


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


def _check_device(spec: ServiceSpec) -> list[Finding]:
    allowed = spec.environment_variables.get("GPU_INFER_ALLOW_CPU", "").strip().lower() in ("1", "true", "yes")
    if not allowed or not spec.resources.gpus:
        return []
    message = "GPU_INFER_ALLOW_CPU=1: a service that finds no GPU will run on the CPU, with the GPU paid for."
    return [Finding("warning", "cpu-allowed", message, "Without it such a service fails at its start and says so.")]


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
