"""What both SDKs' registered models have in common."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpu_infer.bundle import FRAMEWORK_TEMPLATES
from gpu_infer.errors import Finding
from gpu_infer.ledger import state_folder
from gpu_infer.progress import Event, emit
from gpu_infer.spec import ModelRef, ServiceSpec

__all__ = [
    "DOWNLOAD_SECONDS",
    "RUN_TAG",
    "UPLOAD_BYTES_PER_SECOND",
    "RegisteredModel",
    "bytes_of",
    "resolve_model",
    "stored",
]

RUN_TAG = "gpu-infer-run"
"""Tells of which deployment a model was registered: it is found by that again, from every machine."""

UPLOAD_BYTES_PER_SECOND = 500_000.0
"""The slowest line that an upload or download is given time for."""

DOWNLOAD_SECONDS = 3600.0
"""What a download gets at least: how large it is, is not known before."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model in the workspace.

    Args:
        name: registered name.
        version: as text.
        raw: the SDK's object.
    """

    name: str
    version: str
    raw: Any

    @property
    def id(self) -> str:
        """Name and version, as Azure ML writes them."""
        return f"{self.name}:{self.version}"

    @property
    def ref(self) -> ModelRef:
        """What names it in a spec."""
        return ModelRef(self.name, version=self.version)


def resolve_model(
    spec: ServiceSpec,
    *,
    find: Callable[[ModelRef], RegisteredModel | None],
    missing: Callable[[ModelRef], Finding],
    template_of: Callable[[RegisteredModel], str | None],
) -> tuple[ServiceSpec, list[Finding]]:
    """Give a registered model its version, and its template where none is asked for.

    Args:
        spec: what is to be deployed.
        find: looks for a registered model.
        missing: what is said where there is none.
        template_of: tells a model's template, empty where it cannot, ``None`` where the model needs none.
    """
    if spec.model.path is not None:
        return spec, []
    model = find(spec.model)
    if model is None:
        return spec, [missing(spec.model)]
    spec = replace(spec, model=replace(spec.model, version=model.version))
    if spec.template is not None or (spec.entry_script is not None and spec.conda_file is not None):
        return spec, []
    template = template_of(model)
    if template is None:
        return replace(spec, codeless=spec.entry_script is None), []
    if template not in FRAMEWORK_TEMPLATES.values():
        message = f"Of what framework the registered model {model.id!r} is cannot be told from its files."
        fix = "Say template='tensorflow', 'torch' or 'onnx'."
        return spec, [Finding("error", "template", message, fix)]
    return replace(spec, template=template), []


def stored(model: RegisteredModel, workspace: str, fetch: Callable[[Path], None]) -> Path:
    """A registered model on this machine; one that is here already is used again.

    Args:
        model: the model.
        workspace: subscription, resource group and name, as a path.
        fetch: downloads it into a folder.

    Returns:
        its file or folder.
    """
    folder = state_folder() / "models" / workspace / model.name / model.version
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{model.version}-", dir=folder.parent))
        emit(Event(model.name, "download_model", "start"))
        try:
            fetch(partial)
            if folder.exists():  # another process was quicker
                shutil.rmtree(partial)
            else:
                partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        emit(Event(model.name, "download_model", "ok"))
    found = sorted(folder.iterdir())
    return found[0] if len(found) == 1 else folder


def bytes_of(files: list[Path]) -> int:
    """Bytes of files and folders."""
    every = (file for path in files for file in ([path] if path.is_file() else path.rglob("*")))
    return sum(file.stat().st_size for file in every if file.is_file())
