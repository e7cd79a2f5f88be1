"""Nodes, GPUs and quota: what fits, what does not, and in whose words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpu_infer.emulator import Emulator, Fault
from gpu_infer.emulator.compute.models import Aks, Pod, unschedulable

CPU_SIZE = "Standard_D3_v2"


def failure(service: Any) -> tuple[str, list[dict[str, str]]]:
    from azureml.exceptions import WebserviceException

    with pytest.raises(WebserviceException, match="non-successful terminal state"):
        service.wait_for_deployment()
    return service.state, service.error["details"]


def test_three_replicas_find_no_room_on_two_gpu_nodes(ws: Any, steps: Any) -> None:
    service = steps.deploy(ws, steps.cluster(ws, nodes=2), [steps.model(ws)], num_replicas=3)
    assert failure(service) == (
        "Unschedulable",
        [{"code": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."}],
    )
    assert service.error["code"] == "KubernetesError"


def test_three_replicas_find_room_on_three_gpu_nodes(ws: Any, steps: Any) -> None:
    service = steps.deploy(ws, steps.cluster(ws, nodes=3), [steps.model(ws)], num_replicas=3)
    service.wait_for_deployment()
    assert service.state == "Healthy"


def test_services_share_the_gpus_of_a_cluster(ws: Any, steps: Any) -> None:
    cluster, model = steps.cluster(ws, nodes=3), steps.model(ws)
    first = steps.deploy(ws, cluster, [model], "first", num_replicas=2)
    second = steps.deploy(ws, cluster, [model], "second", num_replicas=2)
    assert (first.state, second.state) == ("Healthy", "Unschedulable")
    first.delete()
    assert steps.deploy(ws, cluster, [model], "second", num_replicas=2, overwrite=True).state == "Healthy"


def test_a_service_that_failed_holds_no_gpus(ws: Any, steps: Any) -> None:
    cluster, model = steps.cluster(ws, nodes=1), steps.model(ws)
    assert steps.deploy(ws, cluster, [model], "first", num_replicas=2).state == "Unschedulable"
    assert steps.deploy(ws, cluster, [model], "second").state == "Healthy"


def test_an_update_in_place_needs_no_other_gpus(ws: Any, steps: Any) -> None:
    service = steps.deploy(ws, steps.cluster(ws, nodes=2), [steps.model(ws)], num_replicas=2)
    service.update(tags={"still": "there"})
    assert service.state == "Healthy"
    service.update(num_replicas=3)
    assert (service.state, service.num_replicas) == ("Unschedulable", 2)
    service.update(num_replicas=1)
    assert (service.state, service.num_replicas) == ("Healthy", 1)


def test_an_autoscaled_service_needs_room_for_its_least_replicas(ws: Any, steps: Any) -> None:
    cluster, model = steps.cluster(ws, nodes=2), steps.model(ws)
    scale = {"num_replicas": None, "autoscale_enabled": True, "autoscale_max_replicas": 9}
    service = steps.deploy(ws, cluster, [model], autoscale_min_replicas=2, **scale)
    assert (service.state, service.autoscaler.max_replicas) == ("Healthy", 9)
    assert steps.deploy(ws, cluster, [model], "second", autoscale_min_replicas=3, **scale).state == "Unschedulable"


@pytest.mark.parametrize("gpus", [1, None], ids=["asks for a GPU", "has a GPU image"])
def test_cpu_nodes_refuse_a_gpu_service_before_it_begins(gpus: int | None, ws: Any, steps: Any) -> None:
    from azureml.core import Webservice
    from azureml.exceptions import WebserviceException

    cluster = steps.cluster(ws, "aks-cpu", size=CPU_SIZE)
    with pytest.raises(WebserviceException, match="insufficient compute resource.*Standard_D3_v2, which has none"):
        steps.deploy(ws, cluster, [steps.model(ws)], gpu_cores=gpus)
    assert Webservice.list(ws) == []


def test_a_check_that_fails_is_ignored_and_kubernetes_says_it(emulator: Emulator, ws: Any, steps: Any) -> None:
    emulator.add_fault(Fault("services.validate", status=404, times=None))
    service = steps.deploy(ws, steps.cluster(ws, "aks-cpu", size=CPU_SIZE), [steps.model(ws)])
    assert failure(service)[1][0]["message"] == "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def test_cpu_nodes_take_a_cpu_service(ws: Any, steps: Any) -> None:
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig

    environment = Environment("cpu")
    environment.docker.base_image = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
    inference = InferenceConfig("score.py", source_directory="src", environment=environment)
    cluster = steps.cluster(ws, "aks-cpu", size=CPU_SIZE)
    assert steps.deploy(ws, cluster, [steps.model(ws)], gpu_cores=None, inference=inference).state == "Healthy"


@pytest.mark.parametrize(("options", "short"), [({"cpu_cores": 5}, "cpu"), ({"memory_gb": 29}, "memory")])
def test_a_replica_larger_than_a_node_finds_no_room(options: dict[str, int], short: str, ws: Any, steps: Any) -> None:
    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)], **options)
    assert failure(service)[1][0]["message"] == f"0/3 nodes are available: 3 Insufficient {short}."


@pytest.mark.parametrize(
    ("vm_size", "nodes", "running", "wanted", "fits"),
    [
        ("Standard_NC64as_T4_v3", 1, [], [2, 2], True),
        ("Standard_NC64as_T4_v3", 1, [1], [4], False),
        ("Standard_NC64as_T4_v3", 2, [1], [4], True),
        ("Standard_NC64as_T4_v3", 2, [3, 3], [2], False),
        ("Standard_NC64as_T4_v3", 2, [3, 2], [1, 2], True),
        ("Standard_NV6ads_A10_v5", 1, [], [1], True),
        ("Standard_NV6ads_A10_v5", 1, [], [1, 1], False),
        ("Standard_D3_v2", 1, [], [0, 0], True),
    ],
)
def test_pods_are_placed_node_by_node(
    vm_size: str, nodes: int, running: list[int], wanted: list[int], fits: bool
) -> None:
    aks = Aks("aks", "id", vm_size, nodes, ours=True)
    message = unschedulable(aks, [Pod(gpus) for gpus in running], [Pod(gpus) for gpus in wanted])
    assert message == (None if fits else f"0/{nodes} nodes are available: {nodes} Insufficient nvidia.com/gpu.")


@pytest.mark.parametrize("key", ["Standard_NC4as_T4_v3", "family", "total"])
def test_a_cluster_over_the_quota_fails(key: str, start: Callable[..., Emulator], steps: Any) -> None:
    from azureml.exceptions import ComputeTargetException

    from gpu_infer import catalog

    size = catalog.find_size("Standard_NC4as_T4_v3")
    assert size is not None
    name = size.family if key == "family" else key
    ws = start(quota={name: 15}).workspace()
    cluster = steps.cluster(ws, nodes=4)
    numbers = "Limit: 15, Current Usage: 0, Additional Required: 16"
    pattern = rf"QuotaExceeded[\s\S]*exceeding approved {name} Cores quota.*{numbers}"
    with pytest.raises(ComputeTargetException, match=pattern):
        cluster.wait_for_completion()
    assert cluster.provisioning_errors[0]["error"]["code"] == "BadArgument"
    smaller = steps.cluster(ws, "smaller", nodes=3)
    smaller.wait_for_completion()
    assert smaller.provisioning_state == "Succeeded"


def test_the_quota_counts_what_is_there(start: Callable[..., Emulator], steps: Any) -> None:
    ws = start(quota={"total": 23}).workspace()
    assert steps.cluster(ws, "first", nodes=3).get_status() == "Succeeded"
    assert steps.cluster(ws, "second", nodes=3).get_status() == "Failed"


def test_the_live_list_of_sizes_has_no_retired_ones(ws: Any) -> None:
    from azureml.core.compute import AmlCompute

    sizes = {size["name"]: size["gpus"] for size in AmlCompute.supported_vmsizes(ws)}
    assert "Standard_NC6" not in sizes
    assert (sizes["Standard_NC4as_T4_v3"], sizes["Standard_NC64as_T4_v3"], sizes[CPU_SIZE]) == (1, 4, 0)
