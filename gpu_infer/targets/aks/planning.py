"""The plan of an AKS deployment: what the workspace has, what the checks make of it, what it will cost. Only reads."""

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
    WorkspaceFacts,
    check_aks,
    check_room,
    check_way,
    choose_template,
    find_local_model,
    makes_cluster,
    resolve_size,
    script_template,
    without_port,
)
from gpu_infer.preflight.clusters import nodes_of, size_of
from gpu_infer.spec import Cluster, ModelRef, Resources, Scale, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.aks import clusters, services
from gpu_infer.targets.aks.models import find_model, framework_of, missing_model
from gpu_infer.targets.models import RegisteredModel, bytes_of, resolve_model

__all__ = ["check_scale", "make_plan"]


def make_plan(workspace: Any, spec: ServiceSpec) -> Plan:
    """Look at the workspace and check.

    Returns:
        the plan; its spec names a VM size that exists and a registered model by its version.
    """
    cluster = spec.cluster or Cluster()
    if spec.resources.vm_size is not None:
        cluster = replace(cluster, vm_size=spec.resources.vm_size)
    spec, findings = resolve_model(
        replace(spec, cluster=cluster),
        find=functools.partial(find_model, workspace),
        missing=functools.partial(missing_model, workspace),
        template_of=_template_of,
    )
    spec, port_findings = without_port(spec)
    found, model_findings = find_local_model(spec)
    findings += [*port_findings, *model_findings]
    compute = clusters.look(workspace, cluster.name)
    listed = services.list_services(workspace)
    facts = WorkspaceFacts(
        location=cluster.location or workspace.location,
        sizes=clusters.live_sizes(workspace),
        cluster=clusters.facts_of(compute) if compute is not None else None,
        gpus_taken=services.gpus_taken([one for one in listed if one.compute_name == cluster.name], but=spec.name),
        service_exists=any(one.name == spec.name for one in listed),
    )
    # An attached cluster is of the size it is, and an existing one check_cluster() compares with what is asked.
    if cluster.resource_id is None and makes_cluster(cluster, facts):
        size, size_findings = resolve_size(
            cluster.vm_size or DEFAULT_SIZE,
            facts.sizes,
            replace_retired=spec.replace_retired,
            today=datetime.now(UTC).date(),
        )
        findings += size_findings
        cluster = replace(cluster, vm_size=size)
        spec = replace(spec, cluster=cluster)
    template, script_findings = script_template(spec) if spec.entry_script else (choose_template(spec, found), [])
    findings += script_findings
    model_bytes = bytes_of(model_files(spec.model.path.resolve())) if found and spec.model.path else None
    findings += check_way(cluster, facts)
    findings += check_aks(spec, facts, found, template, model_bytes=model_bytes, today=datetime.now(UTC).date())
    vm_size, nodes = size_of(cluster, facts), nodes_of(cluster, facts)
    return Plan(
        spec=spec,
        model_format=found.format if found else "",
        template=template.name if template else "none",
        findings=tuple(findings),
        price_per_hour=records.cluster_price(vm_size, nodes),
        creates=tuple(_creates(spec, cluster, exists=not makes_cluster(cluster, facts))),
        vm_size=vm_size,
        nodes=nodes,
    )


def check_scale(workspace: Any, service: Any, scale: Scale) -> list[Finding]:
    """Whether the cluster of a service has room for so many replicas of it, as ``make_plan()`` counts."""
    compute = clusters.look(workspace, service.compute_name)
    others = services.list_services(workspace, cluster=service.compute_name)
    facts = WorkspaceFacts(
        location=workspace.location,
        sizes=clusters.live_sizes(workspace),
        cluster=clusters.facts_of(compute) if compute is not None else None,
        gpus_taken=services.gpus_taken(others, but=service.name),
        service_exists=True,
    )
    needs = service.container_resource_requirements
    resources = Resources(int(needs.gpu or 0), needs.cpu, needs.memory_in_gb) if needs else Resources()
    spec = ServiceSpec(service.name, ModelRef(""), "aks", resources=resources, scale=scale)
    return check_room(spec, Cluster(service.compute_name, vm_size=""), facts)


# --- inside -----------------------------------------------------------------------------------------------------------


def _template_of(model: RegisteredModel) -> str:
    tags: dict[str, str] = model.raw.tags or {}
    return tags.get("gpu-infer-template", "") or framework_of(model)


def _creates(spec: ServiceSpec, cluster: Cluster, *, exists: bool) -> list[str]:
    created: list[str] = []
    if not exists:
        by = ", by AKS itself" if cluster.how == "aks" else ""
        nodes = f"{cluster.nodes} x {cluster.vm_size}{by}"
        what = f"attached from {cluster.resource_id}" if cluster.resource_id else nodes
        created.append(f"cluster {cluster.name} ({what})")
    if spec.model.path is not None:
        created.append(f"model {spec.model.name} (registered from {spec.model.path})")
    created.append(f"service {spec.name}")
    return created
