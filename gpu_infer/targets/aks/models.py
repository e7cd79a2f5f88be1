"""Registered models: look up, register a local one, download."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_infer.bundle import model_files
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import DeploymentError, Finding, PreflightError, WorkspaceError
from gpu_infer.preflight import template_of_files
from gpu_infer.progress import Event, emit
from gpu_infer.spec import ModelRef
from gpu_infer.targets.aks.sdk import is_absent, sdk
from gpu_infer.targets.calls import ask, call, call_timeout
from gpu_infer.targets.models import (
    DOWNLOAD_SECONDS,
    RUN_TAG,
    UPLOAD_BYTES_PER_SECOND,
    RegisteredModel,
    bytes_of,
    stored,
)

__all__ = ["delete_models_of", "download_model", "find_model", "framework_of", "missing_model", "register_model"]

_FRAMEWORKS = {"tensorflow": "tensorflow", "tfkeras": "tensorflow", "pytorch": "torch", "onnx": "onnx"}
"""``Model.Framework`` of the SDK, in lower case."""


def find_model(workspace: Any, ref: ModelRef) -> RegisteredModel | None:
    """The registered model, ``None`` where there is none of that name and version.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    if ref.version is not None and not ref.version.isdecimal():
        return None
    version = int(ref.version) if ref.version is not None else None
    try:
        found = ask(sdk("azureml.core.Model"), workspace, name=ref.name, version=version)
    except PreflightError:
        raise
    except Exception as error:
        if is_absent(error):
            return None
        raise azure_error(error, doing=f"looking for model {str(ref)!r}", default=WorkspaceError) from error
    return RegisteredModel(found.name, str(found.version), found)


def registered_names(workspace: Any) -> list[str]:
    """Names of the workspace's models, for a message; empty where they cannot be had."""
    try:
        return sorted({model.name for model in ask(sdk("azureml.core.Model").list, workspace)})
    except Exception:  # noqa: BLE001 - the message is about something else
        return []


def missing_model(workspace: Any, ref: ModelRef) -> Finding:
    """What is said where ``find_model`` has found none: the versions that there are, else the names."""
    message = f"Model {str(ref)!r} is not registered in workspace {workspace.name!r}, and there is no such path here."
    try:
        versions = sorted(model.version for model in ask(sdk("azureml.core.Model").list, workspace, name=ref.name))
    except Exception:  # noqa: BLE001 - the message is about something else
        versions = []
    if versions and ref.version is not None:
        which = f"{'are versions' if len(versions) > 1 else 'is version'} {', '.join(map(str, versions))}"
        fix = f"Of {ref.name!r} there {which}. Without a version the newest is taken."
    else:
        names = ", ".join(registered_names(workspace)) or "none"
        fix = f"Registered: {names}. A path registers a model of this machine first."
    return Finding("error", "model-missing", message, fix)


def framework_of(model: RegisteredModel) -> str:
    """The template for a registered model, from its framework or from the names of its files; empty where unclear.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    named = _FRAMEWORKS.get(str(model.raw.model_framework or "").lower())
    if named:
        return named
    # Names are all that is kept: the values are addresses that open the files to everybody.
    names = list(call(model.raw.get_sas_urls, doing=f"listing the files of model {model.id!r}", default=WorkspaceError))
    return template_of_files(names)


def register_model(workspace: Any, ref: ModelRef, *, framework: str, run: str) -> RegisteredModel:
    """Register a model of this machine under its name, as a new version.

    Args:
        workspace: where.
        ref: with a path.
        framework: name of its template, noted as a tag.
        run: that it is registered for, noted as a tag.

    Raises:
        DeploymentError: it could not be uploaded or registered.
        PreflightError: the current directory cannot be written.
    """
    if ref.path is None:
        message = f"Model {ref.name!r} has no path to register it from."
        raise ValueError(message)
    files = model_files(ref.path.resolve())
    size = bytes_of(files)
    emit(Event(ref.name, "register_model", "start", f"{size / 2**20:.0f} MiB"))
    with _below_here(ref.name, files) as path:
        model = call(
            sdk("azureml.core.Model").register,
            workspace,
            str(path),
            ref.name,
            tags={RUN_TAG: run, **({"gpu-infer-template": framework} if framework else {})},
            doing=f"registering model {ref.name!r} from {ref.path}",
            default=DeploymentError,
            timeout=call_timeout() + size / UPLOAD_BYTES_PER_SECOND,
        )
    emit(Event(ref.name, "register_model", "ok", f"version {model.version}"))
    return RegisteredModel(model.name, str(model.version), model)


def download_model(workspace: Any, model: RegisteredModel) -> Path:
    """Bring a registered model onto this machine; one that is here already is used again.

    Returns:
        its file or folder.
    """

    def fetch(folder: Path) -> None:
        call(
            model.raw.download,
            target_dir=str(folder),
            exist_ok=True,
            doing=f"downloading model {model.id!r}",
            default=WorkspaceError,
            timeout=max(call_timeout(), DOWNLOAD_SECONDS),
        )

    return stored(model, f"{workspace.subscription_id}/{workspace.resource_group}/{workspace.name}", fetch)


def delete_models_of(workspace: Any, run: str) -> list[str]:
    """Delete the models that one run has registered, all versions of them.

    Returns:
        their names and versions.

    Raises:
        WorkspaceError: they could not be listed or deleted.
    """
    found: list[Any] = call(
        sdk("azureml.core.Model").list,
        workspace,
        tags=[[RUN_TAG, run]],
        doing="listing the models",
        default=WorkspaceError,
    )
    for model in found:
        call(model.delete, doing=f"deleting model {model.id!r}", default=WorkspaceError)
    return [f"{model.name}:{model.version}" for model in found]


@contextmanager
def _below_here(name: str, files: list[Path]) -> Generator[Path]:
    """A path to the model below the current directory: ``Model.register`` takes no other.

    A model of one file or folder that lies here is taken as it is. Anything else is linked to from a folder that
    lives as long as the upload.
    """
    here = Path.cwd()
    if len(files) == 1 and files[0].is_relative_to(here):
        yield files[0]
        return
    try:
        staging = Path(tempfile.mkdtemp(prefix=".gpu-infer-upload-", dir=here))
    except OSError as error:
        message = f"azureml-core uploads only what lies below the current directory, and {here} cannot be written to."
        raise PreflightError(
            [Finding("error", "upload", message, f"Run in {files[0].parent}, or register the model first.")]
        ) from error
    try:
        if len(files) == 1:
            link = staging / files[0].name
            link.symlink_to(files[0])
            yield link
        else:
            folder = staging / name
            folder.mkdir()
            for file in files:
                (folder / file.name).symlink_to(file)
            yield folder
    finally:
        shutil.rmtree(staging, ignore_errors=True)
