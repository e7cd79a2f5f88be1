"""What is particular to ``azureml-core``: how it is loaded, and how its failures are told apart."""

from __future__ import annotations

from typing import Any

from gpu_infer.targets.calls import load

__all__ = ["is_absent", "is_conflict", "is_refusal", "sdk"]


def sdk(name: str) -> Any:
    """A class or function of the SDK by its full name, such as ``azureml.core.Model``; imported here only.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """
    return load(name, extra="aks", reached="AKS is reached through azureml-core")


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
