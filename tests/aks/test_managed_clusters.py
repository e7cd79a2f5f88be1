"""Clusters that AKS itself makes (how="aks"): through azure-mgmt-containerservice, with the login of the workspace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault, Transition
from gpu_infer.errors import MissingDependencyError, PreflightError, ProvisioningError
from gpu_infer.ledger import Entry
from gpu_infer.targets import managed_clusters, records
from gpu_infer.targets.aks.sdk import arm_of

T4 = "Standard_NC4as_T4_v3"
AKS = Cluster("gpus", vm_size=T4, nodes=3, how="aks")

pytestmark = pytest.mark.usefixtures("home")


def provision(workspace: Any, **options: Any) -> Any:
    return gpu_infer.provision_cluster(workspace, "gpus", T4, 3, how="aks", **options)


def written(workspace: Any) -> list[Entry]:
    return records.entries(records.workspace_key(workspace))


def done(emulator: Emulator, *which: str) -> list[str]:
    return [one.operation for one in emulator.requests if one.operation in which]


def there(workspace: Any) -> Any:
    return managed_clusters.look(arm_of(workspace), "gpus")


def test_it_has_gpus_a_standard_load_balancer_and_our_tags(workspace: Any, emulator: Emulator) -> None:
    compute = provision(workspace)
    assert (compute.provisioning_state, compute.is_attached) == ("Succeeded", True)
    made = there(workspace)
    assert compute.cluster_resource_id.lower() == made.id.lower()
    assert made.properties.network_profile.load_balancer_sku.lower() == "standard"
    (pool,) = made.properties.agent_pool_profiles
    assert (pool.vm_size, pool.count, pool.mode) == (T4, 3, "System")
    assert pool.gpu_profile.nvidia.management_mode == "Managed"  # or no pod would be offered a GPU
    assert made.tags["gpu-infer-workspace"] == workspace.name
    assert made.tags["gpu-infer-nodes"] == f"3 x {T4}"
    (entry,) = written(workspace)
    assert (entry.details["state"], entry.details["aks"], entry.details["attached"]) == ("live", True, False)
    (left,) = gpu_infer.leftovers(workspace)
    assert left.price_per_hour == pytest.approx(3 * 0.526)
    assert emulator.billed() == ["gpus"]


def test_the_second_call_takes_the_first_ones_cluster(workspace: Any, emulator: Emulator) -> None:
    provision(workspace)
    emulator.clear_log()
    provision(workspace)
    assert done(emulator, "aks.create", "aks.update", "compute.attach") == []


def test_it_is_written_down_before_it_is_made(workspace: Any, emulator: Emulator) -> None:
    seen: list[Entry] = []
    emulator.add_fault(Fault("aks.create", kind="call_before", call=lambda _: seen.extend(written(workspace))))
    provision(workspace)
    (entry,) = seen
    assert (entry.kind, entry.name, entry.details["state"]) == ("cluster", "gpus", "creating")


def test_a_block_deletes_service_compute_and_cluster(
    workspace: Any, emulator: Emulator, register: Callable[..., Any]
) -> None:
    register(workspace)
    with gpu_infer.deploy("net", workspace, name="gpu-rn", cluster=AKS, template="onnx") as service:
        assert service.cluster == "gpus"
        assert service.price_per_hour == pytest.approx(3 * 0.526)
    assert (emulator.billed(), written(workspace)) == ([], [])
    assert done(emulator, "services.delete", "compute.detach", "compute.delete", "aks.delete") == [
        "services.delete",
        "compute.detach",
        "aks.delete",
    ]


def test_the_plan_says_who_makes_it_and_warns_of_the_other_way(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    made = gpu_infer.plan("net", workspace, name="gpu-rn", cluster=AKS, template="onnx")
    assert made.creates[0] == f"cluster gpus (3 x {T4}, by AKS itself)"
    assert "cluster-load-balancer" not in [one.code for one in made.findings]
    other = gpu_infer.plan("net", workspace, name="gpu-rn", cluster=Cluster("gpus", vm_size=T4), template="onnx")
    (finding,) = [one for one in other.findings if one.code == "cluster-load-balancer"]
    assert (finding.level, 'how="aks"' in finding.fix) == ("warning", True)


@pytest.mark.parametrize("operation", ["aks.create", "compute.attach"])
def test_a_refusal_leaves_nothing(workspace: Any, emulator: Emulator, operation: str) -> None:
    emulator.add_fault(Fault(operation, status=403, times=None))
    with pytest.raises(ProvisioningError):
        provision(workspace)
    assert (emulator.billed(), written(workspace)) == ([], [])


@pytest.mark.parametrize("operation", ["aks.create", "compute.attach"])
def test_an_operation_that_fails_leaves_nothing(workspace: Any, emulator: Emulator, operation: str) -> None:
    error = {"code": "SkuNotAvailable", "message": "No capacity for it today."}
    emulator.add_fault(Fault(operation, kind="fail_operation", error=error))
    with pytest.raises(ProvisioningError, match="No capacity for it today"):
        provision(workspace)
    assert (emulator.billed(), written(workspace)) == ([], [])


@pytest.mark.parametrize("operation", ["aks.create", "compute.attach"])
def test_a_lost_answer_is_looked_up(workspace: Any, emulator: Emulator, operation: str) -> None:
    emulator.add_fault(Fault(operation, kind="reset_after", times=None))
    provision(workspace)
    assert emulator.billed() == ["gpus"]
    assert [one.details["state"] for one in written(workspace)] == ["live"]


def test_what_cannot_be_seen_after_a_failure_stays_written_down(workspace: Any, emulator: Emulator) -> None:
    emulator.add_fault(Fault("aks.create", kind="reset_after", times=None))
    emulator.add_fault(Fault("aks.get", status=403, skip=1, times=None))
    emulator.add_fault(Fault("aks.list", status=403, skip=1, times=None))
    with pytest.raises(ProvisioningError) as caught:
        provision(workspace)
    assert "gpu_infer.sweep(workspace) removes it" in "".join(caught.value.__notes__)
    assert [(one.name, one.details["state"]) for one in written(workspace)] == [("gpus", "failed")]
    emulator.clear_faults()
    assert [one.name for one in gpu_infer.sweep(workspace)] == ["gpus"]
    assert emulator.billed() == []


def test_one_of_somebody_elses_is_neither_changed_nor_deleted(workspace: Any, emulator: Emulator) -> None:
    mine = (
        f"/subscriptions/{workspace.subscription_id}/resourcegroups/{workspace.resource_group}"
        "/providers/Microsoft.ContainerService/managedClusters/gpus"
    )
    emulator.add_aks(mine, vm_size=T4, nodes=1)
    with pytest.raises(PreflightError, match=r"already: .*managedClusters/gpus"):
        provision(workspace)
    assert done(emulator, "aks.create", "aks.update") == []
    managed_clusters.delete(arm_of(workspace), "gpus", timeout=10)
    assert there(workspace) is not None


def test_another_machine_finds_it_by_its_tags(
    workspace: Any, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing was attached or deployed yet: a cluster that Azure ML makes can carry no tag."""
    emulator.add_fault(Fault("compute.attach", status=503, times=None))
    emulator.add_fault(Fault("aks.delete", status=403, times=None))
    with pytest.raises(ProvisioningError):
        provision(workspace, ttl=3600)
    emulator.clear_faults()
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "another machine"))
    (left,) = gpu_infer.leftovers(workspace)
    assert (left.name, left.state, left.recorded, left.kept) == ("gpus", "Succeeded", False, False)
    assert left.price_per_hour == pytest.approx(3 * 0.526)
    assert [one.name for one in gpu_infer.sweep(workspace, older_than=0)] == ["gpus"]
    assert emulator.billed() == []


def test_kept_for_good_is_said_in_its_tags_when_it_is_done(
    workspace: Any, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[str] = []
    emulator.add_fault(
        Fault(
            "compute.attach", kind="call_before", call=lambda _: before.append(there(workspace).tags["gpu-infer-kept"])
        )
    )
    provision(workspace, keep=True)
    tags = there(workspace).tags
    assert (before, tags["gpu-infer-kept"], tags["gpu-infer-expires"]) == (["no"], "yes", "never")
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "another machine"))
    assert gpu_infer.sweep(workspace, older_than=0) == []
    assert emulator.billed() == ["gpus"]


def test_what_a_killed_process_has_left_the_next_one_goes_on_with(workspace: Any, emulator: Emulator) -> None:
    emulator.add_fault(Fault("compute.attach", status=503, times=None))
    emulator.add_fault(Fault("aks.delete", status=403, times=None))
    with pytest.raises(ProvisioningError):
        provision(workspace)
    emulator.clear_faults()
    emulator.clear_log()
    assert provision(workspace).provisioning_state == "Succeeded"
    assert done(emulator, "aks.create", "aks.update") == []


def test_azure_may_take_its_time(home: Path) -> None:
    slow = {"aks.create": Transition.after_polls(3), "compute.attach": Transition.after_polls(2)}
    with Emulator(run_services=False, transitions=slow) as emulator:
        workspace = emulator.workspace()
        assert provision(workspace).provisioning_state == "Succeeded"


def test_the_package_that_is_missing_is_named(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.mgmt.containerservice", None)
    with pytest.raises(MissingDependencyError, match=r"gpu-infer\[clusters\]"):
        provision(workspace)
    assert written(workspace) == []


def test_a_token_never_leaves_without_tls(workspace: Any) -> None:
    arm = arm_of(workspace)
    from azure.core.pipeline import PipelineContext, PipelineRequest
    from azure.core.rest import HttpRequest

    request = PipelineRequest(HttpRequest("GET", "http://management.example/subscriptions"), PipelineContext(None))
    with pytest.raises(ValueError, match="over TLS only"):
        arm.options["authentication_policy"].on_request(request)
    assert "Authorization" not in request.http_request.headers


def test_there_are_two_ways() -> None:
    with pytest.raises(ValueError, match='how is "azureml" or "aks"'):
        Cluster("gpus", how="terraform")  # pyright: ignore[reportArgumentType] - what is tested
    with pytest.raises(ValueError, match="attached without ssl_cname"):
        Cluster("gpus", how="aks", options={"ssl_cname": "x"})
