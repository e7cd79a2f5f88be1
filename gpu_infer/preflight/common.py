"""Checks that are the same wherever the service is to run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from gpu_infer.bundle import FRAMEWORK_TEMPLATES, Template, load_template
from gpu_infer.errors import Finding
from gpu_infer.serving.adapters.base import ModelFormatError
from gpu_infer.serving.model_finder import FoundModel, find_model
from gpu_infer.serving.settings import Settings, SettingsError, load_settings
from gpu_infer.spec import ServiceSpec, name_problem

__all__ = ["check_files", "check_name", "check_settings", "check_template", "choose_template", "find_local_model"]


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


def check_name(spec: ServiceSpec) -> list[Finding]:
    """The service's name, as Azure ML would take it."""
    problem = name_problem(spec.name)
    return [Finding("error", "name", problem, 'For example name="gpu-rn".')] if problem else []


def check_files(spec: ServiceSpec) -> list[Finding]:
    """The files that the spec names and no other check reads."""
    if spec.conda_file is not None and not spec.conda_file.is_file():
        return [Finding("error", "conda-file", f"There is no conda file at {spec.conda_file}.")]
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
