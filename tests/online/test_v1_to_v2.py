"""``docs/v1-to-v2.md``: its commands and its Python run on one emulated workspace, and its calls exist in the SDKs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.cli import main
from gpu_infer.emulator import Emulator

PAGE = (Path(__file__).parents[2] / "docs" / "v1-to-v2.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ gpu-infer ").split()
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def workspace(readers_folder: Path, home: Path) -> Iterator[tuple[Emulator, Any]]:
    """Where ``gpu-rn`` runs on a cluster of its own; the working folder has what the page names."""
    (readers_folder / "requests").mkdir()
    shutil.copy(readers_folder / "lynx.jpg", readers_folder / "requests")
    with Emulator() as emulator:
        workspace = emulator.workspace()
        cluster = Cluster("aks-gpu", vm_size="Standard_NC4as_T4_v3", nodes=3)
        gpu_infer.deploy(
            "models/resnet50", workspace, name="gpu-rn", cluster=cluster, replicas=2, keep=True, output="probabilities"
        )
        yield emulator, workspace


def test_every_block_of_python_runs(workspace: tuple[Emulator, Any], capsys: pytest.CaptureFixture[str]) -> None:
    emulator, names = workspace[0], {"emulated_ws": workspace[1], "emulated_client": workspace[0].ml_client()}
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        here = block.replace("Workspace.from_config()", "emulated_ws")
        exec(here.replace("MLClient.from_config(DefaultAzureCredential())", "emulated_client"), names)
    printed = capsys.readouterr().out
    assert "2 instances, each Standard_NC4as_T4_v3" in printed
    assert "2 answers compared, differing at most 0." in printed
    assert printed.splitlines()[-1] == "[]"
    assert names["scores"].argmax() == names["answer"].json().index(max(names["answer"].json())) == 289
    assert emulator.billed() == ["gpu-rn/blue"]
    names["done"].service.delete()


def test_every_command_runs(workspace: tuple[Emulator, Any], capsys: pytest.CaptureFixture[str]) -> None:
    emulator, _ = workspace
    assert [command[0] for command in COMMANDS] == ["migrate", "migrate", "down", "ls"]
    for command in COMMANDS:
        assert main([emulator.url if word == "config.json" else word for word in command]) == 0, command
    printed = capsys.readouterr().out
    assert "1 answer compared" in printed
    assert "Cluster aks-gpu is removed." in printed
    assert main(["down", "gpu-rn", "-w", emulator.url, "--online"]) == 0


def test_its_calls_and_words_exist(client: Any) -> None:
    import azure.ai.ml
    import azure.ai.ml.entities as v2
    import azureml.core as v1
    from azureml.core import compute, webservice

    calls = set(re.findall(r"`ml_client\.(\w+)\.(\w+)\(", PAGE))
    assert len(calls) >= 10
    for group, verb in calls:
        assert callable(getattr(getattr(client, group), verb)), f"{group}.{verb}"
    for name in set(re.findall(r"gpu_infer\.(\w+)", PAGE)):
        assert name in gpu_infer.__all__, name
    for verb in set(re.findall(r"\bservice\.(\w+)\(", PAGE)):
        assert hasattr(gpu_infer.Service, verb) or hasattr(webservice.AksWebservice, verb), verb
    words = PAGE[PAGE.index("## The words") : PAGE.index("## The calls")]
    rows = [line.split("|") for line in words.splitlines() if line.startswith("| `")]
    assert len(rows) >= 10
    for _, first, second, *_ in rows:
        for name in re.findall(r"`([A-Z]\w+)", first):
            assert any(hasattr(room, name) for room in (v1, compute, webservice)) or name == "InferenceConfig", name
        for name in re.findall(r"`([A-Z]\w+)", second):
            assert hasattr(v2, name) or hasattr(azure.ai.ml, name), name
