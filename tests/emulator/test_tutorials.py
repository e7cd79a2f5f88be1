"""Both published tutorials' own code, from start to end, against an emulator. No symbol of the SDK is patched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_infer.emulator import Emulator, LoggedRequest, variables

TUTORIALS = Path(__file__).parent / "tutorials"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """One for both, as one has one workspace."""
    with Emulator() as running:
        yield running


def run(tutorial: str, folder: Path, emulator: Emulator) -> str:
    """Run a tutorial in a process of its own, in its folder; returns what it has printed."""
    shutil.copytree(TUTORIALS / tutorial, folder, dirs_exist_ok=True)
    with urllib.request.urlopen(f"{emulator.url}/_emulator", timeout=10) as answer:
        workspace = json.load(answer)
    home, temporary = folder.parent / "home", folder.parent / "tmp"
    home.mkdir()
    temporary.mkdir()
    environment = {
        # The script talks to https://management.azure.com and the others by their own names; the proxy leads it here.
        **{name: value for name, value in os.environ.items() if not name.startswith("AZUREML_")},
        **variables(emulator.url, mode="proxy"),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "SUBSCRIPTION_ID": workspace["subscription_id"],
        "RESOURCE_GROUP": workspace["resource_group"],
        "WORKSPACE_NAME": workspace["name"],
        "TENANT_ID": workspace["tenant_id"],
        "CLIENT_ID": workspace["client_id"],
        "CLIENT_SECRET": workspace["client_secret"],
    }
    emulator.clear_log()
    done = subprocess.run(
        [sys.executable, "tutorial.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def created_service(requests: list[LoggedRequest]) -> dict[str, object]:
    """What the one service was created with."""
    (create,) = [request for request in requests if request.operation == "services.create"]
    return create.body


def check_requests(emulator: Emulator, model: str) -> None:
    """One create and one delete per resource, a GPU asked for, and nothing left that costs money."""
    requests = emulator.requests
    assert [request for request in requests if request.operation == "unmatched"] == []
    operations = [request.operation for request in requests]
    for once in ("compute.create", "models.create", "services.create", "services.delete", "compute.delete"):
        assert operations.count(once) == 1, once
    body = created_service(requests)
    resources = body["containerResourceRequirements"]
    assert isinstance(resources, dict)
    assert (resources["gpu"], body["numReplicas"]) == (1, 3)
    image = body["environmentImageRequest"]
    assert isinstance(image, dict)
    assert image["modelIds"] == [f"{model}:1"]
    assert "cuda" in image["environment"]["docker"]["baseImage"]
    assert emulator.billed() == []
    assert emulator.errors == []


@pytest.mark.slow
def test_the_first_tutorial(emulator: Emulator, shared_models: Path, snowleopard: Path, tmp_path: Path):
    folder = tmp_path / "work"
    shutil.copytree(shared_models / "efficientnet_lite0_jpg_savedmodel", folder / "resnet50")
    shutil.copy(snowleopard, folder / "snowleopard.jpg")
    printed = run("resnet50", folder, emulator)
    assert "state: Healthy" in printed
    assert "status: 200" in printed
    assert "class: 289 of 1000" in printed
    assert "GET: 405" in printed
    assert "without key: 401" in printed
    check_requests(emulator, "resnet50")


def test_the_second_tutorial(emulator: Emulator, shared_models: Path, shared_data: Path, tmp_path: Path):
    folder = tmp_path / "work"
    shutil.copytree(shared_models / "tf-dnn-mnist", folder / "tf-dnn-mnist")
    shutil.copytree(shared_data / "mnist", folder / "data" / "mnist")
    printed = run("mnist", folder, emulator)
    assert "Creating a new compute target..." in printed
    assert "state: Healthy" in printed
    digits = re.findall(r"^label: (\d) prediction: \[(\d)\]$", printed, re.MULTILINE)
    assert len(digits) == 20
    assert sum(label == prediction for label, prediction in digits) >= 15
    assert "accuracy: 0.9625" in printed
    check_requests(emulator, "tf-dnn-mnist")
