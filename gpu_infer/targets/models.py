"""What both SDKs' registered models have in common."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_infer.ledger import state_folder
from gpu_infer.progress import Event, emit
from gpu_infer.spec import ModelRef

__all__ = ["DOWNLOAD_SECONDS", "RUN_TAG", "UPLOAD_BYTES_PER_SECOND", "RegisteredModel", "bytes_of", "stored"]

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
