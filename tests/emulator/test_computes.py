"""Kubernetes clusters, VM sizes and quota, as azure-ai-ml sees them, and azureml-core beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpu_infer.emulator import Emulator, Transition

pytestmark = pytest.mark.usefixtures("entities")

OUTSIDE = "/subscriptions/s/resourcegroups/theirs/providers/Microsoft.ContainerService/managedClusters/their-aks"
GPU_TYPE = {"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "4", "memory": "16Gi"}}}
FAMILY = "standard NCASv3_T4 Family"


@pytest.fixture
def emulator(start: Callable[..., Emulator]) -> Iterator[Emulator]:
    emulator = start()
    emulator.add_aks(OUTSIDE, vm_size="Standard_NC4as_T4_v3", nodes=2)
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator) -> Any:
    return emulator.ml_client()


def attach(client: Any, entities: Any, name: str = "k8s", resource_id: str = OUTSIDE, **options: Any) -> Any:
    wanted = entities.KubernetesCompute(name=name, resource_id=resource_id, **options)
    return client.compute.begin_attach(wanted).result()


def test_a_cluster_is_attached_changed_and_detached(client: Any, entities: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    made = attach(client, entities, namespace="serving", description="ours")
    shown = client.compute.get("k8s")
    for one in (made, shown):
        assert (type(one), one.name, one.resource_id) == (entities.KubernetesCompute, "k8s", OUTSIDE)
        assert (one.provisioning_state, one.namespace, one.description) == ("Succeeded", "serving", "ours")
        assert one.properties["defaultInstanceType"] == "defaultinstancetype"
    assert [one.name for one in client.compute.list()] == ["k8s"]
    properties = {"instanceTypes": {"gpu": GPU_TYPE}, "defaultInstanceType": "gpu"}
    changed = attach(client, entities, properties=properties)
    assert changed.properties["instanceTypes"]["gpu"]["resources"] == GPU_TYPE["resources"]
    assert [call.operation for call in emulator.requests if call.method == "PUT"] == [
        "compute.attach",
        "compute.update",
    ]
    client.compute.begin_delete("k8s", action="Detach").result()
    with pytest.raises(ResourceNotFoundError, match="'k8s' was not found"):
        client.compute.get("k8s")
    assert emulator.billed() == []


def test_deployments_on_a_cluster_that_is_detached_have_failed(client: Any, online: Any, emulator: Emulator) -> None:
    online.on_kubernetes(client, emulator)
    online.deploy(client, endpoint="on-aks", resources=online.gpu())
    client.compute.begin_delete("k8s", action="Detach").result()
    assert client.online_deployments.get("blue", "on-aks").provisioning_state == "Failed"
    client.online_endpoints.begin_delete("on-aks").result()


def test_one_that_was_attached_is_not_deleted(client: Any, entities: Any) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    attach(client, entities)
    with pytest.raises(HttpResponseError, match="cannot be deleted, only detached"):
        client.compute.begin_delete("k8s")
    with pytest.raises(ResourceNotFoundError, match="AKS cluster .* was not found"):
        attach(client, entities, "other", f"{OUTSIDE}-2")


def test_both_sdks_see_the_same_clusters(client: Any, entities: Any, emulator: Emulator, steps: Any) -> None:
    from azure.core.exceptions import HttpResponseError

    ws = emulator.workspace()
    made = steps.cluster(ws)
    attach(client, entities, resource_id=made.cluster_resource_id)
    assert {one.name: type(one).__name__ for one in client.compute.list()} == {
        "aks-gpu": "UnsupportedCompute",
        "k8s": "KubernetesCompute",
    }
    assert {name: target.type for name, target in ws.compute_targets.items()} == {
        "aks-gpu": "AKS",
        "k8s": "Kubernetes",
    }
    assert emulator.billed() == ["aks-gpu"]
    for compute, message in (("aks-gpu", "on AKS compute type is no longer supported"), ("gone", "was not found")):
        wanted = entities.KubernetesOnlineEndpoint(name="on-aks", compute=compute)
        with pytest.raises(HttpResponseError, match=message):
            client.online_endpoints.begin_create_or_update(wanted)


def test_attaching_takes_its_time(start: Callable[..., Emulator], entities: Any) -> None:
    emulator = start(transitions={"compute.attach": Transition.after_polls(1)})
    emulator.add_aks(OUTSIDE, vm_size="Standard_NC4as_T4_v3", nodes=2)
    client = emulator.ml_client()
    poller = client.compute.begin_attach(entities.KubernetesCompute(name="k8s", resource_id=OUTSIDE))
    poller.wait(20)  # a second between two looks, not the SDK's thirty
    assert poller.result().provisioning_state == "Succeeded"


def test_sizes_are_those_of_the_catalog_that_can_be_had(client: Any) -> None:
    sizes = {size.name: vars(size) for size in client.compute.list_sizes()}
    managed = {size.name for size in client.compute.list_sizes(compute_type="MIR")}
    assert sizes["Standard_NC4as_T4_v3"]["vCPUs"] == 4
    assert sizes["Standard_NC4as_T4_v3"]["family"] == FAMILY
    assert "Standard_NC6" not in sizes
    assert "Standard_NC4as_T4_v3" in managed
    assert "Standard_D3_v2" in set(sizes) - managed


def test_usage_has_limits_that_can_be_set(client: Any, emulator: Emulator) -> None:
    def usage() -> dict[str, tuple[int, int]]:
        return {
            found["name"]["value"]: (found["currentValue"], found["limit"])
            for found in map(vars, client.compute.list_usage())
        }

    assert usage()[FAMILY] == (0, 10_000)
    emulator.set_quota(FAMILY.upper(), 6)
    emulator.set_quota("total", 100)
    assert usage()[FAMILY] == (0, 6)
    assert usage()["Total Cluster Dedicated Regional vCPUs"] == (0, 100)
    with pytest.raises(ValueError, match="no quota 'standardNCFamily'"):
        emulator.set_quota("standardNCFamily", 6)
    with pytest.raises(ValueError, match="cannot be -1"):
        emulator.set_quota(FAMILY, -1)
