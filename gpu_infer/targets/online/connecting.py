"""The ``MLClient`` of a workspace that a ``config.json`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_infer.errors import WorkspaceError
from gpu_infer.targets.calls import call, load
from gpu_infer.targets.config import read_config
from gpu_infer.targets.online.sdk import sdk

__all__ = ["client_from"]


def client_from(config: Path) -> Any:
    """An ``azure.ai.ml.MLClient`` for the workspace of a ``config.json``, or of the folder that has one.

    It signs in with what ``azure.identity.DefaultAzureCredential`` finds: variables, a managed identity, ``az login``.

    Raises:
        PreflightError: there is no such file, or it does not name a workspace.
        MissingDependencyError: azure-ai-ml or azure-identity is not installed.
        WorkspaceError: no client can be made.
    """
    place = read_config(config)
    name = "azure.identity.DefaultAzureCredential"
    credential = load(name, extra="online", reached="Online endpoints are reached with azure-identity")
    client = sdk("azure.ai.ml.MLClient")

    def make() -> Any:
        return client(credential(), place.subscription_id, place.resource_group, place.name)

    return call(make, doing=f"opening the workspace of {config}", default=WorkspaceError)
