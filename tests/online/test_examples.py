"""The notebook for online endpoints, run from start to end against an emulated workspace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from gpu_infer.emulator import Emulator

NOTEBOOK = Path(__file__).parents[2] / "examples" / "online_endpoint.ipynb"


def shown(cell: Any) -> str:
    """What a cell has printed, and what its last line has shown."""
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_a_photograph_on_a_managed_endpoint(
    tmp_path: Path, home: Path, shared_models: Path, snowleopard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_INFER_HOME", str(home))
    (tmp_path / "lynx.jpg").symlink_to(snowleopard)
    (tmp_path / "resnet50.onnx").symlink_to(shared_models / "efficientnet_lite0.onnx")
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "a notebook is kept without its outputs"
    (cell,) = [cell for cell in code if "workspace" in cell.metadata.get("tags", [])]
    assert "ml_client = MLClient.from_config(DefaultAzureCredential())" in cell.source
    with Emulator() as emulator:
        # All that differs from a real subscription.
        cell.source = f"from gpu_infer import emulator\n\nml_client = emulator.ml_client({emulator.url!r})"
        NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
        assert emulator.billed() == []
        assert emulator.errors == []
        operations = [request.operation for request in emulator.requests]
    for operation, count in (("endpoints.create", 1), ("endpoints.delete", 1), ("deployments.create", 3)):
        assert operations.count(operation) == count, operation
    _, plan, service, scored, report, updated, scaled, parked, unparked, _, left = map(shown, code)
    assert "$0.53 per hour" in plan
    assert "Healthy" in service
    assert re.search(r"class 289 p = 0\.8\d", scored)
    assert "'device'" in report
    assert "[289, " in updated.replace("'classes': array(", "")
    assert scaled.endswith("$1.05 per hour\n")  # behind what was shown of the progress
    assert parked.endswith("Parked $0.00 per hour\n")
    assert re.search(r"Healthy \[289.*\]\n$", unparked)
    assert left == "[]"
