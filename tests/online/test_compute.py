"""Kubernetes clusters of one's own: attached through azure-ai-ml, used, detached, and never deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault, Transition
from gpu_infer.errors import DeploymentError, PreflightError, ProvisioningError, TeardownError
from gpu_infer.targets import records
from gpu_infer.targets.online.sdk import key_of

pytestmark = pytest.mark.usefixtures("home")
Deploy = Callable[..., gpu_infer.Service]

AKS = "/subscriptions/9f/resourceGroups/gpus/providers/Microsoft.ContainerService/managedClusters/mine"
MINE = Cluster.attach(AKS, name="k8s")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A workspace beside which an AKS cluster of somebody's runs, with the Azure ML extension."""
    with Emulator(run_services=False) as started:
        started.add_aks(AKS, vm_size="Standard_NC4as_T4_v3", nodes=2)
        yield started
        assert [call for call in started.requests if call.operation == "unmatched"] == []


@pytest.fixture
def on_k8s(client: Any, deploy: Deploy) -> Deploy:
    """deploy() on the cluster."""

    def on_k8s(**options: Any) -> gpu_infer.Service:
        return deploy(client, **{"cluster": MINE, "vm_size": None, "gpus_per_replica": 0, **options})

    return on_k8s


def computes(client: Any) -> list[str]:
    return [one.name for one in client.compute.list()]


def written(client: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.name) for one in records.entries(key_of(client))]


def done(emulator: Emulator, prefix: str) -> list[str]:
    return [one.operation for one in emulator.requests if one.operation.startswith(prefix)]


def test_a_cluster_is_attached_used_and_detached(client: Any, emulator: Emulator, on_k8s: Deploy) -> None:
    service = on_k8s()
    (compute,) = client.compute.list()
    assert (compute.name, compute.type, compute.resource_id) == ("k8s", "kubernetes", AKS)
    assert (service.cluster, service.state, service.price_per_hour) == ("k8s", "Healthy", 0.0)
    run = client.online_endpoints.get("svc").tags["gpu-infer-run"]
    assert (compute.tags["gpu-infer-run"], compute.tags["gpu-infer-cluster"]) == (run, "attached")
    assert written(client) == [("service", "svc"), ("deployment", "svc/blue"), ("cluster", "k8s")]
    service.delete(cluster=True)
    assert (computes(client), written(client)) == ([], [])
    assert done(emulator, "compute.de") == ["compute.detach"]


def test_it_is_written_down_before_it_is_attached(client: Any, emulator: Emulator, on_k8s: Deploy) -> None:
    seen: list[Any] = []
    emulator.add_fault(
        Fault("compute.attach", kind="call_before", call=lambda _: seen.extend(records.entries(key_of(client))))
    )
    on_k8s()
    (entry,) = seen
    assert (entry.kind, entry.name, entry.details["attached"], entry.details["state"]) == (
        "cluster",
        "k8s",
        True,
        "creating",
    )


def test_a_block_takes_away_what_it_has_attached_and_no_more(client: Any, on_k8s: Deploy) -> None:
    with on_k8s():
        assert computes(client) == ["k8s"]
    assert computes(client) == []
    first = on_k8s(keep=True)
    with on_k8s(name="second", cluster="k8s") as second:
        assert second.cluster == "k8s"
    assert computes(client) == ["k8s"]
    first.delete()
    assert computes(client) == ["k8s"]


def test_one_that_was_attached_before_is_never_detached(client: Any, on_k8s: Deploy) -> None:
    from azure.ai.ml.entities import KubernetesCompute

    client.compute.begin_attach(KubernetesCompute(name="k8s", resource_id=AKS)).result()
    on_k8s().delete(cluster=True)
    on_k8s(name="second", cluster="k8s").delete(cluster=True)
    assert (computes(client), written(client)) == (["k8s"], [])


def test_a_cluster_with_an_endpoint_of_another_stays_and_is_reported(client: Any, on_k8s: Deploy) -> None:
    first = on_k8s()
    on_k8s(name="second", cluster="k8s", keep=True)
    with pytest.raises(TeardownError, match=r"still attached: other endpoints are on it \(second\)") as caught:
        first.delete(cluster=True)
    assert caught.value.left == ["cluster 'k8s'"]
    assert computes(client) == ["k8s"]
    gpu_infer.attach("second", client).delete(cluster=True)
    assert computes(client) == []


def test_the_cluster_goes_by_the_name_of_a_service_that_is_gone(client: Any, on_k8s: Deploy) -> None:
    on_k8s()
    client.online_endpoints.begin_delete("svc").result()
    assert [one.kind for one in gpu_infer.leftovers(client)] == ["cluster"]
    from gpu_infer.teardown import take_down

    taken = take_down([], client, names=["svc"], cluster=True)
    assert (taken.clusters, computes(client)) == (["k8s"], [])


def test_no_compute_and_nothing_to_attach_is_an_error_before_anything(
    client: Any, emulator: Emulator, on_k8s: Deploy
) -> None:
    with pytest.raises(PreflightError, match=r"Cluster\.attach\(its resource id, name='k8s'\)"):
        on_k8s(cluster="k8s")
    assert done(emulator, "endpoints.create") == []


def test_a_name_that_another_cluster_has_is_an_error(client: Any, emulator: Emulator, on_k8s: Deploy) -> None:
    other = AKS.replace("mine", "other")
    emulator.add_aks(other, vm_size="Standard_NC4as_T4_v3", nodes=1)
    on_k8s(keep=True)
    with pytest.raises(PreflightError, match="exists and is another cluster"):
        on_k8s(name="second", cluster=Cluster.attach(other, name="k8s"))


def test_a_cluster_that_azure_refuses_leaves_no_trace(client: Any, on_k8s: Deploy) -> None:
    with pytest.raises(ProvisioningError, match="Attaching cluster 'k8s' failed"):
        on_k8s(cluster=Cluster.attach(AKS.replace("mine", "absent"), name="k8s"))
    assert (computes(client), written(client)) == ([], [])


def test_an_attachment_that_fails_is_detached(client: Any, emulator: Emulator, on_k8s: Deploy) -> None:
    emulator.add_fault(
        Fault("compute.attach", kind="fail_operation", error={"code": "BadArgument", "message": "No extension there."})
    )
    with pytest.raises(ProvisioningError, match="No extension there"):
        on_k8s()
    assert (computes(client), written(client)) == ([], [])


def test_a_lost_answer_is_looked_up(client: Any, emulator: Emulator, on_k8s: Deploy) -> None:
    emulator.add_fault(Fault("compute.attach", kind="reset_after", times=None))
    service = on_k8s()
    assert written(client)[-1] == ("cluster", "k8s")
    service.delete(cluster=True)
    assert computes(client) == []


def test_what_a_failed_deployment_has_attached_is_detached(client: Any, emulator: Emulator, on_k8s: Deploy) -> None:
    emulator.add_fault(Fault("deployments.create", kind="fail_operation", error={"code": "InternalServerError"}))
    with pytest.raises(DeploymentError):
        on_k8s()
    assert (computes(client), written(client)) == ([], [])


def test_azure_may_take_its_time() -> None:
    slow = {"compute.attach": Transition.after_polls(3), "compute.detach": Transition.after_polls(2)}
    with Emulator(run_services=False, transitions=slow) as emulator:
        emulator.add_aks(AKS, vm_size="Standard_NC4as_T4_v3", nodes=2)
        client = emulator.ml_client()
        from gpu_infer.targets.online import compute

        run = records.new_run(ttl=None, keep=False)
        found, ours = compute.ensure_compute(client, MINE, run, timeout=30)
        assert (found.provisioning_state, ours) == ("Succeeded", True)
        (entry,) = records.entries(key_of(client))
        compute.detach(client, entry, timeout=30)
        assert computes(client) == []


def test_it_is_not_waited_for_for_ever() -> None:
    with Emulator(run_services=False, transitions={"compute.attach": Transition.after_seconds(0.5)}) as emulator:
        emulator.add_aks(AKS, vm_size="Standard_NC4as_T4_v3", nodes=2)
        client = emulator.ml_client()
        from gpu_infer.targets.online import compute

        with pytest.raises(ProvisioningError, match="Attaching cluster 'k8s'"):
            compute.ensure_compute(client, MINE, records.new_run(ttl=None, keep=False), timeout=0.1)
        assert [one.kind for one in records.entries(key_of(client))] == ["cluster"]
        for thread in threading.enumerate():
            if thread.name.startswith("LROPoller("):
                thread.join(30)  # the SDK's own look at it goes on


def test_another_machine_finds_it_by_its_tags(
    client: Any, on_k8s: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_k8s(ttl=1).keep("90d")
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "another machine"))
    found = {one.kind: one for one in gpu_infer.leftovers(client)}
    cluster = found["cluster"]
    assert (cluster.name, cluster.state, cluster.price_per_hour, cluster.recorded) == ("k8s", "Succeeded", 0.0, False)
    assert (cluster.kept, cluster.expired) == (True, False)  # as the endpoint on it
    assert gpu_infer.sweep(client) == []
    assert [one.kind for one in gpu_infer.sweep(client, older_than=0)] == []
    gpu_infer.attach("svc", client).delete(cluster=True)
    assert computes(client) == []


def test_what_a_killed_process_has_attached_the_next_one_takes_over(client: Any, on_k8s: Deploy) -> None:
    run = records.new_run(ttl=None, keep=False)
    from gpu_infer.targets.online import compute

    compute.ensure_compute(client, MINE, run, timeout=30)
    (entry,) = records.entries(key_of(client))
    records.settle(entry, owner=["elsewhere", 1, "never"], state="failed")
    with on_k8s():
        (cluster,) = [one for one in records.entries(key_of(client)) if one.kind == "cluster"]
        assert cluster.details["run"] != run.id
    assert computes(client) == []


def with_gpu_types(client: Any) -> None:
    """Attach the cluster as somebody else, who has made instance types on it."""
    from azure.ai.ml.entities import KubernetesCompute

    types = {
        "cpu": {"resources": {"limits": {"cpu": "2", "memory": "4Gi"}}},
        "gpu-small": {"resources": {"limits": {"cpu": "4", "memory": "24Gi", "nvidia.com/gpu": 1}}},
        "gpu-large": {"resources": {"limits": {"cpu": "8", "memory": "48Gi", "nvidia.com/gpu": 2}}},
    }
    properties = {"instanceTypes": types, "defaultInstanceType": "cpu"}
    made = KubernetesCompute(name="k8s", resource_id=AKS, properties=properties)
    client.compute.begin_attach(made).result()


def test_vm_size_names_an_instance_type(client: Any, on_k8s: Deploy) -> None:
    with_gpu_types(client)
    on_k8s(vm_size="gpu-large", gpus_per_replica=1, cluster="k8s")
    assert client.online_deployments.get("blue", "svc").instance_type == "gpu-large"
    with pytest.raises(PreflightError, match="has none of that name"):
        on_k8s(name="second", vm_size="gpu-huge", gpus_per_replica=1, cluster="k8s")


def test_without_one_the_smallest_with_as_many_gpus_is_taken(client: Any, on_k8s: Deploy) -> None:
    with_gpu_types(client)
    on_k8s(gpus_per_replica=1, cluster="k8s")
    assert client.online_deployments.get("blue", "svc").instance_type == "gpu-small"


def test_what_an_attached_cluster_lacks_is_said_once_it_can_be_seen(
    client: Any, on_k8s: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_infer.targets.online import compute

    said: list[Any] = []
    monkeypatch.setattr(compute, "emit", said.append)
    on_k8s(gpus_per_replica=1)
    assert [event.stage for event in said if event.state == "warning"] == ["instance-type"]
    assert client.online_deployments.get("blue", "svc").instance_type in (None, "defaultinstancetype")


def test_the_plan_says_what_is_attached(client: Any, script: Path, register: Callable[..., Any]) -> None:
    register(client)
    made = gpu_infer.plan("net", client, name="svc", entry_script=script, template="onnx", cluster=MINE)
    assert made.errors == ()
    assert made.creates[0] == f"cluster k8s (attached from {AKS})"
    assert computes(client) == []


def test_replicas_of_kubernetes_follow_the_load_without_azure_monitor(
    client: Any, emulator: Emulator, on_k8s: Deploy
) -> None:
    service = on_k8s(replicas=(1, 2))
    scale = client.online_deployments.get("blue", "svc").scale_settings
    assert (scale.type, scale.min_instances, scale.max_instances) == ("target_utilization", 1, 2)
    service.scale(replicas=(2, 3))
    scale = client.online_deployments.get("blue", "svc").scale_settings
    assert (scale.min_instances, scale.max_instances) == (2, 3)
    service.scale(replicas=2)
    deployment = client.online_deployments.get("blue", "svc")
    assert (deployment.scale_settings.type, deployment.instance_count) == ("default", 2)
    assert done(emulator, "autoscale.put") == []
