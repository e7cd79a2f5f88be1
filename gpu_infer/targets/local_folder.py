"""The folder of a local service: the bundle, and the model where Azure ML would place it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gpu_infer.bundle import Template, build_bundle, model_files
from gpu_infer.errors import Finding, PreflightError
from gpu_infer.ledger import state_folder
from gpu_infer.spec import ServiceSpec

__all__ = ["build_folder"]


def build_folder(spec: ServiceSpec, template: Template | None) -> Path:
    """A new folder with the bundle, and the model as ``azureml-models/NAME/VERSION/...``.

    Raises:
        PreflightError: it cannot be written.
    """
    parent = state_folder() / "services"
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{spec.name}-", dir=parent))
    try:
        return _fill(folder, spec, template)
    except OSError as error:  # shutil's own lists every file that it could not copy
        shutil.rmtree(folder, ignore_errors=True)
        reason = error.strerror or "files could not be copied"
        message = f"The bundle cannot be written to {parent}: {reason}."
        fix = "Free some space there, or set GPU_INFER_HOME to another folder."
        raise PreflightError([Finding("error", "state-folder", message, fix)]) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _fill(folder: Path, spec: ServiceSpec, template: Template | None) -> Path:
    build_bundle(spec, folder, template=template or Template("none", "", "", "", ""))
    if spec.model.path is not None:
        models = folder / "azureml-models" / spec.model.name / (spec.model.version or "1")
        models.mkdir(parents=True)
        for file in model_files(spec.model.path.resolve()):
            (models / file.name).symlink_to(file)
    return folder
