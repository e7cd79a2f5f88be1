"""Errors as the SDK's users see them: each service writes its own, and the SDK makes of it what it makes of Azure's."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault


@dataclass(frozen=True)
class Case:
    """A situation, and what the caller gets: the exception's name, and what its text matches."""

    act: Callable[[Any, Any], Any]
    raises: str
    text: str
    fault: Fault | None = None


def deploy(ws: Any, steps: Any, **options: Any) -> Any:
    return steps.deploy(ws, steps.cluster(ws), [steps.model(ws)], **options)


def deploy_twice(ws: Any, steps: Any) -> None:
    from azureml.core.compute import ComputeTarget

    deploy(ws, steps)
    steps.deploy(ws, ComputeTarget(ws, "aks-gpu"), [])


def find_model(ws: Any, steps: Any, **what: Any) -> Any:
    from azureml.core import Model

    return Model(ws, **what)


def find_service(ws: Any, steps: Any) -> Any:
    from azureml.core import Webservice

    return Webservice(ws, "none")


def find_cluster(ws: Any, steps: Any) -> Any:
    from azureml.core.compute import ComputeTarget

    return ComputeTarget(ws, "none")


def create_twice(ws: Any, steps: Any) -> None:
    steps.cluster(ws)
    steps.cluster(ws)


def delete_twice(ws: Any, steps: Any) -> None:
    cluster = steps.cluster(ws)
    cluster.delete()
    cluster.delete()


def wait(ws: Any, steps: Any) -> None:
    steps.cluster(ws).wait_for_completion()


def deploy_and_wait(ws: Any, steps: Any) -> None:
    deploy(ws, steps).wait_for_deployment()


def other_workspace(ws: Any, steps: Any) -> Any:
    from azureml.core import Workspace

    return Workspace(ws.subscription_id, ws.resource_group, "another", auth=ws._auth)


def delete_used_model(ws: Any, steps: Any) -> None:
    from azureml.core import Model

    deploy(ws, steps)
    Model(ws, "net").delete()


NO_GPU = {
    "code": "KubernetesError",
    "statusCode": 400,
    "message": "Kubernetes Deployment Error",
    "details": [{"code": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}],
}

CASES = {
    "compute absent": Case(find_cluster, "ComputeTargetException", "ComputeTargetNotFound"),
    "compute exists": Case(create_twice, "ComputeTargetException", 'Response Code: 409[\\s\\S]*"code": "Conflict"'),
    "compute gone": Case(delete_twice, "KeyError", "azure-asyncoperation"),
    "compute name": Case(
        lambda ws, steps: steps.cluster(ws, "1x"), "ComputeTargetException", "Response Code: 400[\\s\\S]*name .{1,2}1x"
    ),
    "size retired": Case(
        lambda ws, steps: steps.cluster(ws, size="Standard_NC6"),
        "ComputeTargetException",
        "Response Code: 400[\\s\\S]*Standard_NC6.*is not a supported VM size",
    ),
    "size unknown": Case(
        lambda ws, steps: steps.cluster(ws, size="Standard_XY1"), "ComputeTargetException", "not a supported VM size"
    ),
    "creation failed": Case(
        wait,
        "ComputeTargetException",
        "non-successful terminal state, current provisioning state: Failed\n.*\nStatusCode: 500\nMessage: ",
        Fault("compute.create", "fail_operation"),
    ),
    "creation failed without a status": Case(
        wait,
        "ComputeTargetException",
        r"\{'code': 'X', 'message': 'Y'\}",
        Fault("compute.create", "fail_operation", error={"code": "X", "message": "Y"}),
    ),
    "service absent": Case(find_service, "WebserviceException", "WebserviceNotFound"),
    "service exists": Case(deploy_twice, "WebserviceException", "Service gpu-rn with the same name already exists"),
    "deployment failed": Case(
        deploy_and_wait,
        "WebserviceException",
        'service state: Unschedulable\n[\\s\\S]*"code": "Unschedulable"[\\s\\S]*3 Insufficient nvidia.com/gpu',
        Fault("services.create", "fail_operation", error=NO_GPU),
    ),
    "deployment timed out": Case(
        deploy_and_wait,
        "WebserviceException",
        "service state: Unhealthy\n",
        Fault("services.create", "fail_operation", error={"code": "DeploymentTimedOut", "statusCode": 504}),
    ),
    "refused beforehand": Case(
        deploy,
        "WebserviceException",
        r"Message: Not enough\.",
        Fault("services.validate", status=200, body={"error": {"message": "Not enough."}}),
    ),
    "deployment refused": Case(
        deploy, "WebserviceException", "Response Code: 403", Fault("services.create", status=403)
    ),
    "model absent": Case(
        lambda ws, steps: find_model(ws, steps, name="none"),
        "WebserviceException",
        "ModelNotFound: Model with name none",
    ),
    "model id absent": Case(
        lambda ws, steps: find_model(ws, steps, id="none:1"),
        "WebserviceException",
        "ModelNotFound: Model with id none:1",
    ),
    "model used": Case(delete_used_model, "WebserviceException", "Response Code: 412"),
    "models refused": Case(
        lambda ws, steps: find_model(ws, steps, name="none"),
        "ModelErrorResponseException",
        "The access token is missing",
        Fault("models.list", status=401),
    ),
    "model version refused": Case(
        lambda ws, steps: find_model(ws, steps, id="none:1"),
        "WebserviceException",
        "Response Code: 401",
        Fault("models.get", status=401),
    ),
    "artifacts refused": Case(
        lambda ws, steps: steps.model(ws),
        "ServiceException",
        "Code: 401[\\s\\S]*The access token is missing",
        Fault("artifacts.create", status=401),
    ),
    "artifacts forbidden": Case(
        lambda ws, steps: steps.model(ws), "UserErrorException", "Forbidden", Fault("artifacts.create", status=403)
    ),
    "blob forbidden": Case(
        lambda ws, steps: steps.model(ws),
        "ClientAuthenticationError",
        "AuthenticationFailed",
        Fault("blob.put", status=403),
    ),
    "blob exists": Case(
        lambda ws, steps: steps.model(ws), "ResourceExistsError", "BlobAlreadyExists", Fault("blob.put", status=409)
    ),
    "blob gone": Case(
        lambda ws, steps: steps.model(ws), "ResourceNotFoundError", "BlobNotFound", Fault("blob.head", status=404)
    ),
    "workspace absent": Case(other_workspace, "ProjectSystemException", "Workspace not found"),
    "workspace forbidden": Case(
        other_workspace,
        "ProjectSystemException",
        "AuthorizationFailed|403",
        Fault("workspace.get", status=403),
    ),
    "discovery absent": Case(find_cluster, "HTTPError", "404", Fault("discovery.get", status=404)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_caller_gets_the_sdks_own_error(name: str, emulator: Emulator, ws: Any, steps: Any) -> None:
    case = CASES[name]
    if case.fault:
        emulator.add_fault(case.fault)
    with pytest.raises(Exception) as caught:  # noqa: PT011 (its type is what the table says)
        case.act(ws, steps)
    assert type(caught.value).__name__ == case.raises, repr(caught.value)
    assert re.search(case.text, str(caught.value)), str(caught.value)


def test_str_of_an_artifact_error_works(emulator: Emulator, ws: Any, steps: Any) -> None:
    emulator.add_fault(Fault("artifacts.create", status=400))
    with pytest.raises(Exception, match="The request is invalid") as caught:
        steps.model(ws)
    assert getattr(caught.value, "status_code", None) == 400


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("{arm}?api-version=1", {"error": {"code", "message"}}),
        ("/rp/workspaces{arm}/computes/none", {"error": {"code", "message"}}),
        ("/modelmanagement/v1.0{arm}/models/none:1", {"code", "statusCode", "message", "details", "correlation"}),
        ("/modelmanagement/v1.0{arm}/services/none", {"code", "statusCode", "message", "details", "correlation"}),
        (
            "/artifact/v2.0{arm}/artifacts/contentinfo/LocalUpload/none/none",
            {"error": {"code", "message", "details"}, "correlation": {"operation"}, "environment": None},
        ),
    ],
)
def test_each_service_writes_errors_in_its_own_shape(path: str, shape: Any, emulator: Emulator) -> None:
    arm = (
        f"/subscriptions/{emulator.subscription_id}/resourceGroups/{emulator.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{emulator.name}"
    )
    answer = requests.get(emulator.url + path.format(arm=arm), timeout=10)  # no token
    assert answer.status_code == 401
    body = answer.json()
    assert set(body) == set(shape)
    if isinstance(shape, dict):
        assert set(body["error"]) == shape["error"]


def test_blob_storage_answers_in_xml(emulator: Emulator) -> None:
    answer = requests.get(f"{emulator.url}/azureml/nothing?sig=wrong", timeout=10)
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    assert "<Code>AuthenticationFailed</Code>" in answer.text


def test_a_bad_secret_is_refused_as_active_directory_does(emulator: Emulator) -> None:
    form = {"client_secret": "wrong", "scope": "x/.default"}
    answer = requests.post(f"{emulator.url}/tenant/oauth2/v2.0/token", data=form, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("token", ["", "Basic x", "Bearer", "Bearer no-jwt", "Bearer a.b.c", "expired"])
def test_a_token_must_be_there_and_hold(token: str, emulator: Emulator) -> None:
    from gpu_infer.emulator.aad.models import token as make

    if token == "expired":
        token = f"Bearer {make(b'test', tenant='t', audience='a', subject='s', lifetime=-1)}"
    answer = requests.get(f"{emulator.url}/subscriptions", headers={"Authorization": token}, timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"].endswith(("AuthenticationFailed", "AuthenticationToken"))


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("subscription_id", "SubscriptionNotFound"),
        ("resource_group", "ResourceGroupNotFound"),
        ("name", "ResourceNotFound"),
    ],
)
def test_other_ids_than_its_own_are_not_found(part: str, code: str, emulator: Emulator, header: dict[str, str]) -> None:
    ids = {name: getattr(emulator, name) for name in ("subscription_id", "resource_group", "name")} | {part: "other"}
    path = (
        "/subscriptions/{subscription_id}/resourceGroups/{resource_group}/providers/Microsoft.MachineLearningServices"
    )
    url = f"{emulator.url}{path}/workspaces/{{name}}".format(**ids)
    answer = requests.get(url, headers=header, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)
    assert "'other' could not be found" in answer.json()["error"]["message"]
