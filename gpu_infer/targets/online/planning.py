"""The plan of an online endpoint: what the workspace has, what the checks make of it, what it will cost. Only reads."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gpu_infer.bundle import model_files
from gpu_infer.catalog import DEFAULT_SIZE
from gpu_infer.errors import Finding
from gpu_infer.plans import Plan
from gpu_infer.preflight import (
    OnlineFacts,
    check_online,
    choose_instance_type,
    choose_template,
    find_local_model,
    resolve_size,
    script_template,
    without_port,
)
from gpu_infer.preflight.managed import gpus_listed
from gpu_infer.preflight.quota import check_quota, quota_of
from gpu_infer.spec import ModelRef, Scale, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.models import RegisteredModel, bytes_of, resolve_model
from gpu_infer.targets.online import autoscale
from gpu_infer.targets.online.deployments import free_name
from gpu_infer.targets.online.models import find_model, framework_of, is_triton, missing_model
from gpu_infer.targets.online.reading import read_facts

__all__ = ["check_scale", "make_plan"]


def make_plan(client: Any, spec: ServiceSpec) -> Plan:
    """Look at the workspace and check. What Azure does not tell is a finding, and stops nothing.

    Args:
        client: ``azure.ai.ml.MLClient``.
        spec: on Kubernetes where it has a cluster, which then names an attached compute.

    Returns:
        the plan; its spec names a VM size that exists, or an instance type where one is known, and a registered model
        by its version.

    Raises:
        WorkspaceError: the login is missing or refused, or the registered model cannot be looked up.
    """
    spec, findings = resolve_model(
        spec,
        find=functools.partial(find_model, client),
        missing=functools.partial(missing_model, client),
        template_of=functools.partial(_template_of, client),
    )
    spec, port_findings = without_port(spec)
    found, model_findings = find_local_model(spec)
    facts, unseen = read_facts(client, spec)
    spec, size_findings = _with_machine(spec, facts)
    load_findings = autoscale.check(client, spec)
    template, script_findings = script_template(spec) if spec.entry_script else (choose_template(spec, found), [])
    deployment = free_name((facts.endpoint.deployments if facts.endpoint else None) or ())
    checked = check_online(
        spec,
        facts,
        found,
        template,
        model_bytes=bytes_of(model_files(spec.model.path.resolve())) if found and spec.model.path else None,
        today=datetime.now(UTC).date(),
        deployment=deployment,
    )
    managed = spec.cluster is None
    vm_size, instances = (spec.resources.vm_size or "", spec.scale.replicas) if managed else ("", 0)
    quota = quota_of(vm_size, instances, facts) if managed else None
    return Plan(
        spec=spec,
        model_format=found.format if found else "",
        template=template.name if template else "none",
        findings=(
            *findings,
            *port_findings,
            *model_findings,
            *size_findings,
            *script_findings,
            *checked,
            *load_findings,
            *unseen,
        ),
        price_per_hour=records.cluster_price(vm_size, instances),
        creates=tuple(_creates(spec, deployment, facts)),
        vm_size=vm_size,
        nodes=instances,
        quota=str(quota or ""),
    )


def check_scale(client: Any, deployment: Any, scale: Scale) -> list[Finding]:
    """Whether the quota holds so many instances of a managed deployment, as ``make_plan()`` counts.

    Those that it has already are counted as used, and are free for it.
    """
    vm_size: str = deployment.instance_type or ""
    spec = ServiceSpec(deployment.endpoint_name, ModelRef(""), "online")
    facts, unseen = read_facts(client, spec)
    own = quota_of(vm_size, int(deployment.instance_count or 0), facts)
    if own is None or own.usage is None:
        return unseen
    without = replace(own.usage, used=max(0, own.usage.used - own.needed))
    usage = tuple(without if one == own.usage else one for one in facts.usage or ())
    return [*check_quota(vm_size, scale, replace(facts, usage=usage)), *unseen]


# --- inside -----------------------------------------------------------------------------------------------------------


def _template_of(client: Any, model: RegisteredModel) -> str | None:
    return None if is_triton(model) else framework_of(client, model)


def _with_machine(spec: ServiceSpec, facts: OnlineFacts) -> tuple[ServiceSpec, list[Finding]]:
    """The spec with the VM size of the instances, or the instance type of the replicas."""
    if spec.cluster is not None:
        chosen = choose_instance_type(spec, facts.compute)
        return replace(spec, resources=replace(spec.resources, vm_size=chosen)), []
    size, findings = resolve_size(
        spec.resources.vm_size or DEFAULT_SIZE,
        gpus_listed(facts),
        replace_retired=spec.replace_retired,
        today=datetime.now(UTC).date(),
        machine="instance",
        gpu=spec.resources.gpus > 0,
    )
    return replace(spec, resources=replace(spec.resources, vm_size=size)), findings


def _creates(spec: ServiceSpec, deployment: str, facts: OnlineFacts) -> list[str]:
    """What is created, in that order."""
    least, most = spec.scale.replicas, spec.scale.max_replicas
    instances = f"{least} to {most}" if most else str(least)
    on = spec.resources.vm_size or ("replica" if instances == "1" else "replicas")
    where = f" on {spec.cluster.name}" if spec.cluster else ""
    model = [] if spec.model.path is None else [f"model {spec.model.name} (registered from {spec.model.path})"]
    endpoint = [] if facts.endpoint is not None else [f"endpoint {spec.name}"]
    attached = spec.cluster.resource_id if spec.cluster and facts.compute is None else None
    cluster = [f"cluster {spec.cluster.name} (attached from {attached})"] if spec.cluster and attached else []
    times = "x " if spec.resources.vm_size else ""
    return [*cluster, *model, *endpoint, f"deployment {deployment} ({instances} {times}{on}{where})"]
