"""The tutorials' way with ONNX Runtime: a plain script as anybody writes it, one request at a time."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

from onnx_model import Network, pixels, top5

model: dict[str, Network] = {}


def init() -> None:
    """Load the model, with ONNX Runtime's own defaults."""
    model["network"] = Network(os.environ["AZUREML_MODEL_DIR"], threads=None)


@rawhttp
def run(request: Any) -> Any:
    """Answer a request."""
    network, body = model["network"], request.get_data(cache=False)
    if request.content_type == "image/jpeg":
        return AMLResponse(json.dumps(top5(network.run(pixels(body)[None])[0])), 200)
    if request.content_type == "application/json":
        data = np.array(json.loads(body)["data"], np.float32)
        return AMLResponse(json.dumps(network.run(data).tolist()), 200)
    answer = io.BytesIO()
    np.save(answer, network.run(np.load(io.BytesIO(body))))
    return AMLResponse(answer.getvalue(), 200, {"Content-Type": "application/x-npy"})
