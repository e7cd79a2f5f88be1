"""The second tutorial on this machine: the 784-300-100-10 network, rows of numbers in, digits out.

python examples/mnist.py                      # trains the network on the digits in examples/data/mnist first
python examples/mnist.py --model MODEL_DIR    # the tutorial's TF1 checkpoint, or any model of 784 numbers
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path

import numpy as np
import requests

import gpu_infer

DATA = Path(__file__).parent / "data" / "mnist"


def read_digits(which: str) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 ``[N, 784]`` in 0 to 1, labels uint8 ``[N]``; ``which`` is ``"train"`` or ``"t10k"``."""
    with gzip.open(DATA / f"{which}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(DATA / f"{which}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images / np.float32(255), labels


def train(folder: Path) -> Path:
    """Train the tutorial's network for a few seconds and save it in Keras's own format."""
    import keras

    keras.utils.set_random_seed(1)
    images, labels = read_digits("train")
    network = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss)
    network.fit(images, labels, batch_size=50, epochs=6, verbose=0)  # pyright: ignore[reportArgumentType]
    network.save(folder / "tf-dnn-mnist.keras")
    return folder / "tf-dnn-mnist.keras"


def main(arguments: list[str] | None = None) -> None:
    """Deploy, score the test digits three ways, tear down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    options = parser.parse_args(arguments)
    images, labels = read_digits("t10k")

    with tempfile.TemporaryDirectory() as folder:
        model = options.model or train(Path(folder))
        with gpu_infer.deploy(model, name="aks-dnn-mnist", postprocess="argmax") as service:
            # One digit, as the tutorial sends it; `.tolist()` makes valid JSON where `str(list(row))` does not.
            row = images[:1].tolist()
            answer = requests.post(service.scoring_uri, json={"data": row}, timeout=60).json()
            print(f"label: {labels[0]}  prediction: {answer}")
            # All of them in one request, and one by one with several requests under way.
            together = service.score(images)
            one_by_one = np.array(list(service.score_many(images)))
            print(f"accuracy: {np.mean(together == labels):.4f}, one by one: {np.mean(one_by_one == labels):.4f}")
            print(f"batch sizes seen: {service.stats()['batch_sizes']}")


if __name__ == "__main__":
    main()
