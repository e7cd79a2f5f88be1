"""What other rooms ask for: a workspace, whether it has a model, a copy of that model on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_infer.errors import PreflightError, WorkspaceError
from gpu_infer.spec import ModelRef
from gpu_infer.targets.aks.models import download_model, find_model, missing_model
from gpu_infer.targets.aks.sdk import sdk
from gpu_infer.targets.calls import call
from gpu_infer.targets.config import read_config

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
    read_config(config)  # what the SDK says of one that is broken does not name it
    return call(
        sdk("azureml.core.Workspace").from_config,
        str(config),
        doing=f"opening the workspace of {config}",
        default=WorkspaceError,
    )
