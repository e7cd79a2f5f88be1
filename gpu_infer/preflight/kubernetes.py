"""Checks of a Kubernetes online endpoint: the attached compute below it, and the instance type that replicas get."""

from __future__ import annotations

import re

from gpu_infer.errors import Finding
from gpu_infer.preflight.facts import ComputeFacts, InstanceTypeFacts, OnlineFacts
from gpu_infer.spec import DEFAULT_CPU_CORES, DEFAULT_MEMORY_GB, Cluster, ServiceSpec

__all__ = ["check_absent", "check_compute", "choose_instance_type"]

_CLUSTER_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
    r"(Microsoft\.ContainerService/managedClusters|Microsoft\.Kubernetes/connectedClusters)/[^/]+",
    re.IGNORECASE,
)
_FAILED = ("Failed", "Canceled")
_MAKE = (
    "Make one with nvidia.com/gpu among its limits (kubectl apply, kind InstanceType of amlarc.azureml.com/v1alpha1) "
    "and name it by vm_size=."
)

INSTALL = (
    "`az k8s-extension create --name azureml --extension-type Microsoft.AzureML.Kubernetes --config "
    "enableInference=True inferenceRouterServiceType=LoadBalancer allowInsecureConnections=True "
    "installNvidiaDevicePlugin=True --cluster-type managedClusters --cluster-name NAME --resource-group GROUP "
    "--scope cluster` does that"
)
"""No SDK that is a dependency here installs an extension."""


def check_compute(spec: ServiceSpec, cluster: Cluster, facts: OnlineFacts) -> list[Finding]:
    """Check the compute that a Kubernetes endpoint is to run on.

    Args:
        spec: its resources and its scale count; ``resources.vm_size`` names an instance type.
        cluster: whose name the compute has.
        facts: of the workspace.
    """
    there = facts.compute
    if there is None:
        if cluster.resource_id is not None:
            return _check_id(cluster)
        return check_absent(cluster) if facts.compute_read else []
    if there.kind != "kubernetes":
        message = (
            f"The compute {there.name!r} of this workspace is {there.kind}, and a Kubernetes online endpoint needs one "
            "of Kubernetes."
        )
        if not there.kind:
            message = (
                f"The compute {there.name!r} of this workspace is none of Kubernetes but of a kind that azure-ai-ml "
                "does not know. If it is an AksCompute: online endpoints do not run on those, but on the AKS cluster "
                "below it, attached a second time as Kubernetes."
            )
        return [Finding("error", "cluster-type", message, _how_to_attach(there.name, cluster))]
    if there.state in _FAILED:
        message = f"Kubernetes compute {there.name!r} is there, but attaching it has ended {there.state}."
        return [Finding("error", "cluster-failed", message, "Detach it and attach it anew, or name another.")]
    findings = _check_instance_type(spec, there)
    if there.state not in ("unknown", "Succeeded"):
        message = f"Kubernetes compute {there.name!r} is still {there.state}; Azure may refuse deployments until then."
        findings.append(Finding("warning", "cluster-creating", message))
    if spec.resources.gpus:
        asked = spec.resources.gpus * spec.scale.most
        message = (
            f"Azure does not say how many GPUs the cluster behind {there.name!r} has, so whether the {asked} that are "
            "asked for are free is not checked."
        )
        fix = "They must be NVIDIA's, with the device plugin that offers nvidia.com/gpu."
        findings.append(Finding("info", "cluster-size-unknown", message, fix))
    return findings


def choose_instance_type(spec: ServiceSpec, there: ComputeFacts | None) -> str | None:
    """The instance type of the replicas.

    Returns:
        the one that is asked for by ``vm_size=``; else, of those that give as many GPUs as are asked for, the default
        or the smallest; ``None``, which means the cluster's default, where there is none.
    """
    asked = spec.resources.vm_size
    if asked is not None or there is None:
        return asked
    if not spec.resources.gpus:
        return None
    fit = [one for one in there.instance_types if one.gpus >= spec.resources.gpus]
    smallest = min(fit, key=lambda one: (one.name != there.default, one.gpus, one.name), default=None)
    return None if smallest is None else smallest.name


def check_absent(cluster: Cluster) -> list[Finding]:
    """What there is to say where a workspace has no compute of a cluster's name, and none can be attached."""
    message = (
        f"There is no compute {cluster.name!r} in the workspace, and azure-ai-ml creates no Kubernetes clusters: one "
        "that exists has to be attached."
    )
    return [Finding("error", "cluster-missing", message, _how_to_attach(cluster.name, cluster))]


# --- inside -----------------------------------------------------------------------------------------------------------


def _check_id(cluster: Cluster) -> list[Finding]:
    if cluster.resource_id is None or _CLUSTER_ID.fullmatch(cluster.resource_id.rstrip("/")):
        return []
    message = f"{cluster.resource_id!r} is not the resource id of an AKS or Arc-enabled cluster."
    fix = (
        "It reads /subscriptions/.../resourceGroups/.../providers/Microsoft.ContainerService/managedClusters/NAME; "
        "`az aks show --query id` prints it. Of one with Azure Arc it ends Microsoft.Kubernetes/connectedClusters/NAME."
    )
    return [Finding("error", "cluster-resource-id", message, fix)]


def _how_to_attach(name: str, cluster: Cluster) -> str:
    what = f"{cluster.resource_id!r}" if cluster.resource_id else "its resource id"
    return (
        f"cluster=Cluster.attach({what}, name={name!r}) attaches one, on which the Azure ML extension is installed "
        f"({INSTALL}). Without cluster= the endpoint is a managed one."
    )


def _check_instance_type(spec: ServiceSpec, there: ComputeFacts) -> list[Finding]:
    asked, gpus = spec.resources.vm_size, spec.resources.gpus
    types = {one.name: one for one in there.instance_types}
    if asked is not None and asked not in types:
        return _check_unknown_type(asked, there)
    chosen = types.get(asked or there.default)
    if asked is None and gpus and (chosen is None or chosen.gpus < gpus):
        names = f" Those that Azure names are {', '.join(map(_type, types.values()))}." if types else ""
        message = (
            f"No instance type of {there.name!r} is known to give a replica {_gpus(gpus)}, so the cluster's default is "
            f"taken, which has none unless somebody has changed it.{names}"
        )
        return [Finding("warning", "instance-type", message, _MAKE)]
    return [] if chosen is None else _check_limits(spec, chosen)


def _check_unknown_type(asked: str, there: ComputeFacts) -> list[Finding]:
    if not there.instance_types:
        message = f"Azure names no instance types of {there.name!r}: whether it has {asked!r} is not checked."
        return [Finding("warning", "instance-type", message)]
    message = (
        f"vm_size={asked!r} names an instance type of the cluster on Kubernetes, and {there.name!r} has none of that "
        f"name. It has {', '.join(map(_type, there.instance_types))}."
    )
    return [Finding("error", "instance-type", message, "Name one of these, or leave vm_size= out.")]


def _check_limits(spec: ServiceSpec, chosen: InstanceTypeFacts) -> list[Finding]:
    resources = spec.resources
    over = [
        f"{asked:g} {unit} of {limit:g}"
        for asked, limit, unit in (
            (resources.gpus, chosen.gpus, "GPUs"),
            (resources.cpu_cores or DEFAULT_CPU_CORES, chosen.cpu_cores, "cores"),
            (resources.memory_gb or DEFAULT_MEMORY_GB, chosen.memory_gb, "GB of memory"),
        )
        if limit is not None and asked > limit
    ]
    if not over:
        return []
    message = f"A replica asks for more than instance type {chosen.name!r} gives: {', '.join(over)}."
    fix = "Lower gpus_per_replica, cpu_cores= or memory_gb=, or name a larger type by vm_size=."
    return [Finding("warning", "instance-type", message, fix)]


def _gpus(number: int) -> str:
    return f"{number} GPU{'' if number == 1 else 's'}"


def _type(one: InstanceTypeFacts) -> str:
    return f"{one.name} ({_gpus(one.gpus)})"
