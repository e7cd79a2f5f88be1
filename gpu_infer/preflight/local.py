"""Checks of a deployment to this machine."""

from __future__ import annotations

import importlib.util
import os
import sys

from gpu_infer.bundle import Template
from gpu_infer.errors import Finding
from gpu_infer.preflight.common import check_files, check_name, check_settings, check_template
from gpu_infer.preflight.entry_script import check_entry_script, check_hooks
from gpu_infer.serving.model_finder import FoundModel
from gpu_infer.spec import ServiceSpec

__all__ = ["check_local"]

WINDOWS: bool = os.name == "nt"
SERVER_MODULE = "azureml_inference_server_http"


def check_local(spec: ServiceSpec, found: FoundModel | None, template: Template | None) -> list[Finding]:
    """All checks of a local deployment but those of the model itself."""
    return [
        *check_name(spec),
        *_check_platform(),
        *_check_modules(found, template),
        *check_hooks(spec),
        *check_entry_script(spec),
        *check_files(spec),
        *check_template(spec, found),
        *check_settings(spec),
        *_check_what_is_ignored(spec),
    ]


def _check_platform() -> list[Finding]:
    if not WINDOWS:
        return []
    message = "The local target does not run on Windows: the stock inference server has no gunicorn there."
    return [Finding("error", "platform", message, "Use WSL 2, or deploy to Azure.")]


def _check_modules(found: FoundModel | None, template: Template | None) -> list[Finding]:
    findings: list[Finding] = []
    if importlib.util.find_spec(SERVER_MODULE) is None:
        message = "The inference server (azureml-inference-server-http) is not installed."
        findings.append(Finding("error", "missing-extra", message, "Run: pip install 'gpu-infer[local]'"))
    if template is not None and importlib.util.find_spec(template.import_name) is None:
        what = f"The model is {found.format}" if found else f"template={template.name!r}"
        message = f"{what}, and {template.import_name} is not installed in {sys.prefix}."
        findings.append(Finding("error", "missing-extra", message, f"Run: pip install 'gpu-infer[{template.extra}]'"))
    return findings


def _check_what_is_ignored(spec: ServiceSpec) -> list[Finding]:
    findings: list[Finding] = []
    if spec.scale.most > 1:
        message = f"replicas={spec.scale.most} means nothing on the local target: one server runs."
        findings.append(Finding("warning", "replicas-local", message, "workers= starts more processes."))
    if spec.ttl is not None and not spec.keep:
        message = "ttl= means nothing without keep=True: the service ends with this process."
        findings.append(Finding("warning", "ttl", message))
    resources = spec.resources
    given = {
        "cluster": spec.cluster,
        "vm_size": resources.vm_size,
        "cpu_cores": resources.cpu_cores,
        "memory_gb": resources.memory_gb,
    }
    named = [f"{what}=" for what, value in given.items() if value is not None]
    if named:
        message = f"{', '.join(named)} {'mean' if len(named) > 1 else 'means'} nothing on the local target."
        fix = "To deploy to Azure, give a workspace as second argument."
        findings.append(Finding("warning", "cluster-local", message, fix))
    return findings
