"""Deployments without code: Triton's models, as far as onnxruntime can stand in for it."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ..wire import Refusal, Request

__all__ = ["SCRIPT", "files", "led"]

SCRIPT = "triton_score.py"
"""The entry script that stands in for Triton."""

_MODEL = re.compile(r".*/[^/]+/\d+/model\.onnx")
_PATH = "x-gpu-infer-path"


def files(kind: str, model: list[tuple[Path, str, bool]]) -> list[tuple[Path, str, bool]]:
    """The code of a deployment that brings none.

    Args:
        kind: type of its model.
        model: its files, from where to where.

    Raises:
        Refusal: 400, the emulator has nothing that runs such a model.
    """
    if kind == "mlflow_model":
        message = (
            "The emulator does not run MLflow models without code, as Azure does: give the deployment a "
            "code_configuration whose script loads the model, and an environment."
        )
        raise Refusal(400, "BadRequest", message)
    if kind != "triton_model":
        message = (
            "The emulator runs deployments with a code_configuration, and models of the type triton_model: without "
            "code there is nothing to run."
        )
        raise Refusal(400, "BadRequest", message)
    if not any(_MODEL.fullmatch(target) for _, target, _ in model):
        message = "Of Triton's models the emulator runs ONNX only: there is no NAME/VERSION/model.onnx among the files."
        raise Refusal(400, "BadRequest", message)
    if find_spec("onnxruntime") is None:
        message = "The emulator stands in for Triton with onnxruntime, which is not installed: pip install onnxruntime."
        raise Refusal(400, "BadRequest", message)
    return [(Path(__file__).with_name(SCRIPT), f"app/{SCRIPT}", False)]


def led(request: Request, below: str) -> Request:
    """A request on any path of Triton's, to the one path that its stand-in has."""
    path = request.target.partition(below)[2]
    return replace(request, method="POST", target=f"{below}/score", headers={**request.headers, _PATH: path})
