"""Failures of deployments by Azure's names, in the words that Azure's documentation and its users have published."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["NAMES", "failure"]

_GUIDE = "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg#error-"

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "OutOfQuota": f"Not enough quota available for the deployment's VM size. {_GUIDE}outofquota",
        "OutOfCapacity": (
            "The specified VM Size failed to provision due to a lack of Azure Machine Learning capacity. Retry later "
            f"or try deploying to a different region. {_GUIDE}outofcapacity"
        ),
        "ImageBuildFailure": f"Image build failed. {_GUIDE}imagebuildfailure",
        "ResourceNotReady": (
            "User container has crashed or terminated: Liveness probe failed: HTTP probe failed with statuscode: 502. "
            f"{_GUIDE}resourcenotready"
        ),
        "InternalServerError": f"An internal server error occurred. Please try again. {_GUIDE}internalservererror",
        "PodUnschedulable": f"The pods of the deployment could not be scheduled. {_GUIDE}podunschedulable",
        "DeploymentCrashLoopBackOff": (
            f"The user container has crashed initializing: CrashLoopBackOff. {_GUIDE}deploymentcrashloopbackoff"
        ),
    }
)

NAMES = tuple(_WORDS)
"""What :func:`failure` knows."""


def failure(name: str, *, why: str = "") -> dict[str, Any]:
    """The error with which a long operation ends.

    Args:
        name: one of :data:`NAMES`.
        why: what Azure tells beside it; stands in a detail of its own.
    """
    details = [{"code": name, "message": why}] if why else []
    return {"code": name, "message": _WORDS[name], "details": details, "additionalInfo": []}
