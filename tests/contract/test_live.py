"""The tests in Azure themselves: they do not begin without a price, or above it, and remove what they have made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import places
import pytest
from places import MAX_PRICE, T4, Place
from short_pauses import shorten

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, variables

CONTRACT = str(Path(__file__).with_name("test_using.py"))


@pytest.fixture
def priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A cluster of three nodes at $0.526 an hour, still to be created."""
    pytest.importorskip("azureml.core", reason="azureml-core is not installed: make setup")
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    shorten(monkeypatch)
    with Emulator(run_services=False) as emulator:
        cluster = Cluster("gpus", vm_size=T4, nodes=3)
        yield Place(name="aks", workspace=emulator.workspace(), arguments={"cluster": cluster}, prefix="ours")


@pytest.mark.parametrize(
    ("ceiling", "at_once", "says"),
    [
        ("", 1, f"{MAX_PRICE} says how many US dollars per hour these tests may cost; set it"),
        ("1.5", 1, rf"may cost \$1\.58 per hour, and {MAX_PRICE} is 1\.5"),
        ("4", 3, r"may cost \$4\.73 per hour"),
    ],
)
def test_they_do_not_begin(priced: Place, twice: Path, ceiling: str, at_once: int, says: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=says):
        places.check_price(replace(priced, at_once=at_once), twice, {MAX_PRICE: ceiling})


def test_they_begin_below_the_price_and_leave_nothing_of_their_own(priced: Place, twice: Path) -> None:
    places.check_price(priced, twice, {MAX_PRICE: "1.6"})
    priced.deploy(twice, "left")
    gpu_infer.deploy(twice, priced.workspace, name="of-others", cluster="gpus")
    places.leave_nothing(priced)
    assert [one.name for one in gpu_infer.services(priced.workspace)] == ["of-others"]


@pytest.mark.slow
def test_they_run_from_a_config_file_and_variables(tmp_path: Path) -> None:
    """As they would in Azure, but that all connections are led to an emulator."""
    with Emulator() as emulator:
        with urllib.request.urlopen(f"{emulator.url}/_emulator", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        names = {"subscription_id": "subscription_id", "resource_group": "resource_group", "workspace_name": "name"}
        (tmp_path / "config.json").write_text(json.dumps({name: found[key] for name, key in names.items()}))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "live", "-k", "live and (array or taken or plan)", CONTRACT],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("AZURE")},
                **variables(emulator.url, mode="proxy"),
                "HOME": str(tmp_path),
                "AZURE_TENANT_ID": found["tenant_id"],
                "AZURE_CLIENT_ID": found["client_id"],
                "AZURE_CLIENT_SECRET": found["client_secret"],
                places.CONFIG: str(tmp_path / "config.json"),
                places.VM_SIZE: T4,
                MAX_PRICE: "2.2",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert "3 passed, 6 skipped" in done.stdout, done.stdout + done.stderr
        assert emulator.billed() == []
        asked = {request.operation for request in emulator.requests}
        assert {"aad.token", "deployments.create", "endpoints.delete"} <= asked


@pytest.mark.parametrize(
    ("opened", "given", "missing"),
    [
        (places.live_aks, {}, places.CONFIG),
        (places.live_aks, {places.CONFIG: "config.json"}, places.AKS),
        (places.live_managed, {places.CONFIG: "config.json"}, places.VM_SIZE),
        (places.live_managed, {places.VM_SIZE: T4}, places.CONFIG),
        (places.live_kubernetes, {places.CONFIG: "config.json"}, places.KUBERNETES),
    ],
)
def test_a_place_of_which_nothing_is_said_is_left_out(opened: Any, given: dict[str, str], missing: str) -> None:
    with pytest.raises(pytest.skip.Exception, match=f"{missing} is not set"), opened(given):
        pass
