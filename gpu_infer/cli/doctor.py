"""What is on this machine, what is missing, and the command that fixes it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import gpu_infer
from gpu_infer.errors import GpuInferError
from gpu_infer.ledger import state_folder

__all__ = ["EXTRAS", "Check", "examine"]

EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "local": (
        "services on this machine",
        ("azureml-inference-server-http", "gevent", "orjson", "packaging", "pillow", "pyyaml"),
    ),
    "tensorflow": ("TensorFlow and Keras models", ("tensorflow",)),
    "torch": ("TorchScript and torch.export models", ("torch",)),
    "onnx": ("ONNX models", ("onnxruntime",)),
    "cli": ("this command line", ("rich", "typer")),
    "async": ("AsyncScoringClient", ("aiohttp",)),
    "otel": ("spans and metrics of the clients", ("opentelemetry-api",)),
    "parquet": ("Parquet files", ("pyarrow",)),
    "aks": ("AKS web services", ("azureml-contrib-services", "azureml-core", "packaging", "pyyaml")),
    "online": ("online endpoints", ("azure-ai-ml", "azure-identity", "packaging", "pyyaml")),
    "autoscale": ("instances of managed endpoints that follow the load", ("azure-mgmt-monitor",)),
    "clusters": ("GPU clusters made by AKS itself", ("azure-mgmt-containerservice",)),
    "emulator": ("tests against an emulated Azure ML", ("cryptography", "werkzeug")),
}
"""What each extra is for, and its distributions, as in ``pyproject.toml``."""

_INSTEAD = {"onnxruntime": "onnxruntime-gpu", "tensorflow": "tensorflow-cpu"}
"""Other distributions of the same package."""

_CUDA_FIX = {
    "tensorflow": "pip install 'gpu-infer[tensorflow-gpu]'",
    "torch": "pip install --force-reinstall torch",
    "onnxruntime": "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
}

PROBE_SECONDS = 30.0
"""For all frameworks together: TensorFlow alone takes ten seconds to import from a cold disk."""

_PROBE = """
import json, sys
from gpu_infer.serving.device import require_gpu
device = require_gpu(sys.argv[1], allow_cpu=True)
print(json.dumps({"device": str(device), "kind": device.kind, "details": dict(device.details)}))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        group: the heading it stands under.
        name: what was looked at.
        state: ``ok``; ``missing`` (not there, and only needed for what it is for); ``warning``; ``error`` (no service
            can run on this machine).
        detail: what was found.
        fix: the command that mends it, empty without one.
    """

    group: str
    name: str
    state: Literal["ok", "missing", "warning", "error"]
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """As plain values, for JSON."""
        return asdict(self)


def examine() -> list[Check]:
    """Look at everything. Frameworks are loaded in processes of their own: a broken one must not break the doctor."""
    probes = {name: _start_probe(name) for name in _CUDA_FIX if importlib.util.find_spec(name) is not None}
    try:
        found = [*_machine(), *(_extra(name) for name in EXTRAS)]
        gpus = _gpus()
        found += gpus
        deadline = time.monotonic() + PROBE_SECONDS
        seen = any(check.state == "ok" for check in gpus)
        found += [_framework(name, probe, deadline=deadline, gpu=seen) for name, probe in probes.items()]
    finally:
        for probe in probes.values():
            probe.kill()
            probe.communicate()
    if not probes:
        detail = "no TensorFlow, PyTorch or ONNX Runtime: only services with an entry script of your own can run"
        found.append(Check("GPU", "frameworks", "warning", detail, "pip install 'gpu-infer[onnx]'"))
    return [*found, *_state()]


def _machine() -> Iterator[Check]:
    yield Check("Machine", "gpu-infer", "ok", gpu_infer.__version__)
    yield Check("Machine", "Python", "ok", f"{platform.python_version()} in {sys.prefix}")
    if os.name == "nt":
        detail = "Windows: the inference server does not run there; Azure targets and clients do"
        yield Check("Machine", "system", "error", detail, "wsl --install")
    else:
        yield Check("Machine", "system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")


def _extra(extra: str) -> Check:
    purpose, names = EXTRAS[extra]
    versions = {name: _version(name) for name in names}
    missing = [name for name, number in versions.items() if not number]
    if not missing:
        return Check("Extras", extra, "ok", ", ".join(f"{name} {number}" for name, number in versions.items()))
    some = f"without {', '.join(missing)}" if len(missing) < len(names) else "not installed"
    state = "error" if extra == "local" else "missing"
    return Check("Extras", extra, state, f"{some}; for {purpose}", f"pip install 'gpu-infer[{extra}]'")


def _version(name: str) -> str:
    for distribution in (name, _INSTEAD.get(name, "")):
        try:
            return version(distribution) if distribution else ""
        except PackageNotFoundError:
            continue
    return ""


def _gpus() -> list[Check]:
    """What the driver says; it has a time-out of its own."""
    from gpu_infer.serving.device import nvidia_smi

    found = nvidia_smi()
    if not found:
        return [Check("GPU", "nvidia-smi", "missing", "no NVIDIA GPU or driver; services run on the CPU")]
    return [
        Check(
            "GPU", f"GPU {gpu['index']}", "ok", f"{gpu['name']}, {gpu['memory_total_mib']} MiB, driver {gpu['driver']}"
        )
        for gpu in found
    ]


def _start_probe(framework: str) -> subprocess.Popen[str]:
    package = Path(gpu_infer.__file__).parent.parent
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", _PROBE, framework],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def _framework(name: str, probe: subprocess.Popen[str], *, deadline: float, gpu: bool) -> Check:
    try:
        output, noise = probe.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Check("GPU", name, "warning", f"did not answer within {PROBE_SECONDS:.0f} s")
    last = (output.strip().splitlines() or [""])[-1]
    if probe.returncode != 0 or not last.startswith("{"):
        reason = (noise.strip().splitlines() or ["no message"])[-1]
        return Check("GPU", name, "warning", f"cannot be loaded: {reason}", f"pip install --force-reinstall {name}")
    told: dict[str, Any] = json.loads(last)
    if told["kind"] != "cpu":
        return Check("GPU", name, "ok", f"sees {told['device']}")
    if gpu:
        return Check("GPU", name, "warning", "does not see the GPU; its services run on the CPU", _CUDA_FIX[name])
    return Check("GPU", name, "missing", "works, on the CPU")


def _state() -> Iterator[Check]:
    try:
        folder = state_folder()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, GpuInferError) as error:
        detail = f"cannot be written: {error}"
        yield Check("Services", "state folder", "error", detail, "export GPU_INFER_HOME=~/gpu-infer-state")
        return
    yield Check("Services", "state folder", "ok", f"{folder} can be written")
    running = gpu_infer.services()
    names = ", ".join(f"{service.name} ({service.state})" for service in running)
    yield Check("Services", "running", "ok", names or "none")
