"""The tutorials' way with PyTorch: a plain script as anybody writes it, one request at a time, on the GPU."""

from __future__ import annotations

import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

from onnx_model import pixels, top5

torch: Any = import_module("torch")
model: dict[str, Any] = {}


def init() -> None:
    """Load the model."""
    model["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    model["network"] = torch.jit.load(os.environ["AZUREML_MODEL_DIR"], map_location=model["device"]).eval()


@rawhttp
def run(request: Any) -> Any:
    """Answer a request."""
    body = request.get_data(cache=False)
    if request.content_type == "image/jpeg":
        return AMLResponse(json.dumps(top5(predict(pixels(body)[None])[0])), 200)
    answer = io.BytesIO()
    np.save(answer, predict(np.load(io.BytesIO(body))))
    return AMLResponse(answer.getvalue(), 200, {"Content-Type": "application/x-npy"})


def predict(rows: np.ndarray) -> np.ndarray:
    """The model's output."""
    with torch.inference_mode():
        return model["network"](torch.from_numpy(rows).to(model["device"])).cpu().numpy()
