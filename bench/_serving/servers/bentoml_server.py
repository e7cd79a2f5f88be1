"""Starts ``bentoml serve`` on the service beside this file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from onnx_model import setting

os.environ.update(
    BENTOML_DO_NOT_TRACK="True",
    BENTOML_HOME=f"{setting('FOLDER')}/bentoml",  # not the user's own store
    PYTHONPATH=str(Path(__file__).parent),
    BENTOML_CONFIG_OPTIONS="api_server.logging.access.enabled=false",
)
service = ["bentoml_service:Model", "--working-dir", str(Path(__file__).parent)]
bound = ["--host", "127.0.0.1", "--port", setting("PORT"), "--timeout", "60"]
os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", *service, *bound])
