"""``docs/emulator.md`` is run: its test with pytest, its scripts as scripts. Each block begins with its file's name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_infer.emulator import Emulator

PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"
BLOCKS = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))


def run(folder: Path, *command: str) -> str:
    """Run Python in a folder with the page's files; returns what it printed."""
    for name, text in BLOCKS.items():
        (folder / name).write_text(text, "utf-8")
    # Nothing of this process: neither the SDK's settings nor its home folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AZUREML_")}
    environment |= {"HOME": str(folder), "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_each_block_is_here():
    assert len(BLOCKS) == PAGE.read_text("utf-8").count("```python")
    assert set(BLOCKS) >= {"score.py", "test_service.py", "conftest.py", "one_function.py", "as_it_is.py", "faults.py"}


@pytest.mark.slow
def test_the_test_has_ten_lines_and_passes(tmp_path: Path):
    body = BLOCKS["test_service.py"]
    assert len([line for line in body.splitlines() if line and not line.startswith("from ")]) <= 10
    (tmp_path / "pytest.ini").touch()
    options = ["-p", "no:cacheprovider", "--noconftest", "-q"]
    assert "1 passed" in run(tmp_path, "-m", "pytest", *options, "test_service.py")


def test_the_options_of_conftest_reach_the_emulator(tmp_path: Path):
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_options.py").write_text(
        "from azureml.core.compute import AksCompute, ComputeTarget\n\n\n"
        "def test_it_takes_two_looks(azureml_workspace, azureml_emulator):\n"
        "    nodes = AksCompute.provisioning_configuration(vm_size='Standard_NC4as_T4_v3')\n"
        "    cluster = ComputeTarget.create(azureml_workspace, 'aks-gpu', nodes)  # looks once itself\n"
        "    assert cluster.provisioning_state == 'Creating'\n"
        "    cluster.refresh_state()\n"
        "    assert cluster.provisioning_state == 'Creating'\n"
        "    cluster.refresh_state()\n"
        "    assert cluster.provisioning_state == 'Succeeded'\n"
    )
    assert "1 passed" in run(tmp_path, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_options.py")


def test_one_function(tmp_path: Path):
    assert run(tmp_path, "one_function.py") == "emulated eastus []\n"


def test_from_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Emulator() as emulator:
        monkeypatch.setitem(BLOCKS, "from_elsewhere.py", BLOCKS["from_elsewhere.py"].replace("8787", emulator.url[-5:]))
        assert run(tmp_path, "from_elsewhere.py") == "emulated eastus []\n"


def test_code_that_makes_its_own_workspace(tmp_path: Path):
    assert run(tmp_path, "run_it.py") == "emulated []\nemulated []\n"


def test_faults(tmp_path: Path):
    printed = run(tmp_path, "faults.py")
    assert "('compute.create', None, 'reset_before'), ('compute.create', 201, 'fail_operation')" in printed


def test_the_sdk_makes_endpoints(tmp_path: Path):
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    assert "/api/v1/endpoint/gpu-rn/score ['gpu-rn']" in run(tmp_path, "endpoints.py")


def test_deployments_share_the_traffic(tmp_path: Path):
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    answers = ["blue"] * 6 + ["green"] * 2
    printed = f"{{'blue': 75, 'green': 25}} {answers} ['gpu-rn/blue', 'gpu-rn/green']\n"
    assert run(tmp_path, "blue_green.py").endswith(printed)  # after the SDK's dots


def test_other_clients_have_their_calls(tmp_path: Path):
    pytest.importorskip("azure.mgmt.containerservice", reason="azure-mgmt-containerservice is not installed")
    assert run(tmp_path, "other_clients.py").endswith("managedClusters/gpus ['gpus']\n")


def test_the_sdk_registers_assets(tmp_path: Path):
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    assert "net 1 gpu 1\n" in run(tmp_path, "assets.py")


def test_an_online_endpoint_answers_the_sdk(tmp_path: Path):
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    assert json.loads(run(tmp_path, "invoke_it.py")) == {"got": '{"data": [1, 2]}'}
