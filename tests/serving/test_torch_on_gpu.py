"""The way of a batch through a GPU: on a real one where there is one, and with a CPU in its place."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gpu_infer.serving.adapters.base import Adapter, DeviceInfo
from gpu_infer.serving.adapters.common import RefusedInputError
from gpu_infer.serving.adapters.options import AdapterOptions
from gpu_infer.serving.adapters.switches import TOLERANCE

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_models import apart, export, images, used  # noqa: E402 - it imports PyTorch

from gpu_infer.serving.adapters import torch_run  # noqa: E402 - it imports PyTorch

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = torch.Tensor

LoadModel = Callable[..., Adapter]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2, 1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU6(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


# --- the way of a GPU, with a CPU in its place ------------------------------------------------------------------------


class Recorder:
    """Stands in for ``torch.cuda``: a graph that was recorded runs its calls again, into the same memory."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self) -> None:
        self.recording: Any = None
        self.log: list[str] = []
        self.fails = False

    def CUDAGraph(self) -> Recorder:  # noqa: N802 - the name in PyTorch
        return Recorder()

    def graph_pool_handle(self) -> int:
        return 1

    @contextlib.contextmanager
    def graph(self, graph: Recorder, *, pool: int, capture_error_mode: str) -> Iterator[None]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.log.append(f"record {pool} {capture_error_mode}")
        self.recording = graph
        yield
        self.recording = None

    def replay(self) -> None:
        call, x, value = self.recording
        with torch.inference_mode():
            value.copy_(call(x))

    def Stream(self, device: Any) -> str:  # noqa: N802 - the name in PyTorch
        return f"stream of {device}"

    def stream(self, stream: str) -> contextlib.AbstractContextManager[None]:
        self.log.append(stream)
        return contextlib.nullcontext()

    def current_stream(self) -> Recorder:
        return self

    def synchronize(self, device: Any = None) -> None:
        self.log.append("wait")


class Stand:
    """PyTorch with a recorder instead of a GPU, and memory that nobody pins."""

    def __init__(self, cuda: Recorder) -> None:
        self.cuda = cuda

    def empty(self, *shape: Any, pin_memory: bool = False, **options: Any) -> Any:
        return torch.empty(*shape, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    cuda = Recorder()
    monkeypatch.setattr(torch_run, "torch", Stand(cuda))
    monkeypatch.setattr(torch_run, "torch_device", lambda device: torch.device("cpu"))
    return cuda


def runner(module: Any, gpu: Recorder, **options: Any) -> torch_run.Runner:
    def call(module: Any, x: Any) -> Any:
        value = module(x)
        if gpu.recording is not None:
            gpu.recording.recording = (module, x, value)
        return value

    options = {"optimize": False, **options}
    return torch_run.Runner(
        module, DeviceInfo("cuda"), torch.float32, AdapterOptions(**options), call=call, own=lambda _: ()
    )


@pytest.mark.parametrize("graphs", [False, True])
def test_the_way_of_a_gpu(gpu: Recorder, graphs: bool) -> None:
    run = runner(torch.nn.Linear(4, 3).eval(), gpu, cuda_graphs=graphs)
    batches = [np.random.default_rng(rows).random((rows, 4), np.float32) for rows in (1, 2, 1, 4, 2)]
    batches[1].flags.writeable = False
    results = [run(batch, ["output"])["output"] for batch in batches]
    for batch, result in zip(batches, results, strict=True):
        with torch.inference_mode():
            right = run.module(torch.from_numpy(batch.copy())).numpy()
        assert result == pytest.approx(right, abs=1e-6)
    assert gpu.log.count("record 1 thread_local") == (3 if graphs else 0)
    assert [text.partition(" (")[0] for text in run.details.get("speed", [])] == ["cuda-graphs"] * graphs
    assert gpu.log[-2:] == ["stream of cpu", "wait"]
    with pytest.raises(RefusedInputError):
        run(np.zeros((2, 5), np.float32), ["output"])
    assert run(batches[0], ["output"])["output"].shape == (1, 3)


def test_a_run_that_cannot_be_recorded(gpu: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.fails = True
    run = runner(torch.nn.Linear(4, 3).eval(), gpu, cuda_graphs=True)
    assert run(np.zeros((2, 4), np.float32), ["output"])["output"].shape == (2, 3)
    assert "GPU_INFER_WARNING cuda-graphs is not used, the model runs without it: RuntimeError: operation not perm" in (
        capsys.readouterr().err
    )
    gpu.fails = False
    run = runner(torch.nn.Linear(4, 3).eval(), gpu, cuda_graphs=True)
    run(np.zeros((2, 4), np.float32), ["output"])
    gpu.fails = True
    for _ in range(2):
        assert run(np.zeros((3, 4), np.float32), ["output"])["output"].shape == (3, 3)
    said = capsys.readouterr().err
    assert said.count("GPU_INFER_WARNING the recorded form (CUDA graphs) failed and is used no longer") == 1


class Picky(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x > 90).any()):
            raise RuntimeError("too much")
        return x * 2


def test_values_at_fault_do_not_end_recording(gpu: Recorder) -> None:
    run = runner(Picky().eval(), gpu, cuda_graphs=True)
    run(np.ones((1, 4), np.float32), ["output"])
    with pytest.raises(RuntimeError, match="too much"):
        run(np.full((2, 4), 99, np.float32), ["output"])
    assert run(np.ones((2, 4), np.float32), ["output"])["output"].tolist() == [[2] * 4] * 2
    assert gpu.log.count("record 1 thread_local") == 2


def test_no_more_shapes_are_recorded_than_memory_is_for(gpu: Recorder) -> None:
    run = runner(torch.nn.Linear(4, 3).eval(), gpu, cuda_graphs=True)
    for rows in range(1, torch_run.MOST_GRAPHS + 5):
        assert run(np.zeros((rows, 4), np.float32), ["output"])["output"].shape == (rows, 3)
    assert gpu.log.count("record 1 thread_local") == torch_run.MOST_GRAPHS


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("graphs", [False, True])
def test_on_a_gpu(tmp_path: Path, shared_models: Path, load_model: LoadModel, precision: str, graphs: bool) -> None:
    exported = export(Net(), torch.zeros(2, 3, 224, 224), tmp_path / "m.pt2")
    for path, output in ((exported, "output"), (shared_models / "efficientnet_lite0.pt", "output")):
        plain = load_model(path, optimize=False)
        fast = load_model(path, precision=precision, cuda_graphs=graphs)
        for rows in (1, 4, 1, 8, 4):
            assert apart(plain, fast, images(rows, 224), output) < TOLERANCE[precision]
        assert ("cuda-graphs" in used(fast)) == graphs
        assert precision == "fp32" or precision in used(fast)


@needs_gpu
@pytest.mark.gpu
def test_recorded_runs_from_several_threads(tmp_path: Path, load_model: LoadModel) -> None:
    adapter = load_model(export(Net(), torch.zeros(2, 3, 32, 32), tmp_path / "m.pt2"), cuda_graphs=True)
    batches = [images(rows) * rows for rows in (1, 2, 3, 4)]
    right = [adapter.predict(batch, ["output"])["output"] for batch in batches]
    wrong: list[int] = []

    def run(at: int) -> None:
        results = [adapter.predict(batches[at], ["output"])["output"] for _ in range(50)]
        wrong.extend(at for result in results if not np.array_equal(result, right[at]))

    threads = [threading.Thread(target=run, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
