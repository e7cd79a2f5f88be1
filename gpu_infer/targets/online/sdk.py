"""What is particular to ``azure-ai-ml``: how it is loaded, and how a workspace is known and reached through it."""

from __future__ import annotations

from typing import Any

from gpu_infer.targets.arm import Arm
from gpu_infer.targets.calls import load
from gpu_infer.targets.operations import (
    begin,
    finish,
    is_absent,
    is_conflict,
    is_refusal,
    operate,
    seen,
    settle_failure,
    status_of,
)

__all__ = [
    "arm_of",
    "begin",
    "entity",
    "finish",
    "is_absent",
    "is_conflict",
    "is_refusal",
    "key_of",
    "operate",
    "sdk",
    "seen",
    "settle_failure",
    "state_of",
    "status_of",
    "workspace_path",
]

_OWN_OPTIONS = ("transport", "cloud", "user_agent")
"""Options of an ``MLClient`` that are no other client's."""


def sdk(name: str) -> Any:
    """A class or function of the SDK by its full name, such as ``azure.ai.ml.MLClient``; imported when it is needed.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """
    return load(name, extra="online", reached="Online endpoints are reached through azure-ai-ml")


def entity(name: str) -> Any:
    """A class of ``azure.ai.ml.entities``."""
    return sdk(f"azure.ai.ml.entities.{name}")


def workspace_path(client: Any) -> str:
    """Subscription, resource group and name of a client's workspace."""
    return f"{client.subscription_id}/{client.resource_group_name}/{client.workspace_name}"


def key_of(client: Any) -> str:
    """How the ledger names the workspace of an ``MLClient``."""
    return f"online:{workspace_path(client)}"


def arm_of(client: Any) -> Arm:
    """How the resource group of an ``MLClient`` is reached by other management SDKs: as the client itself does.

    ``MLClient`` has no public attribute for its credential, the address of Resource Manager, or the options that it
    hands on to its own clients (1.26 to 1.35). The transport is left out: whoever closes a client closes it.
    """
    options: dict[str, Any] = client._kwargs  # noqa: SLF001
    return Arm(
        client.subscription_id,
        client.resource_group_name,
        client._credential,  # noqa: SLF001
        client._base_url,  # noqa: SLF001
        {name: value for name, value in options.items() if name not in _OWN_OPTIONS},
    )


def state_of(thing: Any) -> str:
    """The provisioning state of an endpoint or deployment in Azure's word: the SDK's enumerations print as others."""
    state: Any = thing.provisioning_state
    return str(getattr(state, "value", state) or "unknown")
