"""Is there a GPU, does the framework use it, and if not, why not."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .adapters.base import Adapter, DeviceInfo

NVIDIA_SMI_SECONDS = 5.0
_SMI_FIELDS = {
    "index": "index",
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_total_mib",
    "memory.used": "memory_used_mib",
    "utilization.gpu": "utilization_percent",
}
_ALLOW_CPU = (
    "To serve on the CPU on purpose, set GPU_INFER_ALLOW_CPU=1 "
    '(deploy(..., environment_variables={"GPU_INFER_ALLOW_CPU": "1"})).'
)


class NoGpuError(RuntimeError):
    """No GPU is visible to the model's framework, and this service may not run on the CPU."""


@dataclass(frozen=True)
class _Sight:
    """What one framework sees.

    Args:
        device: the GPU, ``None`` without.
        looked_at: what was asked and what it answered, as sentences without a full stop.
        fix: what to install, where the framework was built or installed without CUDA; empty where it was not.
        details: versions, for the device report.
    """

    device: Optional[DeviceInfo]
    looked_at: Tuple[str, ...]
    fix: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


def require_gpu(framework: str, *, allow_cpu: bool) -> DeviceInfo:
    """The device that ``framework`` will use.

    Args:
        framework: ``tensorflow``, ``torch`` or ``onnxruntime``.
        allow_cpu: answer with the CPU where there is no GPU.

    Raises:
        NoGpuError: there is no GPU; the message says what was looked at and what the likely reason is.
    """
    sight = {"tensorflow": _see_tensorflow, "torch": _see_torch, "onnxruntime": _see_onnxruntime}[framework]()
    if sight.device is not None:
        return sight.device
    if allow_cpu:
        return DeviceInfo("cpu", details=sight.details)
    raise NoGpuError(no_gpu_message(framework, sight.looked_at, sight.fix))


def no_gpu_message(framework: str, looked_at: Sequence[str], fix: str) -> str:
    """Why there is no GPU, as far as can be told from inside, the likeliest reason first.

    Args:
        framework: as for ``require_gpu``.
        looked_at: what the framework said.
        fix: what to install, where the framework has no CUDA; empty where it has.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    nodes = _device_nodes()
    driver = next((gpu["driver"] for gpu in nvidia_smi() if "driver" in gpu), "")
    facts = [
        *looked_at,
        f"/dev/nvidia*: {', '.join(nodes) if nodes else 'none'}",
        f"nvidia-smi: driver {driver}" if driver else "nvidia-smi: no answer",
        f"CUDA_VISIBLE_DEVICES={hidden}" if hidden is not None else "CUDA_VISIBLE_DEVICES not set",
    ]
    reasons: List[str] = []
    if hidden is not None and hidden.strip() in {"", "-1", "NoDevFiles"}:
        reasons.append(f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: remove it.")
    if not nodes:
        reasons.append(
            "No NVIDIA device is mounted: the pod did not ask for nvidia.com/gpu (gpus_per_replica=1, gpu_cores=1), "
            "the node has no GPU or lacks the NVIDIA device plugin, or the container was started without --gpus."
        )
    if fix:
        reasons.append(fix)
    reasons.append(
        "The driver is older than the CUDA that the framework was built for (its log says 'CUDA driver version is "
        "insufficient'): update the node's driver, or use a framework built for an older CUDA."
    )
    if not fix:
        reasons.append("The framework's CUDA libraries do not load: look for 'Cannot dlopen' or 'libcu' in the log.")
    listing = "\n".join(f"  {number}. {reason}" for number, reason in enumerate(reasons, 1))
    return (
        f"No GPU is visible to {framework}, and this service must not run on the CPU.\n"
        f"Looked at: {'; '.join(facts)}.\nLikely reasons, the likeliest first:\n{listing}\n{_ALLOW_CPU}"
    )


def _device_nodes() -> List[str]:
    """NVIDIA's devices, or the one through which WSL 2 shows them."""
    return sorted(str(node) for node in [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")])


def _see_tensorflow() -> _Sight:
    tf: Any = import_module("tensorflow")
    gpus = tf.config.list_physical_devices("GPU")
    build: Mapping[str, Any] = tf.sysconfig.get_build_info()
    details = {
        "tensorflow": tf.__version__,
        "cuda": build.get("cuda_version", ""),
        "cudnn": build.get("cudnn_version", ""),
    }
    if gpus:
        told: Mapping[str, Any] = tf.config.experimental.get_device_details(gpus[0])
        capability = ".".join(str(part) for part in told.get("compute_capability", ()))
        details["compute_capability"] = capability
        return _Sight(DeviceInfo("cuda", str(told.get("device_name", "")), 0, details), ())
    fix = ""
    wheels = _installed("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
    if not build.get("is_cuda_build", False):
        fix = "This TensorFlow was built without CUDA (tensorflow-cpu, or a Mac or Windows build): pip install "
        fix += "'tensorflow[and-cuda]' on Linux."
    elif not wheels:
        fix = (
            "The CUDA libraries are not installed: put tensorflow[and-cuda] into the conda file instead of tensorflow."
        )
    return _Sight(
        None,
        (
            f"tf.config.list_physical_devices('GPU') is empty (TensorFlow {tf.__version__})",
            f"built with CUDA: {'yes' if build.get('is_cuda_build') else 'no'}",
            f"CUDA libraries from pip: {wheels or 'none'}",
        ),
        fix,
        {"tensorflow": tf.__version__},
    )


def _see_torch() -> _Sight:
    torch: Any = import_module("torch")
    cuda: Optional[str] = torch.version.cuda
    if torch.cuda.is_available():
        index = int(torch.cuda.current_device())
        details = {
            "torch": torch.__version__,
            "cuda": cuda or "",
            "cudnn": str(torch.backends.cudnn.version() or ""),
            "compute_capability": ".".join(str(part) for part in torch.cuda.get_device_capability(index)),
        }
        return _Sight(DeviceInfo("cuda", str(torch.cuda.get_device_name(index)), index, details), ())
    fix = ""
    if cuda is None:
        fix = f"torch {torch.__version__} is a build without CUDA: install the default wheel of Linux, or the index "
        fix += "of the CUDA version wanted, instead of the CPU index."
    looked = (f"torch.cuda.is_available() is False (torch {torch.__version__})", f"built for CUDA: {cuda or 'no'}")
    return _Sight(None, looked, fix, {"torch": torch.__version__})


def _see_onnxruntime() -> _Sight:
    ort: Any = import_module("onnxruntime")
    providers: List[str] = list(ort.get_available_providers())
    details = {"onnxruntime": ort.__version__, "cuda": str(getattr(ort, "cuda_version", ""))}
    if "CUDAExecutionProvider" in providers:
        # The provider stands in the list of every onnxruntime-gpu; only a device, and later the session, prove more.
        if _device_nodes() and os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in {"", "-1"}:
            return _Sight(DeviceInfo("cuda", _first_gpu_name(), 0, details), ())
        return _Sight(None, (f"the providers of onnxruntime {ort.__version__} have CUDA, but there is no device",))
    fix = "onnxruntime has no CUDA provider: put onnxruntime-gpu into the conda file instead of onnxruntime (both at "
    fix += "once shadow each other)."
    looked = (f"onnxruntime.get_available_providers() is {', '.join(providers)} (onnxruntime {ort.__version__})",)
    return _Sight(None, looked, fix, {"onnxruntime": ort.__version__})


def _installed(*names: str) -> str:
    for name in names:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ""


def _first_gpu_name() -> str:
    """The name of the GPU that a framework without names calls number 0."""
    gpus = nvidia_smi()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    chosen = [gpu for gpu in gpus if str(gpu.get("index")) == first] or gpus
    return str(chosen[0].get("name", "")) if chosen else ""


def nvidia_smi() -> List[Dict[str, Any]]:
    """What ``nvidia-smi`` says of each GPU of this machine; empty where there is none to ask."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that hangs or fails is no reason to have no report
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [{key: _number(cell) for key, cell in zip(_SMI_FIELDS.values(), row)} for row in rows]


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


def gpu_report(adapter: Adapter) -> Dict[str, Any]:
    """What the device report of a service says: device, versions, memory now, and ``nvidia-smi`` where it answers."""
    device = adapter.device
    report: Dict[str, Any] = {
        "device": str(device),
        "kind": device.kind,
        "name": device.name,
        "index": device.index,
        "framework": adapter.framework,
        "details": dict(device.details),
        "python": sys.version.split()[0],
        "pid": os.getpid(),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    if device.kind == "cuda":
        report["memory"] = _memory(adapter.framework, device.index)
    gpus = nvidia_smi()
    if gpus:
        report["nvidia_smi"] = gpus
    return report


def _memory(framework: str, index: int) -> Dict[str, int]:
    """GPU memory in bytes, as the framework tells; empty where it does not (ONNX Runtime)."""
    if framework == "torch":
        torch: Any = import_module("torch")
        free, total = torch.cuda.mem_get_info(index)
        used, peak = torch.cuda.memory_allocated(index), torch.cuda.max_memory_allocated(index)
        return {"used_by_model": used, "peak": peak, "free": free, "total": total}
    if framework == "tensorflow":
        tf: Any = import_module("tensorflow")
        told: Mapping[str, int] = tf.config.experimental.get_memory_info(f"GPU:{index}")
        return {"used_by_model": told["current"], "peak": told["peak"]}
    return {}
