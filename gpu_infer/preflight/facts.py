"""What a check has to know of a workspace, as data: who asks Azure fills it in, so no check needs an Azure package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ClusterFacts",
    "ComputeFacts",
    "DeploymentFacts",
    "EndpointFacts",
    "InstanceTypeFacts",
    "OnlineFacts",
    "SizeFacts",
    "UsageFacts",
    "WorkspaceFacts",
]


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


@dataclass(frozen=True, slots=True)
class SizeFacts:
    """A VM size as the region's own list has it.

    Args:
        name: as Azure spells it.
        family: whose quota counts, empty where the list does not say.
        vcpus: virtual CPU cores of a machine, 0 where the list does not say.
        gpus: GPUs of a machine.
        disk_gb: GB of its temporary disk, 0 where the list does not say.
        managed: whether managed endpoints take it, ``None`` where the list does not say.
    """

    name: str
    family: str = ""
    vcpus: int = 0
    gpus: int = 0
    disk_gb: float = 0.0
    managed: bool | None = None


@dataclass(frozen=True, slots=True)
class UsageFacts:
    """How much of a quota of dedicated cores is used.

    Args:
        family: of VM sizes, or the name of the quota of the whole region.
        used: cores.
        limit: cores, ``None`` where there is none.
    """

    family: str
    used: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A deployment of an endpoint.

    Args:
        name: below the endpoint.
        vm_size: of its instances, or its instance type on Kubernetes; empty where Azure does not say.
        instances: how many.
        traffic: percent of the endpoint's requests that it gets.
    """

    name: str
    vm_size: str = ""
    instances: int = 0
    traffic: int = 0


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """An online endpoint that the workspace has.

    Args:
        name: as it was created.
        state: of its provisioning: ``Succeeded``, ``Creating``, ``Failed``, ``Deleting``, ...
        cluster: name of the Kubernetes compute below it, empty for a managed one.
        deployments: that it has, ``None`` where they could not be read.
    """

    name: str
    state: str = "Succeeded"
    cluster: str = ""
    deployments: tuple[DeploymentFacts, ...] | None = ()


@dataclass(frozen=True, slots=True)
class InstanceTypeFacts:
    """What an instance type of a Kubernetes compute gives to a replica at most.

    Args:
        name: of the type.
        gpus: whole GPUs.
        cpu_cores: ``None`` where it sets no limit.
        memory_gb: the same.
    """

    name: str
    gpus: int = 0
    cpu_cores: float | None = None
    memory_gb: float | None = None


@dataclass(frozen=True, slots=True)
class ComputeFacts:
    """A compute of the workspace.

    Args:
        name: of it.
        kind: ``kubernetes``, ``amlcompute``, ..., in lower case; empty for what azure-ai-ml does not know, such as an
            ``AksCompute``.
        state: of its provisioning, ``unknown`` where Azure does not say.
        instance_types: that deployments on it may name, empty where Azure does not say.
        default: of them, empty where Azure does not say.
    """

    name: str
    kind: str = "kubernetes"
    state: str = "Succeeded"
    instance_types: tuple[InstanceTypeFacts, ...] = ()
    default: str = ""


@dataclass(frozen=True, slots=True)
class OnlineFacts:
    """What is there before a deployment to an online endpoint.

    Args:
        sizes: the region's own list of VM sizes; ``None`` where it could not be read.
        usage: of the region's quotas of dedicated cores; ``None`` the same.
        endpoint: the endpoint of the name, ``None`` where there is none, or it could not be read.
        others: endpoints beside it: managed ones, or those on the same compute.
        compute: the compute below it, ``None`` where there is none.
        compute_read: whether that is known.
    """

    sizes: tuple[SizeFacts, ...] | None = None
    usage: tuple[UsageFacts, ...] | None = None
    endpoint: EndpointFacts | None = None
    others: int = 0
    compute: ComputeFacts | None = None
    compute_read: bool = True
