"""The limit: the model in a loop in a process of its own, without server or HTTP."""

from __future__ import annotations

import json
import subprocess
import sys

from .contenders import Loop
from .processes import NotAvailableError
from .workloads import HERE, Assets, Workload
from .wrk import Load


def loops() -> list[Loop[Assets]]:
    """The model without a server."""
    return [
        Loop("raw-tf", "TensorFlow in a loop, the best batch size", _measure_tf),
        Loop("raw-onnx", "ONNX Runtime in a loop, the best batch size and threads", _measure_onnx),
    ]


def _measure_onnx(workload: Workload, assets: Assets, seconds: float) -> Load:
    return _measure("onnx", str(assets.model(workload)), workload, assets, seconds)


def _measure_tf(workload: Workload, assets: Assets, seconds: float) -> Load:
    model = assets.efficientnet_savedmodel if workload.name == "images" else assets.mnist_savedmodel
    return _measure("tf", str(model), workload, assets, seconds)


def _measure(framework: str, model: str, workload: Workload, assets: Assets, seconds: float) -> Load:
    script = str(HERE / "servers" / "raw_loop.py")
    data = str(assets.photograph if workload.name == "images" else assets.folder / "rows.npy")
    command = [sys.executable, script, framework, model, data, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 4 + 120, check=False)
    if done.returncode:
        raise NotAvailableError(f"ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Load(**found, errors=0)
