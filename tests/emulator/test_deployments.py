"""Deployments of online endpoints, made by the real azure-ai-ml, that really run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault, Transition

SCORE = """
import json
import os

def init():
    global weights
    (name,) = os.listdir(os.environ["AZUREML_MODEL_DIR"])
    weights = open(os.path.join(os.environ["AZUREML_MODEL_DIR"], name)).read()
    print("init ran as", os.environ["WHO"])

def run(data):
    return {"doubled": [2 * n for n in json.loads(data)["data"]], "who": os.environ["WHO"], "weights": weights}
"""
CRASHING = "def init():\n    raise LookupError('no weights')\n\n\ndef run(data): ...\n"


pytestmark = pytest.mark.usefixtures("entities")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCORE)
    (tmp_path / "net.bin").write_text("heavy")
    (tmp_path / "request.json").write_text('{"data": [1, 2]}')
    return tmp_path


@pytest.fixture
def emulator(start: Callable[..., Emulator], request: pytest.FixtureRequest) -> Iterator[Emulator]:
    emulator = start(**getattr(request, "param", {"run_services": True}))
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator, entities: Any) -> Any:
    client = emulator.ml_client()
    client.online_endpoints.begin_create_or_update(entities.ManagedOnlineEndpoint(name="gpu-rn")).result()
    return client


no_processes = pytest.mark.parametrize("emulator", [{"run_services": False}], indirect=True)


def deployment(entities: Any, source: Path, name: str = "blue", **options: Any) -> Any:
    filled = {
        "model": entities.Model(name="net", version="1", path=source / "net.bin"),
        "environment": entities.Environment(name="gpu", version="1", image="an/image"),
        "code_configuration": entities.CodeConfiguration(code=str(source / "code"), scoring_script="score.py"),
        "environment_variables": {"WHO": name},
        "instance_type": "Standard_NC4as_T4_v3",
        "instance_count": 1,
        **options,
    }
    return entities.ManagedOnlineDeployment(name=name, endpoint_name="gpu-rn", **filled)


def deploy(client: Any, entities: Any, source: Path, name: str = "blue", **options: Any) -> Any:
    wanted = deployment(entities, source, name, **options)
    return client.online_deployments.begin_create_or_update(wanted).result()


def send(client: Any, traffic: dict[str, int]) -> None:
    endpoint = client.online_endpoints.get("gpu-rn")
    endpoint.traffic = traffic
    client.online_endpoints.begin_create_or_update(endpoint).result()


def score(client: Any, emulator: Emulator, **headers: str) -> requests.Response:
    key = client.online_endpoints.get_keys("gpu-rn").primary_key
    url = f"{emulator.url}/api/v1/endpoint/gpu-rn/score"
    return requests.post(
        url, data='{"data": [1, 2]}', headers={"Authorization": f"Bearer {key}", **headers}, timeout=30
    )


def test_what_is_deployed_runs_and_what_replaces_it_too(
    client: Any, entities: Any, emulator: Emulator, source: Path
) -> None:
    made = deploy(client, entities, source, instance_count=2, tags={"of": "test"})
    assert (made.name, made.endpoint_name, made.instance_count, made.tags) == ("blue", "gpu-rn", 2, {"of": "test"})
    assert (made.provisioning_state, made.instance_type) == ("Succeeded", "Standard_NC4as_T4_v3")
    assert score(client, emulator).status_code == 404  # nobody gets traffic yet
    send(client, {"blue": 100})
    invoked = client.online_endpoints.invoke(endpoint_name="gpu-rn", request_file=str(source / "request.json"))
    assert json.loads(invoked) == {"doubled": [2, 4], "who": "blue", "weights": "heavy"}
    logs = client.online_deployments.get_logs("blue", "gpu-rn", lines=500)
    assert "init ran as blue" in logs
    fetched = client.online_deployments.get_logs("blue", "gpu-rn", lines=1, container_type="storage-initializer")
    assert fetched == "Fetched azureml-models/net/1/net.bin"
    deploy(client, entities, source, environment_variables={"WHO": "blue again"})
    assert score(client, emulator).json()["who"] == "blue again"
    assert client.online_deployments.get("blue", "gpu-rn").instance_count == 1


def test_a_script_that_crashes_fails_with_its_traceback_in_the_log(
    client: Any, entities: Any, emulator: Emulator, source: Path
) -> None:
    from azure.core.exceptions import HttpResponseError

    (source / "code" / "score.py").write_text(CRASHING)
    with pytest.raises(HttpResponseError) as failed:
        deploy(client, entities, source)
    assert failed.value.status_code == 200
    assert failed.value.error is not None
    assert failed.value.error.code == "ResourceNotReady"
    assert "HTTP probe failed with statuscode: 502" in str(failed.value.error.message)
    assert client.online_deployments.get("blue", "gpu-rn").provisioning_state == "Failed"
    assert "LookupError: no weights" in client.online_deployments.get_logs("blue", "gpu-rn", lines=500)
    assert score(client, emulator, **{"azureml-model-deployment": "blue"}).status_code == 503
    (source / "code" / "score.py").write_text(SCORE)
    assert deploy(client, entities, source).provisioning_state == "Succeeded"
    assert score(client, emulator, **{"azureml-model-deployment": "blue"}).status_code == 200


@no_processes
def test_one_with_traffic_is_not_deleted(client: Any, entities: Any, emulator: Emulator, source: Path) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    for name in ("blue", "green"):
        deploy(client, entities, source, name)
    send(client, {"blue": 100})
    with pytest.raises(HttpResponseError, match="gets 100 percent of the traffic"):
        client.online_deployments.begin_delete("blue", "gpu-rn")
    send(client, {"green": 100})
    client.online_deployments.begin_delete("blue", "gpu-rn").result()
    assert [one.name for one in client.online_deployments.list("gpu-rn")] == ["green"]
    with pytest.raises(ResourceNotFoundError, match="'blue' was not found"):
        client.online_deployments.get("blue", "gpu-rn")
    assert "run_services=False" in client.online_deployments.get_logs("green", "gpu-rn", lines=5)


@no_processes
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code_configuration": None}, "runs deployments with a code_configuration, and"),
        ({"model": "azureml:gone:7"}, "'gone:7' was not found"),
        ({"environment": "azureml:gone:7"}, "no version 7 of 'gone' among the environments"),
    ],
)
def test_what_cannot_run_is_refused(
    client: Any, entities: Any, source: Path, options: dict[str, Any], message: str
) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match=message):
        deploy(client, entities, source, **options)
    assert list(client.online_deployments.list("gpu-rn")) == []


@no_processes
def test_a_fault_fails_the_deployment(client: Any, entities: Any, emulator: Emulator, source: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    error = {"code": "ImageBuildFailure", "message": "no such package", "details": []}
    emulator.add_fault(Fault("deployments.create", "fail_operation", error=error))
    with pytest.raises(HttpResponseError) as failed:
        deploy(client, entities, source)
    assert failed.value.error is not None
    assert (failed.value.status_code, failed.value.error.code) == (200, "ImageBuildFailure")
    assert client.online_deployments.get("blue", "gpu-rn").provisioning_state == "Failed"
    client.online_deployments.begin_delete("blue", "gpu-rn").result()


@no_processes
def test_after_an_update_that_fails_what_runs_is_shown(
    client: Any, entities: Any, emulator: Emulator, source: Path
) -> None:
    from azure.core.exceptions import HttpResponseError

    deploy(client, entities, source, tags={"of": "the first"})
    emulator.add_fault(Fault("deployments.update", "fail_operation"))
    with pytest.raises(HttpResponseError, match="An internal server error occurred"):
        deploy(client, entities, source, instance_count=3, environment_variables={"WHO": "nobody"})
    shown = client.online_deployments.get("blue", "gpu-rn")
    assert (shown.provisioning_state, shown.instance_count, shown.tags) == ("Failed", 1, {"of": "the first"})
    assert shown.environment_variables == {"WHO": "blue"}


@no_processes
@pytest.mark.parametrize(
    ("sku", "settings", "message"),
    [
        ({"capacity": "many"}, {}, "capacity .* not 'many'"),
        ({"capacity": 0}, {}, "capacity .* not 0"),
        ({"capacity": 1}, {"maxConcurrentRequestsPerInstance": [2]}, "maxConcurrentRequestsPerInstance .* not .2"),
        ({"capacity": 1}, {"requestTimeout": "soon"}, "'soon' is no duration"),
    ],
)
def test_what_is_no_number_is_refused(
    client: Any,
    entities: Any,
    emulator: Emulator,
    source: Path,
    header: dict[str, str],
    sku: dict[str, Any],
    settings: dict[str, Any],
    message: str,
) -> None:
    deploy(client, entities, source)
    sent = next(call for call in emulator.requests if call.operation == "deployments.create")
    body = {**sent.body, "sku": sku, "properties": {**sent.body["properties"], "requestSettings": settings}}
    refused = requests.put(emulator.url + sent.path, json=body, headers=header, timeout=30)
    assert refused.status_code == 400
    assert re.search(message, refused.json()["error"]["message"])
    assert client.online_deployments.get("blue", "gpu-rn").provisioning_state == "Succeeded"


@pytest.mark.parametrize(
    "emulator",
    [{"run_services": False, "transitions": {"deployments.update": Transition.after_polls(2)}}],
    indirect=True,
)
def test_a_second_change_waits_for_the_first(
    client: Any, entities: Any, emulator: Emulator, source: Path, header: dict[str, str]
) -> None:
    deploy(client, entities, source)
    sent = next(call for call in emulator.requests if call.operation == "deployments.create")
    url = emulator.url + sent.path
    changed = requests.put(url, json=sent.body, headers=header, timeout=30)
    assert (changed.status_code, changed.json()["properties"]["provisioningState"]) == (200, "Updating")
    for verb, body in (("PUT", sent.body), ("DELETE", None)):
        refused = requests.request(verb, url, json=body, headers=header, timeout=30)
        assert (refused.status_code, "active operation" in refused.json()["error"]["message"]) == (409, True)
