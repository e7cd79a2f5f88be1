"""Which target a workspace stands for. Kinds of workspace are told apart without importing an SDK."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from gpu_infer.errors import PreflightError, UnsupportedError
from gpu_infer.spec import ModelRef, TargetName

if TYPE_CHECKING:
    from gpu_infer.targets.base import CloudTarget, Target

__all__ = ["cloud_target", "is_registered", "local_copy", "target_for"]


def target_for(name: TargetName | None, workspace: Any) -> Target:
    """The target that the arguments of ``deploy()`` ask for.

    Raises:
        TypeError: the workspace is none of an SDK.
        ValueError: there is no target of that name.
        UnsupportedError: the target needs another kind of workspace.
    """
    if name not in (None, "local", "aks", "online"):
        message = f"target={name!r} is not one of 'local', 'aks' and 'online'."
        raise ValueError(message)
    implied = _implied(workspace)
    if name == "local" or (implied == "local" and name is None):
        return _local()
    if name not in (None, implied):
        needed = {"aks": "an azureml.core.Workspace", "online": "an azure.ai.ml.MLClient"}[name]
        message = f"target={name!r} needs {needed} as second argument."
        raise UnsupportedError(message)
    return cloud_target(workspace)


def cloud_target(workspace: Any) -> CloudTarget:
    """The target in Azure that a workspace stands for.

    Raises:
        TypeError: it is no workspace of an SDK.
    """
    if _implied(workspace) == "online":
        from gpu_infer.targets.online import OnlineTarget

        return OnlineTarget(workspace)
    from gpu_infer.targets.aks import AksTarget

    return AksTarget(workspace)


def is_registered(workspace: Any, text: str) -> bool:
    """Whether a workspace has a model of that name, or name and version.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    name, _, version = text.partition(":")
    return _models(workspace).find_model(workspace, ModelRef(name, version=version or None)) is not None


def local_copy(workspace: Any, ref: ModelRef) -> ModelRef:
    """A registered model on this machine, downloaded where it is not here yet.

    Raises:
        PreflightError: it is not registered.
        WorkspaceError: it could not be downloaded.
    """
    models = _models(workspace)
    model = models.find_model(workspace, ref)
    if model is None:
        raise PreflightError([models.missing_model(workspace, ref)])
    return ModelRef(ref.name, path=models.download_model(workspace, model), version=model.version)


# --- inside -----------------------------------------------------------------------------------------------------------


@functools.cache
def _local() -> Target:
    from gpu_infer.targets.local import LocalTarget

    return LocalTarget()


def _implied(workspace: Any) -> TargetName:
    if workspace is None:
        return "local"
    homes = {base.__module__.partition(".")[0] + "." + base.__name__ for base in type(workspace).__mro__}
    if "azureml.Workspace" in homes:
        return "aks"
    if "azure.MLClient" in homes:
        return "online"
    message = f"workspace is an azureml.core.Workspace or an azure.ai.ml.MLClient, got {type(workspace).__name__}."
    raise TypeError(message)


def _models(workspace: Any) -> Any:
    """The module of the SDK's registered models: both have the same functions."""
    return importlib.import_module(f"gpu_infer.targets.{_implied(workspace)}.models")
