"""The notebooks for AKS, run from start to end against an emulated workspace."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from gpu_infer.emulator import Emulator

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, model: Path, registered: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Execute a notebook in a folder, with an emulated workspace that has the model; returns what it has printed."""
    from azureml.core import Model

    monkeypatch.setenv("GPU_INFER_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    notebook: Any = nbformat.read(EXAMPLES / name, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "workspace" in cell.metadata.get("tags", [])]
    with Emulator() as emulator:
        (folder / registered).symlink_to(model)
        Model.register(emulator.workspace(), registered, registered)
        # All that differs from a real subscription.
        assert "Workspace.from_config()" in cell.source
        cell.source = f"from gpu_infer.emulator import workspace\nws = workspace({emulator.url!r})"
        NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
        assert emulator.billed() == []
        operations = [request.operation for request in emulator.requests]
        assert operations.count("compute.create") == operations.count("services.create") == 1
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_a_photograph(tmp_path: Path, shared_models: Path, snowleopard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lynx.jpg").symlink_to(snowleopard)
    model = shared_models / "efficientnet_lite0_jpg_savedmodel"
    printed = run("aks_resnet50.ipynb", tmp_path, model, "resnet50", monkeypatch)
    assert "class 289 p = 0.83" in printed
    assert printed.endswith("[]")


def test_digits(tmp_path: Path, shared_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    printed = run("aks_mnist.ipynb", tmp_path, shared_models / "tf-dnn-mnist", "tf-dnn-mnist", monkeypatch)
    accuracy = re.search(r"accuracy over 500 digits: (0\.\d+)", printed)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
    assert "$1.58 per hour" in printed
    assert os.environ["GPU_INFER_HOME"] not in printed
