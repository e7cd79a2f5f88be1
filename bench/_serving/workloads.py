"""What is measured: the networks, what goes in, and what must come out."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("GPU_INFER_SHARED") or Path(__file__).parents[3] / "shared")
"""Real models and data beside the checkout, as in the tests; ``GPU_INFER_SHARED`` names another place."""

ROWS = 32
"""Different digits that are sent in turn: a server that mixes requests up gives wrong answers."""

PHOTOGRAPH_CLASS, PHOTOGRAPH_SCORE = 289, 0.82
"""Snow leopard. Pillow's rounding, its decoder and TensorFlow's give scores that differ by 0.02."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One table of the results.

    Args:
        name: on the command line, and of the files.
        title: what it is, in a line.
        concurrency: how many connections, one table row each.
        base: the contender that the others are compared with.
        seconds: of a turn; a batch of pictures takes half a second, and half a batch should not matter.
    """

    name: str
    title: str
    concurrency: tuple[int, ...]
    base: str
    seconds: float = 4.0


WORKLOADS = (
    Workload(
        "mnist-json",
        "MNIST network 784-300-100-10, one digit per request, JSON in and out",
        (1, 16, 64),
        "tutorial-tf",
    ),
    Workload(
        "mnist-binary",
        "MNIST network 784-300-100-10, one digit per request, binary tensor in and out",
        (1, 16, 64),
        "tutorial-tf",
    ),
    Workload(
        "images",
        "EfficientNet-Lite0, one JPEG of 62 KB per request, the five best classes as JSON",
        (1, 16),
        "tutorial-onnx",
        seconds=10.0,
    ),
)


@dataclass(frozen=True, slots=True)
class Assets:
    """The files and values that contenders and questions share.

    Args:
        folder: of this run, temporary.
        mnist_onnx: the MNIST network as ONNX, with the weights of the SavedModel.
        rows: digits, float32 ``[ROWS, 784]`` in 0 to 1.
        logits: what the network makes of them, float32 ``[ROWS, 10]``.
        jpeg: the photograph.
    """

    folder: Path
    mnist_onnx: Path
    rows: np.ndarray
    logits: np.ndarray
    jpeg: bytes

    @property
    def photograph(self) -> Path:
        """The file of ``jpeg``."""
        return SHARED / "data" / "snowleopard.jpg"

    @property
    def efficientnet(self) -> Path:
        """EfficientNet-Lite0 as ONNX."""
        return SHARED / "models" / "efficientnet_lite0.onnx"

    @property
    def efficientnet_savedmodel(self) -> Path:
        """The same as a SavedModel that decodes the JPEG itself, as in the first tutorial."""
        return SHARED / "models" / "efficientnet_lite0_jpg_savedmodel"

    @property
    def mnist_savedmodel(self) -> Path:
        """The MNIST network as a SavedModel."""
        return SHARED / "models" / "mnist_savedmodel"

    @property
    def mnist_checkpoint(self) -> Path:
        """The same as the checkpoint of the second tutorial."""
        return SHARED / "models" / "tf-dnn-mnist"

    def model(self, workload: Workload) -> Path:
        """The ONNX model of a workload."""
        return self.efficientnet if workload.name == "images" else self.mnist_onnx


def missing() -> str:
    """Why nothing can be measured here; empty where it can."""
    wanted = ("models/mnist_savedmodel", "models/efficientnet_lite0.onnx", "data/mnist", "data/snowleopard.jpg")
    absent = [name for name in wanted if not (SHARED / name).exists()]
    if not absent:
        return ""
    return f"skipped: no {', '.join(absent)} in the folder shared/ beside the checkout (GPU_INFER_SHARED names another)"


def prepare(folder: Path) -> Assets:
    """Read the data and write the ONNX model into ``folder``."""
    with gzip.open(SHARED / "data" / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + ROWS * 784), np.uint8, offset=16).reshape(ROWS, 784)
    rows = (pixels / 255).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    # In a process of its own: TensorFlow, which reads the checkpoint, would stay in this one for the whole run.
    command = [sys.executable, str(HERE / "export_mnist.py"), str(SHARED / "models" / "mnist_savedmodel"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"The ONNX model could not be made:\n{done.stderr}")
    return Assets(
        folder=folder,
        mnist_onnx=folder / "mnist.onnx",
        rows=rows,
        logits=np.load(folder / "logits.npy"),
        jpeg=(SHARED / "data" / "snowleopard.jpg").read_bytes(),
    )


def wrong_logits(assets: Assets, number: int, answer: np.ndarray) -> str:
    """What is wrong with the logits of a row; empty where nothing is."""
    if answer.size != 10:
        return f"{answer.shape} numbers instead of 10"
    difference = float(np.abs(answer.reshape(10) - assets.logits[number]).max())
    return f"row {number}: off by {difference:.3g}" if difference > 1e-3 else ""


def wrong_top5(answer: object) -> str:
    """What is wrong with the five best classes of the photograph; empty where nothing is."""
    if not isinstance(answer, dict) or set(answer) != {"classes", "scores"} or len(answer["classes"]) != 5:
        return f"not five classes and scores: {json.dumps(answer)[:100]}"
    if answer["classes"][0] != PHOTOGRAPH_CLASS or abs(answer["scores"][0] - PHOTOGRAPH_SCORE) > 0.03:
        return f"class {answer['classes'][0]} with {answer['scores'][0]:.3f} instead of a snow leopard"
    return ""
