"""Long operations: over at once, after some looks, after some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from gpu_infer.emulator import Emulator, Transition


def states(look: Callable[[], str], count: int) -> list[str]:
    return [look() for _ in range(count)]


def test_at_once_the_first_look_finds_a_cluster_ready(ws: Any, steps: Any) -> None:
    cluster = steps.cluster(ws)
    assert cluster.provisioning_state == "Succeeded"


def test_looks_at_a_cluster_bring_it_on(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start(transitions={"compute.create": Transition.after_polls(3)})
    cluster = steps.cluster(emulator.workspace())  # looks once itself
    assert cluster.provisioning_state == "Creating"
    assert states(cluster.get_status, 4) == ["Creating", "Creating", "Succeeded", "Succeeded"]


def test_looks_at_the_operation_count_too(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start(transitions={"compute.create": Transition.after_polls(2)})
    cluster = steps.cluster(emulator.workspace())
    look = cluster._get_operation_state
    assert [status for status, _ in (look(), look())] == ["InProgress", "Succeeded"]
    assert cluster.get_status() == "Succeeded"


def test_seconds_pass_however_often_one_looks(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start(transitions=Transition.after_seconds(0.4))
    begun = time.monotonic()
    cluster = steps.cluster(emulator.workspace())
    while cluster.get_status() == "Creating":
        time.sleep(0.05)
    assert cluster.provisioning_state == "Succeeded"
    assert time.monotonic() - begun >= 0.4


def test_a_service_is_transitioning_until_it_is_healthy(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start(transitions={"services.*": Transition.after_polls(2)})
    ws = emulator.workspace()
    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])

    def look() -> str:
        service.update_deployment_state()
        return service.state

    assert service.state == "Transitioning"
    assert states(look, 2) == ["Transitioning", "Healthy"]
    service.update(num_replicas=2)
    assert states(look, 2) == ["Transitioning", "Healthy"]


def test_a_deletion_takes_its_time_too(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start(transitions={"compute.delete": Transition.after_polls(3)})
    ws = emulator.workspace()
    cluster = steps.cluster(ws)
    cluster.delete()
    assert states(cluster.get_status, 2) == ["Deleting", "Deleting"]
    assert emulator.billed() == ["aks-gpu"]
    assert [target.provisioning_state for target in ws.compute_targets.values()] == ["Deleting"]
    assert ws.compute_targets == {}
    assert emulator.billed() == []


def test_what_is_over_at_once_needs_no_look(emulator: Emulator, ws: Any, steps: Any) -> None:
    steps.cluster(ws).delete()
    assert emulator.billed() == []


def test_deleting_what_is_still_being_created_ends_its_creation(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start(transitions={"compute.create": Transition.after_polls(99)})
    cluster = steps.cluster(emulator.workspace())
    creation = cluster._operation_endpoint
    cluster.delete()
    cluster.wait_for_completion(is_delete_operation=True)
    cluster._operation_endpoint = creation
    assert cluster._get_operation_state()[0] == "Canceled"
    assert emulator.billed() == []


def test_the_sdk_streams_the_log_of_a_deployment(ws: Any, steps: Any, capsys: pytest.CaptureFixture[str]) -> None:
    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])
    whole = service._get_operation_state(show_output=True, offset=0)[2]["streamingOperationLog"]
    assert [entry.partition("|")[2] for entry in whole.split("#")] == [
        "Checking the status of the deployment.",
        "The operation ended: Succeeded.",
    ]
    assert service._get_operation_state(show_output=True, offset=len(whole))[2]["streamingOperationLog"] == ""


@pytest.mark.parametrize("wrong", [{"polls": -1}, {"seconds": -0.1}])
def test_a_transition_cannot_take_less_than_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        Transition(**wrong)
