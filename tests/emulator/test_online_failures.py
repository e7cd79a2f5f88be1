"""Deployments of azure-ai-ml that fail, or are refused, as Azure's are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault

pytestmark = pytest.mark.usefixtures("entities")

FAMILY = "standard NCASv3_T4 Family"
HANGS = (
    "import threading\n\n\ndef init():\n    print('loading')\n    threading.Event().wait()\n\n\ndef run(data): ...\n"
)
CRASHES = "def init():\n    raise LookupError('no weights')\n\n\ndef run(data): ...\n"


@pytest.fixture
def emulator(start: Callable[..., Emulator], request: pytest.FixtureRequest) -> Iterator[Emulator]:
    emulator = start(**getattr(request, "param", {}))
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator, online: Any) -> Any:
    client = emulator.ml_client()
    online.endpoint(client)
    return client


running = pytest.mark.parametrize("emulator", [{"run_services": True}], indirect=True)


def failed(client: Any, online: Any, name: str = "blue", **options: Any) -> Any:
    """The error of a deployment that is begun, and fails."""
    from azure.core.exceptions import HttpResponseError

    poller = client.online_deployments.begin_create_or_update(online.deployment(name, **options))
    with pytest.raises(HttpResponseError) as caught:
        poller.result()
    assert caught.value.status_code == 200
    endpoint = options.get("endpoint", "gpu-rn")
    assert client.online_deployments.get(name, endpoint).provisioning_state == "Failed"
    return caught.value.error


def refused(client: Any, online: Any, name: str = "blue", **options: Any) -> Any:
    """The answer to a deployment that is not begun."""
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as caught:
        client.online_deployments.begin_create_or_update(online.deployment(name, **options))
    return caught.value


def reason(error: Any) -> str:
    """What Azure says is wrong with the VM size: JSON in a text of a detail."""
    (detail,) = error.error.details
    assert (error.status_code, error.error.code) == (400, "BadRequest")
    assert detail.code == "InferencingClientCreateDeploymentFailed"
    return json.loads(detail.message.partition("error detail: ")[2])["errors"]["VmSize"][0]


@pytest.mark.parametrize(
    ("size", "key", "limit", "instances", "numbers"),
    [
        ("Standard_NC4as_T4_v3", FAMILY, 6, 1, ("0", "6", "8")),  # 1.2 instances are 2
        ("Standard_NC4as_T4_v3", FAMILY, 23, 5, ("0", "23", "24")),
        ("Standard_NC24ads_A100_v4", "standardNCADSA100v4Family", 23, 1, ("0", "23", "24")),  # no reserve
        ("Standard_NC24ads_A100_v4", "total", 100, 4, ("8", "100", "96")),
    ],
)
def test_more_than_the_quota_is_refused(
    client: Any, online: Any, emulator: Emulator, size: str, key: str, limit: int, instances: int, numbers: Any
) -> None:
    online.deploy(client, "first", instance_type="Standard_F4s_v2")
    emulator.set_quota(key, limit)
    said = reason(refused(client, online, instance_type=size, instance_count=instances))
    assert re.findall(r"usage/limit: (\d+)/(\d+)\. Additional needed: (\d+)", said) == [numbers]
    assert f"{size} in SubscriptionId {emulator.subscription_id}" in said
    assert "aka.ms/oe-tsg#error-outofquota" in said
    assert [one.name for one in client.online_deployments.list("gpu-rn")] == ["first"]


def test_what_exists_is_counted_and_what_is_replaced_is_not(client: Any, online: Any, emulator: Emulator) -> None:
    emulator.set_quota(FAMILY, 16)
    online.deploy(client, "blue")
    online.deploy(client, "green")
    assert "usage/limit: 16/16. Additional needed: 8" in reason(refused(client, online, "red"))
    online.deploy(client, "blue", environment_variables={"A": "1"})
    usage = {found["name"]["value"]: found["currentValue"] for found in map(vars, client.compute.list_usage())}
    assert (usage[FAMILY], usage["Total Cluster Dedicated Regional vCPUs"]) == (16, 16)
    client.online_deployments.begin_delete("green", "gpu-rn").result()
    online.deploy(client, "red")


@pytest.mark.parametrize("size", ["Standard_NC6", "Standard_NC4as_T5_v9"])
def test_a_size_that_cannot_be_had_is_refused(client: Any, online: Any, size: str) -> None:
    assert f"'{size}' for property VmSize is not a supported VM size" in reason(
        refused(client, online, instance_type=size)
    )


@pytest.mark.parametrize(
    "name", ["OutOfQuota", "OutOfCapacity", "ImageBuildFailure", "ResourceNotReady", "InternalServerError"]
)
def test_a_failure_has_its_name(client: Any, online: Any, emulator: Emulator, name: str) -> None:
    emulator.add_fault(Fault("deployments.create", "fail_operation", error=name))
    error = failed(client, online)
    assert (error.code, f"aka.ms/oe-tsg#error-{name.lower()}" in error.message) == (name, True)
    assert online.deploy(client).provisioning_state == "Succeeded"


def test_a_failure_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"No failure is named 'OutOfLuck'\. There are: OutOfQuota, "):
        Fault("deployments.create", "fail_operation", error="OutOfLuck")


@running
def test_a_package_that_was_removed_breaks_the_image(client: Any, online: Any, entities: Any) -> None:
    conda = {"dependencies": ["python=3.11", "pip", {"pip": ["numpy", "tensorflow-gpu==1.12"]}]}
    error = failed(client, online, environment=entities.Environment(image="an/image", conda_file=conda))
    assert error.code == "ImageBuildFailure"
    assert '"tensorflow-gpu" package has been removed' in error.details[0].message
    assert client.online_deployments.get_logs("blue", "gpu-rn", lines=50) == ""


@running
def test_a_script_that_loads_for_too_long_fails_the_probe(client: Any, online: Any, entities: Any) -> None:
    probe = entities.ProbeSettings(initial_delay=1, period=1, failure_threshold=1, timeout=1)
    error = failed(client, online, script=HANGS, liveness_probe=probe)
    assert error.code == "ResourceNotReady"
    assert "Liveness probe failed: HTTP probe failed with statuscode: 502" in error.message


@running
def test_a_crash_on_kubernetes_has_a_name_of_its_own(client: Any, online: Any, emulator: Emulator) -> None:
    online.on_kubernetes(client, emulator)
    error = failed(client, online, endpoint="on-aks", script=CRASHES, resources=online.gpu())
    assert error.code == "DeploymentCrashLoopBackOff"
    assert "LookupError: no weights" in client.online_deployments.get_logs("blue", "on-aks", lines=500)


RAISES = "def init(): ...\n\n\ndef run(data):\n    raise ValueError('bad luck')\n"


@running
def test_a_model_that_raises_is_told_as_its_kind_does(client: Any, online: Any, emulator: Emulator) -> None:
    online.on_kubernetes(client, emulator)
    pollers = [
        client.online_deployments.begin_create_or_update(online.deployment(script=RAISES, **options))
        for options in ({}, {"endpoint": "on-aks", "resources": online.gpu()})
    ]
    for poller in pollers:
        assert poller.result().provisioning_state == "Succeeded"
    answers: list[requests.Response] = []
    for name in ("gpu-rn", "on-aks"):
        endpoint = client.online_endpoints.get(name)
        key = client.online_endpoints.get_keys(name).primary_key
        headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "blue"}
        answers.append(requests.post(endpoint.scoring_uri, data="{}", headers=headers, timeout=30))
    assert [answer.status_code for answer in answers] == [424, 502]
    assert [answer.headers.get("x-ms-run-function-failed") for answer in answers] == ["True", "True"]
    assert [answer.headers.get("ms-azureml-model-error-statuscode") for answer in answers] == ["500", None]


def test_pods_need_gpus_and_an_instance_type(client: Any, online: Any, emulator: Emulator, steps: Any) -> None:
    online.on_kubernetes(client, emulator, nodes=2)
    made = online.deploy(client, endpoint="on-aks", resources=online.gpu(), instance_count=2)
    assert type(made) is online.entities.KubernetesOnlineDeployment
    assert (made.instance_type, made.resources.limits.gpu) == ("gpu", "1")
    error = failed(client, online, "green", endpoint="on-aks", resources=online.gpu())
    assert error.code == "PodUnschedulable"
    assert error.details[0].message == "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    client.online_deployments.begin_delete("blue", "on-aks").result()
    assert online.deploy(client, "green", endpoint="on-aks", resources=online.gpu()).provisioning_state == "Succeeded"
    unknown = refused(client, online, "red", endpoint="on-aks", resources=online.gpu(), instance_type="huge")
    assert "'huge' was not found on the compute 'k8s'. It has: gpu." in str(unknown)


def test_kinds_are_not_mixed(client: Any, online: Any, emulator: Emulator) -> None:
    online.on_kubernetes(client, emulator)
    assert "is a managed one, and the deployment is of the kind 'Kubernetes'" in str(
        refused(client, online, resources=online.gpu())
    )
    assert "of the kind 'Managed'" in str(refused(client, online, endpoint="on-aks"))


def test_names_are_unique_in_the_region(client: Any, online: Any, emulator: Emulator) -> None:
    from azure.core.exceptions import ResourceExistsError

    emulator.take_endpoint_name("theirs")
    with pytest.raises(ResourceExistsError, match="'theirs' exists already in this region"):
        online.endpoint(client, "Theirs")


def test_there_is_a_most_of_everything(
    client: Any, online: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import HttpResponseError

    assert "at most 50 instances, not 51" in str(refused(client, online, instance_count=51))
    online.deploy(client)
    monkeypatch.setattr("gpu_infer.emulator.online.deployments.MOST_DEPLOYMENTS", 1)
    assert "as many as it may have" in str(refused(client, online, "green"))
    monkeypatch.setattr("gpu_infer.emulator.online.models.MOST_ENDPOINTS", 1)
    with pytest.raises(HttpResponseError, match="Endpoint Quota reached: 1/1"):
        online.endpoint(client, "another")
