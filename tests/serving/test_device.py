"""The words for a missing GPU, and the device report, without any framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gpu_infer.serving import device
from gpu_infer.serving.adapters import load_adapter
from gpu_infer.serving.adapters.base import DeviceInfo, ModelFormatError
from gpu_infer.serving.adapters.options import AdapterOptions
from gpu_infer.serving.device import NoGpuError, gpu_report, no_gpu_message, nvidia_smi, require_gpu
from gpu_infer.serving.model_finder import FoundModel

SMI = "0, Tesla T4, 550.54.15, 15360, 433, 7\n1, Tesla T4, 550.54.15, 15360, 0, [N/A]\n"


@pytest.fixture
def no_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "nvidia_smi", list)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{SMI}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, cuda: str | None, available: bool) -> None:
    torch: Any = ModuleType("torch")
    torch.__version__ = "9.9"
    torch.version = SimpleNamespace(cuda=cuda)
    torch.backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 90300))
    torch.cuda = SimpleNamespace(
        is_available=lambda: available,
        current_device=lambda: 0,
        get_device_name=lambda index: "Tesla T4",
        get_device_capability=lambda index: (7, 5),
        mem_get_info=lambda index: (10, 16),
        memory_allocated=lambda index: 4,
        max_memory_allocated=lambda index: 5,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)


def reasons(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


def test_reasons_are_in_order_and_fit_what_was_seen(monkeypatch: pytest.MonkeyPatch, no_smi: None) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "_device_nodes", list)
    text = no_gpu_message("torch", ("asked torch",), "install the other torch")
    assert "Looked at: asked torch; /dev/nvidia*: none; nvidia-smi: no answer; CUDA_VISIBLE_DEVICES not set." in text
    first, second, third = reasons(text)
    assert first.startswith("1. No NVIDIA device is mounted: the pod did not ask for nvidia.com/gpu")
    assert second == "2. install the other torch"
    assert third.startswith("3. The driver is older than the CUDA")
    assert "GPU_INFER_ALLOW_CPU=1" in text.splitlines()[-1]

    monkeypatch.setattr(device, "_device_nodes", lambda: ["/dev/nvidia0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    first, second, third = reasons(no_gpu_message("torch", (), ""))
    assert first == "1. CUDA_VISIBLE_DEVICES='-1' hides every GPU: remove it."
    assert second.startswith("2. The driver is older")
    assert third.startswith("3. The framework's CUDA libraries do not load")


def test_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch, no_smi: None) -> None:
    fake_torch(monkeypatch, cuda=None, available=False)
    with pytest.raises(NoGpuError, match=r"torch 9.9 is a build without CUDA.*instead of the CPU index"):
        require_gpu("torch", allow_cpu=False)
    assert require_gpu("torch", allow_cpu=True) == DeviceInfo("cpu", details={"torch": "9.9"})


def test_a_torch_with_a_gpu(monkeypatch: pytest.MonkeyPatch, smi: None) -> None:
    fake_torch(monkeypatch, cuda="12.6", available=True)
    found = require_gpu("torch", allow_cpu=False)
    assert str(found) == "cuda:0 Tesla T4"
    assert found.details == {"torch": "9.9", "cuda": "12.6", "cudnn": "90300", "compute_capability": "7.5"}
    adapter: Any = SimpleNamespace(device=found, framework="torch")
    report = gpu_report(adapter)
    assert report["memory"] == {"used_by_model": 4, "peak": 5, "free": 10, "total": 16}
    assert [gpu["utilization_percent"] for gpu in report["nvidia_smi"]] == [7, "[N/A]"]


def test_onnxruntime_gpu_on_a_machine_without(monkeypatch: pytest.MonkeyPatch, no_smi: None) -> None:
    ort: Any = ModuleType("onnxruntime")
    ort.__version__ = "9.9"
    ort.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setattr(device, "_device_nodes", list)
    with pytest.raises(NoGpuError, match="have CUDA, but there is no device"):
        require_gpu("onnxruntime", allow_cpu=False)
    monkeypatch.setattr(device, "_device_nodes", lambda: ["/dev/nvidia0"])
    monkeypatch.setattr(device, "nvidia_smi", lambda: [{"index": 0, "name": "T4"}, {"index": 1, "name": "A10"}])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert str(require_gpu("onnxruntime", allow_cpu=False)) == "cuda:0 A10"


def test_nvidia_smi(smi: None) -> None:
    assert nvidia_smi()[0] == {
        "index": 0,
        "name": "Tesla T4",
        "driver": "550.54.15",
        "memory_total_mib": 15360,
        "memory_used_mib": 433,
        "utilization_percent": 7,
    }


def test_an_nvidia_smi_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert nvidia_smi() == []

    def hang(*args: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 5)

    monkeypatch.setattr(subprocess, "run", hang)
    assert nvidia_smi() == []


def test_a_framework_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gpu_infer.serving.adapters.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = FoundModel("torchscript", Path("m.pt"), "torch")
    with pytest.raises(
        ModelFormatError, match="The model is torchscript and the Python package torch is not installed"
    ):
        load_adapter(found, options=AdapterOptions())
