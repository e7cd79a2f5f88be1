"""The bundle: the same wherever it is built, and runnable the way Azure ML's containers start it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import gpu_infer
from gpu_infer.bundle import Bundle, build_bundle, load_template
from gpu_infer.targets import local_process


def build(model: Path, parent: Path, **arguments: object) -> Bundle:
    parent.mkdir()
    spec = gpu_infer.plan(model, **arguments).spec
    return build_bundle(spec, parent, template=load_template("onnx"))


def test_its_content_names_it(tiny_model: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("import neighbour\ndef postprocess(y):\n    return neighbour.first(y)\n")
    (tmp_path / "neighbour.py").write_text("def first(y):\n    return float(y[0])\n")
    first = build(tiny_model, tmp_path / "a", name="one")
    again = build(tiny_model, tmp_path / "b", name="two")
    other = build(tiny_model, tmp_path / "c", postprocess=hooks)
    assert first.digest == again.digest, "the name of the service is not in it"
    assert first.digest != other.digest
    assert first.folder.name == f"gpu-infer-{first.digest}"
    names = {path.name for path in other.folder.iterdir()}
    assert names == {"score.py", "gpu_infer_serving", "conda.yml", "gpu_infer.json", "hooks.py", "neighbour.py"}
    assert json.loads((other.folder / "gpu_infer.json").read_text())["settings"]["postprocess"] == "hooks.py"
    assert not (other.folder / "config.json").exists(), "the stock server would read it as its own"
    assert not list(other.folder.rglob("__pycache__"))


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_it_runs_as_a_container_starts_it(tiny_model: Path, tmp_path: Path, worker: str) -> None:
    """The model under NAME/VERSION, the script below the app's root, gunicorn on the server's own application.

    The synchronous worker is what an image with settings of its own may use: slower, and right all the same.
    """
    bundle = build(tiny_model, tmp_path / "var")
    models = tmp_path / "azureml-models" / "tiny" / "3"
    models.mkdir(parents=True)
    (models / "tiny.onnx").write_bytes(tiny_model.read_bytes())
    with local_process.bind() as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        **bundle.environment,
        "AML_APP_ROOT": str(bundle.folder.parent),
        "AZUREML_ENTRY_SCRIPT": f"{bundle.folder.name}/score.py",
        "AZUREML_MODEL_DIR": str(models),
        "GPU_INFER_ALLOW_CPU": "1",
        "GUNICORN_CMD_ARGS": f"--worker-class {worker} --threads 4 --no-control-socket",
    }
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-b",
        f"127.0.0.1:{port}",
        "azureml_inference_server_http.server.entry:app",
    ]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        end = time.monotonic() + 60
        while not answers(port) and server.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        with gpu_infer.ScoringClient(f"http://127.0.0.1:{port}/score") as client:
            assert client.score([1, 2, 3, 4]).tolist() == [2, 4, 6, 8], (tmp_path / "log").read_text()
            assert client.stats()["requests"]["200"] == 1
    finally:
        server.terminate()
        server.wait(20)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError, urllib.error.URLError, socket.timeout):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
        return True
    return False
