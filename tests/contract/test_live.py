"""The tests in Azure themselves: they do not begin without a price, or above it, and remove what they have made."""

from __future__ import annotations

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
from gpu_infer.emulator import Emulator


@pytest.fixture
def priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A cluster of three nodes at $0.526 an hour, still to be created."""
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
