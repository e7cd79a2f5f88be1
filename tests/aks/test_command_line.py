"""``gpu-infer -w WORKSPACE``: the same commands, in Azure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpu_infer.cli import main
from gpu_infer.emulator import Emulator

pytestmark = pytest.mark.usefixtures("home")


def test_from_plan_to_sweep(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    register(workspace, "resnet50")
    capsys.readouterr()
    where = ["-w", emulator.url]
    assert main(["plan", "resnet50", *where, "--replicas", "3"]) == 0
    shown = capsys.readouterr()
    assert "Standard_NC4as_T4_v3" in shown.out
    assert "$1.58 per hour" in shown.out
    assert "Azure has retired Standard_NC6" in shown.out
    assert emulator.billed() == []
    size = ["--vm-size", "Standard_NC4as_T4_v3"]
    assert main(["plan", "resnet50", *where, *size, "--replicas", "4"]) == 1
    assert "Too few GPUs" in capsys.readouterr().out
    assert main(["deploy", "resnet50", *where, *size, "--name", "gpu-rn", "--replicas", "3", "--json"]) == 0
    deployed = json.loads(capsys.readouterr().out)
    assert (deployed["state"], deployed["target"], deployed["price_per_hour"]) == ("Healthy", "aks", 1.578)
    assert main(["ls", *where]) == 0
    assert "gpu-rn" in capsys.readouterr().out
    assert main(["sweep", *where, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "There:" in shown.out
    assert "cluster aks-gpu" in shown.out
    assert main(["sweep"]) == 0
    shown = capsys.readouterr()
    assert "Written down:" in shown.out
    assert "gpu-infer sweep -w CONFIG" in shown.err
    assert main(["down", "gpu-rn", "--cluster", *where]) == 0
    assert "gpu-rn is removed." in capsys.readouterr().out
    assert emulator.billed() == []
    assert main(["sweep", *where]) == 0
    assert "Nothing is on the bill." in capsys.readouterr().out


def test_sweep_removes_what_is_older(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_infer

    register(workspace)
    gpu_infer.provision_cluster(workspace, "gpus", "Standard_NC4as_T4_v3")
    capsys.readouterr()
    assert main(["sweep", "-w", emulator.url]) == 0
    assert "Left:" in capsys.readouterr().out
    assert main(["sweep", "-w", emulator.url, "--older-than", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in report["removed"]] == ["gpus"]
    assert report["left"] == []
    assert emulator.billed() == []


def test_a_workspace_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "-w", str(tmp_path / "absent.json")]) == 2
    assert "there is no" in capsys.readouterr().err.replace("\n", " ")
