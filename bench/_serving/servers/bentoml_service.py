"""BentoML: adaptive batching, a worker per core. Binary bodies are form files, an array's goes through the disk."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from onnx_model import MAX_BATCH, Network, pixels_of, setting, top5
from PIL.Image import Image

bentoml: Any = import_module("bentoml")

# Of what is waiting for longer than this BentoML would refuse; it is not what a request waits for its batch.
BATCHING: dict[str, Any] = {"batchable": True, "max_batch_size": MAX_BATCH, "max_latency_ms": 60_000}


@bentoml.service(workers="cpu_count", traffic={"timeout": 60, "max_concurrency": 1024}, metrics={"enabled": False})
class Model:
    """The three workloads, each at its own address."""

    def __init__(self) -> None:
        self.network = Network(setting("MODEL"), threads=1)  # a worker per core is all the threads there are use for

    @bentoml.api(**BATCHING)
    def rows(self, data: np.ndarray) -> np.ndarray:
        """Rows as JSON."""
        return self.network.run(data)

    @bentoml.api(**BATCHING)
    def files(self, file: list[Path]) -> np.ndarray:
        """Rows as files."""
        return self.network.run(np.concatenate([np.load(one) for one in file]))

    @bentoml.api(**BATCHING)
    def pictures(self, file: list[Image]) -> list[dict[str, Any]]:
        """Pictures."""
        return [top5(row) for row in self.network.run(np.stack([pixels_of(one) for one in file]))]
