"""What a check has to know of a workspace, as data: who asks Azure fills it in, so no check needs an Azure package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ClusterFacts", "WorkspaceFacts"]


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A cluster that the workspace has.

    Args:
        name: of the compute target.
        state: of its provisioning: ``Succeeded``, ``Creating``, ``Failed``, ``Deleting``, ...
        vm_size: of its nodes, empty where Azure does not say: of an attached one.
        nodes: how many, 0 where Azure does not say.
        purpose: ``FastProd`` or ``DevTest``, empty where Azure does not say.
        attached: whether it was attached, not created, here.
        errors: what Azure says of a failed one.
    """

    name: str
    state: str = "Succeeded"
    vm_size: str = ""
    nodes: int = 0
    purpose: str = ""
    attached: bool = False
    errors: str = ""


@dataclass(frozen=True, slots=True)
class WorkspaceFacts:
    """What is there before a deployment.

    Args:
        location: Azure region of the workspace.
        sizes: the region's own list of VM sizes, each with its GPUs; ``None`` where it could not be read.
        cluster: the cluster of the name that is to be used, ``None`` where there is none.
        gpus_taken: GPUs of it that other services hold.
        service_exists: whether there is a service of the name.
    """

    location: str = ""
    sizes: Mapping[str, int] | None = None
    cluster: ClusterFacts | None = None
    gpus_taken: int = 0
    service_exists: bool = False
