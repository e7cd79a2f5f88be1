"""What Azure and azure-ai-ml raise arrives as the typed errors that it is on AKS; the SDK's own is the cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from short_pauses import shorten_online

import gpu_infer
from gpu_infer.diagnose import azure_error
from gpu_infer.emulator import Emulator, Fault, connect
from gpu_infer.errors import (
    AuthenticationError,
    DeploymentError,
    DeploymentTimeoutError,
    GpuInferError,
    ImageBuildError,
    QuotaError,
    ScoringInitError,
    WorkspaceError,
)

pytestmark = [
    pytest.mark.usefixtures("home"),
    # Where a request has failed the SDK leaves its connection to the collector, which may come while a test runs.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LACKING = "Current usage/limit: 0/6. Additional needed: 8"
ARITHMETIC = r"0 of 6 cores are in use and 8 more are needed: ask for a limit of 8\."
NOT_ENOUGH = f"Not enough quota available for Standard_NC4as_T4_v3 in SubscriptionId 1. {LACKING}"
SUPPORT = "open a support request"


def at_once(text: str) -> dict[str, Any]:
    """The answer with which Azure refuses a deployment outright: the reason is JSON in the text of a detail."""
    inner = json.dumps({"errors": {"VmSize": [text]}, "title": "One or more validation errors occurred."})
    message = f"InferencingClient HttpRequest error, error detail: {inner}"
    details = [{"code": "InferencingClientCreateDeploymentFailed", "message": message}]
    return {"error": {"code": "BadRequest", "message": "The request is invalid.", "details": details}}


def later(code: str, message: str, *details: str) -> dict[str, Any]:
    """The error of an operation that has failed, which is told with status 200."""
    return {"code": code, "message": message, "details": [{"code": code, "message": text} for text in details]}


@dataclass(frozen=True)
class Shape:
    """One way to fail.

    Args:
        fault: that makes it.
        becomes: the error of this library.
        cause: what the message must say of the reason, a regular expression.
        do: and of the next step.
        raised: name of what the SDK raises.
    """

    fault: Fault
    becomes: type[GpuInferError]
    cause: str
    do: str
    raised: str = "HttpResponseError"


def failing(code: str | dict[str, Any]) -> Fault:
    return Fault("deployments.create", "fail_operation", error=code)


def refusing(operation: str, status: int, **options: Any) -> Fault:
    return Fault(operation, status=status, times=None, **options)


SHAPES = {
    # --- an operation that has begun, and fails: status 200
    "out of quota": Shape(failing("OutOfQuota"), QuotaError, "does not cover it", "Ask for more"),
    "out of quota by numbers": Shape(
        failing(later("OutOfQuota", "Not enough quota available.", NOT_ENOUGH)), QuotaError, ARITHMETIC, "Ask for more"
    ),
    "out of capacity": Shape(failing("OutOfCapacity"), DeploymentError, "no machine of this size free", "another size"),
    "image build": Shape(failing("ImageBuildFailure"), ImageBuildError, "image could not be built", "build log"),
    "image pull": Shape(
        failing(later("ImagePullBackOff", "Back-off pulling image")), ImageBuildError, "could not fetch", "AcrPull"
    ),
    "crashed": Shape(failing("ResourceNotReady"), ScoringInitError, "score.py fails", "target='local'"),
    "crash loop": Shape(failing("DeploymentCrashLoopBackOff"), ScoringInitError, "score.py fails", "target='local'"),
    "unschedulable": Shape(failing("PodUnschedulable"), DeploymentError, "too little room", "Lower replicas="),
    "inside": Shape(failing("InternalServerError"), DeploymentError, r"Azure failed inside\.", SUPPORT),
    "canceled": Shape(failing(later("Canceled", "by a colleague")), DeploymentError, "was cancelled", "Repeat"),
    "unknown": Shape(failing(later("Mystery", "it is odd")), DeploymentError, "Mystery: it is odd", SUPPORT),
    "timed out": Shape(
        failing(later("DeploymentTimedOut", "The deployment timed out.")),
        DeploymentTimeoutError,
        "not healthy in time",
        "wait=",
    ),
    "endpoint failed": Shape(
        Fault("endpoints.create", "fail_operation", error="InternalServerError"),
        DeploymentError,
        r"Azure failed inside\.",
        SUPPORT,
    ),
    # --- refused outright
    "quota at once": Shape(
        refusing("deployments.create", 400, body=at_once(NOT_ENOUGH)), QuotaError, ARITHMETIC, "Ask for more"
    ),
    "size at once": Shape(
        refusing("deployments.create", 400, body=at_once("'X' is not a supported VM size.")),
        DeploymentError,
        "retired this VM size",
        "Standard_NC4as_T4_v3",
    ),
    "login": Shape(
        refusing("endpoints.create", 401),
        DeploymentError,
        "does not accept the login",
        "az login",
        "ClientAuthenticationError",
    ),
    "login, looking": Shape(
        refusing("endpoints.get", 401),
        WorkspaceError,
        "does not accept the login",
        "az login",
        "ClientAuthenticationError",
    ),
    "rights": Shape(refusing("deployments.create", 403), DeploymentError, "may not do that", "role"),
    "rights, looking": Shape(refusing("endpoints.get", 403), WorkspaceError, "may not do that", "role"),
    "absent": Shape(
        refusing("deployments.create", 404), DeploymentError, "does not know", "names", "ResourceNotFoundError"
    ),
    "busy": Shape(
        refusing(
            "deployments.create",
            409,
            body={"error": {"code": "Conflict", "message": "There is already an active operation on it."}},
        ),
        DeploymentError,
        "still working on it",
        "Wait until that has ended",
        "ResourceExistsError",
    ),
    "name taken": Shape(
        refusing(
            "endpoints.create",
            409,
            body={"error": {"code": "Conflict", "message": "An endpoint 'x' already exists in this region."}},
        ),
        DeploymentError,
        "another workspace has this one",
        "Take another name=",
        "ResourceExistsError",
    ),
    "a file that is there": Shape(
        refusing("blob.put", 409),
        DeploymentError,
        "The upload met a file that is there already",
        "Repeat the call",
        "ResourceExistsError",
    ),
    "exists": Shape(
        refusing("code_versions.create", 409, body={"error": {"code": "UserError", "message": "It is there."}}),
        DeploymentError,
        "something of this name already",
        "another name",
        "ResourceExistsError",
    ),
    "too often": Shape(refusing("deployments.create", 429), DeploymentError, "limits how often", "Wait a minute"),
    "out of order": Shape(refusing("deployments.create", 500), DeploymentError, "failed inside", SUPPORT),
    "overloaded": Shape(refusing("endpoints.create", 503), DeploymentError, "overloaded", "Wait a minute"),
    "storage": Shape(
        refusing("blob.put", 403), DeploymentError, "storage account refused", "firewall", "ClientAuthenticationError"
    ),
    # --- while an operation is looked at
    "absent, polling": Shape(refusing("online.operation", 404, skip=1), DeploymentError, "does not know", "names"),
    "inside, polling": Shape(refusing("online.operation", 500, skip=1), DeploymentError, "failed inside", SUPPORT),
    # --- answers that are none
    "reset": Shape(
        Fault("deployments.create", "reset_before", times=None),
        DeploymentError,
        "connection broke",
        "leftovers",
        "ServiceResponseError",
    ),
    "half an endpoint": Shape(
        refusing("endpoints.create", 200, body={}), DeploymentError, "SDK went on", "Try again", "AttributeError"
    ),
    "half a deployment": Shape(
        refusing("deployments.create", 200, body={"id": "x"}),
        DeploymentError,
        "SDK went on",
        "Try again",
        "AttributeError",
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_each_shape_is_one_typed_error(
    emulator: Emulator,
    client: Any,
    register: Callable[..., Any],
    script: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: Shape,
) -> None:
    shorten_online(monkeypatch)
    register(client)
    emulator.add_fault(shape.fault)
    with pytest.raises(GpuInferError, match=shape.cause) as caught:
        gpu_infer.deploy(
            "net", client, name="svc", vm_size="Standard_NC4as_T4_v3", entry_script=script, template="onnx"
        )
    emulator.clear_faults()
    error = caught.value
    assert type(error) is shape.becomes
    assert shape.do in str(error)
    assert "(200)" not in str(error)
    assert type(error.__cause__).__name__ == shape.raised
    assert emulator.billed() == []
    assert gpu_infer.services(client) == []


def test_an_update_fails_in_the_same_words(
    emulator: Emulator, client: Any, deploy: Callable[..., gpu_infer.Service]
) -> None:
    service = deploy(client)
    emulator.add_fault(failing(later("OutOfQuota", "Not enough quota available.", NOT_ENOUGH)))
    with pytest.raises(QuotaError, match=f"^Updating service 'svc' failed: .*{ARITHMETIC}"):
        service.update(timeout=30)
    assert (service.state, emulator.billed()) == ("Healthy", ["svc/blue"])


def test_a_name_that_another_workspace_of_the_region_has(
    emulator: Emulator, client: Any, deploy: Callable[..., gpu_infer.Service]
) -> None:
    emulator.take_endpoint_name("svc")
    with pytest.raises(DeploymentError, match="another workspace has this one") as caught:
        deploy(client)
    assert "Take another name=" in str(caught.value)
    assert str(caught.value).count("exists already in this region") == 1


def test_keys_that_this_login_may_not_read(
    emulator: Emulator, client: Any, deploy: Callable[..., gpu_infer.Service]
) -> None:
    service = deploy(client)
    emulator.add_fault(refusing("endpoints.keys", 403))
    with pytest.raises(AuthenticationError, match="This login may not read the keys of it") as caught:
        service.score([1.0])
    said = str(caught.value)
    assert "fetching the keys of endpoint 'svc'" in said.replace("Fetching", "fetching")
    assert "role AzureML Data Scientist" in said
    assert "Azure says (403): AuthorizationFailed: The client does not have authorization" in said
    assert isinstance(caught.value.__cause__, WorkspaceError)


def test_a_login_that_fails_before_anything_is_asked(
    client: Any, deploy: Callable[..., gpu_infer.Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    def get_token(*_: object, **__: object) -> None:
        raise ClientAuthenticationError(
            "DefaultAzureCredential failed to retrieve a token from the included credentials."
        )

    monkeypatch.setattr(connect._Credential, "get_token", get_token)
    with pytest.raises(WorkspaceError, match="The login to Azure failed or has expired") as caught:
        gpu_infer.services(client)
    assert "az login" in str(caught.value)


def test_azures_words_are_told_once_and_without_colours() -> None:
    from azure.ai.ml.exceptions import MlException

    twice = "(OutOfLuck) no luck\nCode: OutOfLuck\nMessage: no luck\n"
    twice += "Exception Details:\t(Why) so\n\tCode: Why\n\tMessage: so"
    typed = azure_error(None, doing="deploying", default=DeploymentError, text=twice)
    assert "OutOfLuck: no luck Why: so" in str(typed)
    assert "Message:" not in str(typed)
    dotted = "(Not.Lucky) no luck\nCode: Not.Lucky\nMessage: no luck"
    assert str(azure_error(None, doing="deploying", default=DeploymentError, text=dotted)).count("no luck") == 1
    coloured = MlException(message="\x1b[31mError:\x1b[39m the name is no good", no_personal_data_message="")
    assert "Error: the name is no good" in str(azure_error(coloured, doing="deploying", default=DeploymentError))
