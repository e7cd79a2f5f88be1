"""The first tutorial on this machine: a SavedModel that takes JPEG files, deployed and scored in a few lines.

    python examples/resnet50_jpeg.py PHOTO.jpg                    # exports ResNet-50 from Keras first: a download
    python examples/resnet50_jpeg.py PHOTO.jpg --model MODEL_DIR  # any SavedModel with a JPEG string input

The same call with a workspace as second argument will take the same bundle to AKS.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gpu_infer


def export_resnet50(folder: Path, *, weights: str | None = "imagenet") -> Path:
    """Save ResNet-50 with the tutorial's signature: JPEG strings ``[N]`` in, float32 ``[N, 1000]`` out."""
    import keras
    import tensorflow as tf

    network = keras.applications.ResNet50(weights=weights)  # pyright: ignore[reportArgumentType]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def decode(one: tf.Tensor) -> tf.Tensor:
            return tf.image.resize(tf.io.decode_jpeg(one, channels=3), (224, 224))

        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec((224, 224, 3), tf.float32))
        return {"probabilities": network(keras.applications.resnet50.preprocess_input(images), training=False)}

    module: Any = tf.Module()
    module.network, module.serve = network, serve  # what it holds is saved
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Deploy, score one photograph and a list of them, tear down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        model = options.model or export_resnet50(Path(folder) / "resnet50")
        with gpu_infer.deploy(model, name="gpu-rn", output="probabilities", postprocess="top_k:5") as service:
            best = service.score(options.photo)
            print(f"device: {service.gpu_report()['device']}")
            for index, score in zip(best["classes"], best["scores"], strict=True):
                print(f"class {index:4d}  {score:.3f}")
            print(f"two at once: {[one['classes'][0] for one in service.score([options.photo, options.photo])]}")
            print(f"by hand: curl --data-binary @{options.photo.name} {service.scoring_uri}")


if __name__ == "__main__":
    main()
