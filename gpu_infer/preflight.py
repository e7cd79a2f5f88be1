"""Checks that cost nothing, run before anything that does."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import fields
from pathlib import Path

from gpu_infer.bundle import BUNDLE_FILES, FRAMEWORK_TEMPLATES, Template, hook_files, load_template
from gpu_infer.errors import Finding
from gpu_infer.serving.adapters.base import ModelFormatError
from gpu_infer.serving.hooks import HookError, check_hook
from gpu_infer.serving.model_finder import FoundModel, find_model
from gpu_infer.serving.settings import Settings, SettingsError, load_settings
from gpu_infer.sources import defined_functions, parse
from gpu_infer.spec import ServiceSpec, name_problem

__all__ = ["check_local", "choose_template", "find_local_model"]

WINDOWS: bool = os.name == "nt"
SERVER_MODULE = "azureml_inference_server_http"


def find_local_model(spec: ServiceSpec) -> tuple[FoundModel | None, list[Finding]]:
    """Look at the model with the finder that the container uses.

    Returns:
        the model, ``None`` where there is none or the entry script loads it; and what is wrong with it.
    """
    path = spec.model.path
    if path is None:
        return None, []
    if not path.exists():
        fix = "Give the path of a model file or folder; a registered model needs a workspace as second argument."
        return None, [Finding("error", "model-missing", f"There is no model at {path}.", fix)]
    if spec.entry_script is not None:
        return None, []
    hint = spec.environment_variables.get("GPU_INFER_MODEL_PATH") or None
    try:
        return find_model(path, hint=hint), []
    except ModelFormatError as error:
        return None, [Finding("error", "model-format", str(error))]


def choose_template(spec: ServiceSpec, found: FoundModel | None) -> Template | None:
    """The template asked for, else the one of the model's framework, else ``None``."""
    name = spec.template or (FRAMEWORK_TEMPLATES[found.framework] if found else None)
    return load_template(name) if name else None


def check_local(spec: ServiceSpec, found: FoundModel | None, template: Template | None) -> list[Finding]:
    """All checks of a local deployment but those of the model itself."""
    return [
        *_check_name(spec),
        *_check_platform(),
        *_check_modules(found, template),
        *_check_hooks(spec),
        *_check_entry_script(spec),
        *_check_files(spec),
        *_check_template(spec, found),
        *_check_settings(spec),
        *_check_what_is_ignored(spec),
    ]


def _check_name(spec: ServiceSpec) -> list[Finding]:
    problem = name_problem(spec.name)
    return [Finding("error", "name", problem, 'For example name="gpu-rn".')] if problem else []


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


def _check_hooks(spec: ServiceSpec) -> list[Finding]:
    findings: list[Finding] = []
    for role, hook in (("preprocess", spec.preprocess), ("postprocess", spec.postprocess)):
        if hook and spec.entry_script is not None:
            message = f"{role}= does nothing beside entry_script=: that script answers by itself."
            findings.append(Finding("error", "hook", message, "Give one of the two."))
            continue
        try:
            if hook:
                check_hook(hook, role=role)
        except HookError as error:
            findings.append(Finding("error", "hook", str(error)))
        for path, function in hook_files(hook):
            findings.extend(_check_function(path, function or role, role))
    return [*findings, *_check_hook_names(spec)]


def _check_hook_names(spec: ServiceSpec) -> list[Finding]:
    """The files lie beside score.py in the bundle, under their own names: two of one name cannot."""
    files = {path.resolve() for hook in (spec.preprocess, spec.postprocess) for path, _ in hook_files(hook)}
    names = [path.name for path in files]
    taken = sorted({name for name in names if names.count(name) > 1 or name in BUNDLE_FILES})
    message = f"The bundle cannot hold this hook file beside what it has of that name: {', '.join(taken)}."
    return [Finding("error", "hook", message, "Rename it.")] if taken else []


def _check_function(path: Path, function: str, role: str) -> list[Finding]:
    if not path.is_file():
        return [Finding("error", "hook", f"{role}: there is no file {path}.")]
    try:
        names = defined_functions(parse(path))
    except SyntaxError as error:
        return [Finding("error", "hook", f"{role}: {path} line {error.lineno}: {error.msg}.")]
    if function in names or "*" in names:
        return []
    has = ", ".join(sorted(name for name, node in names.items() if node is not None)) or "none"
    return [Finding("error", "hook", f"{role}: {path} defines no function {function}. It has: {has}.")]


def _check_entry_script(spec: ServiceSpec) -> list[Finding]:
    """``init`` and ``run`` exist, and the stock server will accept the signature of ``run``."""
    path = spec.entry_script
    if path is None:
        return []
    if not path.is_file():
        return [Finding("error", "entry-script", f"There is no entry script at {path}.")]
    try:
        names = defined_functions(parse(path))
    except SyntaxError as error:
        return [Finding("error", "entry-script", f"{path} line {error.lineno}: {error.msg}.")]
    findings = [
        Finding("error", "entry-script", f"{path} has no {name}(): the server calls it.", f"Define def {name}(...).")
        for name in ("init", "run")
        if name not in names and "*" not in names
    ]
    run = names.get("run")
    if run is not None:
        arguments = run.args
        if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            message = f"{path}: the server refuses a run() with positional-only arguments, *args or **kwargs."
            findings.append(Finding("error", "entry-script", message, "Write def run(data):"))
        elif not {argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]} - {"request_headers"}:
            message = f"{path}: run() takes no argument for the data, so it cannot get the request."
            findings.append(Finding("error", "entry-script", message, "Write def run(data):"))
    return findings


def _check_files(spec: ServiceSpec) -> list[Finding]:
    if spec.conda_file is not None and not spec.conda_file.is_file():
        return [Finding("error", "conda-file", f"There is no conda file at {spec.conda_file}.")]
    return []


def _check_template(spec: ServiceSpec, found: FoundModel | None) -> list[Finding]:
    if spec.template is None or found is None or FRAMEWORK_TEMPLATES[found.framework] == spec.template:
        return []
    message = f"template={spec.template!r} does not fit the model, which is {found.format}."
    fix = f"Leave it out, or use {FRAMEWORK_TEMPLATES[found.framework]!r}."
    return [Finding("error", "template", message, fix)]


def _check_settings(spec: ServiceSpec) -> list[Finding]:
    """The runtime's settings, as it will read them."""
    try:
        Settings(**spec.runtime_settings())
        load_settings(Path("/nonexistent"), spec.environment_variables)
    except SettingsError as error:
        return [Finding("error", "settings", str(error))]
    known = {f"GPU_INFER_{field.name.upper()}" for field in fields(Settings)}
    unknown = sorted(name for name in spec.environment_variables if name.startswith("GPU_INFER_") and name not in known)
    message = f"The runtime knows no setting {', '.join(unknown)}."
    return [Finding("warning", "settings", message, "docs/settings.md lists them.")] if unknown else []


def _check_what_is_ignored(spec: ServiceSpec) -> list[Finding]:
    findings: list[Finding] = []
    if spec.scale.replicas > 1:
        message = f"replicas={spec.scale.replicas} means nothing on the local target: one server runs."
        findings.append(Finding("warning", "replicas-local", message, "workers= starts more processes."))
    if spec.ttl is not None and not spec.keep:
        message = "ttl= means nothing without keep=True: the service ends with this process."
        findings.append(Finding("warning", "ttl", message))
    if spec.cluster is not None or spec.resources.vm_size is not None:
        findings.append(Finding("warning", "cluster-local", "cluster= and vm_size= mean nothing on the local target."))
    return findings
