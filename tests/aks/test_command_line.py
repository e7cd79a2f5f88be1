"""``gpu-infer -w WORKSPACE``: the same commands, in Azure."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.cli import main
from gpu_infer.client import base
from gpu_infer.emulator import Emulator

T4 = "Standard_NC4as_T4_v3"

pytestmark = pytest.mark.usefixtures("home")


def test_from_plan_to_sweep(
    emulator: Emulator,
    workspace: Any,
    register: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # `deploy` asks for the device as often as the client's retries allow; nothing runs here that could tell.
    monkeypatch.setattr(base, "Timing", partial(base.Timing, random=lambda: 0.0))
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
    assert capsys.readouterr().out == "gpu-rn is removed.\nCluster aks-gpu is removed.\n"
    assert emulator.billed() == []
    assert main(["sweep", *where]) == 0
    assert "Nothing that gpu_infer knows of is on the bill." in capsys.readouterr().out


def test_sweep_removes_what_is_older(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
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


@pytest.fixture
def deployed(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """A service on a cluster of its own; gives the option that names the workspace."""
    register(workspace, "net")
    deploy(workspace, "first")
    capsys.readouterr()
    return ["-w", emulator.url]


def deploy(workspace: Any, name: str, cluster: str = "aks-gpu") -> None:
    """As ``gpu-infer deploy`` does, which also asks for the device, and here nothing runs that could tell."""
    gpu_infer.deploy("net", workspace, name=name, cluster=Cluster(cluster, vm_size=T4), keep=True, ttl="8h")


def test_down_says_what_the_cluster_goes_on_costing(
    emulator: Emulator, deployed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["down", "first", *deployed]) == 0
    shown = capsys.readouterr()
    assert shown.out == "first is removed.\nCluster aks-gpu goes on costing $1.58 per hour.\n"
    command = f"gpu-infer down first --cluster -w {emulator.url}"
    assert f"Next: {command}   removes cluster aks-gpu" in shown.err
    assert emulator.billed() == ["aks-gpu"]
    assert main(command.split()[1:]) == 0  # the service is gone, and what it had is known all the same
    assert capsys.readouterr().out == "first was not there.\nCluster aks-gpu is removed.\n"
    assert emulator.billed() == []


def test_down_from_another_machine_says_it_too(
    emulator: Emulator,
    deployed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "other machine"))
    assert main(["down", "first", *deployed]) == 0
    assert "Cluster aks-gpu goes on costing $1.58 per hour." in capsys.readouterr().out
    assert main(["down", "first", "--cluster", *deployed]) == 0
    assert emulator.billed() == []


def test_down_removes_the_cluster_of_a_service_that_somebody_else_has_deleted(
    emulator: Emulator, workspace: Any, deployed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.webservices["first"].delete()
    assert main(["down", "first", "--cluster", *deployed]) == 0
    assert "Cluster aks-gpu is removed." in capsys.readouterr().out
    assert emulator.billed() == []
    assert main(["sweep"]) == 0
    assert "Nothing that gpu_infer knows of is on the bill." in capsys.readouterr().out


@pytest.mark.parametrize("gone", [False, True])
def test_down_all_removes_the_clusters_of_all_services(
    emulator: Emulator, workspace: Any, deployed: list[str], gone: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(workspace, "second", "second-gpu")
    if gone:
        assert main(["down", "--all", *deployed]) == 0
        shown = capsys.readouterr()
        assert shown.out.count("goes on costing") == 2
        assert f"gpu-infer down --all --cluster {' '.join(deployed)}" in shown.err
    capsys.readouterr()
    assert main(["down", "--all", "--cluster", *deployed, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clusters"] == ["aks-gpu", "second-gpu"]
    assert report["clusters_left"] == []
    assert emulator.billed() == []


def test_the_cluster_goes_with_the_last_of_its_services(
    emulator: Emulator, workspace: Any, deployed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("second", "third"):
        deploy(workspace, name)
    capsys.readouterr()
    assert main(["down", "second", *deployed]) == 0
    shown = capsys.readouterr()
    assert "Cluster aks-gpu goes on costing $1.58 per hour, with first, third on it." in shown.out
    assert "--cluster" not in shown.err
    assert main(["down", "first", "third", "--cluster", *deployed]) == 0
    assert emulator.billed() == []


def test_a_workspace_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "-w", str(tmp_path / "absent.json")]) == 2
    assert "there is no" in capsys.readouterr().err.replace("\n", " ")
