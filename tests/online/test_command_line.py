"""``gpu-infer --online``: the same commands, on the online endpoints of a workspace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer.cli import main
from gpu_infer.emulator import Emulator, variables


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    with Emulator() as started:
        yield started


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """An ONNX model that doubles ``x`` float32 ``[N, 4]``."""
    return save_elementwise(tmp_path / "doubling.onnx")


def test_from_plan_to_sweep(
    emulator: Emulator, doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-w", emulator.url, "--online"]
    size = ["--vm-size", "Standard_NC4as_T4_v3"]
    assert main(["plan", str(doubling), *where, *size, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["target"], planned["price_per_hour"], planned["nodes"]) == ("online", 0.526, 1)
    assert main(["deploy", str(doubling), *where, *size, "--name", "doubling", "--json"]) == 0
    deployed = json.loads(capsys.readouterr().out)
    assert (deployed["state"], deployed["target"], deployed["price_per_hour"]) == ("Healthy", "online", 0.526)
    assert main(["ls", *where]) == 0
    shown = capsys.readouterr()
    assert "doubling" in shown.out
    assert f"gpu-infer score doubling FILE -w {emulator.url} --online" in shown.err
    np.save(tmp_path / "row.npy", np.arange(4, dtype=np.float32))
    assert main(["score", "doubling", str(tmp_path / "row.npy"), *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["result"] == [0, 2, 4, 6]
    assert main(["logs", "doubling", *where]) == 0
    assert "GPU_INFER_STAGE warm_up ok" in capsys.readouterr().out
    assert main(["stats", "doubling", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"]["device"]
    assert main(["sweep", *where, "--dry-run", "--json"]) == 0
    left = json.loads(capsys.readouterr().out)["left"]
    assert {one["kind"] for one in left} == {"service", "deployment"}
    assert main(["down", "doubling", *where]) == 0
    assert "doubling is removed." in capsys.readouterr().out
    assert gpu_infer.leftovers(emulator.ml_client()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ls", "--online"], "needs the workspace"),
        (["deploy", "net.onnx", "--online", "-w", "URL", "--nodes", "4"], "is for a new AKS cluster"),
        (["deploy", "net.onnx", "--online", "-w", "URL", "--dev-test"], "is for a new AKS cluster"),
    ],
)
def test_what_makes_no_sense_there(
    emulator: Emulator, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([emulator.url if word == "URL" else word for word in options]) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_the_environment_says_it_once_for_all_commands(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPU_INFER_WORKSPACE", emulator.url)
    monkeypatch.setenv("GPU_INFER_ONLINE", "1")
    emulator.clear_log()
    assert main(["ls"]) == 0
    assert "Next: gpu-infer deploy MODEL\n" in capsys.readouterr().err
    assert [request.operation for request in emulator.requests] == ["endpoints.list"]


def test_a_config_file_and_what_the_environment_signs_in_with(emulator: Emulator, tmp_path: Path) -> None:
    """As on a real subscription: ``config.json``, ``DefaultAzureCredential``, Azure's own names."""
    with urllib.request.urlopen(f"{emulator.url}/_emulator", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    config = tmp_path / "config.json"
    names = {"subscription_id": "subscription_id", "resource_group": "resource_group", "workspace_name": "name"}
    config.write_text(json.dumps({name: found[key] for name, key in names.items()}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AZURE")},
        **variables(emulator.url, mode="proxy"),
        "HOME": str(tmp_path),
        "AZURE_TENANT_ID": found["tenant_id"],
        "AZURE_CLIENT_ID": found["client_id"],
        "AZURE_CLIENT_SECRET": found["client_secret"],
    }
    emulator.clear_log()
    command = [sys.executable, "-m", "gpu_infer.cli", "ls", "-w", str(config), "--online", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert [request.operation for request in emulator.requests][-2:] == ["aad.token", "endpoints.list"]


def test_a_config_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"subscription_id": "s"}')
    assert main(["ls", "-w", str(tmp_path / "config.json"), "--online"]) == 1
    assert "it has no resource_group, no workspace_name" in capsys.readouterr().err


def test_scale_park_and_unpark(
    emulator: Emulator, doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-w", emulator.url]
    given = ["--vm-size", "Standard_NC4as_T4_v3", "--name", "night", "--env", "TEAM=vision"]
    assert main(["deploy", str(doubling), *where, "--online", *given, "--json"]) == 0
    uri = json.loads(capsys.readouterr().out)["scoring_uri"]
    assert main(["scale", "night", "2", *where, "--online"]) == 0
    assert "night has 2 replicas. It costs $1.05 per hour." in capsys.readouterr().out
    assert main(["park", "night", *where]) == 0
    shown = capsys.readouterr()
    assert "nothing of it is billed" in shown.out
    assert f"gpu-infer unpark night -w {emulator.url}" in shown.err
    assert emulator.billed() == []
    assert main(["park", "night", *where, "--online"]) == 0
    assert "night is parked already" in capsys.readouterr().out
    assert main(["scale", "night", "2", *where, "--online"]) == 1
    assert "Bring it back first: gpu-infer unpark night." in " ".join(capsys.readouterr().err.split())
    assert main(["ls", *where, "--online", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "Parked"
    assert main(["unpark", "night", *where]) == 1
    said = capsys.readouterr().err
    assert "TEAM" in said
    assert "Give them as --env NAME=VALUE." in " ".join(said.split())
    assert main(["unpark", "night", *where, "--env", "TEAM=vision", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["state"], again["scoring_uri"], again["price_per_hour"]) == ("Healthy", uri, 1.052)
    assert main(["unpark", "night", *where, "--online"]) == 0
    assert "night serves already." in capsys.readouterr().out
    np.save(tmp_path / "row.npy", np.arange(4, dtype=np.float32))
    assert main(["score", "night", str(tmp_path / "row.npy"), *where, "--online", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["result"] == [0, 2, 4, 6]
    assert main(["down", "night", *where, "--online"]) == 0
    assert emulator.billed() == []
