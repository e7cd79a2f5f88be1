"""Who is measured on a GPU: the model in a loop, the tutorials' way, this project with one and with more workers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .contenders import Contender, Entrant, Loop
from .processes import NotAvailableError, Server
from .questions import NPY, Question, npy
from .stock import IMAGE, deployed, tutorial
from .workloads import HERE, SHARED, Workload
from .wrk import Load

TENSORS = Workload(
    "gpu-tensors",
    "ResNet-50 (random weights), one float32 tensor of 3 x 224 x 224 per request, binary in and out",
    (1, 16, 64),
    "tutorial-torch",
)
PICTURES = Workload(
    "gpu-images",
    "ResNet-50 (random weights), one JPEG per request, the five best classes as JSON",
    (1, 16, 64),
    "tutorial-torch",
)

TOLERANCE = 0.02
"""Of the largest logit: GPUs round convolutions differently for each batch size (TF32 among it)."""


@dataclass(frozen=True, slots=True)
class GpuAssets:
    """The files and values of a run.

    Args:
        folder: temporary.
        device: ``cuda``, or ``cpu`` to try the script itself.
        logits: what the network makes of the tensors, float32 ``[8, 1000]``.
        photograph: what it makes of the photograph, ``[1000]``.
    """

    folder: Path
    device: str
    logits: np.ndarray
    photograph: np.ndarray

    @property
    def model(self) -> Path:
        """The TorchScript file."""
        return self.folder / "resnet50.pt"


def prepare(folder: Path, device: str) -> GpuAssets:
    """Write the model and the right answers, in a process of its own: this one stays off the GPU."""
    (folder / "photograph.jpg").write_bytes(_photograph())
    command = [sys.executable, str(HERE / "servers" / "resnet50.py"), str(folder), device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"The model could not be made:\n{done.stderr}")
    return GpuAssets(folder, device, np.load(folder / "logits.npy"), np.load(folder / "photograph.npy"))


def entrants(workers: int) -> list[Entrant[GpuAssets]]:
    """All of them."""
    device_alone = {PICTURES.name: "pictures are not on the device to begin with"}
    found: list[Entrant[GpuAssets]] = [
        Contender("tutorial-torch", "stock server, its one synchronous worker, TorchScript", _tutorial, ask),
        *(
            Contender(f"ours-{count}", f"deploy() of the TorchScript file, {count} worker(s)", _ours(count), ask)
            for count in sorted({1, workers})
        ),
        Loop("raw-device", "in a loop, tensors stay on the device", _loop("device"), lacks=device_alone),
        Loop("raw-memory", "in a loop, from memory to memory, pictures decoded", _loop("memory")),
    ]
    return found


def ask(workload: Workload, assets: GpuAssets) -> Question:
    """Tensors as ``.npy``, or the JPEG as it is."""
    if workload.name == PICTURES.name:
        jpeg = (assets.folder / "photograph.jpg").read_bytes()
        return Question(
            "/score", {"Content-Type": "image/jpeg"}, (jpeg,), lambda _n, answer: _wrong_top5(assets, answer)
        )
    bodies = tuple(npy(row[None]) for row in np.load(assets.folder / "rows.npy"))

    def wrong(number: int, answer: bytes) -> str:
        return _far(np.load(io.BytesIO(answer)).reshape(-1), assets.logits[number])

    return Question("/score", {"Content-Type": NPY, "Accept": NPY}, bodies, wrong)


def _wrong_top5(assets: GpuAssets, answer: bytes) -> str:
    found = json.loads(answer)
    if len(found["classes"]) != 5:
        return "not five classes"
    return _far(np.asarray(found["scores"]), assets.photograph[found["classes"]])


def _far(found: np.ndarray, right: np.ndarray) -> str:
    if found.shape != right.shape:
        return f"{found.shape} numbers instead of {right.shape}"
    difference = float(np.abs(found - right).max() / np.abs(right).max())
    return f"off by {difference:.1%} of the largest logit" if difference > TOLERANCE else ""


def _tutorial(_workload: Workload, assets: GpuAssets, log: Path) -> AbstractContextManager[Server]:
    return tutorial("tutorial_torch.py", assets.model, log)


def _ours(workers: int) -> Callable[[Workload, GpuAssets, Path], AbstractContextManager[Server]]:
    def start(workload: Workload, assets: GpuAssets, log: Path) -> AbstractContextManager[Server]:
        hooks = {"preprocess": IMAGE, "postprocess": "top_k:5"} if workload.name == PICTURES.name else {}
        # Without this a service on this machine would make do with the CPU.
        told = {"GPU_INFER_ITEM_SHAPE": "3,224,224", "GPU_INFER_ALLOW_CPU": "1" if assets.device == "cpu" else "0"}
        return deployed(assets.model, log, workers=workers, environment_variables=told, **hooks)

    return start


def _loop(kind: str) -> Callable[[Workload, GpuAssets, float], Load]:
    def measure(workload: Workload, assets: GpuAssets, seconds: float) -> Load:
        pictures = workload.name == PICTURES.name
        data = assets.folder / ("photograph.jpg" if pictures else "rows.npy")
        script = str(HERE / "servers" / "torch_loop.py")
        what = [kind if not pictures else "jpeg", str(assets.model), str(data), assets.device, str(seconds)]
        done = subprocess.run(
            [sys.executable, script, *what], capture_output=True, text=True, timeout=seconds * 4 + 300, check=False
        )
        if done.returncode:
            raise NotAvailableError(f"ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return Load(**json.loads(done.stdout.splitlines()[-1]), errors=0)

    return measure


def _photograph() -> bytes:
    """The photograph beside the checkout, or a picture of slopes and waves where there is none."""
    path = SHARED / "data" / "snowleopard.jpg"
    if path.exists():
        return path.read_bytes()
    from PIL import Image

    down, across = np.mgrid[0:480, 0:640]
    planes = [down / 2, across / 3, 127 + 120 * np.sin(down / 17) * np.cos(across / 23)]
    stream = io.BytesIO()
    Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
