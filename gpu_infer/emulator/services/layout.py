"""Uploaded files of a service, laid out as its container has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifacts.models import Artifacts
from ..artifacts.routes import blob_name
from ..models.models import Models
from ..scoring.rollout import Layout
from ..wire import Refusal, items, mapping

__all__ = ["model_files", "plan"]

_ARTIFACT = "aml://artifact/"


def plan(request: Mapping[str, Any], artifacts: Artifacts, models: Models) -> Layout:
    """Find the files of a deployment.

    Args:
        request: ``environmentImageRequest``.
        artifacts: where they are.
        models: of the workspace.

    Raises:
        Refusal: something was never uploaded.
    """
    environment = mapping(request.get("environment"))
    variables = {name: str(value) for name, value in mapping(environment.get("environmentVariables")).items()}
    files: list[tuple[Path, str, bool]] = []
    for asset in map(mapping, items(request.get("assets"))):
        path = _file(str(asset.get("url")), artifacts)
        unpack = bool(asset.get("unpack"))
        files.append((path, "app" if unpack else f"app/{Path(str(asset.get('id'))).name}", unpack))
    for model_id in items(request.get("modelIds")):
        files += model_files(str(model_id), artifacts, models)
    return Layout(variables.get("AZUREML_ENTRY_SCRIPT", ""), variables, tuple(files))


def _file(url: str, artifacts: Artifacts) -> Path:
    if not url.startswith(_ARTIFACT):
        raise Refusal(400, "BadRequest", f"The emulator has no file of {url!r}.")
    return artifacts.existing(blob_name(url.removeprefix(_ARTIFACT)))


def model_files(model_id: str, artifacts: Artifacts, models: Models) -> list[tuple[Path, str, bool]]:
    """From where to where the files of a model go, and whether to unpack them.

    Args:
        model_id: ``name:version``.
        artifacts: where they are.
        models: of the workspace.

    Raises:
        Refusal: 404, there is none, or it was never uploaded.
    """
    model = models.find(model_id)
    asset = models.asset_of(model) if model else None
    if model is None or asset is None:
        raise Refusal(404, "ModelNotFound", f"Model with ID {model_id!r} was not found, or has no files.")
    root = f"azureml-models/{model.name}/{model.version}"
    files: list[tuple[Path, str, bool]] = []
    for artifact in asset.artifacts:
        prefix = str(artifact.get("prefix") or artifact.get("id")).rstrip("/")
        parent = blob_name(prefix).rpartition("/")[0]  # the last level of the prefix is the model's own file or folder
        names = artifacts.below(blob_name(prefix))
        if not names:
            raise Refusal(404, "ModelNotFound", f"The files of model {model_id!r} were never uploaded.")
        if model.fields.get("unpack"):
            files += [(artifacts.path(name), root, True) for name in names]
        else:
            files += [(artifacts.path(name), f"{root}/{name.removeprefix(parent + '/')}", False) for name in names]
    return files
