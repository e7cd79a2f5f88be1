"""The notebooks for AKS, run from start to end against an emulated workspace."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from gpu_infer.emulator import Emulator

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Execute a notebook in a folder that has its model, on an emulated workspace; returns what each cell has shown."""
    monkeypatch.setenv("GPU_INFER_HOME", str(folder / "home"))
    notebook: Any = nbformat.read(EXAMPLES / name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "a notebook is kept without its outputs"
    (cell,) = [cell for cell in code if "workspace" in cell.metadata.get("tags", [])]
    assert "ws = Workspace.from_config()" in cell.source
    with Emulator() as emulator:
        # All that differs from a real subscription.
        cell.source = f"from gpu_infer.emulator import workspace\nws = workspace({emulator.url!r})"
        NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
        requests = emulator.requests
        assert emulator.billed() == []
        assert emulator.errors == []
    operations = [request.operation for request in requests]
    for once in ("models.create", "compute.create", "services.create", "services.delete", "compute.delete"):
        assert operations.count(once) == 1, once
    (cluster,) = [request.body for request in requests if request.operation == "compute.create"]
    assert cluster["properties"]["properties"]["agentVmSize"] == "Standard_NC4as_T4_v3"
    assert cluster["properties"]["properties"]["agentCount"] == 3
    (service,) = [request.body for request in requests if request.operation == "services.create"]
    resources = service["containerResourceRequirements"]
    assert (resources["gpu"], resources["cpu"], resources["memoryInGB"], service["numReplicas"]) == (1, 2, 4, 3)
    return [shown(cell) for cell in code]


def shown(cell: Any) -> str:
    """What a cell has printed, and what its last line has shown."""
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_a_photograph(tmp_path: Path, shared_models: Path, snowleopard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lynx.jpg").symlink_to(snowleopard)
    (tmp_path / "resnet50").symlink_to(shared_models / "efficientnet_lite0_jpg_savedmodel")
    _, _, plan, _, scored, report, _, left = run("aks_resnet50.ipynb", tmp_path, monkeypatch)
    assert "$1.58 per hour" in plan
    assert re.search(r"class 289 p = 0\.83\d", scored)
    assert "'device'" in report
    assert left == "[]"


def test_digits(tmp_path: Path, shared_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES / "data", tmp_path / "data")
    (tmp_path / "tf-dnn-mnist").symlink_to(shared_models / "tf-dnn-mnist")
    _, _, plan, _, _, scored, report, _, left = run("aks_mnist.ipynb", tmp_path, monkeypatch)
    assert "$1.58 per hour" in plan
    accuracy = re.search(r"accuracy over 500 digits: (0\.\d+)", scored)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
    assert "'device'" in report
    assert left == "[]"
