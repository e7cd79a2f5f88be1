"""What is particular to ``azureml-core``: how it is loaded, and how its failures are told apart."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from gpu_infer.targets.arm import Arm
from gpu_infer.targets.calls import load

__all__ = ["arm_of", "is_absent", "is_conflict", "is_refusal", "sdk"]


def sdk(name: str) -> Any:
    """A class or function of the SDK by its full name, such as ``azureml.core.Model``; imported here only.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """
    return load(name, extra="aks", reached="AKS is reached through azureml-core")


def arm_of(workspace: Any) -> Arm:
    """How the resource group of a workspace is reached by the SDKs on azure-core: with the login of the workspace.

    Its ``get_authentication_header()`` is public and works for every kind of login, and renews what has expired; the
    ``get_token()`` of ``TokenAuthentication`` is not the one that azure-core calls.
    """
    auth = workspace.service_context.get_auth()
    policy: Any = load(
        "azure.core.pipeline.policies.SansIOHTTPPolicy", extra="clusters", reached="AKS needs azure-core"
    )

    class Login(policy):
        """Signs each request."""

        def on_request(self, request: Any) -> None:
            url: str = request.http_request.url
            if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
                message = "A token is sent over TLS only."
                raise ValueError(message)
            request.http_request.headers.update(auth.get_authentication_header())

    return Arm(
        workspace.subscription_id,
        workspace.resource_group,
        auth,
        auth._get_cloud_type().endpoints.resource_manager,  # noqa: SLF001 - said nowhere else
        {"authentication_policy": Login()},
    )


def is_absent(error: BaseException) -> bool:
    """Whether the SDK says that what was asked for does not exist: the same class as any error, so the text decides."""
    return any(text in _text(error) for text in ("ComputeTargetNotFound", "WebserviceNotFound", "ModelNotFound"))


def is_refusal(error: BaseException) -> bool:
    """Whether Azure has refused a request outright, so that nothing of it was done.

    Not 408, 409 and 429: the SDK sends a request again whose answer was lost, and the second one may be answered so.
    """
    text = _text(error)
    return any(f"Response Code: {status}" in text for status in (400, 401, 403, 404, 422))


def is_conflict(error: BaseException | None) -> bool:
    """Whether Azure refuses because it is still working on the thing."""
    return error is not None and "Response Code: 409" in _text(error)


def _text(error: BaseException) -> str:
    try:
        return f"{getattr(error, 'message', '')} {error}"
    except TypeError:  # ServiceException without details cannot be printed
        return str(getattr(error, "message", ""))
