"""The second tutorial's script with an array in NumPy's format instead of JSON, which the tutorial does not show."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
from tutorial_tf_json import init, predict

__all__ = ["init", "run"]


@rawhttp
def run(request: Any) -> Any:
    """Answer a request."""
    answer = io.BytesIO()
    np.save(answer, predict(np.load(io.BytesIO(request.get_data(cache=False)))))
    return AMLResponse(answer.getvalue(), 200, {"Content-Type": "application/x-npy"})
