"""Triton through PyTriton: its HTTP server and dynamic batcher, the model in Python; V2 protocol, binary tensors."""

from __future__ import annotations

import json
import signal
import sys
from importlib import import_module
from typing import Any

import numpy as np
from onnx_model import MAX_BATCH, Network, batch_of, setting, top5

config: Any = import_module("pytriton.model_config")
triton: Any = import_module("pytriton.triton")
batch: Any = import_module("pytriton.decorators").batch

IMAGES = setting("WORKLOAD") == "images"


def main() -> None:
    """Serve until a signal comes."""
    network = Network(setting("MODEL"), threads=int(setting("CORES")) if IMAGES else 1)

    @batch
    def rows(X: np.ndarray) -> dict[str, np.ndarray]:  # noqa: N803 - the name of the tensor
        return {"logits": network.run(X)}

    @batch
    def pictures(jpeg: np.ndarray) -> dict[str, np.ndarray]:
        found = network.run(batch_of([row[0] for row in jpeg]))
        return {"top5": np.array([[json.dumps(top5(row)).encode()] for row in found], dtype=object)}

    tensor = config.Tensor
    if IMAGES:
        inputs, outputs = [tensor(name="jpeg", dtype=bytes, shape=(1,))], [tensor(name="top5", dtype=bytes, shape=(1,))]
    else:
        inputs = [tensor(name="X", dtype=np.float32, shape=(784,))]
        outputs = [tensor(name="logits", dtype=np.float32, shape=(10,))]
    # No delay: what is waiting makes a batch. Whatever is not used here is off.
    batcher = config.DynamicBatcher(max_queue_delay_microseconds=0)
    served = triton.TritonConfig(
        http_address="127.0.0.1", http_port=int(setting("PORT")), allow_grpc=False, allow_metrics=False
    )
    # PyTriton leaves its server and files behind when it is ended by SIGTERM's default; an exit cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with triton.Triton(config=served, workspace=f"{setting('FOLDER')}/triton-{setting('PORT')}") as server:
        server.bind(
            model_name="model",
            infer_func=pictures if IMAGES else rows,
            inputs=inputs,
            outputs=outputs,
            config=config.ModelConfig(max_batch_size=MAX_BATCH, batcher=batcher),
            strict=False,
        )
        server.serve()


if __name__ == "__main__":
    main()
