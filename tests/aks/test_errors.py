"""What Azure and the SDK raise during a deployment arrives as one typed error; the SDK's own is its cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import DeploymentError, DeploymentTimeoutError, GpuInferError, ProvisioningError, WorkspaceError

T4 = "Standard_NC4as_T4_v3"
pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    ("operation", "status", "kind", "says"),
    [
        ("services.list", 403, WorkspaceError, "role"),
        ("compute.create", 401, ProvisioningError, "log in|Log in"),
        ("compute.create", 400, ProvisioningError, "400"),
        ("services.create", 403, DeploymentError, "role"),
        ("services.create", 400, DeploymentError, "400"),
        ("artifacts.create", 403, DeploymentError, "storage|role|may not"),
        ("blob.put", 403, DeploymentError, "storage|may not|refuse"),
    ],
)
def test_a_refusal(
    emulator: Emulator,
    workspace: Any,
    register: Callable[..., Any],
    operation: str,
    status: int,
    kind: type[GpuInferError],
    says: str,
) -> None:
    register(workspace)
    emulator.add_fault(Fault(operation=operation, kind="status", status=status, times=None))
    with pytest.raises(kind, match=says) as caught:
        gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4))
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, GpuInferError)
    emulator.clear_faults()
    assert emulator.billed() == []


def test_a_deployment_that_azure_gives_up(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    error = {"code": "DeploymentTimedOut", "statusCode": 504, "message": "The deployment timed out.", "details": []}
    emulator.add_fault(Fault(operation="services.create", kind="fail_operation", error=error))
    with pytest.raises(DeploymentTimeoutError, match="svc") as caught:
        gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4))
    assert isinstance(caught.value, TimeoutError)
    assert emulator.billed() == []


def test_secrets_stay_out_of_messages(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    emulator.add_fault(Fault(operation="blob.put", kind="status", status=403, times=None))
    with pytest.raises(DeploymentError) as caught:
        gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4))
    assert "sig=" not in str(caught.value).replace("sig=***", "")
