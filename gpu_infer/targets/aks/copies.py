"""What other rooms ask for: a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_infer.errors import WorkspaceError
from gpu_infer.targets.aks.sdk import sdk
from gpu_infer.targets.calls import call
from gpu_infer.targets.config import read_config

__all__ = ["workspace_from"]


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
