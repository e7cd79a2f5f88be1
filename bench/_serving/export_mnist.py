"""Writes the MNIST network as ONNX from the SavedModel's weights, and what NumPy computes with them: the right answers.

Run: ``python export_mnist.py SAVEDMODEL FOLDER``; ``FOLDER`` has ``rows.npy``, gets ``mnist.onnx`` and ``logits.npy``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = ("h1", "h2", "output")


def main() -> None:
    """Export, compute, save."""
    saved, folder = Path(sys.argv[1]), Path(sys.argv[2])
    weights = read_weights(saved)
    model = network(weights)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "mnist.onnx"))
    np.save(folder / "logits.npy", forward(weights, np.load(folder / "rows.npy")))


def read_weights(saved: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer."""
    tf: Any = import_module("tensorflow")
    reader = tf.train.load_checkpoint(str(saved / "variables" / "variables"))
    return [
        (reader.get_tensor(f"network/{layer}/kernel"), reader.get_tensor(f"network/{layer}/bias")) for layer in LAYERS
    ]


def network(weights: list[tuple[np.ndarray, np.ndarray]]) -> onnx.ModelProto:
    """``X`` float32 ``[N, 784]`` to ``logits`` float32 ``[N, 10]``, with ReLU between the layers."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    current = "X"
    for layer, (kernel, bias) in zip(LAYERS, weights, strict=True):
        last = layer == LAYERS[-1]
        constants += [numpy_helper.from_array(kernel, f"{layer}_w"), numpy_helper.from_array(bias, f"{layer}_b")]
        result = "logits" if last else f"{layer}_sum"
        nodes.append(helper.make_node("Gemm", [current, f"{layer}_w", f"{layer}_b"], [result], name=layer))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [layer], name=f"{layer}_relu"))
            current = layer
    graph = helper.make_graph(
        nodes,
        "mnist",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 784])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def forward(weights: list[tuple[np.ndarray, np.ndarray]], rows: np.ndarray) -> np.ndarray:
    """The logits, by NumPy alone: no contender's own arithmetic decides what is right."""
    for kernel, bias in weights[:-1]:
        rows = np.maximum(rows @ kernel + bias, 0)
    kernel, bias = weights[-1]
    return rows @ kernel + bias


if __name__ == "__main__":
    main()
