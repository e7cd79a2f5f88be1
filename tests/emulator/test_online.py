"""Online endpoints made, changed and removed by the real azure-ai-ml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault, Transition
from gpu_infer.emulator.routes import ONLINE
from gpu_infer.emulator.routing import Table

pytestmark = pytest.mark.usefixtures("entities")


@pytest.fixture
def emulator(start: Callable[..., Emulator]) -> Iterator[Emulator]:
    emulator = start()
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator) -> Any:
    return emulator.ml_client()


def create(client: Any, entities: Any, **options: Any) -> Any:
    endpoint = entities.ManagedOnlineEndpoint(**{"name": "gpu-rn", "auth_mode": "key", **options})
    return client.online_endpoints.begin_create_or_update(endpoint).result()


def arm(emulator: Emulator, rest: str) -> str:
    group = f"{emulator.url}/subscriptions/{emulator.subscription_id}/resourceGroups/{emulator.resource_group}"
    return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{emulator.name}/{rest}"


def operations(emulator: Emulator) -> list[str]:
    return [call.operation for call in emulator.requests]


def test_a_managed_endpoint_is_created_and_shown(client: Any, entities: Any, emulator: Emulator) -> None:
    made = create(client, entities, description="digits", tags={"of": "test"}, properties={"own": "1"})
    assert operations(emulator) == ["workspace.get", "endpoints.create", "online.operation", "endpoints.get"]
    assert emulator.requests[1].status == 201
    shown = client.online_endpoints.get("gpu-rn")
    for one in (made, shown):
        assert type(one) is entities.ManagedOnlineEndpoint
        assert (one.name, one.provisioning_state, one.auth_mode, one.traffic) == ("gpu-rn", "Succeeded", "key", {})
        assert (one.description, one.tags, one.properties["own"]) == ("digits", {"of": "test"}, "1")
        assert one.scoring_uri == f"{emulator.url}/api/v1/endpoint/gpu-rn/score"


def test_an_endpoint_with_a_compute_is_one_on_kubernetes(client: Any, entities: Any, emulator: Emulator) -> None:
    aks = "/subscriptions/s/resourcegroups/theirs/providers/Microsoft.ContainerService/managedClusters/their-aks"
    emulator.add_aks(aks, vm_size="Standard_NC4as_T4_v3", nodes=1)
    client.compute.begin_attach(entities.KubernetesCompute(name="k8s", resource_id=aks)).result()
    wanted = entities.KubernetesOnlineEndpoint(name="on-aks", compute="k8s", auth_mode="aml_token")
    made = client.online_endpoints.begin_create_or_update(wanted).result()
    assert type(made) is entities.KubernetesOnlineEndpoint
    assert made.compute.endswith(f"/workspaces/{emulator.name}/computes/k8s")
    create(client, entities)
    assert {one.name: type(one).__name__ for one in client.online_endpoints.list()} == {
        "on-aks": "KubernetesOnlineEndpoint",
        "gpu-rn": "ManagedOnlineEndpoint",
    }


def test_an_update_replaces_all_that_was_said(client: Any, entities: Any, emulator: Emulator) -> None:
    create(client, entities, tags={"a": "1"}, description="first")
    emulator.clear_log()
    changed = create(client, entities, tags={"b": "2"}, auth_mode="aad_token")
    assert (changed.tags, changed.description, changed.auth_mode) == ({"b": "2"}, None, "aad_token")
    assert ("endpoints.update", 200) in [(call.operation, call.status) for call in emulator.requests]


@pytest.mark.parametrize("which", ["primary", "secondary"])
def test_a_key_is_renewed_and_the_other_stays(client: Any, entities: Any, emulator: Emulator, which: str) -> None:
    create(client, entities)
    before = vars(client.online_endpoints.get_keys("gpu-rn"))
    emulator.clear_log()
    client.online_endpoints.begin_regenerate_keys("gpu-rn", key_type=which).result()
    asked = [(call.operation, call.status) for call in emulator.requests]
    assert asked[-2:] == [("endpoints.regenerate", 202), ("online.result", 204)]
    after = vars(client.online_endpoints.get_keys("gpu-rn"))
    assert {name for name in before if before[name] != after[name]} == {f"{which}_key"}
    assert client.online_endpoints.get("gpu-rn").provisioning_state == "Succeeded"


def test_a_deleted_endpoint_is_gone(client: Any, entities: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    create(client, entities)
    emulator.clear_log()
    client.online_endpoints.begin_delete("gpu-rn").result()
    asked = [(call.operation, call.status) for call in emulator.requests]
    assert asked == [("endpoints.delete", 202), ("online.result", 204)]
    assert list(client.online_endpoints.list()) == []
    with pytest.raises(ResourceNotFoundError, match="'gpu-rn' was not found"):
        client.online_endpoints.get("gpu-rn")
    client.online_endpoints.begin_delete("gpu-rn").result()  # of what is not there Azure says 204


def test_every_operation_of_this_half_is_asked_for(
    client: Any, entities: Any, emulator: Emulator, tmp_path: Path
) -> None:
    create(client, entities)
    create(client, entities, auth_mode="aml_token")
    client.online_endpoints.get_keys("gpu-rn")
    assert client.online_endpoints.get("gpu-rn").name in [one.name for one in client.online_endpoints.list()]
    assert list(client.online_deployments.list("gpu-rn")) == []
    create(client, entities)
    client.online_endpoints.begin_regenerate_keys("gpu-rn").result()
    client.online_endpoints.begin_delete("gpu-rn").result()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("def init(): ...\n")
    for _ in range(2):
        client.models.create_or_update(entities.Model(name="net", path=tmp_path / "code"))
        client.environments.create_or_update(entities.Environment(name="gpu", image="an/image"))
    client.models.download("net", version="1", download_path=tmp_path / "down")
    assert client.models.get("net", "1").name == next(iter(client.models.list())).name
    assert client.environments.get("gpu", "1").name == next(iter(client.environments.list())).name
    assert list(client.environments.list("gpu"))
    code = client._code.create_or_update(entities._assets.Code(name="mine", version="1", path=tmp_path / "code"))
    assert client._code.get("mine", "1").id == code.id
    assert (
        client.datastores.get("workspaceblobstore").container_name
        == next(iter(client.datastores.list())).container_name
    )
    create(client, entities)
    configuration = entities.CodeConfiguration(code=str(tmp_path / "code"), scoring_script="score.py")
    options = {"model": "azureml:net:1", "environment": "azureml:gpu:1", "instance_type": "Standard_NC4as_T4_v3"}
    wanted = entities.ManagedOnlineDeployment(
        name="blue", endpoint_name="gpu-rn", code_configuration=configuration, instance_count=1, **options
    )
    for _ in range(2):
        client.online_deployments.begin_create_or_update(wanted, skip_script_validation=True).result()
    assert "run_services=False" in client.online_deployments.get_logs("blue", "gpu-rn", lines=1)
    assert client.online_deployments.get("blue", "gpu-rn").name == "blue"
    client.online_deployments.begin_delete("blue", "gpu-rn").result()
    assert list(client.compute.list_usage())
    assert set(operations(emulator)) - {"workspace.get"} == Table(ONLINE).operations


def test_an_operation_takes_as_many_looks_as_was_said(start: Callable[..., Emulator], header: dict[str, str]) -> None:
    emulator = start(transitions=Transition.after_polls(2))
    url = arm(emulator, "onlineEndpoints/slow")
    body = {"location": "eastus", "properties": {"authMode": "Key"}}
    made = requests.put(url, json=body, headers=header, timeout=30)
    assert (made.status_code, made.json()["properties"]["provisioningState"]) == (201, "Creating")
    assert made.headers["x-ms-async-operation-timeout"] == "PT1H"
    again = requests.put(url, json=body, headers=header, timeout=30)
    assert (again.status_code, "active operation" in again.json()["error"]["message"]) == (409, True)
    look = [requests.get(made.headers["Azure-AsyncOperation"], headers=header, timeout=30) for _ in range(3)]
    assert [one.json()["status"] for one in look] == ["InProgress", "InProgress", "Succeeded"]
    assert [one.headers.get("Retry-After") for one in look] == ["1", "1", None]
    gone = requests.delete(url, headers=header, timeout=30)
    assert (gone.status_code, gone.headers["Retry-After"]) == (202, "1")
    results = [requests.get(gone.headers["Location"], headers=header, timeout=30).status_code for _ in range(3)]
    assert results == [202, 202, 204]
    assert requests.get(url, headers=header, timeout=30).status_code == 404


def test_a_creation_that_fails_is_said_with_status_200(client: Any, entities: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import HttpResponseError

    error = {"code": "InternalServerError", "message": "no luck", "statusCode": 500}
    emulator.add_fault(Fault("endpoints.create", "fail_operation", error=error))
    with pytest.raises(HttpResponseError) as failed:
        create(client, entities)
    assert failed.value.status_code == 200
    assert failed.value.error is not None
    assert (failed.value.error.code, failed.value.error.message) == ("InternalServerError", "no luck")
    assert client.online_endpoints.get("gpu-rn").provisioning_state == "Failed"


def test_a_deletion_that_fails_leaves_the_endpoint(client: Any, entities: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import HttpResponseError

    create(client, entities)
    emulator.add_fault(Fault("endpoints.delete", "fail_operation", error={"code": "Locked", "message": "no luck"}))
    with pytest.raises(HttpResponseError, match="no luck"):
        client.online_endpoints.begin_delete("gpu-rn").result()
    assert client.online_endpoints.get("gpu-rn").provisioning_state == "Failed"


def test_traffic_to_nobody_is_refused(client: Any, entities: Any) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match="does not have: blue") as refused:
        create(client, entities, traffic={"blue": 100})
    assert refused.value.status_code == 400
    assert list(client.online_endpoints.list()) == []


@pytest.mark.parametrize(
    ("name", "properties", "message"),
    [
        ("a_b", {"authMode": "Key"}, "'a_b' is no name of an endpoint"),
        ("good", {"authMode": "Password"}, "is Key, AMLToken, AADToken, not 'Password'"),
        ("good", {"authMode": "Key", "traffic": {"blue": "all"}}, "traffic of blue is no whole number"),
    ],
)
def test_what_no_endpoint_can_be_is_refused(
    emulator: Emulator, header: dict[str, str], name: str, properties: dict[str, Any], message: str
) -> None:
    body = {"location": "eastus", "properties": properties}
    refused = requests.put(arm(emulator, f"onlineEndpoints/{name}"), json=body, headers=header, timeout=30)
    assert (refused.status_code, message in refused.json()["error"]["message"]) == (400, True)


def test_traffic_moves_from_one_deployment_to_the_other(client: Any, emulator: Emulator, tmp_path: Any) -> None:
    from azure.core.exceptions import HttpResponseError

    (tmp_path / "score.py").write_text("def init(): ...\n\n\ndef run(data): ...\n")
    emulator.add_endpoint("split")
    for name, traffic in (("blue", 100), ("green", 0)):
        emulator.add_deployment("split", tmp_path, name=name, traffic=traffic)
    endpoint = client.online_endpoints.get("split")
    assert endpoint.traffic == {"blue": 100, "green": 0}
    endpoint.traffic = {"blue": 30, "green": 70}
    assert client.online_endpoints.begin_create_or_update(endpoint).result().traffic == {"blue": 30, "green": 70}
    endpoint.traffic = {"blue": 30, "green": 60}
    with pytest.raises(HttpResponseError, match="0 or 100 percent, not 90"):
        client.online_endpoints.begin_create_or_update(endpoint)
    assert client.online_endpoints.get("split").traffic == {"blue": 30, "green": 70}
