"""``update()``, ``scale()``, ``delete(model=True)`` and what scoring says of a service that is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import (
    DeploymentError,
    DeploymentTimeoutError,
    InsufficientGpuError,
    PreflightError,
    ServiceNotFoundError,
)

T4 = "Standard_NC4as_T4_v3"
UNSCHEDULABLE = {
    "code": "KubernetesError",
    "statusCode": 400,
    "message": "Kubernetes Deployment Error",
    "details": [{"code": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}],
}
pytestmark = pytest.mark.usefixtures("home")


def deploy(workspace: Any, **options: Any) -> gpu_infer.Service:
    given = {"name": "svc", "cluster": Cluster("gpus", vm_size=T4), **options}
    return gpu_infer.deploy(given.pop("model", "net"), workspace, dry_run=False, **given)


def versions(workspace: Any) -> list[str]:
    from azureml.core import Model

    return sorted(f"{model.name}:{model.version}" for model in Model.list(workspace))


@pytest.fixture
def model(tmp_path: Path, shared_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shared_models / "mnist_savedmodel"


# --- scale ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [3, (1, 3)])
def test_scale_counts_gpus_before_azure_does(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], replicas: Any
) -> None:
    register(workspace)
    service = deploy(workspace)
    deploy(workspace, name="other", cluster="gpus")
    emulator.clear_log()
    with pytest.raises(PreflightError, match="3 replicas x 1 GPU = 3.* of which other services hold 1") as caught:
        service.scale(replicas=replicas)
    assert [finding.code for finding in caught.value.findings] == ["gpu-count"]
    assert not [one for one in emulator.requests if one.operation == "services.update"]
    assert service.scale(replicas=2).raw.num_replicas == 2


@pytest.mark.parametrize(
    ("replicas", "says"),
    [
        (1.5, "whole number from 1, got 1.5"),
        ((3, 1), r"replicas=\(least, most\): \(3, 1\) has them the wrong way round"),
        ((1, 2, 3), r"whole number from 1, got \(1, 2, 3\)"),
        (True, "whole number from 1, got True"),
        (0, "whole number from 1, got 0"),
    ],
)
def test_what_is_no_number_of_replicas(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], replicas: Any, says: str
) -> None:
    register(workspace)
    service = deploy(workspace)
    emulator.clear_log()
    with pytest.raises(ValueError, match=says):
        service.scale(replicas=replicas)
    assert emulator.requests == []


def test_an_update_keeps_the_number_of_replicas(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace)
    service.scale(replicas=2)
    assert service.update(timeout=30).raw.num_replicas == 2
    assert service.update(replicas=1).raw.num_replicas == 1


def test_an_update_brings_no_old_model_back(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace)
    other = deploy(workspace, cluster="gpus", overwrite=True)
    with pytest.raises(PreflightError, match="deployed anew"):
        service.update(timeout=30)
    assert other.update(timeout=30).state == "Healthy"


def test_a_failed_scale_is_seen_on_the_handle(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace)
    emulator.add_fault(Fault(operation="services.update", kind="fail_operation", error=UNSCHEDULABLE))
    with pytest.raises(InsufficientGpuError, match="^Scaling service 'svc' failed: "):
        service.scale(replicas=2)
    assert service.state == "Failed"
    assert service.raw.state == "Unschedulable"


# --- update -----------------------------------------------------------------------------------------------------------


def test_a_failed_update_is_seen_on_the_handle(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    service = deploy(workspace)
    emulator.add_fault(Fault(operation="services.update", kind="fail_operation", error=UNSCHEDULABLE))
    with pytest.raises(DeploymentError, match="^Updating service 'svc' failed: "):
        service.update(timeout=30)
    assert service.state == "Failed"
    assert service.update(timeout=20).state == "Healthy"


def test_an_update_without_a_model_registers_none(emulator: Emulator, workspace: Any, model: Path) -> None:
    service = deploy(workspace, model=model)
    assert versions(workspace) == ["mnist_savedmodel:1"]
    every: tuple[dict[str, Any], ...] = (
        {"replicas": 2},
        {"environment_variables": {"A": "1"}},
        {"postprocess": "argmax"},
    )
    for changes in every:
        service.update(**changes)
        assert service.model == "mnist_savedmodel:1"
    assert service.raw.num_replicas == 2
    assert service.raw.environment.environment_variables["A"] == "1"
    assert versions(workspace) == ["mnist_savedmodel:1"]
    service.update(model)
    assert service.model == "mnist_savedmodel:2"
    service.update(timeout=30)
    assert versions(workspace) == ["mnist_savedmodel:1", "mnist_savedmodel:2"]


def test_a_newer_version_is_served_when_it_is_asked_for(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace)
    register(workspace)
    assert service.update(timeout=30).model == "net:1"
    assert service.update("net").model == "net:2"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cluster": "other"}, "does not change cluster; the service stays on the machines"),
        ({"vm_size": T4}, "does not change vm_size; the service stays on the machines"),
        ({"workspace": None}, "does not change workspace"),
        ({"smoke_test": True}, "does not change smoke_test"),
    ],
)
def test_what_an_update_does_not_change(
    workspace: Any, register: Callable[..., Any], changes: dict[str, Any], says: str
) -> None:
    register(workspace)
    service = deploy(workspace)
    with pytest.raises(ValueError, match=says):
        service.update(**changes)


# --- the models of a service ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
def test_delete_removes_every_version_that_was_registered_for_the_service(
    workspace: Any,
    model: Path,
    register: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
) -> None:
    register(workspace)
    deploy(workspace, model=model).update(model)
    deploy(workspace, name="other", model=model, cluster="gpus")
    if elsewhere:
        monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "other machine"))
    gpu_infer.attach("svc", workspace).delete(model=True)
    assert versions(workspace) == ["mnist_savedmodel:3", "net:1"]


def test_delete_says_which_model_stays(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    register(workspace)
    deploy(workspace)
    gpu_infer.attach("svc", workspace).delete(cluster=True, model=True)
    assert "model net:1 stays: it was not registered for this service" in caplog.text
    assert versions(workspace) == ["net:1"]
    assert emulator.billed() == []


# --- the cluster ------------------------------------------------------------------------------------------------------


def test_what_provision_cluster_gives_is_taken(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    compute = gpu_infer.provision_cluster(workspace, "gpus", T4, keep=True)
    plan = gpu_infer.plan("net", workspace, cluster=compute)
    assert not plan.errors
    assert plan.creates == ("service net",)
    with deploy(workspace, cluster=compute) as service:
        assert service.cluster == "gpus"
    assert emulator.billed() == ["gpus"]


@pytest.mark.parametrize("given", [3, {"name": "gpus"}, object()])
def test_what_is_no_cluster(workspace: Any, register: Callable[..., Any], given: Any) -> None:
    register(workspace)
    for ask in (gpu_infer.plan, gpu_infer.deploy):
        with pytest.raises(TypeError, match=r"cluster is a name, a gpu_infer.Cluster or what provision_cluster"):
            ask("net", workspace, cluster=given)


# --- waiting and scoring ----------------------------------------------------------------------------------------------


def test_scoring_a_service_that_is_gone(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace)
    again = gpu_infer.attach("svc", workspace)
    service.delete()
    for handle in (service, again):
        with pytest.raises(ServiceNotFoundError, match="'svc' is gone"):
            handle.score([1.0])
        with pytest.raises(ServiceNotFoundError, match="'svc' is gone"):
            list(handle.score_many([[1.0]]))


def test_too_short_a_wait_says_what_to_do(workspace: Any, register: Callable[..., Any]) -> None:
    from gpu_infer.emulator import Transition

    with Emulator(run_services=False, transitions={"services.create": Transition.after_seconds(60)}) as slow:
        there = slow.workspace()
        register(there)
        with pytest.raises(DeploymentTimeoutError) as caught:
            deploy(there, wait=1)
        assert slow.billed() == []
    message = str(caught.value)
    assert message.startswith("Starting service 'svc' within 1 s failed: It was not healthy in time")
    assert "Give it longer: deploy(wait=SECONDS)" in message
    assert "The end of its log:\nThis emulator was started with run_services=False" in message
    assert "open a support request" not in message
