"""Handles of one service stay true: after scaling, after what other processes do, and for what speaks another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator
from gpu_infer.errors import PreflightError, UnsupportedError

from .conftest import T4

AT_ONCE = Rollout(steps=(100,), pause=0)

pytestmark = pytest.mark.usefixtures("home")
Deploy = Callable[..., gpu_infer.Service]


def instances(client: Any, name: str = "svc") -> list[int]:
    return [one.instance_count for one in client.online_deployments.list(name)]


def models(client: Any, name: str = "svc") -> list[str]:
    return [one.model.rsplit("/", 1)[-1] for one in client.online_deployments.list(name)]


def test_an_update_keeps_the_number_of_instances(client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    service.scale(replicas=3)
    service.update(rollout=AT_ONCE)
    assert instances(client) == [3]
    service.update(replicas=2, rollout=AT_ONCE)
    assert instances(client) == [2]
    service.update(rollout=AT_ONCE)
    assert instances(client) == [2]


def test_an_update_keeps_the_range_of_instances(client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    service.scale(replicas=(2, 4))
    service.update(rollout=AT_ONCE)
    (serving,) = client.online_deployments.list("svc")
    assert (serving.instance_count, serving.tags["gpu-infer-replicas"]) == (2, "2-4")


def test_scaling_that_fails_is_not_taken_over(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    emulator.set_quota("standard NCASv3_T4 Family", 24)
    service = deploy(client)
    with pytest.raises(PreflightError):
        service.scale(replicas=6)
    service.update(rollout=AT_ONCE)
    assert instances(client) == [1]


def test_an_update_brings_no_old_model_back(
    emulator: Emulator, client: Any, deploy: Deploy, register: Callable[..., Any]
) -> None:
    mine = deploy(client)
    register(client, "better")
    other = deploy(client, model="better", overwrite=True)
    emulator.clear_log()
    with pytest.raises(PreflightError, match=r"deployed anew .*'better:1' now(?s:.*)overwrite=True") as caught:
        mine.update(rollout=AT_ONCE)
    assert [finding.code for finding in caught.value.findings] == ["changed-elsewhere"]
    assert not [one for one in emulator.requests if one.operation == "deployments.create"]
    other.update(rollout=AT_ONCE)
    assert other.model == "better:1"
    mine.update("net", rollout=AT_ONCE)
    assert mine.model.startswith("net:")
    mine.update(rollout=AT_ONCE)
    with pytest.raises(PreflightError, match="deployed anew"):
        other.update(rollout=AT_ONCE)


def test_what_was_parked_and_brought_back_elsewhere_is_the_same(client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    for _ in range(2):
        gpu_infer.attach("svc", client).park()
        gpu_infer.attach("svc", client).unpark()
    assert service.update(rollout=AT_ONCE).state == "Healthy"


def test_a_parked_service_is_not_scaled(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client).park()
    with pytest.raises(UnsupportedError, match=r"'svc' is parked.*unpark\(\)"):
        service.scale(replicas=3)
    assert (service.state, emulator.billed()) == ("Parked", [])
    service.unpark().update(rollout=AT_ONCE)
    assert instances(client) == [1]


def test_parking_and_unparking_twice(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    emulator.clear_log()
    assert service.unpark().state == "Healthy"
    assert not [one for one in emulator.requests if one.operation == "deployments.create"]
    assert service.park().park().state == "Parked"
    assert service.unpark().unpark().state == "Healthy"
    assert emulator.billed() == ["svc/blue"]


def test_what_is_deleted_costs_nothing(client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    assert service.price_per_hour
    service.delete()
    assert (service.state, service.price_per_hour) == ("Deleted", 0)


def test_a_handle_follows_from_triton_to_our_runtime_and_back(
    client: Any, register: Callable[..., Any], tmp_path: Path
) -> None:
    from azure.ai.ml.entities import Model

    folder = tmp_path / "models" / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"not a real network")
    client.models.create_or_update(Model(name="tiny", path=str(tmp_path / "models"), type="triton_model"))
    register(client)
    service = gpu_infer.deploy("tiny", client, name="svc", vm_size=T4, dry_run=False)
    before = service.client
    assert before._codec == "kserve"
    (tmp_path / "score.py").write_text("def init(): ...\n\n\ndef run(data):\n    return data\n", "utf-8")
    service.update("net", entry_script=tmp_path / "score.py", template="onnx", rollout=AT_ONCE)
    assert (service.client._codec, service.scoring_uri[-6:]) == ("json", "/score")
    assert service.client is not before
    service.update("tiny", entry_script=None, template=None, rollout=AT_ONCE)
    assert service.client._codec == "kserve"
    assert not service.scoring_uri.endswith("/score")
