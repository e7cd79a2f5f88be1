"""The first tutorial's ``score.py``: a SavedModel that decodes the JPEG itself, in a session, one request at a time.

One change, so that all contenders answer the same: the five best classes instead of all thousand numbers.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np
import ujson
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

tf: Any = import_module("tensorflow").compat.v1
model: dict[str, Any] = {}


def init() -> None:
    """Load the SavedModel into a session."""
    tf.disable_eager_execution()
    model["session"] = tf.Session()
    loaded = tf.saved_model.loader.load(model["session"], ["serve"], os.environ["AZUREML_MODEL_DIR"])
    signature = loaded.signature_def["serving_default"]
    model["input"] = next(tensor.name for tensor in signature.inputs.values())
    model["output"] = signature.outputs["probabilities"].name


@rawhttp
def run(request: Any) -> Any:
    """Answer a request."""
    if request.method == "POST":
        return AMLResponse(score(request.get_data(cache=False)), 200)
    return AMLResponse(b"GET is not supported", 405)


def score(data: bytes) -> str:
    """The five best classes of a JPEG."""
    row = model["session"].run(model["output"], {model["input"]: [data]})[0]
    best = np.argsort(-row)[:5]
    return ujson.dumps({"classes": best.tolist(), "scores": row[best].tolist()})
