"""The second tutorial's ``score.py``: a session of TensorFlow 1, JSON in and out, one request after the other.

Two changes, so that all contenders answer the same: the tensor has the trained bias (the tutorial leaves it out), and
the answer is the ten logits, not the digit.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

import numpy as np

tf: Any = import_module("tensorflow").compat.v1
model: dict[str, Any] = {}


def init() -> None:
    """Restore the checkpoint."""
    root = os.environ["AZUREML_MODEL_DIR"]
    tf.disable_eager_execution()
    tf.reset_default_graph()
    saver = tf.train.import_meta_graph(f"{root}/mnist-tf.model.meta")
    graph = tf.get_default_graph()
    model["X"] = graph.get_tensor_by_name("network/X:0")
    model["output"] = graph.get_tensor_by_name("network/output/BiasAdd:0")
    model["session"] = tf.Session()
    saver.restore(model["session"], f"{root}/mnist-tf.model")


def predict(data: np.ndarray) -> np.ndarray:
    """The logits of some rows."""
    return model["output"].eval(session=model["session"], feed_dict={model["X"]: data})


def run(raw_data: str) -> list[list[float]]:
    """Answer a request."""
    return predict(np.array(json.loads(raw_data)["data"])).tolist()
