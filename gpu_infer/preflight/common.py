"""Checks that are the same wherever the service is to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from gpu_infer.bundle import FRAMEWORK_TEMPLATES, Template, labels_in, load_template
from gpu_infer.errors import Finding
from gpu_infer.serving.adapters.base import ModelFormatError
from gpu_infer.serving.labels import LabelsError, labels_of_model, read_labels
from gpu_infer.serving.model_finder import FoundModel, find_model
from gpu_infer.serving.settings import Settings, SettingsError, load_settings
from gpu_infer.spec import ServiceSpec, name_problem

__all__ = [
    "check_files",
    "check_name",
    "check_settings",
    "check_template",
    "choose_template",
    "find_local_model",
    "script_template",
    "template_of_files",
]

_SUFFIXES = {
    "saved_model.pb": "tensorflow",
    ".keras": "tensorflow",
    ".h5": "tensorflow",
    ".meta": "tensorflow",
    ".onnx": "onnx",
    ".pt": "torch",
    ".pth": "torch",
    ".ts": "torch",
    ".pt2": "torch",
}
"""How files end, and the template of their framework, where the files themselves are not looked into."""


def find_local_model(spec: ServiceSpec) -> tuple[FoundModel | None, list[Finding]]:
    """Look at the model with the finder that the container uses.

    Returns:
        the model, ``None`` where there is none or the entry script loads it; and what is wrong with it.
    """
    path = spec.model.path
    if path is None:
        return None, []
    if not path.exists():
        fix = "Give the path of a model file or folder"
        # A workspace was given, and the text can be no name of a registered model.
        in_azure = spec.target != "local"
        fix += (
            ", or the name of a registered model."
            if in_azure
            else "; a registered model needs a workspace as second argument."
        )
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


def script_template(spec: ServiceSpec) -> tuple[Template | None, list[Finding]]:
    """The template of a container in which an entry script of the user's loads a model of this machine.

    The finder tells it where our own runtime could serve the model. A script may load what that cannot, such as the
    weights of a network alone, so the names of the files count too.

    Returns:
        the template, ``None`` where the conda file says all or none can be told; and what is wrong.
    """
    path = spec.model.path
    if spec.template is not None or spec.conda_file is not None or path is None or not path.exists():
        return choose_template(spec, None), []
    try:
        name = FRAMEWORK_TEMPLATES[find_model(path).framework]
    except ModelFormatError:
        inside = (each.name for each in path.rglob("*")) if path.is_dir() else ()
        name = template_of_files([path.name, *inside])
    if name:
        return load_template(name), []
    message = f"Of what framework {path} is cannot be told, so neither what the container of the entry script needs."
    fix = "Say template='tensorflow', 'torch' or 'onnx', or give conda_file=."
    return None, [Finding("error", "template", message, fix)]


def template_of_files(names: Iterable[str]) -> str:
    """The template that the names of a model's files tell; empty where they tell none, or several."""
    templates = {template for name in names for suffix, template in _SUFFIXES.items() if name.lower().endswith(suffix)}
    return templates.pop() if len(templates) == 1 else ""


def check_name(spec: ServiceSpec) -> list[Finding]:
    """The service's name, as Azure ML would take it."""
    problem = name_problem(spec.name)
    return [Finding("error", "name", problem, 'For example name="gpu-rn".')] if problem else []


def check_files(spec: ServiceSpec) -> list[Finding]:
    """The files that the spec names and no other check reads."""
    findings = check_label_names(spec)
    if spec.conda_file is not None and not spec.conda_file.is_file():
        findings.append(Finding("error", "conda-file", f"There is no conda file at {spec.conda_file}."))
    return findings


def check_label_names(spec: ServiceSpec) -> list[Finding]:
    """The labels can be read; those that lie with a model of this machine are taken, and named."""
    path = spec.model.path
    try:
        if spec.labels is not None:
            labels_in(spec.labels)
        elif spec.entry_script is None and path is not None and path.is_dir() and (beside := labels_of_model(path)):
            message = (
                f"{len(read_labels(beside)):,} labels are taken from {beside.relative_to(path)} in the model's folder."
            )
            return [Finding("info", "labels", message)]
    except LabelsError as error:
        if spec.labels is None:
            return [Finding("warning", "labels", f"{error} The service has no labels.")]
        return [Finding("error", "labels", str(error))]
    return []


def check_template(spec: ServiceSpec, found: FoundModel | None) -> list[Finding]:
    """The template is of the model's framework."""
    if spec.template is None or found is None or FRAMEWORK_TEMPLATES[found.framework] == spec.template:
        return []
    message = f"template={spec.template!r} does not fit the model, which is {found.format}."
    fix = f"Leave it out, or use {FRAMEWORK_TEMPLATES[found.framework]!r}."
    return [Finding("error", "template", message, fix)]


def check_settings(spec: ServiceSpec) -> list[Finding]:
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
