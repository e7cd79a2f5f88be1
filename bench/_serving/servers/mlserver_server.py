"""Starts ``mlserver start`` with settings for one small model: adaptive batching, no worker processes."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from onnx_model import MAX_BATCH, setting


def main() -> None:
    """Write the settings and become the server."""
    folder = Path(setting("FOLDER")) / f"mlserver-{setting('PORT')}"
    folder.mkdir()
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": int(setting("PORT")),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "gzip_enabled": False,
        # No processes for the model: its runs are shorter than the way to another process and back.
        "parallel_workers": 0,
    }
    model = {
        "name": "model",
        "implementation": "mlserver_model.Model",
        "max_batch_size": MAX_BATCH,
        # Seconds that a batch waits to be filled; MLServer batches only when both are set.
        "max_batch_time": 0.001,
    }
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), "utf-8")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    command = "from mlserver.cli import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", command, "start", str(folder)])


def free_port() -> int:
    """Another port, for the protocol that nobody uses here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


main()
