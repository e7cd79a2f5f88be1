"""Checks of the cluster itself: its name, its size, and whether one that is there already fits."""

from __future__ import annotations

import re

from gpu_infer.catalog import find_size
from gpu_infer.errors import Finding
from gpu_infer.preflight.facts import ClusterFacts, WorkspaceFacts
from gpu_infer.preflight.vm_sizes import ANOTHER, gpus_per_node, same_size
from gpu_infer.spec import Cluster

__all__ = ["check_cluster", "check_way", "makes_cluster", "nodes_of", "size_of"]

CLUSTER_NAME = re.compile(r"[a-zA-Z]([-a-zA-Z0-9]{1,22}[a-zA-Z0-9])")
RESERVED = ("amlcompute", "containerinstance", "local")
"""Names that azureml-core 1.61 refuses before it sends anything."""

PRODUCTION_VCPUS = 12
PRODUCTION_NODES = 3
"""What Azure Machine Learning asks of a cluster for production (azure-ai-docs, how-to-create-attach-kubernetes)."""

_AKS_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ContainerService/managedClusters/[^/]+",
    re.IGNORECASE,
)
_GOING = ("Deleting", "Detaching")
_FAILED = ("Failed", "Canceled")
_SSL = ("ssl_cname", "ssl_cert_pem_file", "ssl_key_pem_file")
_NETWORK = (
    "vnet_name",
    "vnet_resourcegroup_name",
    "subnet_name",
    "service_cidr",
    "dns_service_ip",
    "docker_bridge_cidr",
)


def check_cluster(cluster: Cluster, facts: WorkspaceFacts) -> list[Finding]:
    """Check a cluster that is to be used, created or attached.

    Args:
        cluster: with a VM size that ``resolve_size`` has passed, or none.
        facts: of the workspace; ``facts.cluster`` is the one of that name, where there is one.
    """
    there = facts.cluster
    if there is not None and not makes_cluster(cluster, facts):
        return _check_existing(cluster, there, facts)
    return [
        *([] if there is None else [_makes_room(there)]),
        *_check_name(cluster),
        *_check_new_size(cluster),
        *_check_resource_id(cluster),
        *_check_purpose(cluster),
        *_check_options(cluster),
    ]


def check_way(cluster: Cluster, facts: WorkspaceFacts) -> list[Finding]:
    """Whether Azure may refuse a cluster for its load balancer: none with a Basic one is made since 2025-03-31."""
    if cluster.resource_id is not None or cluster.how == "aks" or not makes_cluster(cluster, facts):
        return []
    message = (
        f"Azure ML gives a cluster that it creates, as {cluster.name!r}, a Basic load balancer, and Azure has retired "
        "those on 2025-09-30: it may refuse the cluster."
    )
    fix = f'Cluster({cluster.name!r}, how="aks") has AKS itself create it, with a Standard one, and attaches it.'
    return [Finding("warning", "cluster-load-balancer", message, fix)]


def makes_cluster(cluster: Cluster, facts: WorkspaceFacts) -> bool:
    """Whether a cluster is created or attached: there is none, it goes away, or it has failed and is replaced."""
    there = facts.cluster
    return there is None or there.state in _GOING or (there.state in _FAILED and cluster.replace_failed)


def size_of(cluster: Cluster, facts: WorkspaceFacts) -> str:
    """The VM size of the nodes that there are or will be, empty where it is not known."""
    there = facts.cluster
    return cluster.vm_size if there is None or makes_cluster(cluster, facts) else there.vm_size


def nodes_of(cluster: Cluster, facts: WorkspaceFacts) -> int:
    """How many nodes there are or will be, 0 where that is not known."""
    there = facts.cluster
    if there is not None and not makes_cluster(cluster, facts):
        return there.nodes
    return 0 if cluster.resource_id else cluster.nodes


# --- inside -----------------------------------------------------------------------------------------------------------


def _check_name(cluster: Cluster) -> list[Finding]:
    if CLUSTER_NAME.fullmatch(cluster.name) is None:
        message = (
            f"{cluster.name!r} is no name that Azure ML accepts for a cluster: 3 to 24 letters, digits and dashes, a "
            "letter first, no dash last."
        )
        return [Finding("error", "cluster-name", message, 'For example Cluster("aks-gpu").')]
    if cluster.name.lower() in RESERVED:
        message = f"{cluster.name!r} is a name that Azure ML keeps for itself."
        return [Finding("error", "cluster-name", message, 'For example Cluster("aks-gpu").')]
    return []


def _check_new_size(cluster: Cluster) -> list[Finding]:
    if cluster.vm_size or cluster.resource_id:
        return []
    message = f"There is no cluster {cluster.name!r} yet, and to create one its VM size must be said."
    return [Finding("error", "cluster-size", message, ANOTHER)]


def _check_resource_id(cluster: Cluster) -> list[Finding]:
    if cluster.resource_id is None or _AKS_ID.fullmatch(cluster.resource_id.rstrip("/")):
        return []
    message = f"{cluster.resource_id!r} is not the resource id of an AKS cluster."
    fix = (
        "It reads /subscriptions/.../resourceGroups/.../providers/Microsoft.ContainerService/managedClusters/NAME; "
        "`az aks show --query id` prints it."
    )
    return [Finding("error", "cluster-resource-id", message, fix)]


def _check_purpose(cluster: Cluster) -> list[Finding]:
    size = find_size(cluster.vm_size)
    if cluster.purpose != "FastProd" or cluster.resource_id or size is None:
        return []
    fix = 'Take more nodes, a larger size, or Cluster(..., purpose="DevTest").'
    vcpus = cluster.nodes * size.vcpus
    if vcpus < PRODUCTION_VCPUS:
        message = (
            f"A cluster for production needs {PRODUCTION_VCPUS} virtual CPUs, and {cluster.nodes} x {size.name} with "
            f"{size.vcpus} each has {vcpus}: Azure ML refuses it."
        )
        return [Finding("error", "cluster-too-small", message, fix)]
    if cluster.nodes < PRODUCTION_NODES:
        message = (
            f"A cluster for production is meant to have at least {PRODUCTION_NODES} nodes, one for each copy of the "
            f"router that Azure ML runs in it; this one has {cluster.nodes}."
        )
        return [Finding("warning", "cluster-few-nodes", message, fix)]
    return []


def _check_options(cluster: Cluster) -> list[Finding]:
    """Options that only work together; the SDK finds that out too, but after the model was uploaded."""
    findings: list[Finding] = []
    for what, together in (("HTTPS", _SSL), ("a virtual network", _NETWORK)):
        given = [name for name in together if cluster.options.get(name)]
        if given and len(given) < len(together):
            missing = ", ".join(name for name in together if name not in given)
            message = f"Cluster(options=...): {what} takes {', '.join(together)} together; there is no {missing}."
            findings.append(Finding("error", "cluster-options", message, f"Add {missing}, or leave all of them out."))
    if cluster.options.get("load_balancer_subnet") and cluster.options.get("load_balancer_type") in (None, "PublicIp"):
        message = "Cluster(options=...): load_balancer_subnet means nothing without an internal load balancer."
        fix = 'Add "load_balancer_type": "InternalLoadBalancer".'
        findings.append(Finding("error", "cluster-options", message, fix))
    return findings


def _check_existing(cluster: Cluster, there: ClusterFacts, facts: WorkspaceFacts) -> list[Finding]:
    name = there.name
    if there.state in _FAILED:
        why = f" Azure says: {there.errors}" if there.errors else ""
        message = f"Cluster {name!r} is there, but making it has ended {there.state}.{why}"
        fix = f"Cluster({name!r}, replace_failed=True) deletes it and makes it anew; or give another name."
        return [Finding("error", "cluster-failed", message, fix)]
    findings = [
        *_check_existing_size(cluster, there),
        *_check_existing_gpu(there, facts),
    ]
    if there.state != "Succeeded":
        message = f"Cluster {name!r} is still {there.state or 'in an unknown state'}; it is waited for."
        findings.append(Finding("info", "cluster-creating", message))
    if cluster.vm_size and there.nodes and cluster.nodes != there.nodes:
        message = f"Cluster {name!r} has {there.nodes} nodes, not {cluster.nodes}; azureml-core cannot change that."
        fix = f"`az aks nodepool scale` does. Cluster({name!r}, nodes={there.nodes}) says so without this line."
        findings.append(Finding("info", "cluster-nodes", message, fix))
    if cluster.vm_size and there.purpose and cluster.purpose != there.purpose:
        message = f"Cluster {name!r} was made for {there.purpose}, not for {cluster.purpose}, and stays so."
        findings.append(Finding("info", "cluster-purpose", message))
    return findings


def _makes_room(there: ClusterFacts) -> Finding:
    if there.state in _GOING:
        message = f"Cluster {there.name!r} is being deleted; a new one is made when it is gone."
        return Finding("info", "cluster-deleting", message)
    verb = "detached" if there.attached else "deleted"
    why = f" Azure says: {there.errors}" if there.errors else ""
    message = f"Making cluster {there.name!r} has ended {there.state}. It is {verb} and made anew.{why}"
    return Finding("info", "cluster-failed", message)


def _check_existing_size(cluster: Cluster, there: ClusterFacts) -> list[Finding]:
    if not cluster.vm_size or not there.vm_size or same_size(cluster.vm_size, there.vm_size):
        return []
    message = (
        f"Cluster {there.name!r} is there with {there.nodes or 'some'} nodes of size {there.vm_size}, not "
        f"{cluster.vm_size}, and the size of a cluster cannot be changed."
    )
    fix = f'Cluster({there.name!r}, vm_size="") takes it as it is; another name makes a second one.'
    return [Finding("error", "cluster-size", message, fix)]


def _check_existing_gpu(there: ClusterFacts, facts: WorkspaceFacts) -> list[Finding]:
    if not there.vm_size:
        message = f"Azure does not say of what size the nodes of the attached cluster {there.name!r} are."
        fix = "Its GPUs are not checked: they must be NVIDIA's, with the device plugin that offers nvidia.com/gpu."
        return [Finding("info", "cluster-size-unknown", message, fix)]
    if gpus_per_node(there.vm_size, facts.sizes) != 0:
        return []
    size = find_size(there.vm_size)
    has = f"AMD's {size.gpu}, which CUDA cannot use" if size is not None and size.gpu else "no GPU"
    message = f"The nodes of cluster {there.name!r} are {there.vm_size} and have {has}, so no GPU service runs there."
    return [Finding("error", "vm-cpu", message, "Take another cluster: Cluster('another-name', vm_size=...).")]
