"""What is half made or half removed belongs to the process that works on it; when that has ended, to ``sweep()``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_matrix import Scene, Zygote

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault, LoggedRequest
from gpu_infer.errors import DeploymentError, TeardownError
from gpu_infer.ledger import Ledger
from gpu_infer.targets import records

T4 = "Standard_NC4as_T4_v3"
STUCK = {"code": "KubernetesError", "statusCode": 400, "message": "Kubernetes Deployment Error", "details": []}


@pytest.fixture
def scene(zygote: Zygote, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    home.mkdir()
    with Scene(zygote, home) as started:
        yield started


def sending(scene: Scene, number: signal.Signals) -> Callable[[LoggedRequest], None]:
    def send(_: LoggedRequest) -> None:
        os.kill(scene.pid, number)

    return send


def deploy(workspace: Any, **options: Any) -> gpu_infer.Service:
    return gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4), dry_run=False, **options)


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("options", [{}, {"keep": True, "ttl": "8h"}, {"keep": True}])
def test_a_process_killed_while_deploy_waits_for_health(
    scene: Scene, number: signal.Signals, options: dict[str, Any]
) -> None:
    """Azure has begun, and answers: but nobody has got the service, so it is nobody's."""
    scene.emulator.add_fault(Fault(operation="services.get", skip=2, kind="call_before", call=sending(scene, number)))
    assert scene.run("deploy", **options)["outcome"] == "killed"
    assert scene.there() == {"gpus", "svc"}
    workspace = scene.emulator.workspace()
    assert [one.why for one in gpu_infer.leftovers(workspace)] == ["abandoned", "abandoned"]
    assert [one.kind for one in gpu_infer.sweep(workspace)] == ["service", "cluster"]
    assert scene.there() == set()
    assert gpu_infer.leftovers(workspace) == []


@pytest.mark.parametrize("operation", ["models.get", "artifacts.create", "services.create"])
def test_a_process_killed_between_cluster_and_service(scene: Scene, operation: str) -> None:
    scene.emulator.add_fault(Fault(operation=operation, kind="call_before", call=scene.kill))
    assert scene.run("deploy", keep=True)["outcome"] == "killed"
    assert scene.emulator.billed() == ["gpus"]
    gpu_infer.sweep(scene.emulator.workspace())
    assert scene.there() == set()


def test_a_process_killed_in_provision_cluster(scene: Scene) -> None:
    scene.emulator.add_fault(Fault(operation="compute.get", skip=3, kind="call_before", call=scene.kill))
    assert scene.run("provision")["outcome"] == "killed"
    workspace = scene.emulator.workspace()
    assert [one.name for one in gpu_infer.sweep(workspace)] == ["gpus"]
    assert scene.emulator.billed() == []
    assert scene.run("provision")["outcome"] == "ok"
    assert gpu_infer.sweep(workspace) == []


def test_what_deploy_has_handed_over_stays(scene: Scene) -> None:
    """Its process has ended, and it is in use all the same: with ``wait=False`` from the return on."""
    workspace = scene.emulator.workspace()
    assert scene.run("deploy", wait=False)["text"] == "Starting"
    assert gpu_infer.sweep(workspace) == []
    assert [one.why for one in gpu_infer.leftovers(workspace)] == ["in use", "in use"]
    assert scene.there() == {"gpus", "svc"}


def test_while_deploy_waits_it_is_in_use(scene: Scene) -> None:
    seen: list[list[gpu_infer.Leftover]] = []
    workspace = scene.emulator.workspace()

    def look(_: LoggedRequest) -> None:
        if not seen:
            seen.append([])
            seen[0] += gpu_infer.sweep(workspace)

    scene.emulator.add_fault(Fault(operation="services.get", skip=2, kind="call_before", call=look))
    assert scene.run("deploy")["outcome"] == "ok"
    assert seen == [[]]
    assert scene.there() == {"gpus", "svc"}


def test_the_next_deployment_takes_over_the_cluster_that_a_killed_one_has_left(scene: Scene) -> None:
    """Else ``sweep()`` would want to delete it below the new service, and the ``with`` block would leave it."""
    scene.emulator.add_fault(Fault(operation="services.validate", kind="call_before", call=scene.kill))
    assert scene.run("deploy")["outcome"] == "killed"
    workspace = scene.emulator.workspace()
    with deploy(workspace) as service:
        assert service.state == "Healthy"
        assert gpu_infer.sweep(workspace) == []
    creations = [request for request in scene.emulator.requests if request.operation == "compute.create"]
    assert len(creations) == 1
    assert scene.there() == set()


# --- given up ---------------------------------------------------------------------------------------------------------


def test_what_a_failed_deployment_could_not_remove_is_swept_while_its_process_lives(scene: Scene) -> None:
    workspace = scene.emulator.workspace()
    scene.emulator.add_fault(Fault(operation="services.create", kind="fail_operation", error=STUCK))
    scene.emulator.add_fault(Fault(operation="services.delete", kind="status", status=403, times=None))
    with pytest.raises(DeploymentError) as caught:
        deploy(workspace)
    assert "gpu_infer.sweep(workspace) removes it" in " ".join(caught.value.__notes__)
    scene.emulator.clear_faults()
    assert {one.why for one in gpu_infer.leftovers(workspace)} == {"abandoned"}
    gpu_infer.sweep(workspace)
    assert scene.there() == set()


def test_a_deletion_that_failed_is_finished_by_the_next_sweep(scene: Scene) -> None:
    assert scene.run("deploy")["outcome"] == "ok"
    workspace = scene.emulator.workspace()
    scene.emulator.add_fault(Fault(operation="services.delete", kind="status", status=403, times=None))
    with pytest.raises(TeardownError):
        gpu_infer.attach("svc", workspace).delete(cluster=True)
    scene.emulator.clear_faults()
    assert [one.kind for one in gpu_infer.sweep(workspace)] == ["service", "cluster"]
    assert scene.there() == set()


def test_who_keeps_it_after_a_failed_deletion_keeps_it(scene: Scene) -> None:
    assert scene.run("deploy")["outcome"] == "ok"
    workspace = scene.emulator.workspace()
    scene.emulator.add_fault(Fault(operation="services.delete", kind="status", status=403, times=None))
    service = gpu_infer.attach("svc", workspace)
    with pytest.raises(TeardownError):
        service.delete(cluster=True)
    scene.emulator.clear_faults()
    service.keep()
    assert gpu_infer.sweep(workspace) == []


def test_a_cluster_that_others_use_is_not_given_up(scene: Scene) -> None:
    workspace = scene.emulator.workspace()
    first = deploy(workspace)
    second = gpu_infer.deploy("net", workspace, name="second", cluster="gpus")
    with pytest.raises(TeardownError, match="second"):
        first.delete(cluster=True)
    assert gpu_infer.sweep(workspace) == []
    second.delete(cluster=True)
    assert scene.there() == set()


# --- other machines ---------------------------------------------------------------------------------------------------


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "other machine"))


def test_what_is_kept_for_good_says_so_only_when_it_is_done(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, it would else be kept for ever for every machine but the one that may be gone by now."""
    scene.emulator.add_fault(Fault(operation="services.get", skip=2, kind="call_before", call=scene.kill))
    assert scene.run("deploy", keep=True)["outcome"] == "killed"
    elsewhere(monkeypatch, tmp_path)
    workspace = scene.emulator.workspace()
    service, cluster = gpu_infer.leftovers(workspace)
    assert (service.kept, cluster.kept) == (False, False)
    assert service.expires == pytest.approx(service.created + 8 * 3600, abs=2)
    assert len(gpu_infer.sweep(workspace, older_than=0)) == 2
    assert scene.there() == set()


@pytest.mark.parametrize(("ttl", "expires"), [("2h", True), (None, False)])
def test_what_is_kept_other_machines_leave_alone(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ttl: str | None, expires: bool
) -> None:
    assert scene.run("deploy", keep=True, ttl=ttl)["outcome"] == "ok"
    elsewhere(monkeypatch, tmp_path)
    workspace = scene.emulator.workspace()
    assert gpu_infer.sweep(workspace, older_than=0) == []
    assert [(one.kept, one.expires is not None) for one in gpu_infer.leftovers(workspace)] == [(True, expires)] * 2
    later = gpu_infer.leftovers(workspace)[0].created + 2 * 3600 + 60
    monkeypatch.setattr("time.time", lambda: later)
    assert len(gpu_infer.sweep(workspace)) == (2 if expires else 0)


def test_keep_with_a_time_to_live_is_in_the_tags(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = scene.emulator.workspace()
    service = deploy(workspace).keep(ttl="2h")
    assert service.raw.tags["gpu-infer-kept"] == "yes"
    elsewhere(monkeypatch, tmp_path)
    assert gpu_infer.sweep(workspace, older_than=0) == []


def test_a_kept_service_whose_tags_cannot_be_changed_runs_all_the_same(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.emulator.add_fault(Fault(operation="services.update", kind="status", status=403, times=None))
    assert deploy(scene.emulator.workspace(), keep=True).state == "Healthy"
    assert "its tags do not say yet that it is kept" in caplog.text


def test_nothing_of_the_repository_is_sent_with_tags_and_sizes(scene: Scene, tmp_path: Path) -> None:
    import subprocess

    for command in ("git init -q", "git remote add origin ssh://git@secret.example/team/repo.git"):
        subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=30)
    service = deploy(scene.emulator.workspace(), keep=True)
    service.scale(replicas=2)
    service.keep(ttl="1h")
    sent = [str(request.body) for request in scene.emulator.requests if request.operation == "services.update"]
    assert len(sent) == 3
    assert not [body for body in sent if "secret.example" in body]


def test_a_cluster_known_by_tags_is_written_down_before_they_go(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.run("deploy")["outcome"] == "ok"
    elsewhere(monkeypatch, tmp_path)
    workspace = scene.emulator.workspace()
    gpu_infer.attach("svc", workspace).delete()
    (left,) = gpu_infer.leftovers(workspace)
    assert (left.kind, left.name, left.recorded) == ("cluster", "gpus", True)
    assert left.price_per_hour == pytest.approx(3 * 0.526)


def test_an_attached_cluster_is_detached_by_other_machines_too(
    emulator: Emulator,
    workspace: Any,
    register: Callable[..., Any],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(workspace)
    resource_id = (
        f"/subscriptions/{workspace.subscription_id}/resourceGroups/own/providers/"
        "Microsoft.ContainerService/managedClusters/mine"
    )
    emulator.add_aks(resource_id, vm_size=T4, nodes=3)
    gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster.attach(resource_id, name="gpus"))
    elsewhere(monkeypatch, tmp_path)
    assert [one.price_per_hour for one in gpu_infer.leftovers(workspace)] == [0, 0]
    gpu_infer.attach("svc", workspace).delete(cluster=True)
    operations = [request.operation for request in emulator.requests]
    assert "compute.detach" in operations
    assert "compute.delete" not in operations


# --- gone -------------------------------------------------------------------------------------------------------------


def test_what_somebody_else_has_deleted_is_struck_out(scene: Scene) -> None:
    workspace = scene.emulator.workspace()
    service = deploy(workspace)
    ledger = Ledger(scene.home / "ledger.sqlite3")
    service.raw.delete()
    assert [one.kind for one in gpu_infer.leftovers(workspace)] == ["cluster"]
    assert [entry.kind for entry in ledger.entries()] == ["cluster"]
    workspace.compute_targets["gpus"].delete()
    while scene.emulator.billed():
        workspace.compute_targets  # noqa: B018 - each look takes the deletion a step further
    assert gpu_infer.sweep(workspace) == []
    assert ledger.entries() == []


def test_one_wrong_404_strikes_nothing_out(scene: Scene) -> None:
    workspace = scene.emulator.workspace()
    deploy(workspace)
    scene.emulator.add_fault(Fault(operation="services.get", kind="status", status=404, times=None))
    scene.emulator.add_fault(Fault(operation="compute.get", kind="status", status=404, times=None))
    gpu_infer.leftovers(workspace)
    assert len(Ledger(scene.home / "ledger.sqlite3").entries()) == 2


def test_what_may_still_be_on_its_way_is_not_struck_out(scene: Scene) -> None:
    """Azure may be slow to show it: for a quarter of an hour the entry stays."""
    workspace = scene.emulator.workspace()
    run = records.new_run(ttl=None, keep=False)
    details = {"attached": False, "vm_size": T4, "nodes": 3}
    entry = records.begin(records.workspace_key(workspace), records.CLUSTER, "gpus", run, details)
    assert [one.state for one in gpu_infer.leftovers(workspace)] == ["absent"]
    assert gpu_infer.sweep(workspace, older_than=0) == []
    assert len(gpu_infer.leftovers(workspace)) == 1
    records.forget(entry)
    records.adopt(replace(entry, created=entry.created - 1000))
    assert gpu_infer.leftovers(workspace) == []
    assert gpu_infer.leftovers() == []
