"""Azure Resource Manager beside Azure ML: the management SDKs for what a workspace cannot do itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gpu_infer.targets.calls import load

__all__ = ["Arm", "containers", "installed", "monitor"]


@dataclass(frozen=True, slots=True)
class Arm:
    """How the resource group of a workspace is reached.

    Args:
        subscription_id: of the workspace.
        resource_group: of the workspace.
        credential: with the ``get_token()`` of azure-core.
        url: of Resource Manager; that of Azure's public cloud where ``None``.
        options: more for the constructor of a client, such as ``credential_scopes``.
    """

    subscription_id: str
    resource_group: str
    credential: Any = field(repr=False)
    url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)  # a proxy's password may be there


def installed(module: str) -> bool:
    """Whether a management SDK is installed, such as ``azure.mgmt.monitor``; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it is there
        return False


@contextmanager
def monitor(arm: Arm) -> Generator[Any]:
    """A ``MonitorManagementClient``, closed at the end.

    Raises:
        MissingDependencyError: azure-mgmt-monitor is not installed.
    """
    client: Any = load(
        "azure.mgmt.monitor.MonitorManagementClient",
        extra="autoscale",
        reached="How many instances serve is left to the load through azure-mgmt-monitor",
    )
    with client(arm.credential, arm.subscription_id, base_url=arm.url, **arm.options) as made:
        yield made


@contextmanager
def containers(arm: Arm) -> Generator[Any]:
    """A ``ContainerServiceClient``, closed at the end.

    Raises:
        MissingDependencyError: azure-mgmt-containerservice is not installed.
    """
    client: Any = load(
        "azure.mgmt.containerservice.ContainerServiceClient",
        extra="clusters",
        reached="AKS makes clusters through azure-mgmt-containerservice",
    )
    with client(arm.credential, arm.subscription_id, base_url=arm.url, **arm.options) as made:
        yield made
