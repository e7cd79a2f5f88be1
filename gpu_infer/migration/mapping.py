"""From a web service to the arguments of ``deploy()``: what maps to what, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_infer.bundle import BUNDLE_FILES, GUNICORN, bundle_arguments
from gpu_infer.catalog import DEFAULT_SUCCESSOR, VmSize, find_size, sizes
from gpu_infer.errors import Finding
from gpu_infer.sources import local_imports
from gpu_infer.targets.aks import WebService

__all__ = ["Mapped", "mapped", "own_variables"]

MAX_TIMEOUT = 180.0
"""Seconds that a managed endpoint waits for an answer at most (azure-ai-docs, how-to-manage-quotas)."""

_OURS = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
_SET_ANEW = ("WORKER_COUNT", "SCORING_TIMEOUT_MS", "AML_APP_ROOT", "AZUREML_MODEL_DIR", "SERVER_PORT")
"""Variables that say the same in another way in the new deployment, or that Azure sets."""

MOST_FILES = 5
"""Names of files in a message."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What becomes of a service.

    Args:
        arguments: of ``deploy()``, the model included.
        code: in words, where the new deployment has its code from.
        findings: what does not map, and what to do about it.
    """

    arguments: Mapping[str, Any] = field(repr=False)  # variables may hold secrets
    code: str
    findings: tuple[Finding, ...]


def mapped(
    old: WebService, described: Mapping[str, Any] | None, *, vm_size: str | None, changes: Mapping[str, Any]
) -> Mapped:
    """The arguments of the deployment that does the same.

    Args:
        old: the service.
        described: what its runtime says of itself, where it is ours and its code cannot be read.
        vm_size: of the instances, ``None`` chooses by the nodes of the cluster.
        changes: arguments of ``deploy()`` that go before what is read.
    """
    code, arguments, findings = _code(old, described, changes)
    gpus, gpu_findings = _gpus(old)
    size, size_findings = (vm_size, []) if vm_size else _size(old, changes.get("gpus_per_replica", gpus))
    most = old.scale.max_replicas
    arguments |= {
        "name": old.name,
        "vm_size": size,
        "gpus_per_replica": gpus,
        "replicas": old.scale.replicas if most is None else (old.scale.replicas, most),
        "workers": int(old.environment_variables.get("WORKER_COUNT", "1")),
        "environment_variables": own_variables(old),
        "auth": "token" if old.auth == "token" else "key",
        "timeout": min(old.timeout, MAX_TIMEOUT),
        "tags": dict(old.tags),
        "properties": dict(old.properties),
    }
    if len(old.models) == 1:
        arguments["model"] = old.models[0]
    findings += [*_models(old, changes), *gpu_findings, *size_findings, *_doors(old), *_left_out(old), *_state(old)]
    return Mapped({**arguments, **changes}, code, tuple(findings))


# --- code -------------------------------------------------------------------------------------------------------------


def _code(
    old: WebService, described: Mapping[str, Any] | None, changes: Mapping[str, Any]
) -> tuple[str, dict[str, Any], list[Finding]]:
    """Where the code comes from, in words and as arguments."""
    if old.ours and "entry_script" not in changes:
        return _bundle(old, described, changes)
    conda: dict[str, Any] = {"conda_file": old.conda_file} if old.conda_file is not None else {}
    findings = _image(old, changes)
    if "entry_script" in changes:
        return f"{changes['entry_script']}, as given", {} if old.ours else conda, findings
    script = old.code / (old.entry_script or "score.py") if old.code is not None else None
    if script is None or not script.is_file():
        problem = old.code_problem or f"there is no {old.entry_script or 'score.py'} in it"
        message = f"The code of service {old.name!r} cannot be read from the workspace: {problem}."
        fix = "Give the entry script that it was deployed with as entry_script=, with the files it imports beside it."
        return "to be given", conda, [Finding("error", "code", message, fix), *findings]
    return f"{old.entry_script}, as it is", {"entry_script": script, **conda}, [*_other_files(old, script), *findings]


def _bundle(
    old: WebService, described: Mapping[str, Any] | None, changes: Mapping[str, Any]
) -> tuple[str, dict[str, Any], list[Finding]]:
    """A service of ours: its bundle has all that it was made of, and failing that, it tells most of it itself."""
    if old.code is not None:
        folder = old.code / Path(old.entry_script).parent
        try:
            return "the bundled runtime, built anew", bundle_arguments(folder), []
        except ValueError as error:
            problem = str(error)
    else:
        problem = f"its bundle cannot be read: {old.code_problem}"
    if described is None:
        message = f"How service {old.name!r} was deployed is not known: {problem}, and it does not answer."
        fix = "Give preprocess=, postprocess= and output= as it was deployed, or entry_script=."
        return "to be given", {}, [Finding("error", "code", message, fix)]
    settings: Mapping[str, Any] = described.get("settings", {})
    found: dict[str, Any] = {}
    findings: list[Finding] = []
    for what in ("output", "preprocess", "postprocess"):
        text = str(settings.get(what) or "")
        if not text or what in changes:
            continue
        if ".py" in text and what != "output":
            message = f"{what}={text!r} of service {old.name!r} is in a file that cannot be had: {problem}."
            findings.append(Finding("error", "hook", message, f"Give the file: {what}='PATH.py:FUNCTION'."))
        found[what] = text
    if described.get("labels"):
        found["labels"] = tuple(described["labels"])
    return "the bundled runtime, with the settings that it tells", found, findings


def _other_files(old: WebService, script: Path) -> list[Finding]:
    """Files beside the entry script that are not Python, or that it does not import."""
    if old.code is None:
        return []
    taken = {script, *(file for one in local_imports(script) for file in ([one] if one.is_file() else one.rglob("*")))}
    here = [file for file in old.code.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    bundled = {script.parent / name for name in BUNDLE_FILES}
    left = sorted(str(file.relative_to(old.code)) for file in here if file not in taken and file not in bundled)
    if not left:
        return []
    more = f" and {len(left) - MOST_FILES} more" if len(left) > MOST_FILES else ""
    message = (
        f"Of the uploaded folder only the entry script and what it imports from beside it are taken along, not "
        f"{', '.join(left[:MOST_FILES])}{more}."
    )
    return [Finding("warning", "files", message, "What the script reads goes into the registered model's folder.")]


def _image(old: WebService, changes: Mapping[str, Any]) -> list[Finding]:
    if not old.own_image or "conda_file" in changes:
        return []
    message = (
        f"Service {old.name!r} runs on an image of its own ({old.base_image or 'which Azure does not name'}), and the "
        "new deployment on the library's."
    )
    fix = "Give the packages that its script needs as conda_file=."
    return [Finding("warning" if old.conda_file else "error", "image", message, fix)]


# --- machines ---------------------------------------------------------------------------------------------------------


def _gpus(old: WebService) -> tuple[int, list[Finding]]:
    """GPUs of a replica; 1 where none are asked for on nodes that have some: ``gpu_cores`` was left out then."""
    node = find_size(old.cluster.vm_size) if old.cluster.vm_size else None
    if old.gpus or node is None or not node.schedulable_gpus:
        return old.gpus, []
    message = f"Service {old.name!r} asks for no GPU, and the nodes of {old.cluster.name!r} have some; 1 is taken."
    return 1, [Finding("info", "gpu", message, "gpus_per_replica=0 takes none.")]


def _size(old: WebService, gpus: int) -> tuple[str, list[Finding]]:
    """The size of an instance: a machine to itself for what was a share of a node."""
    node = find_size(old.cluster.vm_size) if old.cluster.vm_size else None
    if node is None:
        if old.cluster.vm_size:
            return old.cluster.vm_size, []
        message = (
            f"Of what size the nodes of {old.cluster.name!r} are, Azure does not say; {DEFAULT_SUCCESSOR} is taken."
        )
        return DEFAULT_SUCCESSOR, [Finding("warning", "vm-size", message, "Give vm_size=.")]
    size = _living(node)
    findings: list[Finding] = []
    if size is not node:
        message = f"Azure has retired {node.name} ({_hardware(node)}); its successor {size.name} is taken."
        findings.append(Finding("info", "retired", message, "vm_size= takes another one."))
    small = _smallest(old, size, gpus)
    if small is not None and small is not size:
        message = (
            f"A replica uses {gpus} of the {size.schedulable_gpus} GPUs of {size.name}, and an instance has a machine "
            f"to itself: {small.name} ({_hardware(small)}) is taken."
        )
        findings.append(Finding("info", "vm-size", message, f'vm_size="{size.name}" takes the size of the nodes.'))
        size = small
    return size.name, findings


def _living(size: VmSize) -> VmSize:
    seen: set[str] = set()
    while size.retired and size.successor and size.name not in seen:
        seen.add(size.name)
        size = find_size(size.successor) or size
    return size


def _smallest(old: WebService, size: VmSize, gpus: int) -> VmSize | None:
    """The cheapest size with as many of the same GPU as a replica uses, and with its cores and memory."""
    if not 0 < gpus < size.schedulable_gpus:
        return None
    fitting = [
        one
        for one in sizes()
        if one.gpu == size.gpu
        and one.gpus == gpus
        and one.managed
        and not one.retired
        and one.price_per_hour
        and one.vcpus >= (old.cpu_cores or 0)
        and one.memory_gb >= (old.memory_gb or 0)
    ]
    return min(fitting, key=lambda one: one.price_per_hour or 0.0, default=None)


def _hardware(size: VmSize) -> str:
    return size.hardware or f"{size.vcpus} cores, {size.memory_gb:g} GB"


# --- the rest ---------------------------------------------------------------------------------------------------------


def own_variables(old: WebService) -> dict[str, str]:
    """The variables of a service that are its user's own: what the library or Azure sets is set anew."""
    return {
        name: value
        for name, value in old.environment_variables.items()
        if name not in _SET_ANEW
        and _OURS.get(name) != value
        and not (name == "GUNICORN_CMD_ARGS" and value.startswith(GUNICORN))
    }


def _models(old: WebService, changes: Mapping[str, Any]) -> list[Finding]:
    if len(old.models) == 1 or "model" in changes:
        return []
    if not old.models:
        message = f"Service {old.name!r} has no registered model, and a deployment here has one."
        return [Finding("error", "model", message, "Register what its script loads, and give it as model=.")]
    names = ", ".join(map(str, old.models))
    message = f"Service {old.name!r} has {len(old.models)} models ({names}), and a deployment has one."
    fix = "Register one folder that holds all of them, give it as model=, and let the script look below it."
    return [Finding("error", "model", message, fix)]


def _doors(old: WebService) -> list[Finding]:
    """What stands before the service: who gets in, where, and for how long."""
    findings: list[Finding] = []
    if old.auth == "none":
        message = f"Anybody can score service {old.name!r}; an online endpoint asks for a key."
        findings.append(Finding("warning", "auth", message, "Give the callers one."))
    if old.timeout > MAX_TIMEOUT:
        message = f"A request may take {old.timeout:g} s there, and {MAX_TIMEOUT:g} s at most on a managed endpoint."
        findings.append(Finding("warning", "timeout", message, "Send fewer items per request."))
    if old.cluster.domain:
        message = (
            f"The cluster answers as {old.cluster.domain} with a certificate of yours; an endpoint has an address and "
            "a certificate of Azure's."
        )
        fix = "Lead that name to the new address: by a gateway of yours, or by giving callers the new one."
        findings.append(Finding("warning", "domain", message, fix))
    if old.cluster.internal:
        message = (
            "The service can be reached from its virtual network alone; a managed endpoint is open to all networks."
        )
        fix = (
            "Azure ML closes it with public_network_access: disabled and a private endpoint of the workspace, which "
            "this library does not set."
        )
        findings.append(Finding("warning", "network", message, fix))
    return findings


def _left_out(old: WebService) -> list[Finding]:
    findings: list[Finding] = []
    if old.collects:
        message = f"Service {old.name!r} keeps what comes in ({', '.join(old.collects)}); the new deployment does not."
        fix = "Online endpoints have a data collector and Application Insights of their own, to be set in Azure ML."
        findings.append(Finding("warning", "collected", message, fix))
    lost = [what for what, text in (("description", old.description), ("namespace", old.namespace)) if text]
    if lost:
        findings.append(Finding("info", "left-out", f"Not taken along: {' and '.join(lost)}.", ""))
    return findings


def _state(old: WebService) -> list[Finding]:
    if old.state == "Healthy":
        return []
    message = f"Service {old.name!r} is {old.state or 'in an unknown state'}, so its answers cannot be compared."
    return [Finding("warning", "state", message, "Bring it up first, or deploy without comparing: deploy().")]
