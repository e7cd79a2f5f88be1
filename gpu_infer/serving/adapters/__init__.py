"""One module per model format, each with one ``load(path, options)``; only the one that is needed is imported."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .base import Adapter, ModelFormatError
from .options import AdapterOptions

if TYPE_CHECKING:
    from ..model_finder import FoundModel

__all__ = ["load_adapter"]

_MODULES = {
    "tf_savedmodel": "tf_savedmodel",
    "tf1_checkpoint": "tf1_checkpoint",
    "keras": "keras3",
    "torchscript": "torchscript",
    "torch_export": "torch_export",
    "onnx": "onnx",
}

_PACKAGES = {
    "tensorflow": "tensorflow[and-cuda] (tensorflow without a GPU)",
    "torch": "torch",
    "onnxruntime": "onnxruntime-gpu (onnxruntime without a GPU)",
}


def load_adapter(found: FoundModel, *, options: AdapterOptions) -> Adapter:
    """Load a model that ``find_model`` found.

    Args:
        found: what and where it is.
        options: what the user said about it.

    Raises:
        ModelFormatError: the model cannot be served as it is, or its framework is not installed.
        NoGpuError: no GPU is visible and the CPU is not allowed.
    """
    try:
        module = import_module(f".{_MODULES[found.format]}", __name__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {*_PACKAGES, "keras"}:
            raise
        raise ModelFormatError(
            f"The model is {found.format} and the Python package {error.name} is not installed. Add "
            f"{_PACKAGES[found.framework]} to the conda file, or pip install it for the local target."
        ) from error
    return module.load(found.path, options)
