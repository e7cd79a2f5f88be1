"""Small ONNX models, written on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["save_elementwise"]


def save_elementwise(path: Path, operator: Literal["Add", "Mul"] = "Add", *, width: int = 4) -> Path:
    """A model ``y = x + x``, or ``x * x``, of ``x`` float32 ``[N, width]``; returns its path."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path
