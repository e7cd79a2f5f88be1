"""Azure's clients of other services: AKS clusters by azure-mgmt-containerservice, beside both SDKs of Azure ML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault, Transition
from gpu_infer.emulator.routes import MANAGEMENT
from gpu_infer.emulator.routing import Table

SIZE = "Standard_NC4as_T4_v3"
FAMILY = "standard NCASv3_T4 Family"


@pytest.fixture
def emulator(start: Callable[..., Emulator], request: pytest.FixtureRequest) -> Iterator[Emulator]:
    emulator = start(**getattr(request, "param", {}))
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def clusters(emulator: Emulator) -> Iterator[Any]:
    """``managed_clusters`` of the real client."""
    sdk = pytest.importorskip("azure.mgmt.containerservice", reason="azure-mgmt-containerservice is not installed")
    arguments = (emulator.credential(), emulator.subscription_id)
    with sdk.ContainerServiceClient(*arguments, base_url=emulator.tls_url) as client:
        yield client.managed_clusters


def body(nodes: int = 2, **options: Any) -> dict[str, Any]:
    system = {"name": "system", "count": 1, "vmSize": "Standard_D4as_v5", "mode": "System"}
    gpus = {"name": "gpu", "count": nodes, "vmSize": SIZE, "mode": "User"}
    return {"location": "eastus", "properties": {"dnsPrefix": "mine", "agentPoolProfiles": [system, gpus]}, **options}


def create(clusters: Any, name: str = "mine", group: str = "gpus", **options: Any) -> Any:
    return clusters.begin_create_or_update(group, name, body(**options)).result()


def test_a_cluster_is_made_changed_and_removed(clusters: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    made = create(clusters, tags={"of": "test"})
    assert (made.name, made.provisioning_state, made.tags, made.dns_prefix) == (
        "mine",
        "Succeeded",
        {"of": "test"},
        "mine",
    )
    assert [(pool.vm_size, pool.count) for pool in made.agent_pool_profiles] == [("Standard_D4as_v5", 1), (SIZE, 2)]
    assert emulator.billed() == ["mine"]
    assert create(clusters, nodes=3).agent_pool_profiles[1].count == 3
    assert clusters.get("GPUS", "mine").agent_pool_profiles[1].count == 3
    assert clusters.begin_update_tags("gpus", "mine", {"tags": {"of": "all"}}).result().tags == {"of": "all"}
    assert [one.name for one in clusters.list()] == ["mine"]
    assert [one.name for one in clusters.list_by_resource_group("others")] == []
    clusters.begin_delete("gpus", "mine").result()
    assert emulator.billed() == []
    with pytest.raises(ResourceNotFoundError, match="managedClusters/mine' was not found"):
        clusters.get("gpus", "mine")
    clusters.begin_delete("gpus", "mine").result()  # of what is not there Azure says 204
    asked = {call.operation for call in emulator.requests}
    assert asked == {name for name in Table(MANAGEMENT).operations if name.startswith("aks.")}


@pytest.mark.parametrize("emulator", [{"transitions": Transition.after_polls(1)}], indirect=True)
def test_it_takes_its_time_and_allows_one_change_at_once(clusters: Any) -> None:
    from azure.core.exceptions import ResourceExistsError

    clusters.begin_create_or_update("gpus", "mine", body(), polling=False)
    with pytest.raises(ResourceExistsError, match="Another operation is in progress"):
        clusters.begin_delete("gpus", "mine")
    states = [clusters.get("gpus", "mine").provisioning_state for _ in range(2)]
    assert states == ["Creating", "Succeeded"]


def test_all_clients_see_one_cluster(clusters: Any, emulator: Emulator, online: Any, steps: Any) -> None:
    made = create(clusters, nodes=1)
    client = emulator.ml_client()
    online.on_kubernetes(client, emulator, resource_id=made.id)
    online.deploy(client, endpoint="on-aks", resources=online.gpu())
    steps.cluster(emulator.workspace(), "theirs", nodes=3)
    shown = {one.name: one.agent_pool_profiles[-1].count for one in clusters.list()}
    assert sorted(shown.values()) == [1, 3]
    assert sorted(emulator.billed()) == ["mine", "theirs"]


@pytest.mark.parametrize("emulator", [{"run_services": True}], indirect=True)
def test_what_runs_on_a_cluster_goes_with_it(clusters: Any, emulator: Emulator, online: Any) -> None:
    client = emulator.ml_client()
    online.on_kubernetes(client, emulator, resource_id=create(clusters).id)
    online.deploy(client, endpoint="on-aks", resources=online.gpu())
    clusters.begin_delete("gpus", "mine").result()
    assert client.online_deployments.get("blue", "on-aks").provisioning_state == "Failed"
    headers = {"azureml-model-deployment": "blue"}
    answer = requests.post(client.online_endpoints.get("on-aks").scoring_uri, headers=headers, timeout=30)
    assert (answer.status_code, answer.text) == (503, "No ready replicas for deployment blue")


def test_what_fails_stays_and_is_billed(clusters: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import HttpResponseError

    emulator.add_fault(Fault("aks.create", "fail_operation"))
    with pytest.raises(HttpResponseError, match="An internal server error occurred"):
        create(clusters)
    assert clusters.get("gpus", "mine").provisioning_state == "Failed"
    assert emulator.billed() == ["mine"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"properties": {}}, "agentPoolProfiles is missing"),
        ({"properties": {"agentPoolProfiles": [{"name": "a", "count": 1, "vmSize": "Standard_NC6"}]}}, "Standard_NC6"),
        ({"properties": {"agentPoolProfiles": [{"name": "a", "count": 0, "vmSize": SIZE}]}}, "count is invalid: 0"),
        ({"location": ""}, "location property is required"),
    ],
)
def test_what_cannot_be_is_refused(clusters: Any, emulator: Emulator, change: dict[str, Any], message: str) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match=message):
        clusters.begin_create_or_update("gpus", "mine", body(**change))
    emulator.set_quota(FAMILY, 7)
    with pytest.raises(HttpResponseError, match=f"quota requested 8, remaining 7 for family {FAMILY}"):
        clusters.begin_create_or_update("gpus", "mine", body())
    assert emulator.billed() == []
