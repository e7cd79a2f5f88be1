"""deploy() to AKS through the real azureml-core, against the emulator: what is sent, what is created, what is kept."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Transition
from gpu_infer.errors import (
    InsufficientGpuError,
    PreflightError,
    ProvisioningError,
    QuotaError,
    ServiceNotFoundError,
    UnsupportedError,
)

T4 = "Standard_NC4as_T4_v3"
CREATING = ("compute.create", "models.create", "services.create", "services.update")

pytestmark = pytest.mark.usefixtures("home")


def created(emulator: Emulator) -> Counter[str]:
    return Counter(request.operation for request in emulator.requests if request.operation in CREATING)


def body(emulator: Emulator, operation: str) -> Any:
    return next(request.body for request in emulator.requests if request.operation == operation)


def deploy(workspace: Any, **options: Any) -> gpu_infer.Service:
    given = {"name": "svc", "cluster": Cluster("gpus", vm_size=T4), **options}
    return gpu_infer.deploy(given.pop("model", "net"), workspace, dry_run=False, **given)


def test_the_tutorials_job_in_one_call(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    register(workspace, "resnet50")
    emulator.clear_log()
    service = gpu_infer.deploy(
        "resnet50",
        workspace,
        name="gpu-rn",
        cluster=Cluster("aks-gpu", vm_size="Standard_NC6", nodes=3),
        replicas=3,
        cpu_cores=2,
        memory_gb=4,
    )
    assert created(emulator) == {"compute.create": 1, "services.create": 1}
    cluster = body(emulator, "compute.create")["properties"]["properties"]
    assert cluster["agentVmSize"] == T4
    assert cluster["agentCount"] == 3
    sent = body(emulator, "services.create")
    assert sent["containerResourceRequirements"]["gpu"] == 1
    assert sent["containerResourceRequirements"]["cpu"] == 2
    assert sent["containerResourceRequirements"]["memoryInGB"] == 4
    assert sent["numReplicas"] == 3
    assert sent["autoScaler"]["autoscaleEnabled"] is False
    assert sent["scoringTimeoutMs"] == 60_000
    image = sent["environmentImageRequest"]
    assert "cuda" in image["environment"]["docker"]["baseImage"]
    assert image["modelIds"] == ["resnet50:1"]
    assert "EXAMPLE_ENV_VAR" not in image["environment"]["environmentVariables"]
    assert "GPU_INFER_ALLOW_CPU" not in image["environment"]["environmentVariables"]
    assert service.state == "Healthy"
    assert service.target == "aks"
    assert service.price_per_hour == pytest.approx(3 * 0.526)
    warnings = [record.message for record in caplog.records if record.name == "gpu_infer"]
    assert [warning.startswith("Warning: ") for warning in warnings] == [True, True]
    assert "Basic load balancer" in warnings[1]
    assert "Standard_NC6" in warnings[0]
    assert T4 in warnings[0]
    service.delete(cluster=True)
    assert emulator.billed() == []
    assert gpu_infer.leftovers(workspace) == []


def test_nothing_but_our_own_lines_reaches_the_screen(
    workspace: Any, register: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    register(workspace)
    capfd.readouterr()
    with deploy(workspace) as service:
        service.logs()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_inside_a_git_repository_nothing_of_it_is_sent(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], tmp_path: Path
) -> None:
    register(workspace)
    for command in ("git init -q", "git remote add origin ssh://git@secret.example/team/repo.git"):
        subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=30)
    deploy(workspace, properties={"team": "vision"})
    sent = body(emulator, "services.create")
    assert "secret.example" not in str(sent)
    assert sent["properties"]["team"] == "vision"


def test_an_existing_cluster_is_used_and_stays(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    compute = gpu_infer.provision_cluster(workspace, "gpus", T4, 3, purpose="FastProd")
    assert compute.agent_count == 3
    emulator.clear_log()
    with deploy(workspace) as service:
        assert service.state == "Healthy"
    assert created(emulator) == {"services.create": 1}
    assert emulator.billed() == ["gpus"]
    again = gpu_infer.provision_cluster(workspace, "gpus", T4)
    assert again.name == "gpus"
    assert emulator.billed() == ["gpus"]


def test_one_wrong_404_does_not_make_a_cluster_ours(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_infer.emulator import Fault

    register(workspace)
    gpu_infer.provision_cluster(workspace, "gpus", T4)
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "somebody else"))
    emulator.add_fault(Fault(operation="compute.get", kind="status", status=404, times=2))
    with deploy(workspace) as service:
        assert service.state == "Healthy"
    assert emulator.billed() == ["gpus"]


def test_a_cluster_that_is_only_named_is_taken_as_it_is(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    gpu_infer.provision_cluster(workspace, "gpus", "Standard_NC24ads_A100_v4", 1, purpose="DevTest")
    service = deploy(workspace, cluster="gpus")
    assert service.price_per_hour == pytest.approx(3.673)


def test_a_cluster_of_another_size_is_an_error(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    gpu_infer.provision_cluster(workspace, "gpus", "Standard_NC24ads_A100_v4", 1, purpose="DevTest")
    with pytest.raises(PreflightError, match="Standard_NC24ads_A100_v4"):
        deploy(workspace)
    with pytest.raises(PreflightError, match="Standard_NC24ads_A100_v4"):
        gpu_infer.provision_cluster(workspace, "gpus", T4)


def test_the_with_block_removes_what_the_call_has_created(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    with deploy(workspace) as service:
        assert emulator.billed() == ["gpus"]
        assert [one.name for one in gpu_infer.services(workspace)] == ["svc"]
        assert {(one.kind, one.name) for one in gpu_infer.leftovers(workspace)} == {
            ("service", "svc"),
            ("cluster", "gpus"),
        }
    assert service.state == "Deleted"
    assert emulator.billed() == []
    assert gpu_infer.services(workspace) == []
    service.delete(cluster=True)


def test_the_cluster_stays_while_others_use_it(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    from gpu_infer.errors import TeardownError

    register(workspace)
    first = deploy(workspace, name="first")
    second = deploy(workspace, name="second")
    with pytest.raises(TeardownError, match="second") as caught:
        first.delete(cluster=True)
    assert caught.value.left == ["cluster 'gpus'"]
    assert emulator.billed() == ["gpus"]
    second.delete(cluster=True)
    assert emulator.billed() == []


def test_a_failed_cluster_is_reported_or_replaced(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    from azureml.core.compute import AksCompute, ComputeTarget

    from gpu_infer.emulator import Fault

    register(workspace)
    error = {"code": "InternalError", "message": "AKS could not be made", "statusCode": 500}
    emulator.add_fault(Fault(operation="compute.create", kind="fail_operation", error=error))
    ComputeTarget.create(workspace, "gpus", AksCompute.provisioning_configuration(agent_count=3, vm_size=T4))
    with pytest.raises(PreflightError, match="replace_failed"):
        deploy(workspace)
    service = deploy(workspace, cluster=Cluster("gpus", vm_size=T4, replace_failed=True))
    assert service.state == "Healthy"


def test_a_cluster_that_azure_cannot_make_leaves_nothing(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    from gpu_infer.emulator import Fault

    register(workspace)
    error = {"code": "InternalError", "message": "no capacity in this zone", "statusCode": 500}
    emulator.add_fault(Fault(operation="compute.create", kind="fail_operation", error=error))
    with pytest.raises(ProvisioningError, match="no capacity in this zone"):
        deploy(workspace)
    assert emulator.billed() == []
    assert gpu_infer.leftovers(workspace) == []


def test_quota(register: Callable[..., Any]) -> None:
    with Emulator(run_services=False, quota={"standard NCASv3_T4 Family": 4}) as emulator:
        workspace = emulator.workspace()
        register(workspace)
        with pytest.raises(QuotaError) as caught:
            deploy(workspace)
        assert isinstance(caught.value, ProvisioningError)
        assert emulator.billed() == []


def test_a_cluster_that_is_still_being_made_is_waited_for(register: Callable[..., Any]) -> None:
    from azureml.core.compute import AksCompute, ComputeTarget

    with Emulator(run_services=False, transitions={"compute.create": Transition.after_seconds(2)}) as emulator:
        workspace = emulator.workspace()
        register(workspace)
        ComputeTarget.create(workspace, "gpus", AksCompute.provisioning_configuration(agent_count=3, vm_size=T4))
        with deploy(workspace) as service:
            assert service.state == "Healthy"
        assert emulator.billed() == ["gpus"]
        assert created(emulator)["compute.create"] == 1


def test_more_replicas_than_gpus_is_known_before_anything_is_created(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    with pytest.raises(PreflightError, match="4"):
        deploy(workspace, replicas=4)
    assert created(emulator)["compute.create"] == 0
    gpu_infer.provision_cluster(workspace, "gpus", T4)
    deploy(workspace, name="other", replicas=2)
    with pytest.raises(PreflightError, match="other|taken|hold"):
        deploy(workspace, replicas=2)


def test_gpus_that_are_gone_when_azure_schedules(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_infer.emulator import Fault

    register(workspace)
    error = {
        "code": "KubernetesError",
        "statusCode": 400,
        "message": "Kubernetes Deployment Error",
        "details": [{"code": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}],
    }
    emulator.add_fault(Fault(operation="services.create", kind="fail_operation", error=error))
    with pytest.raises(InsufficientGpuError, match="3 Insufficient nvidia.com/gpu"):
        deploy(workspace)
    assert emulator.billed() == []


def test_models_by_path_name_version_and_object(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], shared_models: Path
) -> None:
    model = register(workspace)
    register(workspace)
    gpu_infer.provision_cluster(workspace, "gpus", T4)
    for given, wanted in (("net", "net:2"), ("net:1", "net:1"), (model, "net:1")):
        emulator.clear_log()
        deploy(workspace, model=given, overwrite=True)
        assert body(emulator, "services.create")["environmentImageRequest"]["modelIds"] == [wanted]
    emulator.clear_log()
    service = deploy(workspace, model=shared_models / "efficientnet_lite0.onnx", overwrite=True)
    assert service.model == "efficientnet_lite0.onnx:1"
    assert created(emulator)["models.create"] == 1
    service.delete(model=True)
    assert "efficientnet_lite0.onnx" not in [one.name for one in workspace.models.values()]
    with pytest.raises(PreflightError, match="Registered: net") as caught:
        deploy(workspace, model="absent")
    assert [finding.code for finding in caught.value.findings] == ["model-missing"]


def test_the_framework_is_asked_for_where_files_do_not_tell(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace, "odd", "weights.bin")
    with pytest.raises(PreflightError, match="template='tensorflow'"):
        deploy(workspace, model="odd")
    assert deploy(workspace, model="odd", template="torch").state == "Healthy"


def test_retired_sizes_can_be_refused(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    with pytest.raises(PreflightError, match="31 August 2023"):
        deploy(workspace, cluster=Cluster("gpus"), replace_retired=False)
    assert emulator.billed() == []


def test_a_taken_name(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    deploy(workspace)
    with pytest.raises(PreflightError, match="overwrite=True"):
        deploy(workspace)
    assert deploy(workspace, overwrite=True).state == "Healthy"
    assert gpu_infer.deploy("net", workspace, cluster="gpus").name == "net"


def test_update_scale_and_autoscale(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace, tags={"team": "vision"})
    register(workspace)
    emulator.clear_log()
    service.update("net:2", timeout=30)
    assert service.model == "net:2"
    assert service.raw.scoring_timeout_ms == 30_000
    assert service.raw.tags["team"] == "vision"
    assert service.raw.tags["gpu-infer-run"]
    assert created(emulator) == {"services.update": 1}
    service.scale(replicas=2)
    assert service.raw.num_replicas == 2
    service.scale(replicas=(1, 3))
    assert service.raw.autoscaler.autoscale_enabled
    assert service.raw.autoscaler.max_replicas == 3
    with pytest.raises(UnsupportedError, match="update\\(workers"):
        service.scale(workers=2)
    attached = gpu_infer.attach("svc", workspace)
    assert attached.raw.autoscaler.max_replicas == 3
    with pytest.raises(ServiceNotFoundError, match="svc"):
        gpu_infer.attach("absent", workspace)


def test_attached_aks_is_detached_and_never_deleted(
    emulator: Emulator, workspace: Any, register: Callable[..., Any]
) -> None:
    register(workspace)
    resource_id = (
        f"/subscriptions/{workspace.subscription_id}/resourceGroups/own/providers/"
        "Microsoft.ContainerService/managedClusters/mine"
    )
    emulator.add_aks(resource_id, vm_size=T4, nodes=3)
    with deploy(workspace, cluster=Cluster.attach(resource_id, name="gpus")) as service:
        assert service.state == "Healthy"
        assert emulator.billed() == []
    operations = [request.operation for request in emulator.requests]
    assert "compute.detach" in operations
    assert "compute.delete" not in operations


def test_keep_and_expiry(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    with deploy(workspace, ttl="2h") as service:
        tags = service.raw.tags
        # The life begins with the call, before the cluster; the tags are in whole seconds.
        assert 7140 < int(tags["gpu-infer-expires"]) - int(tags["gpu-infer-created"]) <= 7200
        service.keep()
    assert emulator.billed() == ["gpus"]
    assert gpu_infer.sweep(workspace, older_than=0) == []
    found = {one.name: one for one in gpu_infer.leftovers(workspace)}
    assert found["gpus"].kept
    assert found["gpus"].price_per_hour == pytest.approx(3 * 0.526)
    assert found["svc"].expires is None
    gpu_infer.attach("svc", workspace).keep(ttl="1s")
    assert gpu_infer.attach("svc", workspace).raw.tags["gpu-infer-expires"] != "never"


def test_token_auth(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    service = deploy(workspace, auth="token")
    sent = body(emulator, "services.create")
    assert sent["aadAuthEnabled"] is True
    assert sent["authEnabled"] is False
    assert service.raw.token_auth_enabled


def test_plan_creates_nothing(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    emulator.clear_log()
    plan = gpu_infer.plan("net", workspace, name="svc", cluster=Cluster("gpus"), replicas=2)
    assert {request.method for request in emulator.requests} == {"GET"}
    assert plan.price_per_hour == pytest.approx(3 * 0.526)
    assert plan.creates == ("cluster gpus (3 x Standard_NC4as_T4_v3)", "service svc")
    assert not plan.errors
    assert "Standard_NC6" in str(plan)
    assert "$1.58 per hour" in str(plan)


def test_a_registered_model_on_this_machine(
    workspace: Any, shared_models: Path, mnist_test: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azureml.core import Model

    monkeypatch.chdir(shared_models)
    Model.register(workspace, "mnist_savedmodel", "digits")
    images, labels = mnist_test
    with gpu_infer.deploy("digits", workspace, target="local", postprocess="argmax") as service:
        assert service.target == "local"
        assert (service.score(images[:50]) == labels[:50]).mean() > 0.9


def test_the_smoke_test_comes_before_anything_is_created(
    emulator: Emulator, workspace: Any, shared_models: Path, tmp_path: Path
) -> None:
    hook = tmp_path / "hooks.py"
    hook.write_text("def postprocess(output):\n    raise ValueError('no such class')\n")
    with pytest.raises(PreflightError, match="no such class"):
        deploy(workspace, model=shared_models / "mnist_savedmodel", postprocess=hook, smoke_test=True)
    assert created(emulator) == {}
    assert deploy(workspace, model=shared_models / "mnist_savedmodel", smoke_test=True).state == "Healthy"
