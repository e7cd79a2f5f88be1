"""LitServe: batches of what is waiting, never waiting itself; binary bodies as form files, the only way it has."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

import numpy as np
from onnx_model import MAX_BATCH, Network, batch_of, setting, top5

litserve: Any = import_module("litserve")
fastapi: Any = import_module("fastapi")

WORKLOAD = setting("WORKLOAD")


class Api(litserve.LitAPI):
    """One of the three workloads."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - there is only one
        """Load the model. One worker has all cores: two would halve the batches."""
        threads = int(setting("CORES")) if WORKLOAD == "images" else 1
        self.network = Network(setting("MODEL"), threads=threads)

    def decode_request(self, request) -> Any:  # noqa: ANN001 - LitServe takes a type for a schema to check
        """A row, or a picture's bytes."""
        if WORKLOAD == "mnist-json":
            return np.asarray(request["data"], np.float32)[0]
        content = request["file"].file.read()
        return content if WORKLOAD == "images" else np.load(io.BytesIO(content))[0]

    def batch(self, inputs: list[Any]) -> np.ndarray:
        """Rows or pictures to a batch."""
        return batch_of(inputs) if WORKLOAD == "images" else np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run the model."""
        return self.network.run(x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """A batch to rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> Any:
        """An answer."""
        if WORKLOAD == "images":
            return top5(output)
        if WORKLOAD == "mnist-json":
            return [output.tolist()]
        stream = io.BytesIO()
        np.save(stream, output[None])
        return fastapi.Response(stream.getvalue(), media_type="application/x-npy")


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=0.0)
    # ZeroMQ instead of a multiprocessing queue between the HTTP server and the worker: "fast_queue", for high rates.
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=60, disable_openapi_url=True
    )
    server.run(
        host="127.0.0.1",
        port=int(setting("PORT")),
        # It parses JSON and forms there: one such process is slower than the model's.
        num_api_servers=int(setting("CORES")),
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
