"""The TorchScript model in a loop, without a server: the best batch size, on the device alone or from memory to memory.

Run: ``python torch_loop.py device|memory|jpeg MODEL DATA DEVICE SECONDS``; prints a line of JSON. ``device``: the batch
lies on the device and the result stays there. ``memory``: both are copied. ``jpeg``: pictures are decoded before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from loops import Way, report
from onnx_model import batch_of, top5

torch: Any = import_module("torch")


def main() -> None:
    """Find the best batch size and measure it."""
    kind, model, data, device, seconds = sys.argv[1:]
    network = torch.jit.load(model, map_location=device).eval()
    report(list(ways(kind, network, Path(data), device)), float(seconds))


def ways(kind: str, network: Any, data: Path, device: str) -> Iterator[Way]:
    """One per batch size; for pictures the next batch is decoded while the device is busy, so two run at once."""
    sizes = (1, 4, 16, 32, 64, 128) if device != "cpu" else (1, 4)
    for size in sizes:
        yield Way(size, 2 if kind == "jpeg" else 1, _run(kind, network, data, device, size))


def _run(kind: str, network: Any, data: Path, device: str, size: int) -> Callable[[], Any]:
    if kind == "jpeg":
        jpeg = data.read_bytes()
        return lambda: [top5(row) for row in _through(network, batch_of([jpeg] * size), device)]
    rows = np.resize(np.load(data), (size, 3, 224, 224))
    if kind == "memory":
        return lambda: _through(network, rows, device)
    there = torch.from_numpy(rows).to(device)

    def on_device() -> None:
        with torch.inference_mode():
            network(there)
        if device != "cpu":
            torch.cuda.synchronize()

    return on_device


def _through(network: Any, rows: np.ndarray, device: str) -> np.ndarray:
    """From memory to memory. Inference mode belongs to a thread, so it is entered here, too."""
    with torch.inference_mode():
        batch = torch.from_numpy(rows)
        if device != "cpu":
            batch = batch.pin_memory()
        return network(batch.to(device, non_blocking=True)).cpu().numpy()


if __name__ == "__main__":
    main()
