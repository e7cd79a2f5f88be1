"""The entry script that Azure ML's inference server runs: ``init()`` once per worker, ``run()`` per request.

Written by gpu_infer. Everything it does is in the package ``gpu_infer_serving`` beside it.
"""

# pyright: basic, reportMissingImports=false
# What it imports lies beside it in the bundle, or is the server of an older image.

import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

try:
    from azureml_inference_server_http.api.aml_request import rawhttp
except ImportError:  # images with the older server
    from azureml.contrib.services.aml_request import rawhttp

from flask import Response
from gpu_infer_serving.direct import offer
from gpu_infer_serving.start import start

runtime: Any = None


def init() -> None:
    """Load the model; whatever this raises ends the worker, and stands in the log with its traceback."""
    global runtime
    runtime = start(FOLDER)
    offer(runtime)  # plain requests need not pass run(); without this line all of them do


@rawhttp
def run(request: Any) -> Any:
    """Answer one request."""
    answer = runtime.handle(request)
    return Response(answer.body, answer.status, [*answer.headers.items(), ("x-ms-run-function-failed", "False")])
