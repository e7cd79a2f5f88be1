"""Other model servers, each with the best settings that its documentation gives for a small model on a CPU.

What they share: ONNX Runtime with the same file, one thread for the MNIST network (its run is shorter than waking a
second one) and all cores for pictures, batches of up to 64, as many as there are connections. ``servers/``
has the rest.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from .contenders import Contender, in_environment
from .network import inside, own_network
from .processes import Server
from .questions import form, plain, v2, v2_json
from .workloads import Assets, Workload

ENVIRONMENTS = ("litserve", "bentoml", "mlserver", "ray", "triton")

INFER = "/v2/models/model/infer"
READY = "/v2/models/model/ready"


def peers() -> list[Contender[Assets]]:
    """All of them."""
    return [
        Contender(
            "litserve",
            "batches of up to 64 without waiting, fast_queue, an HTTP process per core; binary as a form file",
            in_environment("litserve", "litserve_server.py", health="/health"),
            form("/predict"),
        ),
        Contender(
            "bentoml",
            "adaptive batching up to 64, a worker per core; binary as a form file, answers in JSON",
            in_environment("bentoml", "bentoml_server.py", health="/readyz"),
            form("/files", json_path="/rows", images_path="/pictures"),
        ),
        Contender(
            "mlserver",
            "adaptive batching up to 64 or 1 ms, no worker processes; pictures in base64",
            in_environment("mlserver", "mlserver_server.py", health=READY),
            v2_json(INFER),
            lacks={"mnist-binary": "its REST interface takes no binary tensors"},
        ),
        Contender(
            "ray",
            "Ray Serve, one replica, @serve.batch up to 64 without waiting, RAY_SERVE_THROUGHPUT_OPTIMIZED=1",
            _ray,
            plain("/score"),
        ),
        Contender(
            "triton",
            "Triton through PyTriton, dynamic batching up to 64 without delay, model in Python",
            in_environment("triton", "triton_server.py", health=READY, variables=_libpython()),
            v2(INFER, output="logits"),
        ),
    ]


def _libpython() -> dict[str, str]:
    """Where Triton finds this interpreter's own shared library: a different one beside its modules would not do."""
    folder = str(sysconfig.get_config_var("LIBDIR") or "")
    before = os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": f"{folder}:{before}".strip(":")}


@contextmanager
def _ray(workload: Workload, assets: Assets, log: Path) -> Iterator[Server]:
    """Ray: listens on all addresses whatever it is told, so it gets a network of its own.

    And a folder of its own whose path is short: it puts sockets there, and their paths are limited.
    """
    with ExitStack() as stack:
        network = stack.enter_context(own_network())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        start = in_environment("ray", "ray_server.py", health="/-/healthz", variables={"RAY_FOLDER": folder})
        with inside(network):
            server = stack.enter_context(start(workload, assets, log))
        yield replace(server, network=network)
