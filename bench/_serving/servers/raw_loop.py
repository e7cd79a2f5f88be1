"""The model in a loop, without a server: tries batch sizes and threads, then measures the best of them.

Run: ``python raw_loop.py onnx|tf MODEL DATA SECONDS``, where ``DATA`` is ``.npy`` (rows) or a JPEG. Prints
a line of JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from loops import Way, report
from onnx_model import Network, pixels, top5

CORES = os.cpu_count() or 1


def main() -> None:
    """Find the best way and measure it: one run at a time on all cores, or a run per core with one thread each."""
    framework, model, data, seconds = sys.argv[1:]
    report(list({"onnx": _onnx_ways, "tf": _tf_ways}[framework](model, Path(data))), float(seconds))


def _onnx_ways(model: str, data: Path) -> Iterator[Way]:
    whole, single = Network(model, threads=CORES), Network(model, threads=1)
    if data.suffix == ".npy":
        rows = np.load(data)
        for batch in (1, 16, 64, 256, 1024):
            block = np.resize(rows, (batch, rows.shape[1]))
            for network, parallel in ((whole, 1), (single, CORES)):
                yield Way(batch, parallel, lambda network=network, block=block: network.run(block))
        return
    jpeg = data.read_bytes()
    decoders = ThreadPoolExecutor(CORES)
    for batch in (1, 4, 16):
        yield Way(batch, 1, lambda batch=batch: _pictures(whole, list(decoders.map(pixels, [jpeg] * batch))))
        yield Way(batch, CORES, lambda batch=batch: _pictures(single, [pixels(jpeg) for _ in range(batch)]))


def _pictures(network: Network, pictures: list[np.ndarray]) -> list[dict[str, Any]]:
    return [top5(row) for row in network.run(np.stack(pictures))]


def _tf_ways(model: str, data: Path) -> Iterator[Way]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tf: Any = import_module("tensorflow")
    loaded: Any = tf.saved_model.load(model)  # held by the closures below: its variables live as long as it does
    function: Any = loaded.signatures["serving_default"]
    name = next(iter(function.structured_input_signature[1]))
    if data.suffix == ".npy":
        rows = np.load(data)
        blocks = [tf.constant(np.resize(rows, (batch, rows.shape[1]))) for batch in (1, 16, 64, 256, 1024)]
    else:
        blocks = [tf.constant([data.read_bytes()] * batch) for batch in (1, 4, 16)]
    for block in blocks:
        for parallel in (1, CORES):
            yield Way(
                int(block.shape[0]),
                parallel,
                lambda block=block: (loaded, {key: value.numpy() for key, value in function(**{name: block}).items()}),
            )


if __name__ == "__main__":
    main()
