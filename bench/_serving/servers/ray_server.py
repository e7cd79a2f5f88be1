"""Ray Serve: one replica with ``@serve.batch``; binary bodies as they are."""

from __future__ import annotations

import io
import os
import signal
import threading
from importlib import import_module
from typing import Any

import numpy as np
from onnx_model import MAX_BATCH, Network, batch_of, setting, top5

# Its switch for rates instead of isolation: no second thread and loop per replica, no log line per request.
os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ray: Any = import_module("ray")
serve: Any = import_module("ray.serve")
orjson: Any = import_module("orjson")
responses: Any = import_module("starlette.responses")

WORKLOAD = setting("WORKLOAD")


@serve.deployment(num_replicas=1, max_ongoing_requests=4 * MAX_BATCH, ray_actor_options={"num_cpus": 1})
class Model:
    """One of the three workloads."""

    def __init__(self) -> None:
        threads = int(setting("CORES")) if WORKLOAD == "images" else 1
        self.network = Network(setting("MODEL"), threads=threads)

    # A batch is what is waiting; nothing waits for more.
    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0)
    async def predict(self, bodies: list[bytes]) -> list[Any]:
        """Answer the bodies of a batch."""
        if WORKLOAD == "images":
            return [top5(row) for row in self.network.run(batch_of(bodies))]
        if WORKLOAD == "mnist-json":
            rows = [np.asarray(orjson.loads(body)["data"], np.float32) for body in bodies]
        else:
            rows = [np.load(io.BytesIO(body)) for body in bodies]
        return [row[None] for row in self.network.run(np.concatenate(rows))]

    async def __call__(self, request: Any) -> Any:
        """Answer a request."""
        found = await self.predict(await request.body())
        if WORKLOAD == "mnist-binary":
            stream = io.BytesIO()
            np.save(stream, found)
            return responses.Response(stream.getvalue(), media_type="application/x-npy")
        content = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
        return responses.Response(content, media_type="application/json")


def main() -> None:
    """Start a cluster of this machine alone, and the model on it; stop both at a signal."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ray.init(
        num_cpus=max(2, int(setting("CORES"))),
        include_dashboard=False,
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
        _temp_dir=os.environ["RAY_FOLDER"],
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(setting("PORT"))})
    serve.run(Model.bind(), route_prefix="/")
    ended.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
