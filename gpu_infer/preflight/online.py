"""Checks of a deployment to an online endpoint, managed or on Kubernetes, before anything is uploaded or billed."""

from __future__ import annotations

import re
from datetime import date

from gpu_infer.bundle import Template
from gpu_infer.errors import Finding
from gpu_infer.preflight.common import check_template
from gpu_infer.preflight.container import Door, check_contents, check_door, check_model, name_taken
from gpu_infer.preflight.facts import DeploymentFacts, EndpointFacts, OnlineFacts
from gpu_infer.preflight.kubernetes import check_compute
from gpu_infer.preflight.managed import check_machine, disk_findings
from gpu_infer.preflight.quota import check_quota
from gpu_infer.serving.model_finder import FoundModel
from gpu_infer.spec import Batching, ServiceSpec

__all__ = ["check_online", "without_runtime"]

MANAGED_DOOR = Door("a managed online endpoint", max_timeout=180.0)
KUBERNETES_DOOR = Door(
    "the router in front of Kubernetes online endpoints", max_timeout=300.0, max_payload_mb=100.0
)  # azureml-fe, the same as in front of AKS services
"""Their limits: azure-ai-docs, how-to-manage-quotas, 2026-01-27. That of managed requests is not documented."""

ENDPOINT_NAME = re.compile(r"[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?")
"""What azure-ai-ml 1.35 accepts (``EndpointConfigurations``), beside a length of 3 to 32."""

MAX_DEPLOYMENTS = 20
"""Of one endpoint (azure-ai-docs, how-to-manage-quotas)."""

MAX_ENDPOINTS, MAX_KUBERNETES_ENDPOINTS = 100, 60
"""Managed ones of a subscription in a region, and those of a cluster (the same)."""

_GOING = "Deleting"


def check_online(
    spec: ServiceSpec,
    facts: OnlineFacts,
    found: FoundModel | None,
    template: Template | None,
    *,
    model_bytes: int | None,
    today: date,
    deployment: str = "blue",
) -> list[Finding]:
    """All checks of a deployment to an online endpoint but those of the model's format and of the VM size's name.

    Those two are ``find_local_model`` and ``resolve_size``.

    Args:
        spec: what is to be deployed, on Kubernetes where it has a cluster; ``resources.vm_size`` is a size that
            ``resolve_size`` has passed, or an instance type.
        facts: of the workspace.
        found: the model, where it is on this machine.
        template: that is used, ``None`` where the entry script and the conda file do without.
        model_bytes: size of the model, ``None`` where it is not known.
        today: the day that decides what is out of date.
        deployment: name of what is created below the endpoint.
    """
    managed = spec.cluster is None
    vm_size = spec.resources.vm_size or "" if managed else ""
    return [
        *_check_name(spec),
        *_check_endpoint(spec, facts, deployment),
        *(check_machine(spec, facts) if spec.cluster is None else check_compute(spec, spec.cluster, facts)),
        *(check_quota(vm_size, spec.scale, facts) if managed else []),
        *check_model(spec, vm_size, found, model_bytes, whole_machine=managed),
        *disk_findings(vm_size, model_bytes, facts),
        *check_template(spec, found),
        *check_door(spec, MANAGED_DOOR if managed else KUBERNETES_DOOR),
        *check_contents(spec, template, today=today),
        *_check_codeless(spec),
    ]


def without_runtime(given: list[str]) -> Finding:
    """What is said where arguments are for this library's runtime, and Triton serves the model.

    Args:
        given: names of the arguments.
    """
    message = f"Triton serves this model by itself, without this library's runtime, which is what takes {_and(given)}."
    fix = (
        f"Leave {'it' if len(given) == 1 else 'them'} out; or have the runtime serve the model: template='onnx' (or "
        "'torch', 'tensorflow'), or an entry_script=."
    )
    return Finding("error", "triton", message, fix)


# --- inside -----------------------------------------------------------------------------------------------------------


def _check_name(spec: ServiceSpec) -> list[Finding]:
    if ENDPOINT_NAME.fullmatch(spec.name) and 3 <= len(spec.name) <= 32:
        return []
    message = (
        f"{spec.name!r} is no name that Azure ML accepts for an online endpoint: 3 to 32 letters, digits and dashes, a "
        "letter first, no dash last."
    )
    return [Finding("error", "name", message, 'For example name="gpu-rn".')]


def _check_codeless(spec: ServiceSpec) -> list[Finding]:
    """Triton serves the model by itself: what our runtime would do with it, nobody does."""
    asked = {
        "preprocess": spec.preprocess,
        "postprocess": spec.postprocess,
        "output": spec.output,
        "labels": spec.labels is not None,
        "workers": spec.scale.workers > 1,
        "batching": spec.batching != Batching(),
        "conda_file": spec.conda_file is not None,
        **{f"environment_variables {name}": name.startswith("GPU_INFER_") for name in spec.environment_variables},
    }
    given = [what for what, is_given in asked.items() if is_given]
    return [without_runtime(given)] if spec.codeless and given else []


def _check_endpoint(spec: ServiceSpec, facts: OnlineFacts, deployment: str) -> list[Finding]:
    there = facts.endpoint
    if there is None:
        return _check_endpoints(spec, facts)
    if there.state == _GOING:
        message = f"Endpoint {spec.name!r} is still being deleted, and its name is free only when that is over."
        return [Finding("error", "endpoint-deleting", message, "Try again in a minute, or give another name=.")]
    if not spec.overwrite:
        return [name_taken(spec, "an endpoint")]
    if (problem := _other_kind(spec, there)) is not None:
        return [problem]
    return [_check_deployments(there, deployment)]


def _check_deployments(there: EndpointFacts, deployment: str) -> Finding:
    """What becomes of the deployments of an endpoint that gets another one."""
    deployments = there.deployments
    if deployments is not None and len(deployments) >= MAX_DEPLOYMENTS:
        message = f"Endpoint {there.name!r} has {len(deployments)} deployments, and takes {MAX_DEPLOYMENTS} at most."
        return Finding("error", "deployment-count", message, "Delete one that gets no traffic.")
    serving = [one for one in deployments or () if one.traffic] or list(deployments or ())
    if not serving:
        without = "" if deployments is None else ", without a deployment"
        return Finding("info", "replaces", f"Endpoint {there.name!r} is there{without}; it is kept.")
    billed = "" if there.cluster else " Until then both are billed."
    message = (
        f"Endpoint {there.name!r} is there and serves {' and '.join(map(_shown, serving))}. Deployment {deployment!r} "
        f"gets its requests once it is healthy, then the old one is deleted.{billed}"
    )
    return Finding("info", "replaces", message)


def _other_kind(spec: ServiceSpec, there: EndpointFacts) -> Finding | None:
    """An endpoint stays managed, or on its compute, for as long as it lives."""
    wanted = spec.cluster.name if spec.cluster else ""
    if wanted.lower() == there.cluster.lower():
        return None
    message = (
        f"Endpoint {spec.name!r} is there and {_kind(there.cluster)}; it cannot be made {_kind(wanted)}, for an "
        "endpoint stays what it is."
    )
    return Finding("error", "endpoint-kind", message, "Delete it first, or give another name=.")


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _kind(cluster: str) -> str:
    return f"one on Kubernetes compute {cluster!r}" if cluster else "a managed one"


def _check_endpoints(spec: ServiceSpec, facts: OnlineFacts) -> list[Finding]:
    most, where = (
        (MAX_ENDPOINTS, "this workspace has as many managed endpoints as a subscription may have in a region")
        if spec.cluster is None
        else (MAX_KUBERNETES_ENDPOINTS, f"{spec.cluster.name!r} has as many endpoints as a cluster may have")
    )
    if facts.others < most:
        return []
    message = f"There is no room for another endpoint: {where}, {most}."
    return [Finding("error", "endpoint-count", message, "Delete one that is not used; `gpu-infer sweep` finds some.")]


def _shown(one: DeploymentFacts) -> str:
    return f"{one.name} ({one.instances} x {one.vm_size})" if one.instances and one.vm_size else one.name
