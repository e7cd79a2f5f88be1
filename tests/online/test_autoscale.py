"""replicas=(least, most) of a managed deployment: one setting of Azure Monitor, through azure-mgmt-monitor itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import DeploymentError, MissingDependencyError, PreflightError
from gpu_infer.progress import Event
from gpu_infer.targets.arm import monitor
from gpu_infer.targets.online import autoscale
from gpu_infer.targets.online.sdk import arm_of

T4 = "Standard_NC4as_T4_v3"
AT_ONCE = Rollout(steps=(100,), pause=0)

pytestmark = pytest.mark.usefixtures("home")
Deploy = Callable[..., gpu_infer.Service]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What autoscaling says of itself."""
    said: list[Event] = []
    monkeypatch.setattr(autoscale, "emit", said.append)
    return said


def settings(client: Any) -> list[Any]:
    arm = arm_of(client)
    with monitor(arm) as service:
        return list(service.autoscale_settings.list_by_resource_group(arm.resource_group))


def names(client: Any) -> list[str]:
    return [one.name for one in settings(client)]


def instances(client: Any, name: str = "svc", deployment: str = "blue") -> int:
    return client.online_deployments.get(deployment, name).instance_count


def calls(emulator: Emulator) -> list[str]:
    return [one.operation for one in emulator.requests if one.operation.startswith("autoscale.")]


def test_both_rules_are_there_and_point_the_right_way(client: Any, deploy: Deploy) -> None:
    deploy(client, replicas=(2, 4), tags={"team": "cats"})
    (setting,) = settings(client)
    deployment = client.online_deployments.get("blue", "svc")
    assert setting.name == "gpu-infer-emulated-svc-blue"
    assert (setting.target_resource_uri, setting.location, setting.enabled) == (deployment.id, "eastus", True)
    assert setting.tags["gpu-infer-run"] == deployment.tags["gpu-infer-run"]
    (profile,) = setting.profiles
    assert (profile.capacity.minimum, profile.capacity.maximum, profile.capacity.default) == ("2", "4", "2")
    busy, idle = profile.rules
    assert (busy.metric_trigger.operator, busy.scale_action.direction) == ("GreaterThan", "Increase")
    assert (idle.metric_trigger.operator, idle.scale_action.direction) == ("LessThan", "Decrease")
    for rule in profile.rules:
        assert rule.metric_trigger.metric_name == "GpuUtilizationPercentage"
        assert rule.metric_trigger.metric_resource_uri == deployment.id
        assert rule.scale_action.value == "1"
        assert rule.scale_action.cooldown.total_seconds() == 900


def test_the_load_that_one_instance_less_leaves_calls_none_back(client: Any, deploy: Deploy) -> None:
    """Azure looks at the mean over all instances: what n just idle ones do, n - 1 must do without being busy."""
    deploy(client, replicas=(1, 9))
    (setting,) = settings(client)
    busy, idle = (rule.metric_trigger for rule in setting.profiles[0].rules)
    for number in range(2, 10):
        assert idle.threshold * number / (number - 1) < busy.threshold


def test_a_size_without_gpus_goes_by_its_cpu(client: Any, emulator: Emulator) -> None:
    emulator.add_endpoint("svc")
    for size, metric in (("Standard_D4as_v5", "Cpu"), (T4, "Gpu"), ("Standard_NEW_v9", "Gpu")):
        one = SimpleNamespace(
            name="blue", endpoint_name="svc", instance_type=size, id="/blue", tags={"gpu-infer-replicas": "1-2"}
        )
        autoscale.follow(client, one)
        (setting,) = settings(client)
        assert {rule.metric_trigger.metric_name for rule in setting.profiles[0].rules} == {
            f"{metric}UtilizationPercentage"
        }


def test_without_a_range_azure_monitor_is_not_asked(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    with deploy(client, replicas=2) as service:
        service.scale(replicas=3)
        assert instances(client) == 3
    assert calls(emulator) == []


def test_scale_changes_the_range_and_keeps_what_runs(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    service = deploy(client, replicas=(2, 4))
    entity = client.online_deployments.get("blue", "svc")
    entity.instance_count = 4  # as Azure Monitor does under load
    client.online_deployments.begin_create_or_update(entity).result()
    service.scale(replicas=(3, 6))
    (setting,) = settings(client)
    assert (setting.profiles[0].capacity.minimum, setting.profiles[0].capacity.maximum) == ("3", "6")
    assert instances(client) == 4
    service.scale(replicas=(1, 2))
    assert instances(client) == 2
    emulator.clear_log()
    service.scale(replicas=3)
    assert (names(client), instances(client)) == ([], 3)
    done = [one.operation for one in emulator.requests]
    assert done.index("autoscale.delete") < done.index("deployments.update")  # or the autoscaler would undo it
    assert "gpu-infer-replicas" not in client.online_deployments.get("blue", "svc").tags
    service.scale(replicas=(3, 5))
    assert names(client) == ["gpu-infer-emulated-svc-blue"]


def test_an_update_takes_the_rules_along(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    service = deploy(client, replicas=(2, 4))
    emulator.clear_log()
    service.update(timeout=30, rollout=AT_ONCE)
    assert names(client) == ["gpu-infer-emulated-svc-green"]
    done = [one.operation for one in emulator.requests]
    assert done.index("autoscale.put") < done.index("endpoints.update") < done.index("deployments.delete")
    service.update(replicas=2, rollout=AT_ONCE)
    assert names(client) == []


def test_an_update_that_fails_leaves_the_old_rules_alone(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    service = deploy(client, replicas=(2, 4))
    emulator.add_fault(Fault("autoscale.put", status=403))
    with pytest.raises(DeploymentError, match="follow the load"):
        service.update(timeout=30, rollout=AT_ONCE)
    assert names(client) == ["gpu-infer-emulated-svc-blue"]
    assert [one.name for one in client.online_deployments.list("svc")] == ["blue"]


def test_the_rules_go_with_the_endpoint(client: Any, deploy: Deploy) -> None:
    deploy(client, replicas=(1, 2)).delete()
    assert names(client) == []


def test_parking_takes_the_rules_away_and_unparking_brings_them_back(client: Any, deploy: Deploy) -> None:
    service = deploy(client, replicas=(1, 2))
    service.park()
    assert names(client) == []
    service.unpark()
    assert names(client) == ["gpu-infer-emulated-svc-blue"]


def test_a_refusal_of_azure_monitor_leaves_nothing_billed(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    emulator.add_fault(Fault("autoscale.put", status=403))
    with pytest.raises(DeploymentError, match="follow the load"):
        deploy(client, replicas=(1, 2))
    assert list(client.online_endpoints.list()) == []
    assert gpu_infer.leftovers(client) == []


def test_a_lost_answer_is_no_second_setting(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    emulator.add_fault(Fault("autoscale.put", kind="reset_after"))
    deploy(client, replicas=(1, 2))
    assert names(client) == ["gpu-infer-emulated-svc-blue"]


def test_rules_that_stay_delay_no_deletion_and_are_swept(
    client: Any, emulator: Emulator, deploy: Deploy, events: list[Event]
) -> None:
    service = deploy(client, replicas=(1, 2))
    emulator.add_fault(Fault("autoscale.delete", status=403))
    service.delete()
    assert list(client.online_endpoints.list()) == []
    assert [event.state for event in events if "costs nothing" in event.text] == ["warning"]
    (left,) = gpu_infer.leftovers(client)
    assert (left.kind, left.name, left.state, left.abandoned) == ("autoscale", "svc/blue", "Enabled", True)
    assert (left.price_per_hour, left.recorded) == (0.0, False)
    assert [one.name for one in gpu_infer.sweep(client)] == ["svc/blue"]
    assert names(client) == []
    assert gpu_infer.leftovers(client) == []


def test_another_machine_sweeps_rules_without_a_deployment_and_no_others(
    client: Any, emulator: Emulator, deploy: Deploy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deploy(client, replicas=(1, 2), keep=True)
    deploy(client, name="gone", replicas=(1, 2))
    client.online_endpoints.begin_delete("gone").result()  # in the portal
    arm = arm_of(client)
    with monitor(arm) as service:
        ours = service.autoscale_settings.get(arm.resource_group, "gpu-infer-emulated-svc-blue")
        ours.tags = {}
        ours.target_resource_uri = ours.target_resource_uri.replace("/svc/", "/somebody-elses/")
        service.autoscale_settings.create_or_update(arm.resource_group, "not-ours", ours)
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "another machine"))
    assert [one.name for one in gpu_infer.sweep(client)] == ["gone/blue"]
    assert sorted(names(client)) == ["gpu-infer-emulated-svc-blue", "not-ours"]


def test_rules_of_another_workspace_are_not_ours_to_sweep(client: Any, deploy: Deploy) -> None:
    deploy(client, replicas=(1, 2), keep=True)
    arm = arm_of(client)
    with monitor(arm) as service:
        other = service.autoscale_settings.get(arm.resource_group, "gpu-infer-emulated-svc-blue")
        other.target_resource_uri = other.target_resource_uri.replace("/emulated/", "/another/")
        service.autoscale_settings.create_or_update(arm.resource_group, "gpu-infer-another-svc-blue", other)
    assert gpu_infer.sweep(client) == []
    assert len(names(client)) == 2


def test_leftovers_are_shown_where_azure_monitor_is_closed(
    client: Any, emulator: Emulator, deploy: Deploy, events: list[Event]
) -> None:
    deploy(client, replicas=2)
    emulator.add_fault(Fault("autoscale.list", status=403, times=None))
    assert {one.kind for one in gpu_infer.leftovers(client)} == {"service", "deployment"}
    assert [event.state for event in events] == ["warning"]


def test_the_plan_tells_what_it_may_cost(client: Any, script: Path, register: Callable[..., Any]) -> None:
    register(client)
    made = gpu_infer.plan("net", client, name="svc", entry_script=script, vm_size=T4, replicas=(2, 4))
    assert "$1.05 to $2.10 per hour" in str(made)


def test_the_plan_fails_where_azure_monitor_is_closed(
    client: Any, emulator: Emulator, script: Path, register: Callable[..., Any]
) -> None:
    """Before the model is uploaded and a GPU started, not after."""
    register(client)
    emulator.add_fault(Fault("autoscale.list", status=403, times=None))
    with pytest.raises(PreflightError, match=r"replicas=\(1, 2\) needs Azure Monitor") as caught:
        gpu_infer.deploy("net", client, name="svc", entry_script=script, vm_size=T4, replicas=(1, 2))
    assert [one.code for one in caught.value.findings if one.level == "error"] == ["autoscale"]
    assert list(client.online_endpoints.list()) == []


def test_the_package_that_is_missing_is_named(
    client: Any, script: Path, register: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(client)
    monkeypatch.setitem(sys.modules, "azure.mgmt.monitor", None)
    with pytest.raises(MissingDependencyError, match=r"gpu-infer\[autoscale\]"):
        gpu_infer.deploy("net", client, name="svc", entry_script=script, vm_size=T4, replicas=(1, 2))
