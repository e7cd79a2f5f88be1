"""PyTorch models written to files, and what has become of them once they are loaded; needs PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_infer.serving.adapters.base import Adapter
from gpu_infer.serving.adapters.switches import difference
from gpu_infer.serving.device import gpu_report


def export(module: Any, example: Any, path: Path) -> Path:
    shapes = {"x": {0: torch.export.Dim("n")}}
    torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=shapes), str(path))
    return path


def images(rows: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, 3, size, size)).astype(np.float32)


def used(adapter: Adapter) -> list[str]:
    """The names of the switches that are on."""
    return [text.partition(" (")[0] for text in gpu_report(adapter)["details"].get("speed", [])]


def apart(plain: Adapter, fast: Adapter, batch: np.ndarray, *names: str) -> float:
    return difference(plain.predict(batch, names), fast.predict(batch, names)).relative
