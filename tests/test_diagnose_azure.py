"""What azureml-core and its layers raise, in their own classes: one typed error with cause and next step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import azure.core.exceptions as core
import msrest.exceptions
import pytest
import requests
from azureml._restclient import models
from azureml._restclient.exceptions import ServiceException
from azureml._restclient.models.error_response import ErrorResponseException
from azureml._restclient.models.model_error_response import ModelErrorResponseException
from azureml._vendor.azure_cli_core.azclierror import AuthenticationError as CliAuthenticationError
from azureml.exceptions import (
    AuthenticationException,
    ComputeTargetException,
    ProjectSystemException,
    UserErrorException,
    WebserviceException,
)

from gpu_infer.diagnose import azure_error
from gpu_infer.diagnose.logs import CAUSES
from gpu_infer.diagnose.meanings import TEXTS, Meaning
from gpu_infer.diagnose.page import page
from gpu_infer.errors import (
    DeploymentError,
    DeploymentTimeoutError,
    GpuInferError,
    ImageBuildError,
    InsufficientGpuError,
    OverloadedError,
    ProvisioningError,
    QuotaError,
    ScoringInitError,
    ServiceNotFoundError,
    TeardownError,
    WorkspaceError,
)

JWT = "eyJ0eXAiOiJKV1QifQ.eyJleHAiOjB9.c2lnbmF0dXJl"
SAS = "https://acct.blob.core.windows.net/c/p?sv=2021&sr=b&sig=aBc%2BdEf%3D&se=2026"
SECRETS = (JWT, "aBc%2BdEf%3D", "pr1mary-k3y", "hunter2")

GPUS = {"code": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
ROOM = {
    "code": "DeploymentFailed",
    "message": "Couldn't schedule because the kubernetes cluster didn't have available resources after trying for "
    "00:05:00",
}
TRACEBACK = """\
2026-11-24 10:00:00 I [70] azmlinfsrv - Loaded settings
Traceback (most recent call last):
  File "/var/azureml-app/score.py", line 3, in <module>
    import pandas
ModuleNotFoundError: No module named 'pandas'
"""


def response(status: int, body: Any = None, headers: dict[str, str] | None = None) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.reason = requests.status_codes._codes[status][0].replace("_", " ").title()
    answer._content = b"" if body is None else json.dumps(body).encode()
    answer.headers.update({"Content-Type": "application/json", **(headers or {})})
    answer.request = requests.Request("POST", "https://eastus.api.azureml.ms/x").prepare()
    return answer


def refused(status: int, code: str, message: str, *, plane: str = "Resource Provider") -> str:
    """The text of the SDK for an answer that it does not take, as its sources build it."""
    body = {"error": {"code": code, "message": message}}
    answer = response(status, body, {"x-ms-secret": f"Bearer {JWT}"})
    return (
        f"Received bad response from {plane}:\nResponse Code: {status}\nHeaders: {answer.headers}\n"
        f"Content: {answer.content!r}"
    )


def ended(
    error: dict[str, Any] | None,
    *,
    state: str = "Failed",
    more: str = "More information can be found using '.get_logs()'",
) -> str:
    """The text of ``wait_for_deployment`` where the operation has ended badly."""
    return (
        "Service deployment polling reached non-successful terminal state, current service state: "
        f"{state}\nOperation ID: 6f2a\n{more}\nError:\n{json.dumps(error, indent=2)}"
    )


def kubernetes(*details: dict[str, str]) -> dict[str, Any]:
    return {
        "code": "KubernetesError",
        "statusCode": 400,
        "message": "Kubernetes Deployment Error",
        "details": [*details],
    }


def provisioning(state: str, reason: str) -> str:
    """The text of ``wait_for_completion`` where the operation has ended badly."""
    return (
        "Compute object provisioning polling reached non-successful terminal state, current provisioning state: "
        f"{state}\nProvisioning operation error:\n{reason}"
    )


def service_exception(status: int, *, details: bool = True) -> ServiceException:
    """Of the artifact service; where the body has no details the SDK cannot print its own exception."""
    body: dict[str, Any] = {"error": {"code": "UserError", "message": "The token has expired."}}
    if details:
        body["error"]["details"] = []
    serializer = msrest.Deserializer({name: value for name, value in vars(models).items() if isinstance(value, type)})
    return ServiceException(ErrorResponseException(serializer, response(status, body)))


def model_error(status: int) -> ModelErrorResponseException:
    return ModelErrorResponseException(lambda _kind, _answer: None, response(status))


def blob_error(kind: type[core.HttpResponseError], status: int) -> core.HttpResponseError:
    error = kind(message=f"Server failed to authenticate the request. {SAS}")
    error.status_code = status
    return error


def raised(function: Callable[[], Any]) -> BaseException:
    """What really comes out of a call."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    pytest.fail("nothing was raised")


def deleted_cluster() -> Any:
    return {}["azure-asyncoperation"]


def inference_config_without_runtime() -> Any:
    return None.lower()  # type: ignore[attr-defined]


CLUSTER, SERVICE, ASKING, GONE = ProvisioningError, DeploymentError, WorkspaceError, TeardownError
OPERATION_QUOTA = (
    "StatusCode: 400\nMessage: Code=QuotaExceeded Message=Operation results in exceeding approved standardNCSv3Family "
    "Cores quota. Current Limit: 6, Current Usage: 6, Additional Required: 18"
)
LONG = "Long running operation information not known, unable to poll. Current state is Healthy"

# The rows of the wire notes: id, what was being done, its default, what is raised, the type, the cause, the next step.
SHAPES: list[tuple[str, str, type[GpuInferError], Any, type[GpuInferError], str, str]] = [
    (
        "compute-absent",
        "looking for cluster 'aks-gpu'",
        ASKING,
        ComputeTargetException(
            "ComputeTargetNotFound: Compute Target with name aks-gpu not found in provided workspace"
        ),
        WorkspaceError,
        "no compute target of this name",
        "Check the name",
    ),
    (
        "provisioning-failed-quota",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(provisioning("Failed", OPERATION_QUOTA)),
        QuotaError,
        "6 of 6 cores of standardNCSv3Family are in use and 18 more are needed",
        "ask for a limit of 24",
    ),
    (
        "provisioning-failed-quota-as-list",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(
            provisioning("Failed", "[{'error': {'code': 'BadArgument', 'message': 'aks: QuotaExceeded by 12 cores'}}]")
        ),
        QuotaError,
        "quota of cores",
        "Azure portal under Quotas",
    ),
    (
        "provisioning-failed-for-no-reason-that-we-know",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(provisioning("Failed", "StatusCode: 500\nMessage: InternalServerError")),
        ProvisioningError,
        "Azure failed inside",
        "support request",
    ),
    (
        "provisioning-canceled",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(provisioning("Canceled", "None")),
        ProvisioningError,
        "was cancelled",
        "Repeat the call",
    ),
    (
        "vm-size-retired",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(
            refused(
                400, "BadArgument", "The specified value Standard_NC6 for property VMSize is not a supported VM size"
            )
        ),
        ProvisioningError,
        "retired this VM size",
        "Standard_NC4as_T4_v3",
    ),
    (
        "basic-load-balancer",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(
            provisioning("Failed", "StatusCode: 400\nMessage: Basic Load Balancer is not allowed for new clusters")
        ),
        ProvisioningError,
        "retired 2025-09-30",
        'how="aks"',
    ),
    *(
        (
            f"create-{status}",
            "creating cluster 'aks-gpu'",
            CLUSTER,
            ComputeTargetException(refused(status, code, "See the message.")),
            ProvisioningError,
            cause,
            step,
        )
        for status, code, cause, step in (
            (400, "BadRequest", "refuses the request", "Correct what it names"),
            (401, "Unauthorized", "does not accept the login", "az login"),
            (403, "AuthorizationFailed", "may not do that", "role AzureML Data Scientist"),
            (404, "NotFound", "does not know", "Check the names"),
            (409, "Conflict", "something of this name", "another name"),
            (429, "TooManyRequests", "limits how often", "Wait a minute"),
            (500, "InternalServerError", "failed inside", "Repeat the call"),
            (503, "ServiceUnavailable", "overloaded or under maintenance", "Wait a minute"),
            (418, "Teapot", "refuses the request", "support request"),
        )
    ),
    (
        "create-without-header",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException(
            "Error, missing operation location from resp headers:\nResponse Code: 200\nHeaders: {}\nContent: b''"
        ),
        ProvisioningError,
        "may exist",
        "leftovers(workspace)",
    ),
    (
        "wait-on-what-was-looked-up",
        "waiting for service 'gpu-rn'",
        SERVICE,
        WebserviceException(LONG),
        DeploymentError,
        "the same object has begun",
        "service.state",
    ),
    (
        "wait-after-delete",
        "deleting cluster 'aks-gpu'",
        GONE,
        ComputeTargetException(
            "ComputeTargetNotFound: Compute Target with name aks-gpu not found in provided workspace"
        ),
        TeardownError,
        "(any more)",
        "Check the name",
    ),
    (
        "delete-of-a-gone-cluster",
        "deleting cluster 'aks-gpu'",
        GONE,
        raised(deleted_cluster),
        TeardownError,
        "gone already",
        "leftovers(workspace)",
    ),
    (
        "reserved-name",
        "creating cluster 'local'",
        CLUSTER,
        UserErrorException("Please specify a different target name. local is a reserved name."),
        ProvisioningError,
        "keeps this name for itself",
        "'aks-gpu'",
    ),
    (
        "agent-count",
        "configuring cluster 'aks-gpu'",
        CLUSTER,
        ComputeTargetException("Invalid configuration, agent count must be a positive integer."),
        ProvisioningError,
        "before it sends anything",
        "Correct what it names",
    ),
    (
        "no-gpu-on-the-nodes",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(ended(kubernetes(GPUS))),
        InsufficientGpuError,
        "Of 3 nodes 0 have room",
        "Lower replicas=",
    ),
    (
        "no-gpu-on-the-nodes-in-five-minutes",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(ended(kubernetes(GPUS, ROOM), state="Unschedulable")),
        InsufficientGpuError,
        "No node has a GPU free",
        "gpu_infer.services(workspace)",
    ),
    (
        "no-room-on-the-nodes",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(ended(kubernetes(ROOM), state="Unschedulable")),
        DeploymentError,
        "too little room",
        "add nodes first",
    ),
    (
        "operation-timed-out",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(
            ended({"code": "DeploymentTimedOut", "statusCode": 504, "message": "Timed out"}, state="Unhealthy")
        ),
        DeploymentTimeoutError,
        "not healthy in time",
        "wait= gives it longer",
    ),
    (
        "crash-loop",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(
            ended(
                {
                    "code": "DeploymentFailed",
                    "message": "Service deployment request failed",
                    "details": [{"code": "CrashLoopBackOff", "message": "Your container application crashed."}],
                }
            )
        ),
        ScoringInitError,
        "fails on import or in init()",
        "target='local'",
    ),
    (
        "image-build",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(
            ended({"code": "Failed", "message": "Build"}, more=f"More information can be found here: {SAS}")
        ),
        ImageBuildError,
        "image could not be built",
        "conda_file=",
    ),
    (
        "wait-timeout",
        "waiting for service 'gpu-rn'",
        SERVICE,
        WebserviceException("Deployment polling exceeded timeout override of 1.0s"),
        DeploymentTimeoutError,
        "not healthy in time",
        "wait=",
    ),
    (
        "refused-by-validate",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(
            "Deployment request failed due to insufficient compute resource. 3 replicas cannot be made."
        ),
        DeploymentError,
        "too little room",
        "Lower replicas=",
    ),
    (
        "refused-by-validate-for-its-gpu",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException("The InferenceConfig requires a GPU, and cluster cpu-only has nodes without GPU."),
        InsufficientGpuError,
        "nodes of the cluster have none",
        "Cluster('aks-gpu'",
    ),
    (
        "create-service-409",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException(refused(409, "Conflict", "Service gpu-rn exists", plane="Model Management Service")),
        DeploymentError,
        "something of this name",
        "overwrite=True",
    ),
    (
        "service-absent",
        "looking for service 'gpu-rn'",
        ASKING,
        WebserviceException("WebserviceNotFound: Webservice with name gpu-rn not found in provided workspace"),
        ServiceNotFoundError,
        "no service of this name",
        "gpu_infer.services(workspace)",
    ),
    (
        "model-absent",
        "looking for model 'resnet50'",
        ASKING,
        WebserviceException("ModelNotFound: Model with name resnet50 not found in provided workspace"),
        WorkspaceError,
        "no registered model",
        "path of the model",
    ),
    (
        "run-503",
        "scoring",
        SERVICE,
        WebserviceException(
            "Received bad response from service. More information can be found by calling `.get_logs()` on the "
            "webservice object.\nResponse Code: 503\nHeaders: {}\n"
            "Content: b'Too many requests for service gpu-rn (overloaded)'"
        ),
        OverloadedError,
        "All replicas are busy",
        "add replicas",
    ),
    (
        "run-without-address",
        "scoring",
        SERVICE,
        WebserviceException("scoring_uri unavailable"),
        DeploymentError,
        "never became healthy",
        "service.logs()",
    ),
    (
        "workspace-absent",
        "opening the workspace",
        ASKING,
        ProjectSystemException("Workspace not found."),
        WorkspaceError,
        "no such workspace",
        "config.json",
    ),
    (
        "workspace-401",
        "opening the workspace",
        ASKING,
        ProjectSystemException('{"error_details": "The token has expired.", "status_code": 401, "url": "https://x"}'),
        WorkspaceError,
        "does not accept the login",
        "az login",
    ),
    (
        "subscription-absent",
        "opening the workspace",
        ASKING,
        UserErrorException(
            "You are currently logged-in to 72f9 tenant. You don't have access to 1234 subscription, please check."
        ),
        WorkspaceError,
        "no access to the subscription",
        "--tenant",
    ),
    (
        "workspace-without-answer",
        "asking the workspace",
        ASKING,
        msrest.exceptions.ClientRequestError("Error occurred in request., ConnectionError: Connection refused"),
        WorkspaceError,
        "could not be reached",
        "HTTPS_PROXY",
    ),
    *(
        (
            f"model-{status}",
            "looking for model 'resnet50'",
            ASKING,
            model_error(status),
            WorkspaceError,
            cause,
            step,
        )
        for status, cause, step in (
            (401, "does not accept the login", "az login"),
            (429, "limits how often", "Wait a minute"),
            (503, "overloaded", "Wait a minute"),
        )
    ),
    (
        "model-by-version",
        "looking for model 'resnet50:3'",
        ASKING,
        WebserviceException("Received bad response from Model Management Service:\nResponse Code: None\nContent: b''"),
        WorkspaceError,
        "has not kept why",
        "Check the login",
    ),
    (
        "artifact-401",
        "uploading model 'resnet50'",
        SERVICE,
        service_exception(401),
        DeploymentError,
        "does not accept the login",
        "az login",
    ),
    (
        "artifact-that-cannot-be-printed",
        "uploading model 'resnet50'",
        SERVICE,
        service_exception(500, details=False),
        DeploymentError,
        "failed inside",
        "Repeat the call",
    ),
    (
        "artifact-403",
        "uploading model 'resnet50'",
        SERVICE,
        UserErrorException(
            "\nOperation returned an invalid status code 'Forbidden'. The possible reason could be:\n"
            "1. You are not authorized to access this resource, or directory listing denied."
        ),
        DeploymentError,
        "may not do that",
        "role AzureML Data Scientist",
    ),
    (
        "blob-403",
        "uploading model 'resnet50'",
        SERVICE,
        blob_error(core.ClientAuthenticationError, 403),
        DeploymentError,
        "storage account refused",
        "firewall",
    ),
    (
        "blob-409",
        "uploading model 'resnet50'",
        SERVICE,
        blob_error(core.ResourceExistsError, 409),
        DeploymentError,
        "there already",
        "Repeat the call",
    ),
    (
        "blob-404",
        "uploading model 'resnet50'",
        SERVICE,
        blob_error(core.ResourceNotFoundError, 404),
        DeploymentError,
        "does not know",
        "Check the names",
    ),
    (
        "blob-tls",
        "uploading model 'resnet50'",
        SERVICE,
        core.ServiceRequestError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"),
        DeploymentError,
        "not trusted",
        "REQUESTS_CA_BUNDLE",
    ),
    (
        "reset-for-ever",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        requests.exceptions.ConnectionError("('Connection aborted.', ConnectionResetError(104, 'reset by peer'))"),
        ProvisioningError,
        "Whether the request was carried out is not known",
        "leftovers(workspace)",
    ),
    (
        "no-answer",
        "creating cluster 'aks-gpu'",
        CLUSTER,
        requests.exceptions.ReadTimeout("Read timed out. (read timeout=80)"),
        ProvisioningError,
        "did not answer in time",
        "leftovers(workspace)",
    ),
    (
        "no-name",
        "asking the workspace",
        ASKING,
        requests.exceptions.ConnectionError("NameResolutionError: Failed to resolve 'eastus.api.azureml.ms'"),
        WorkspaceError,
        "could not be resolved",
        "VPN",
    ),
    *(
        (
            f"discovery-{status}",
            "asking the workspace",
            ASKING,
            requests.exceptions.HTTPError(f"{status} Error", response=response(status)),
            WorkspaceError,
            cause,
            step,
        )
        for status, cause, step in ((404, "does not know", "Check the names"), (502, "gateway", "Repeat the call"))
    ),
    (
        "token-function",
        "asking the workspace",
        ASKING,
        RuntimeError("the vault is sealed"),
        WorkspaceError,
        "the vault is sealed",
        "Repeat the call",
    ),
    (
        "service-principal-secret",
        "asking the workspace",
        ASKING,
        CliAuthenticationError("AADSTS7000215: Invalid client secret provided. client_secret=hunter2"),
        WorkspaceError,
        "login to Azure failed",
        "service principal's secret",
    ),
    (
        "login-expired",
        "asking the workspace",
        ASKING,
        AuthenticationException("Could not retrieve user token. Please run 'az login'"),
        WorkspaceError,
        "has expired",
        "az login",
    ),
    (
        "register-absent-path",
        "registering model 'resnet50'",
        SERVICE,
        FileNotFoundError(2, "No such file or directory", "/models/resnet50"),
        DeploymentError,
        "is not there",
        "Check the path",
    ),
    (
        "register-outside-the-working-directory",
        "registering model 'resnet50'",
        SERVICE,
        PermissionError("[Errno 1] Operation not permitted: '/models/resnet50'"),
        DeploymentError,
        "outside the working directory",
        "below the working directory",
    ),
    (
        "environment-and-flags",
        "making the InferenceConfig",
        SERVICE,
        WebserviceException(
            "Error, unable to provide runtime, conda_file, extra_docker_file_steps, enable_gpu, cuda_version, or "
            "base_image along with an environment object."
        ),
        DeploymentError,
        "not both",
        "build_inference_config()",
    ),
    (
        "inference-config-without-runtime",
        "making the InferenceConfig",
        SERVICE,
        raised(inference_config_without_runtime),
        DeploymentError,
        "an InferenceConfig it cannot read",
        "Try again",
    ),
    (
        "bad-deploy-configuration",
        "deploying service 'gpu-rn'",
        SERVICE,
        WebserviceException("Invalid configuration, autoscale enabled and num_replicas provided.\n"),
        DeploymentError,
        "before it sends anything",
        "Correct what it names",
    ),
    (
        "model-in-use",
        "deleting model 'resnet50:3'",
        GONE,
        WebserviceException(refused(412, "DeletionRequired", "DeletionRequired: used by gpu-rn", plane="MMS")),
        TeardownError,
        "still uses this model",
        "Delete the service first",
    ),
]


@pytest.mark.parametrize(
    ("doing", "default", "error", "kind", "cause", "step"),
    [row[1:] for row in SHAPES],
    ids=[row[0] for row in SHAPES],
)
def test_each_shape_is_one_typed_error_with_cause_and_next_step(
    doing: str, default: type[GpuInferError], error: Exception, kind: type[GpuInferError], cause: str, step: str
):
    typed = azure_error(error, doing=doing, default=default)
    message = str(typed)
    print(message)
    assert type(typed) is kind
    assert message.startswith(doing.capitalize().split()[0])
    assert doing[1:] in message
    assert cause in message
    assert step in message
    assert not [secret for secret in SECRETS if secret in message]
    assert "Headers" not in message
    assert len(message) < 1500


def test_the_sdk_itself_cannot_print_one_of_them():
    """What the test above relies on: its own ``str()`` fails."""
    with pytest.raises(TypeError):
        str(service_exception(500, details=False))


def test_the_status_is_kept():
    error = azure_error(model_error(429), doing="asking", default=WorkspaceError)
    assert isinstance(error, WorkspaceError)
    assert error.status == 429
    silent = azure_error(requests.exceptions.ConnectionError("reset"), doing="asking", default=WorkspaceError)
    assert isinstance(silent, WorkspaceError)
    assert silent.status is None


@pytest.mark.parametrize(
    "text",
    [
        f"GET {SAS} failed",
        f"Authorization: Bearer {JWT}",
        f'{{"accessToken": "{JWT}", "tokenType": "Bearer"}}',
        f"token {JWT} has expired",
        '{"primaryKey": "pr1mary-k3y", "secondaryKey": "pr1mary-k3y"}',
        "AccountKey=pr1mary-k3y;EndpointSuffix=core.windows.net",
        "client_secret=hunter2&grant_type=client_credentials",
        "{'password': 'hunter2'}",
        "https://user:hunter2@registry.example/v2",
        f"{'x' * 690} sig=aBc%2BdEf%3D",
    ],
)
def test_secrets_are_blotted_out(text: str):
    body = json.dumps({"error": {"code": "X", "message": text}}).encode()
    for raw in (text, f"Response Code: 400\nHeaders: {{}}\nContent: {body!r}"):
        message = str(azure_error(WebserviceException(raw), doing="deploying", default=DeploymentError, logs=text))
        assert not [secret for secret in SECRETS if secret in message]
    logs = azure_error(WebserviceException("failed"), doing="deploying", default=DeploymentError, logs=text)
    assert isinstance(logs, DeploymentError)
    assert not [secret for secret in SECRETS if secret in logs.logs]


OOPS = {"code": "Oops", "statusCode": 400, "message": "no 'luck' {here}", "details": [{"code": "A", "message": "in"}]}


@pytest.mark.parametrize(
    "text",
    [
        f"The service is Failed. {json.dumps(OOPS)}",
        f"The service is Failed. {OOPS}",
        f"The service is Failed. [{{'error': {OOPS}}}]",
        f'The service is Failed. {{"error": {json.dumps(OOPS)}}}',
    ],
)
def test_a_body_within_the_text_is_shown_by_its_message(text: str):
    typed = azure_error(None, doing="starting service 'gpu-rn'", default=DeploymentError, text=text)
    assert str(typed).endswith("The service is Failed. Oops: no 'luck' {here} A: in")


@pytest.mark.parametrize("text", ["Content: []", "a {b} [c", "{'a': 1}", 'it\'s {"message": 1', "[1, 2]", "}{", "'[' "])
def test_brackets_that_hold_no_message_stay(text: str):
    assert text.strip() in str(azure_error(None, doing="asking", default=WorkspaceError, text=text))


def test_a_traceback_in_the_logs_decides():
    error = WebserviceException(ended({"code": "DeploymentTimedOut", "statusCode": 504, "message": "Timed out"}))
    typed = azure_error(error, doing="deploying service 'gpu-rn'", default=DeploymentError, logs=TRACEBACK)
    assert isinstance(typed, ScoringInitError)
    assert "Service 'gpu-rn' did not start: its entry script failed" in str(typed)
    assert "The script imports pandas" in str(typed)
    assert typed.traceback.endswith("No module named 'pandas'")


def test_logs_without_a_traceback_are_kept():
    typed = azure_error(
        None,
        doing="deploying service 'gpu-rn'",
        default=DeploymentError,
        text="CrashLoopBackOff",
        logs="Booting worker",
    )
    assert isinstance(typed, ScoringInitError)
    assert typed.logs == "Booting worker"


def test_what_azure_only_says_needs_no_exception():
    text = "Provisioning ended Failed: [{'error': {'message': 'Current usage/limit: 0/6. Additional needed: 8'}}]"
    typed = azure_error(None, doing="creating cluster 'aks-gpu'", default=ProvisioningError, text=text)
    assert isinstance(typed, QuotaError)
    assert isinstance(typed, ProvisioningError)
    assert isinstance(typed, DeploymentError)
    assert "0 of 6 cores are in use and 8 more are needed: ask for a limit of 8" in str(typed)


def test_bodies_in_bodies_and_long_ones_are_read():
    nested = {
        "error": {"error": {"code": "A", "message": "deep down", "details": [{"code": "B", "message": "deeper"}]}}
    }
    raw = f"Response Code: 400\nHeaders: {{}}\nContent: {json.dumps(nested).encode()!r}"
    assert "Azure says (400): A: deep down B: deeper" in str(
        azure_error(WebserviceException(raw), doing="x", default=DeploymentError)
    )
    long = str(azure_error(WebserviceException("word " * 1000), doing="x", default=DeploymentError))
    assert len(long) < 1000
    assert "word ...\n" in long or "wo...\n" in long


# --- the table --------------------------------------------------------------------------------------------------------


def examples() -> list[tuple[str, Meaning]]:
    """What the page shows in code type, with something in place of its dots."""
    return [
        (found.replace("...", "abc"), meaning) for meaning in TEXTS for found in re.findall(r"`([^`]+)`", meaning.said)
    ]


@pytest.mark.parametrize(("said", "meaning"), examples(), ids=[said for said, _ in examples()])
def test_each_example_of_the_page_means_what_its_row_says(said: str, meaning: Meaning):
    typed = azure_error(None, doing="deploying", default=DeploymentError, text=said)
    assert meaning.because in str(typed)
    assert meaning.do in str(typed)
    assert isinstance(typed, meaning.error or DeploymentError)


@pytest.mark.parametrize(("said", "words"), [(said, words) for said, _, words in CAUSES])
def test_each_cause_of_a_log_is_found_by_what_the_page_shows(said: str, words: str):
    for part in said.replace("'...'", "'abc'").split("; "):
        line = f"ModuleNotFoundError: {part}" if part.startswith("No module") else f"{part}: x"
        log = f'Traceback (most recent call last):\n  File "/app/score.py", line 1, in init\n    x()\n{line}\n'
        message = str(azure_error(None, doing="deploying 'gpu-rn'", default=DeploymentError, logs=log))
        assert words.partition("{")[0] in message, part


def test_the_page_is_current():
    written = Path(__file__).parent.parent / "docs" / "errors.md"
    assert written.read_text("utf-8") == page(), "run: python -m gpu_infer.diagnose > docs/errors.md"
