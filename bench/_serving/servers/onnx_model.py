"""What every server but ours shares: the model in ONNX Runtime, pictures by Pillow, the five best classes.

Needs ``numpy``, ``onnxruntime`` and ``pillow``, and nothing of this project: it runs in the servers' own environments.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

# Typed by nobody, and in two environments, neither of which the type checker sees.
ort: Any = import_module("onnxruntime")

_decoders = ThreadPoolExecutor(os.cpu_count())

SIZE = (224, 224)
MAX_BATCH = 64
"""As many as there are connections at most."""


class Network:
    """A model with one input and one output, both with a batch axis.

    Args:
        path: of the ``.onnx`` file.
        threads: CPU threads of a run; ``None`` for all that the runtime chooses by itself.
    """

    def __init__(self, path: str, *, threads: int | None) -> None:
        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
            # Threads that spin between two runs take the cores from the server and from the load.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, rows: np.ndarray) -> np.ndarray:
        """The output for a batch."""
        return self._session.run(None, {self._input: np.ascontiguousarray(rows, np.float32)})[0]


def pixels(jpeg: bytes) -> np.ndarray:
    """A picture as EfficientNet-Lite0 takes it: float32 ``[3, 224, 224]``, ``(x - 127) / 128``."""
    return pixels_of(Image.open(io.BytesIO(jpeg)))


def batch_of(jpegs: list[bytes]) -> np.ndarray:
    """Pictures as a batch, decoded on all cores: Pillow lets go of the interpreter's lock meanwhile."""
    return np.stack(list(_decoders.map(pixels, jpegs)))


def pixels_of(picture: Image.Image) -> np.ndarray:
    """The same of a picture that is open already."""
    small = picture.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)
    return (np.asarray(small, np.float32).transpose(2, 0, 1) - 127) / 128


def top5(row: np.ndarray) -> dict[str, Any]:
    """The five best classes and their scores."""
    best = np.argsort(-row)[:5]
    return {"classes": best.tolist(), "scores": row[best].tolist()}


def setting(name: str) -> str:
    """What the harness tells the server: ``MODEL``, ``PORT``, ``WORKLOAD``, ``CORES``."""
    return os.environ[f"BENCH_{name}"]
