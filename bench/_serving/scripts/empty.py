"""A script that does nothing: what the stock server itself can do, and no script of it can do more."""

from __future__ import annotations

import logging
from typing import Any

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init() -> None:
    """Nothing to load; but ours leaves out the server's line of log per request, and without that this is no limit."""
    logging.getLogger("azmlinfsrv").setLevel(logging.WARNING)


@rawhttp
def run(request: Any) -> Any:  # noqa: ARG001 - the server hands it in
    """Answer at once."""
    return AMLResponse(b"[]", 200)
