"""The whole way on real data: train, save, deploy, score through the typed client, tear down.

The network is the second tutorial's: 784-300-100-10, on MNIST.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gpu_infer
from gpu_infer.errors import Finding, GpuInferError, MissingDependencyError, PreflightError
from gpu_infer.progress import Event, emit

if TYPE_CHECKING:
    import numpy as np

    from gpu_infer.client import ScoreResponse
    from gpu_infer.service import Service

    Array = np.ndarray[Any, Any]

__all__ = ["DemoReport", "Digit", "find_digits", "read_idx", "run_demo", "train"]

CONCURRENCY = 16
EPOCHS = 16
TRAINING_SECONDS = 300.0
"""Training takes ten seconds; what takes this long hangs."""

_NAME = "mnist-demo"
_TRAIN, _TEST = "train", "t10k"
_SHOWN = 4


@dataclass(frozen=True)
class Digit:
    """One scored digit.

    Args:
        pixels: 28 rows of 28 values from 0 to 255.
        label: what it is.
        predicted: what the model takes it for.
        probability: that the model gives to that.
    """

    pixels: list[list[int]] = field(repr=False)
    label: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class DemoReport:
    """What the demo measured. Latencies are those that the client sees, in milliseconds, with others in flight."""

    device: str
    items: int
    correct: int
    concurrency: int
    seconds: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    training_items: int
    training_seconds: float
    deploy_seconds: float
    total_seconds: float
    digits: tuple[Digit, ...] = field(repr=False, default=())

    @property
    def accuracy(self) -> float:
        """Part of the digits that were recognised."""
        return self.correct / self.items

    @property
    def throughput(self) -> float:
        """Digits per second."""
        return self.items / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; the digits without their pixels."""
        values = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        shown = [
            {"label": digit.label, "predicted": digit.predicted, "probability": round(digit.probability, 4)}
            for digit in self.digits
        ]
        return {**values, "accuracy": self.accuracy, "throughput": round(self.throughput, 1), "digits": shown}


def run_demo(*, data: Path | None = None, on_scored: Callable[[int, int], None] | None = None) -> DemoReport:
    """Train, deploy on this machine, score every test digit in a request of its own, tear down.

    Args:
        data: folder with the IDX files; the one of the repository where ``None``.
        on_scored: called with how many digits are scored, and how many there are.

    Raises:
        GpuInferError: no digits, or training failed.
        MissingDependencyError: TensorFlow or the inference server is not installed.
        DeploymentError: the service did not start.
    """
    begun = time.monotonic()
    data = find_digits() if data is None else data
    _check_installed()
    with tempfile.TemporaryDirectory(prefix="gpu-infer-demo-") as folder:
        model = Path(folder) / _NAME
        _train_aside(data, model)
        trained = time.monotonic()
        with gpu_infer.deploy(model, postprocess="softmax") as service:
            deployed = time.monotonic()
            images, labels = read_idx(data, _TEST)
            responses, seconds = _score(service, images, on_scored)
    predicted = [int(response.value.argmax()) for response in responses]
    elapsed = sorted(response.elapsed * 1e3 for response in responses)
    batches = [response.batch or 1 for response in responses]
    return DemoReport(
        device=responses[0].device or "unknown",
        items=len(labels),
        correct=sum(guess == label for guess, label in zip(predicted, labels.tolist(), strict=True)),
        concurrency=CONCURRENCY,
        seconds=seconds,
        p50_ms=elapsed[len(elapsed) // 2],
        p99_ms=elapsed[int(len(elapsed) * 0.99)],
        # A batch of n stands in n answers, so the plain mean would count it n times.
        mean_batch=len(batches) / sum(1 / batch for batch in batches),
        training_items=len(read_idx(data, _TRAIN)[1]),
        training_seconds=trained - begun,
        deploy_seconds=deployed - trained,
        total_seconds=time.monotonic() - begun,
        digits=_examples(images, labels, responses),
    )


def find_digits() -> Path:
    """The folder with the digits: they lie in the repository, not in the wheel.

    Raises:
        GpuInferError: this is no checkout.
    """
    places = [Path(__file__).parent.parent, Path.cwd()]
    for place in places:
        folder = place / "examples" / "data" / "mnist"
        if (folder / f"{_TEST}-images-idx3-ubyte.gz").is_file():
            return folder
    message = (
        "The demo's digits (examples/data/mnist) are not part of the installed package. Clone the gpu_infer repository "
        "and run `make demo` there, or `gpu-infer demo` from its folder."
    )
    raise GpuInferError(message)


def read_idx(data: Path, part: str) -> tuple[Array, Array]:
    """Read the ``"train"`` or ``"t10k"`` part.

    Returns:
        images uint8 ``[N, 28, 28]`` and labels uint8 ``[N]``.
    """
    import numpy as np

    with gzip.open(data / f"{part}-images-idx3-ubyte.gz") as file:
        _, count, height, width = struct.unpack(">4i", file.read(16))
        images = np.frombuffer(file.read(), np.uint8).reshape(count, height, width)
    with gzip.open(data / f"{part}-labels-idx1-ubyte.gz") as file:
        file.read(8)
        labels = np.frombuffer(file.read(), np.uint8)
    return images, labels


def train(data: Path, folder: Path) -> None:
    """Train the network with Keras and save it as a SavedModel; prints a line per epoch."""
    import numpy as np

    keras: Any = importlib.import_module("keras")
    images, labels = read_idx(data, _TRAIN)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((784,), name="X"),
            layers.Dropout(0.2),  # off when it serves; on so few digits it is worth one point of accuracy
            layers.Dense(300, activation="relu", name="hidden1"),
            layers.Dropout(0.2),
            layers.Dense(100, activation="relu", name="hidden2"),
            layers.Dense(10, name="outputs"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])

    def tell(epoch: int, logs: dict[str, float]) -> None:
        sys.stdout.write(f"epoch {epoch + 1} of {EPOCHS}, accuracy {logs['accuracy']:.3f}\n")
        sys.stdout.flush()

    model.fit(
        images.reshape(-1, 784).astype(np.float32) / 255,
        labels.astype(np.int64),
        epochs=EPOCHS,
        batch_size=100,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=tell)],
    )
    model.export(str(folder), verbose=False)


# --- inside -----------------------------------------------------------------------------------------------------------


def _check_installed() -> None:
    """Before half a minute of training, not after it."""
    needed = {"tensorflow": "tensorflow", "azureml_inference_server_http": "local"}
    missing = [extra for module, extra in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        what = "The demo needs TensorFlow and the inference server."
        raise MissingDependencyError([Finding("error", "missing-extra", what, _install(missing))])
    if os.name == "nt":
        raise PreflightError(
            [Finding("error", "platform", "The inference server does not run on Windows.", "Use WSL 2.")]
        )


def _install(extras: list[str]) -> str:
    return f"Run: pip install 'gpu-infer[{','.join(sorted(extras))}]'"


def _train_aside(data: Path, model: Path) -> None:
    """Train in a process of its own: TensorFlow's noise stays there, and so do its memory and threads."""
    emit(Event(_NAME, "train", "start"))
    begun = time.monotonic()
    program = "import sys; from pathlib import Path; from gpu_infer.demo import train; train(*map(Path, sys.argv[1:]))"
    with tempfile.TemporaryFile("w+") as noise:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(data), str(model)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            env=_environment(model.parent),
        )
        limit = threading.Timer(TRAINING_SECONDS, process.kill)
        limit.daemon = True
        limit.start()
        try:
            with process:
                for line in process.stdout or ():
                    if line.startswith("epoch"):
                        emit(Event(_NAME, f"train, {line.strip()}", "start"))
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
        if process.returncode != 0:
            noise.seek(0)
            tail = "\n".join(noise.read().splitlines()[-15:])
            raise GpuInferError(f"Training failed (exit code {process.returncode}). The end of its log:\n{tail}")
    emit(Event(_NAME, "train", "ok", f"{time.monotonic() - begun:.1f}s"))


def _environment(folder: Path) -> dict[str, str]:
    """Of the training process: ours, quiet, and with its temporary files where they are removed with the model."""
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TMPDIR": str(folder),
    }


def _score(
    service: Service, images: Array, on_scored: Callable[[int, int], None] | None
) -> tuple[list[ScoreResponse[Any]], float]:
    """Score each digit in a request of its own; returns the answers and the seconds for all."""
    import numpy as np

    items = images.reshape(len(images), -1).astype(np.float32) / 255
    responses: list[ScoreResponse[Any]] = []
    emit(Event(service.name, "score", "start"))
    begun = time.monotonic()
    # score_many() gives results alone; here each answer is wanted with its time, device and batch.
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for response in pool.map(service.client.score_response, items):
            responses.append(response)
            if on_scored is not None:
                on_scored(len(responses), len(items))
    seconds = time.monotonic() - begun
    emit(Event(service.name, "score", "ok", f"{seconds:.1f}s"))
    return responses, seconds


def _examples(images: Array, labels: Array, responses: list[ScoreResponse[Any]]) -> tuple[Digit, ...]:
    """A few different digits to look at: the first ones, and, where the model erred, its worst mistake among them."""
    digits = [
        Digit(pixels.tolist(), int(label), int(response.value.argmax()), float(response.value.max()))
        for pixels, label, response in zip(images, labels, responses, strict=True)
    ]
    wrong = [digit for digit in digits if digit.predicted != digit.label]
    right: list[Digit] = []
    for digit in digits:
        if digit.predicted == digit.label and digit.label not in {other.label for other in right}:
            right.append(digit)
    worst = sorted(wrong, key=lambda digit: -digit.probability)[:1]
    # The mistake comes second: a narrow terminal shows only the first ones.
    return tuple([*right[:1], *worst, *right[1:]][:_SHOWN])
