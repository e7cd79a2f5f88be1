"""What other rooms ask for: a workspace, whether it has a model, a copy of that model on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from gpu_infer.errors import Finding, PreflightError, WorkspaceError
from gpu_infer.spec import ModelRef
from gpu_infer.targets.aks.models import download_model, find_model, missing_model
from gpu_infer.targets.aks.sdk import sdk
from gpu_infer.targets.calls import call

__all__ = ["is_registered", "local_copy", "workspace_from"]


def is_registered(workspace: Any, text: str) -> bool:
    """Whether the workspace has a model of that name, or name and version.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    name, _, version = text.partition(":")
    return find_model(workspace, ModelRef(name, version=version or None)) is not None


def local_copy(workspace: Any, ref: ModelRef) -> ModelRef:
    """A registered model on this machine, downloaded where it is not here yet.

    Raises:
        PreflightError: it is not registered.
        WorkspaceError: it could not be downloaded.
    """
    model = find_model(workspace, ref)
    if model is None:
        raise PreflightError([missing_model(workspace, ref)])
    return ModelRef(ref.name, path=download_model(workspace, model), version=model.version)


def workspace_from(config: Path) -> Any:
    """The workspace of a ``config.json``, or of the folder that has one.

    Raises:
        PreflightError: there is none, or it does not name a workspace.
        WorkspaceError: it refused or did not answer.
    """
    _check_config(config)
    return call(
        sdk("azureml.core.Workspace").from_config,
        str(config),
        doing=f"opening the workspace of {config}",
        default=WorkspaceError,
    )


_FIELDS = ("subscription_id", "resource_group", "workspace_name")


def _check_config(config: Path) -> None:
    """Look into the file that the SDK will read: what it says of one that is broken does not name it."""
    file = config if config.is_file() else _config_below_or_above(config)
    fix = (
        f'It needs {", ".join(_FIELDS)}; the Azure portal has it to download, at the workspace: "Download config.json".'
    )
    if file is None:
        message = f"There is no config.json in {config.resolve()}, nor in a folder above it."
        raise PreflightError([Finding("error", "config", message, fix)])
    try:
        content: Any = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        message = f"{file} cannot be read as the config.json of a workspace: {error}."
        raise PreflightError([Finding("error", "config", message, fix)]) from error
    fields = cast("dict[str, Any]", content if isinstance(content, dict) else {})
    missing = [name for name in _FIELDS if not isinstance(fields.get(name), str) or not fields[name]]
    if missing and not fields.get("Scope"):  # the form of old
        message = f"{file} is no config.json of a workspace: it has no {', no '.join(missing)}."
        raise PreflightError([Finding("error", "config", message, fix)])


def _config_below_or_above(folder: Path) -> Path | None:
    """Where the SDK looks: in some folders of this one, then of those above."""
    places = [folder.resolve(), *folder.resolve().parents]
    files = (place / inner / "config.json" for inner in (".azureml", "aml_config", "") for place in places)
    return next((file for file in files if file.is_file()), None)
