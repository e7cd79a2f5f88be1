"""The plan of a deployment to an online endpoint: what the workspace has, what it will cost. Only reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gpu_infer.bundle import FRAMEWORK_TEMPLATES
from gpu_infer.catalog import DEFAULT_SIZE
from gpu_infer.errors import Finding
from gpu_infer.plans import Plan
from gpu_infer.preflight import choose_template, find_local_model, resolve_size, script_template
from gpu_infer.spec import ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.online import autoscale
from gpu_infer.targets.online.models import find_model, framework_of, missing_model

__all__ = ["make_plan"]


def make_plan(client: Any, spec: ServiceSpec) -> Plan:
    """Look at the workspace and check.

    Returns:
        the plan; its spec names a VM size that exists and a registered model by its version.
    """
    spec, findings = _resolve_model(client, spec)
    found, model_findings = find_local_model(spec)
    findings += model_findings
    if spec.cluster is None:
        size, size_findings = resolve_size(
            spec.resources.vm_size or DEFAULT_SIZE,
            None,
            replace_retired=spec.replace_retired,
            today=datetime.now(UTC).date(),
        )
        findings += size_findings
        spec = replace(spec, resources=replace(spec.resources, vm_size=size))
    findings += autoscale.check(client, spec)
    template, script_findings = script_template(spec) if spec.entry_script else (choose_template(spec, found), [])
    findings += script_findings
    nodes = 0 if spec.cluster else spec.scale.replicas
    vm_size = "" if spec.cluster else spec.resources.vm_size or ""
    return Plan(
        spec=spec,
        model_format=found.format if found else "",
        template=template.name if template else "none",
        findings=tuple(findings),
        price_per_hour=records.cluster_price(vm_size, nodes),
        creates=(f"endpoint {spec.name}", "deployment"),
        vm_size=vm_size,
        nodes=nodes,
    )


def _resolve_model(client: Any, spec: ServiceSpec) -> tuple[ServiceSpec, list[Finding]]:
    """A registered model gets its version, and its template where none is asked for."""
    if spec.model.path is not None:
        return spec, []
    model = find_model(client, spec.model)
    if model is None:
        return spec, [missing_model(client, spec.model)]
    spec = replace(spec, model=replace(spec.model, version=model.version))
    if spec.template is not None or (spec.entry_script is not None and spec.conda_file is not None):
        return spec, []
    template = framework_of(client, model)
    if template not in FRAMEWORK_TEMPLATES.values():
        message = f"Of what framework the registered model {model.id!r} is cannot be told from its files."
        return spec, [Finding("error", "template", message, "Say template='tensorflow', 'torch' or 'onnx'.")]
    return replace(spec, template=template), []
