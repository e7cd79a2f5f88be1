"""leftovers(), sweep(), Ctrl-C: what is billed is known, and goes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_matrix import Scene, Zygote

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault, LoggedRequest, Transition
from gpu_infer.errors import TeardownError
from gpu_infer.ledger import Ledger

T4 = "Standard_NC4as_T4_v3"


@pytest.fixture
def scene(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    with Scene(zygote, tmp_path / "home") as started:
        yield started


def interrupt(scene: Scene) -> Callable[[LoggedRequest], None]:
    def press(_: LoggedRequest) -> None:
        os.kill(scene.pid, signal.SIGINT)

    return press


@pytest.mark.parametrize(
    ("operation", "skip"),
    [("compute.create", 0), ("compute.get", 4), ("blob.put", 0), ("services.create", 0), ("services.get", 3)],
)
def test_ctrl_c_during_a_deployment_leaves_nothing(scene: Scene, operation: str, skip: int) -> None:
    scene.emulator.add_fault(Fault(operation=operation, skip=skip, kind="call_before", call=interrupt(scene)))
    answer = scene.run("deploy_in_block")
    assert (answer["outcome"], answer["type"]) == ("untyped", "KeyboardInterrupt")
    assert scene.emulator.billed() == []
    assert Ledger(scene.home / "ledger.sqlite3").entries() == []


def test_ctrl_c_while_azure_takes_its_time(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster would take a minute; the block ends long before, and the cluster with it."""
    monkeypatch.chdir(tmp_path)
    with Scene(zygote, tmp_path) as scene:
        slow = Emulator(run_services=False, transitions={"compute.create": Transition.after_seconds(60)})
        scene.emulator.stop()
        scene.emulator = slow.start()
        from clouds import AKS

        AKS.register(slow)

        def press_when_it_is_being_made() -> None:
            while not slow.billed():
                time.sleep(0.05)
            time.sleep(0.5)
            os.kill(scene.pid, signal.SIGINT)

        threading.Thread(target=press_when_it_is_being_made, daemon=True).start()
        answer = scene.run("deploy_in_block")
        assert answer["type"] == "KeyboardInterrupt"
        assert slow.billed() == []


def test_a_killed_deployment_is_found_and_swept(scene: Scene) -> None:
    scene.emulator.add_fault(Fault(operation="compute.get", skip=3, kind="call_before", call=scene.kill))
    assert scene.run("deploy")["outcome"] == "killed"
    workspace = scene.emulator.workspace()
    (left,) = gpu_infer.leftovers(workspace)
    assert (left.kind, left.name, left.abandoned, left.recorded) == ("cluster", "gpus", True, True)
    assert left.price_per_hour == pytest.approx(3 * 0.526)
    assert left.why == "abandoned"
    assert str(left).startswith("cluster gpus (")
    (unasked,) = gpu_infer.leftovers()
    assert unasked.state == "unknown"
    with pytest.raises(TeardownError, match=r"sweep\(workspace\)") as caught:
        gpu_infer.sweep()
    assert caught.value.left == ["cluster 'gpus'"]
    assert [one.name for one in gpu_infer.sweep(workspace, dry_run=True)] == ["gpus"]
    assert scene.emulator.billed() == ["gpus"]
    assert [one.name for one in gpu_infer.sweep(workspace)] == ["gpus"]
    assert scene.emulator.billed() == []
    assert gpu_infer.leftovers(workspace) == []


def test_what_is_in_use_is_not_swept(scene: Scene) -> None:
    assert scene.run("deploy")["outcome"] == "ok"
    workspace = scene.emulator.workspace()
    assert gpu_infer.sweep(workspace) == []
    assert gpu_infer.sweep(workspace, older_than="1h") == []
    assert [one.kind for one in gpu_infer.sweep(workspace, older_than=0)] == ["service", "cluster"]
    assert scene.emulator.billed() == []


def test_a_killed_with_block_is_abandoned(scene: Scene) -> None:
    """The deployment was complete; what tells is that it was made for a block whose process has ended."""
    scene.emulator.add_fault(Fault(operation="services.delete", kind="call_before", call=scene.kill))
    assert scene.run("deploy_in_block")["outcome"] == "killed"
    workspace = scene.emulator.workspace()
    gpu_infer.sweep(workspace)
    assert scene.emulator.billed() == []


def test_another_machine_finds_it_by_its_tags(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scene.run("deploy")["outcome"] == "ok"
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "other machine"))
    workspace = scene.emulator.workspace()
    found = gpu_infer.leftovers(workspace)
    assert [(one.kind, one.name, one.recorded) for one in found] == [
        ("service", "svc", False),
        ("cluster", "gpus", False),
    ]
    assert found[1].price_per_hour == pytest.approx(3 * 0.526)
    assert gpu_infer.sweep(workspace) == []
    gpu_infer.attach("svc", workspace).delete(cluster=True)
    assert scene.emulator.billed() == []


def two_seconds_later(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 2)


def test_expired_things_are_swept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = scene.emulator.workspace()
    gpu_infer.provision_cluster(workspace, "gpus", T4, ttl="1s")
    gpu_infer.provision_cluster(workspace, "kept", T4, keep=True)
    two_seconds_later(monkeypatch)
    assert [one.name for one in gpu_infer.sweep(workspace)] == ["gpus"]
    assert scene.emulator.billed() == ["kept"]
    assert gpu_infer.sweep(workspace, older_than=0) == []


def test_a_deletion_that_lies_is_told(scene: Scene) -> None:
    """The SDK's delete() returns as if all were well; what counts is what is there afterwards."""
    assert scene.run("deploy")["outcome"] == "ok"
    workspace = scene.emulator.workspace()
    error = {"code": "KubernetesError", "statusCode": 400, "message": "the namespace is stuck", "details": []}
    scene.emulator.add_fault(Fault(operation="services.delete", kind="fail_operation", error=error, times=None))
    service = gpu_infer.attach("svc", workspace)
    with pytest.raises(TeardownError, match="still there") as caught:
        service.delete()
    assert caught.value.left == ["service 'svc'"]
    assert [one.kind for one in gpu_infer.leftovers(workspace)] == ["service", "cluster"]
    scene.emulator.clear_faults()
    service.delete(cluster=True)
    assert gpu_infer.leftovers(workspace) == []


def test_a_sweep_goes_on_past_what_it_cannot_remove(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = scene.emulator.workspace()
    for name in ("one", "two"):
        gpu_infer.provision_cluster(workspace, name, T4, ttl="1s")
    two_seconds_later(monkeypatch)
    scene.emulator.add_fault(Fault(operation="compute.delete", kind="status", status=403, times=3))
    with pytest.raises(TeardownError) as caught:
        gpu_infer.sweep(workspace)
    assert caught.value.left == ["cluster 'one'"]
    assert scene.emulator.billed() == ["one"]
    gpu_infer.sweep(workspace)
    assert scene.emulator.billed() == []


def test_two_processes_that_want_the_same_cluster_make_one(scene: Scene, tmp_path: Path) -> None:
    workspace = scene.emulator.workspace()
    made: list[Any] = []
    threads = [
        threading.Thread(target=lambda: made.append(gpu_infer.provision_cluster(workspace, "gpus", T4)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [compute.name for compute in made] == ["gpus", "gpus"]
    creations = [request for request in scene.emulator.requests if request.operation == "compute.create"]
    assert len(creations) == 1


def test_the_ledger_holds_no_secret(scene: Scene) -> None:
    workspace = scene.emulator.workspace()
    service = gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4))
    keys = service.raw.get_keys()
    written = (scene.home / "ledger.sqlite3").read_bytes()
    assert all(key.encode() not in written for key in keys)
    assert all(key not in repr(service) + repr(service.client) for key in keys)
