"""Every check of a deployment to an online endpoint, with the message it gives; what is right gives none."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_infer.bundle import load_template
from gpu_infer.cli import show
from gpu_infer.errors import Finding
from gpu_infer.plans import Plan
from gpu_infer.preflight import choose_instance_type, resolve_size
from gpu_infer.preflight.facts import (
    ComputeFacts,
    DeploymentFacts,
    EndpointFacts,
    InstanceTypeFacts,
    OnlineFacts,
    SizeFacts,
    UsageFacts,
)
from gpu_infer.preflight.online import check_online
from gpu_infer.preflight.quota import check_quota, cores_needed, quota_of
from gpu_infer.spec import Cluster, ModelRef, Resources, Scale, ServiceSpec

TODAY = date(2026, 11, 25)
T4, FOUR_T4, A100 = "Standard_NC4as_T4_v3", "Standard_NC64as_T4_v3", "Standard_NC24ads_A100_v4"
T4_FAMILY, A100_FAMILY = "standardNCASv3_T4Family", "standardNCADSA100v4Family"
SIZES = (
    SizeFacts(T4, T4_FAMILY, 4, 1, 176.0, managed=True),
    SizeFacts(FOUR_T4, T4_FAMILY, 64, 4, 2816.0, managed=True),
    SizeFacts(A100, A100_FAMILY, 24, 1, 64.0, managed=True),
    SizeFacts("Standard_NCC40ads_H100_v5", "", 40, 1, managed=False),
    SizeFacts("Standard_NC40ads_H100_v5", "standardNCADSH100v5Family", 40, 1, managed=False),
    SizeFacts("Standard_D4s_v5", "standardDSv5Family", 4, 0, managed=True),
    SizeFacts("Standard_NEW_X1", "standardNEWXFamily", 10, 2, managed=True),
)
USAGE = (
    UsageFacts(T4_FAMILY, 0, 400),
    UsageFacts(A100_FAMILY, 0, 48),
    UsageFacts("standardNEWXFamily", 0, None),
    UsageFacts("standardNCADSH100v5Family", 0, 400),
    UsageFacts("TotalDedicatedCores", 0, 1000),
)
AKS_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/mine"
GPU_TYPE, SMALL_TYPE = InstanceTypeFacts("gpu", 1, 4.0, 24.0), InstanceTypeFacts("defaultinstancetype", 0, 2.0, 8.0)
KUBERNETES = ComputeFacts("k8s", instance_types=(SMALL_TYPE, GPU_TYPE), default="defaultinstancetype")


def shown(findings: list[Finding]) -> list[Finding]:
    for finding in findings:
        print(finding.level, finding.code, finding, sep="  ")
    return findings


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.code) for finding in findings]


def spec_with(vm_size: str | None = T4, **changes: Any) -> ServiceSpec:
    base = ServiceSpec(
        name="gpu-rn",
        model=ModelRef("resnet50", version="3"),
        target="online",
        template="tensorflow",
        scale=Scale(2),
        resources=Resources(gpus=1, vm_size=vm_size),
    )
    return replace(base, **changes)


def on_kubernetes(vm_size: str | None = "gpu", **changes: Any) -> ServiceSpec:
    return spec_with(vm_size, **{"cluster": Cluster("k8s", vm_size=""), **changes})


def check(spec: ServiceSpec, *, model_bytes: int | None = 100_000_000, **facts: Any) -> list[Finding]:
    there = OnlineFacts(**{"sizes": SIZES, "usage": USAGE, "compute": KUBERNETES, **facts})
    template = load_template("tensorflow")
    rest: dict[str, Any] = {"model_bytes": model_bytes, "today": TODAY, "deployment": "green"}
    return shown(check_online(spec, there, None, template, **rest))


def endpoint(*deployments: DeploymentFacts, **changes: Any) -> EndpointFacts:
    return EndpointFacts("gpu-rn", deployments=deployments, **changes)


BLUE = DeploymentFacts("blue", T4, 1, 100)


def test_a_deployment_that_fits_is_fine():
    assert check(spec_with()) == []
    assert check(spec_with(A100)) == []
    assert check(spec_with(name="GPU-rn2")) == [], "endpoints may have capital letters"


def test_nothing_that_could_not_be_read_is_complained_about_again():
    assert check(spec_with(), sizes=None, usage=None) == []
    assert check(spec_with("Standard_ZZ"), sizes=None, usage=None) == []
    assert check(on_kubernetes(), compute=None, compute_read=False) == []


# --- quota ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vcpus", "instances", "reserved", "needed"),
    [(4, 1, True, 8), (4, 2, True, 12), (4, 5, True, 24), (4, 6, True, 32), (24, 1, False, 24), (6, 10, True, 72)],
)
def test_the_arithmetic_of_the_reserve(vcpus: int, instances: int, reserved: bool, needed: int):
    assert cores_needed(vcpus, instances, reserved=reserved) == needed


@given(st.integers(1, 96), st.integers(1, 500))
def test_the_reserve_is_the_least_whole_number_of_instances_that_is_20_percent_more(vcpus: int, instances: int):
    reserved = cores_needed(vcpus, instances, reserved=True)
    assert reserved % vcpus == 0
    assert 10 * reserved >= 12 * instances * vcpus > 10 * (reserved - vcpus)


def test_too_little_quota_for_a_single_machine_is_explained():
    (finding,) = check(spec_with(scale=Scale(1)), usage=(UsageFacts(T4_FAMILY, 0, 6), USAGE[-1]))
    assert (finding.level, finding.code) == ("error", "quota")
    assert finding.message == (
        "Too little quota: needs 8 = ceil(1.2 x 1) x 4 cores; used 0 of 6. Azure ML keeps 20 % more instances free, "
        "for their replacement."
    )
    assert finding.fix == "Ask for 8 in family 'standardNCASv3_T4Family' (Azure ML's studio, Quota)."


def quota(vm_size: str, scale: Scale, *usage: UsageFacts, there: EndpointFacts | None = None) -> list[Finding]:
    return shown(check_quota(vm_size, scale, OnlineFacts(sizes=SIZES, usage=usage, endpoint=there)))


def test_where_quota_is_short_what_would_fit_is_said():
    (finding,) = quota(T4, Scale(5), UsageFacts(T4_FAMILY, 4, 24), UsageFacts(A100_FAMILY, 0, 120))
    assert finding.message.startswith("Too little quota: needs 24 = ceil(1.2 x 5) x 4 cores; used 4 of 24.")
    assert finding.fix == (
        "Ask for 28 in family 'standardNCASv3_T4Family' (Azure ML's studio, Quota). Or lower replicas= to 4. Or take "
        "what the quota holds: Standard_NC24ads_A100_v4 (1 x A100 with 80 GB, $3.67 per hour and instance)."
    )


def test_some_sizes_have_no_reserve():
    assert quota(A100, Scale(2), UsageFacts(A100_FAMILY, 0, 48)) == []
    (finding,) = quota(A100, Scale(2), UsageFacts(A100_FAMILY, 1, 48))
    assert finding.message == "Too little quota: needs 48 = 2 x 24 cores; used 1 of 48."


def test_an_update_needs_its_cores_beside_the_old_ones():
    usage = UsageFacts(T4_FAMILY, 8, 12)
    (finding,) = quota(T4, Scale(1), usage, there=endpoint(BLUE))
    assert finding.message.endswith(f"What is replaced, blue (1 x {T4}), holds its cores until the new one serves.")
    assert "Ask for 16 in family" in finding.fix


@pytest.mark.parametrize(
    "spelt",
    ["standard NCASv3_T4 Family", "Standard NCASv3_T4 Family Cluster Dedicated vCPUs", "standardncasv3_t4family"],
)
def test_families_are_found_however_they_are_spelt(spelt: str):
    (finding,) = quota(T4, Scale(1), UsageFacts(spelt, 0, 0))
    assert f"in family {spelt!r}" in finding.fix


def test_the_regions_name_of_a_family_comes_before_the_catalogs():
    facts = OnlineFacts(sizes=(SizeFacts("Standard_ND96isr_H100_v5", "standardNDSH100v5Family", 96, 8),), usage=())
    found = quota_of("Standard_ND96isr_H100_v5", 1, facts)
    assert found is not None
    assert found.family == "standardNDSH100v5Family"
    both = replace(facts, usage=(UsageFacts("standardNDv5H100Family", 0, 5),))
    found = quota_of("Standard_ND96isr_H100_v5", 1, both)
    assert found is not None
    assert found.family == "standardNDv5H100Family", "the quota may be listed under the other one"


def test_autoscaling_beyond_the_quota_is_a_warning():
    (finding,) = quota(T4, Scale(1, max_replicas=4), UsageFacts(T4_FAMILY, 0, 12))
    assert (finding.level, finding.code) == ("warning", "quota")
    assert finding.message == (
        f"The quota holds 1 of {T4}, not the 4 that the autoscaler may go to: needs 20 = ceil(1.2 x 4) x 4 cores; used "
        "0 of 12."
    )


@pytest.mark.parametrize("name", ["TotalDedicatedCores", "Total Cluster Dedicated Regional vCPUs"])
def test_the_quota_of_the_whole_region_counts_too(name: str):
    (finding,) = quota(T4, Scale(1), UsageFacts(T4_FAMILY, 0, 400), UsageFacts(name, 296, 300))
    assert (finding.level, finding.code) == ("warning", "quota")
    assert finding.message.startswith("The quota of all dedicated cores of the region may be too little: needs 8 = ")
    assert finding.message.endswith(" = ceil(1.2 x 1) x 4 cores; used 296 of 300.")
    assert finding.fix.startswith("Ask for 304 in all")


def test_no_limit_is_no_trouble_and_a_family_that_is_not_listed_is_said():
    assert quota(T4, Scale(50), UsageFacts(T4_FAMILY, 0, None)) == []
    (finding,) = quota(T4, Scale(1), UsageFacts("standardDSv2Family", 0, 100))
    assert (finding.level, finding.code) == ("info", "quota-unknown")
    assert f"names no family {T4_FAMILY}, so whether there are the 8 = ceil(1.2 x 1) x 4 cores" in finding.message


def test_a_size_that_only_the_region_knows_is_counted_with_the_reserve():
    (finding,) = quota("Standard_NEW_X1", Scale(1), UsageFacts("standardNEWXFamily", 0, 10))
    assert "needs 20 = ceil(1.2 x 1) x 10 cores; used 0 of 10" in finding.message
    assert quota("Standard_ZZ", Scale(1), UsageFacts("standardNEWXFamily", 0, 10)) == []


@pytest.mark.parametrize(
    ("usage", "text"),
    [
        (USAGE, f"12 = ceil(1.2 x 2) x 4 cores; 0 of 400 used in {T4_FAMILY}"),
        ((UsageFacts(T4_FAMILY, 0, None),), f"12 = ceil(1.2 x 2) x 4 cores; {T4_FAMILY} has no limit"),
        (None, f"12 = ceil(1.2 x 2) x 4 cores; how many {T4_FAMILY} has is not known"),
    ],
)
def test_the_line_of_the_plan(usage: tuple[UsageFacts, ...] | None, text: str):
    assert str(quota_of(T4, 2, OnlineFacts(sizes=SIZES, usage=usage))) == text


# --- managed ----------------------------------------------------------------------------------------------------------


def without_quota(spec: ServiceSpec, **facts: Any) -> list[Finding]:
    return check(spec, **{"usage": None, **facts})


MANAGED: list[tuple[str, ServiceSpec, dict[str, Any], str, str, str]] = [
    (
        "neither-list-takes-it",
        spec_with("Standard_NCC40ads_H100_v5"),
        {},
        "error",
        "vm-managed",
        "Managed online endpoints do not take Standard_NCC40ads_H100_v5, as Azure's documentation and the region's",
    ),
    (
        "only-the-list-denies-it",
        spec_with("Standard_NC40ads_H100_v5"),
        {},
        "warning",
        "vm-managed",
        "The region's list does not offer Standard_NC40ads_H100_v5 to managed online endpoints, so Azure may",
    ),
    (
        "only-the-catalog-denies-it",
        spec_with("Standard_NCC40ads_H100_v5"),
        {"sizes": None},
        "warning",
        "vm-managed",
        "Azure's documentation does not name Standard_NCC40ads_H100_v5 among the sizes that managed online",
    ),
    (
        "more-gpus-than-an-instance-has",
        spec_with(resources=Resources(gpus=2, vm_size=T4)),
        {},
        "error",
        "gpu-node",
        f"A replica asks for 2 GPUs and is one instance, and an instance of {T4} has 1. Lower gpus_per_replica",
    ),
    (
        "gpus-paid-for-and-not-used",
        spec_with(FOUR_T4),
        {},
        "info",
        "gpu-idle",
        (
            f"An instance of {FOUR_T4} has 4 GPUs and a replica uses 1 of them: the other 3 are paid for and not used. "
            f'vm_size="{T4}" (1 x T4 with 16 GB, $0.53 per hour and instance) has as many as are used.'
        ),
    ),
    (
        "gpus-of-a-new-size",
        spec_with("Standard_NEW_X1"),
        {},
        "info",
        "gpu-idle",
        "has 2 GPUs and a replica uses 1 of them: the other 1 are paid for and not used. A size with fewer GPUs costs",
    ),
    (
        "no-gpu-asked-for",
        spec_with(resources=Resources(gpus=0, vm_size=T4)),
        {},
        "warning",
        "gpu-unused",
        f"gpus_per_replica=0: the GPUs of 2 x {T4} are paid for and not used.",
    ),
    (
        "too-many-instances",
        spec_with(scale=Scale(51)),
        {},
        "error",
        "instance-count",
        "replicas=51: a managed deployment has 50 instances at most.",
    ),
    (
        "cores-and-memory",
        spec_with(resources=Resources(1, 2, 4, T4)),
        {},
        "info",
        "resources-managed",
        "cpu_cores= and memory_gb= mean nothing on a managed online endpoint: a replica has a virtual machine",
    ),
    (
        "memory-alone",
        spec_with(resources=Resources(1, None, 4, T4)),
        {},
        "info",
        "resources-managed",
        "memory_gb= means nothing on a managed online endpoint",
    ),
    (
        "disk",
        spec_with(A100),
        {"model_bytes": 50_000_000_000},
        "warning",
        "disk",
        "The disk of Standard_NC24ads_A100_v4 has 64 GB, and the model of 50.0 GB and its image of about 15 GB",
    ),
    (
        "time-out",
        spec_with(timeout=181.0),
        {},
        "error",
        "timeout",
        "timeout=181 s: a managed online endpoint waits 180 s at most. Give timeout=180 or less, and smaller requests.",
    ),
    (
        "name",
        spec_with(name="1-rn"),
        {},
        "error",
        "name",
        "'1-rn' is no name that Azure ML accepts for an online endpoint",
    ),
    ("long-name", spec_with(name="a" * 33), {}, "error", "name", "3 to 32 letters, digits and dashes"),
    ("dash-last", spec_with(name="gpu-"), {}, "error", "name", "no dash last"),
    (
        "taken",
        spec_with(),
        {"endpoint": endpoint(BLUE)},
        "error",
        "name-taken",
        (
            "There is an endpoint 'gpu-rn' in the workspace already. Give another name=, overwrite=True, or use "
            "gpu_infer.attach('gpu-rn', workspace)."
        ),
    ),
    (
        "replaced",
        spec_with(overwrite=True),
        {"endpoint": endpoint(BLUE, DeploymentFacts("old", T4, 1, 0))},
        "info",
        "replaces",
        (
            f"Endpoint 'gpu-rn' is there and serves blue (1 x {T4}). Deployment 'green' gets its requests once it is "
            "healthy, then the old one is deleted. Until then both are billed."
        ),
    ),
    (
        "replaced-without-deployments",
        spec_with(overwrite=True),
        {"endpoint": endpoint()},
        "info",
        "replaces",
        "Endpoint 'gpu-rn' is there, without a deployment; it is kept.",
    ),
    (
        "replaced-but-not-read",
        spec_with(overwrite=True),
        {"endpoint": EndpointFacts("gpu-rn", deployments=None)},
        "info",
        "replaces",
        "Endpoint 'gpu-rn' is there; it is kept.",
    ),
    (
        "of-another-kind",
        spec_with(overwrite=True),
        {"endpoint": EndpointFacts("gpu-rn", cluster="k8s")},
        "error",
        "endpoint-kind",
        "is there and one on Kubernetes compute 'k8s'; it cannot be made a managed one",
    ),
    (
        "being-deleted",
        spec_with(),
        {"endpoint": EndpointFacts("gpu-rn", "Deleting")},
        "error",
        "endpoint-deleting",
        "Endpoint 'gpu-rn' is still being deleted, and its name is free only when that is over.",
    ),
    (
        "full",
        spec_with(overwrite=True),
        {"endpoint": endpoint(*(DeploymentFacts(f"d{number}") for number in range(20)))},
        "error",
        "deployment-count",
        "Endpoint 'gpu-rn' has 20 deployments, and takes 20 at most. Delete one that gets no traffic.",
    ),
    (
        "too-many-endpoints",
        spec_with(),
        {"others": 100},
        "error",
        "endpoint-count",
        "this workspace has as many managed endpoints as a subscription may have in a region, 100",
    ),
    (
        "main-memory",
        spec_with(),
        {"model_bytes": 29_000_000_000},
        "error",
        "gpu-memory",
        f"needs about 34.8 GB there with what the framework adds, and a replica on {T4} has 16 GB",
    ),
    (
        "settings",
        spec_with(environment_variables={"GPU_INFER_MAXBATCH": "3"}),
        {},
        "warning",
        "settings",
        "GPU_INFER_MAXBATCH",
    ),
]


@pytest.mark.parametrize(
    ("spec", "facts", "level", "code", "message"), [case[1:] for case in MANAGED], ids=[case[0] for case in MANAGED]
)
def test_managed_endpoints(spec: ServiceSpec, facts: dict[str, Any], level: str, code: str, message: str):
    findings = without_quota(spec, **facts)
    first = next(finding for finding in findings if finding.code == code)
    assert first.level == level
    assert message in str(first)
    assert {one.code for one in findings} == {code} | ({"memory"} if code == "gpu-memory" else set())


def test_a_model_that_is_larger_than_the_disk_is_an_error():
    script = {"entry_script": Path("/no/score.py")}  # loads what it will
    findings = without_quota(spec_with(A100, **script), model_bytes=65_000_000_000)
    assert ("error", "disk") in codes(findings)


def test_the_memory_of_a_machine_is_the_replicas():
    (one, two) = without_quota(spec_with(), model_bytes=29_000_000_000)
    assert (one.code, two.code) == ("gpu-memory", "memory")
    assert two.message.endswith("passes through main memory, and a replica has 28 GB of that.")
    assert two.fix == "Take a size with more memory."


def test_requests_of_any_size_since_no_limit_is_documented():
    assert without_quota(spec_with(environment_variables={"GPU_INFER_MAX_BODY_MB": "200"})) == []


@pytest.mark.parametrize(
    ("asked", "size", "level", "code", "message"),
    [
        (
            "Standard_NC6",
            T4,
            "warning",
            "vm-retired",
            "(1 x T4 with 16 GB, $0.53 per hour and instance) is taken instead",
        ),
        (
            "NV6ads_A10_v5",
            "Standard_NV6ads_A10_v5",
            "warning",
            "vm-fraction",
            "Instances of size Standard_NV6ads_A10_v5",
        ),
        ("Standard_D4s_v5", "Standard_D4s_v5", "error", "vm-cpu", "has no GPU, and the service is to run on one"),
    ],
)
def test_sizes_of_instances(asked: str, size: str, level: str, code: str, message: str):
    found, (finding,) = resolve_size(asked, None, replace_retired=True, today=TODAY, machine="instance")
    assert (found, finding.level, finding.code) == (size, level, code)
    assert message in str(finding)


def test_without_a_gpu_a_size_needs_none():
    rest: dict[str, Any] = {"replace_retired": True, "today": TODAY, "machine": "instance", "gpu": False}
    assert resolve_size("Standard_D4s_v5", None, **rest) == ("Standard_D4s_v5", [])
    assert resolve_size("Standard_Y1", {"Standard_Y1": 0}, **rest)[1][0].code == "vm-unknown"
    assert without_quota(spec_with(resources=Resources(0, vm_size="Standard_D4s_v5"))) == []


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def on_cluster(spec: ServiceSpec, **facts: Any) -> list[Finding]:
    return [one for one in check(spec, **facts) if one.code != "cluster-size-unknown"]


def test_a_deployment_on_kubernetes_that_fits():
    (finding,) = check(on_kubernetes())
    assert (finding.level, finding.code) == ("info", "cluster-size-unknown")
    assert "how many GPUs the cluster behind 'k8s' has, so whether the 2 that are asked for are free" in finding.message
    assert check(on_kubernetes(resources=Resources(0))) == []


def test_a_cluster_that_is_attached_by_this_call_need_not_be_there_yet() -> None:
    spec = on_kubernetes(cluster=Cluster.attach(AKS_ID, name="k8s"))
    assert on_cluster(spec, compute=None) == []


ON_KUBERNETES: list[tuple[str, ServiceSpec, dict[str, Any], str, str, str]] = [
    (
        "absent",
        on_kubernetes(),
        {"compute": None},
        "error",
        "cluster-missing",
        (
            "There is no compute 'k8s' in the workspace, and azure-ai-ml creates no Kubernetes clusters: one that "
            "exists has to be attached. cluster=Cluster.attach(its resource id, name='k8s') attaches one, on which "
        ),
    ),
    (
        "of-the-first-kind",
        on_kubernetes(),
        {"compute": ComputeFacts("k8s", "")},
        "error",
        "cluster-type",
        (
            "The compute 'k8s' of this workspace is none of Kubernetes but of a kind that azure-ai-ml does not know. "
            "If it is an AksCompute: online endpoints do not run on those"
        ),
    ),
    (
        "of-another-kind",
        on_kubernetes(),
        {"compute": ComputeFacts("k8s", "amlcompute")},
        "error",
        "cluster-type",
        "The compute 'k8s' of this workspace is amlcompute, and a Kubernetes online endpoint needs one of Kubernetes.",
    ),
    (
        "failed",
        on_kubernetes(),
        {"compute": ComputeFacts("k8s", state="Failed")},
        "error",
        "cluster-failed",
        "Kubernetes compute 'k8s' is there, but attaching it has ended Failed.",
    ),
    (
        "not-ready",
        on_kubernetes(),
        {"compute": replace(KUBERNETES, state="Creating")},
        "warning",
        "cluster-creating",
        "Kubernetes compute 'k8s' is still Creating",
    ),
    (
        "no-such-type",
        on_kubernetes("Standard_NC6"),
        {},
        "error",
        "instance-type",
        (
            "vm_size='Standard_NC6' names an instance type of the cluster on Kubernetes, and 'k8s' has none of that "
            "name. It has defaultinstancetype (0 GPUs), gpu (1 GPU)."
        ),
    ),
    (
        "types-not-known",
        on_kubernetes("gpu"),
        {"compute": ComputeFacts("k8s")},
        "warning",
        "instance-type",
        "Azure names no instance types of 'k8s': whether it has 'gpu' is not checked.",
    ),
    (
        "no-type-known-to-have-a-gpu",
        on_kubernetes(None),
        {"compute": replace(KUBERNETES, instance_types=(SMALL_TYPE,))},
        "warning",
        "instance-type",
        (
            "No instance type of 'k8s' is known to give a replica 1 GPU, so the cluster's default is taken, which has "
            "none unless somebody has changed it. Those that Azure names are defaultinstancetype (0 GPUs)."
        ),
    ),
    (
        "no-type-known",
        on_kubernetes(None, resources=Resources(2)),
        {"compute": ComputeFacts("k8s")},
        "warning",
        "instance-type",
        "No instance type of 'k8s' is known to give a replica 2 GPUs",
    ),
    (
        "more-than-a-type-gives",
        on_kubernetes(resources=Resources(2, 8, 64, "gpu")),
        {},
        "warning",
        "instance-type",
        (
            "A replica asks for more than instance type 'gpu' gives: 2 GPUs of 1, 8 cores of 4, 64 GB of memory of 24. "
            "Lower gpus_per_replica, cpu_cores= or memory_gb=, or name a larger type by vm_size=."
        ),
    ),
    (
        "time-out",
        on_kubernetes(timeout=301.0),
        {},
        "error",
        "timeout",
        "Kubernetes online endpoints waits 300 s at most",
    ),
    (
        "payload",
        on_kubernetes(environment_variables={"GPU_INFER_MAX_BODY_MB": "200"}),
        {},
        "warning",
        "payload",
        "the router takes requests of 100 MB at most",
    ),
    (
        "replaced",
        on_kubernetes(overwrite=True),
        {"endpoint": endpoint(DeploymentFacts("blue", "gpu", 1, 100), cluster="K8S")},
        "info",
        "replaces",
        "serves blue (1 x gpu). Deployment 'green' gets its requests once it is healthy, then the old one is deleted.",
    ),
    (
        "of-another-cluster",
        on_kubernetes(overwrite=True),
        {"endpoint": endpoint(cluster="other")},
        "error",
        "endpoint-kind",
        "one on Kubernetes compute 'other'; it cannot be made one on Kubernetes compute 'k8s'",
    ),
    (
        "too-many-endpoints",
        on_kubernetes(),
        {"others": 60},
        "error",
        "endpoint-count",
        "'k8s' has as many endpoints as a cluster may have, 60",
    ),
    (
        "main-memory",
        on_kubernetes(),
        {"model_bytes": 6_000_000_000},
        "warning",
        "memory",
        "passes through main memory, and a replica has 4 GB of that. Give memory_gb=9.",
    ),
]


@pytest.mark.parametrize(
    ("spec", "facts", "level", "code", "message"),
    [case[1:] for case in ON_KUBERNETES],
    ids=[case[0] for case in ON_KUBERNETES],
)
def test_kubernetes_endpoints(spec: ServiceSpec, facts: dict[str, Any], level: str, code: str, message: str):
    (finding,) = on_cluster(spec, **facts)
    assert (finding.level, finding.code) == (level, code)
    assert message in str(finding)


@pytest.mark.parametrize(
    ("resource_id", "expected"),
    [
        (AKS_ID, []),
        ("/subscriptions/s/resourcegroups/g/providers/Microsoft.Kubernetes/connectedClusters/mine/", []),
        ("mine", [("error", "cluster-resource-id")]),
        (AKS_ID.replace("ContainerService", "Compute"), [("error", "cluster-resource-id")]),
    ],
)
def test_which_clusters_can_be_attached(resource_id: str, expected: list[tuple[str, str]]):
    spec = on_kubernetes(cluster=Cluster.attach(resource_id, name="k8s"))
    assert codes(check(spec, compute=None)) == expected


@pytest.mark.parametrize(
    ("asked", "gpus", "there", "chosen"),
    [
        ("mine", 1, KUBERNETES, "mine"),
        (None, 1, KUBERNETES, "gpu"),
        (None, 0, KUBERNETES, None),
        (None, 2, KUBERNETES, None),
        (None, 1, None, None),
        (None, 1, replace(KUBERNETES, instance_types=(InstanceTypeFacts("four", 4), GPU_TYPE)), "gpu"),
        (None, 1, ComputeFacts("k8s", instance_types=(InstanceTypeFacts("four", 4), GPU_TYPE), default="four"), "four"),
    ],
)
def test_which_instance_type_is_taken(asked: str | None, gpus: int, there: ComputeFacts | None, chosen: str | None):
    assert choose_instance_type(on_kubernetes(resources=Resources(gpus, vm_size=asked)), there) == chosen


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan_of(spec: ServiceSpec, **more: Any) -> Plan:
    defaults: dict[str, Any] = {
        "template": "tensorflow",
        "price_per_hour": 1.052,
        "creates": ("endpoint gpu-rn", f"deployment blue (2 x {T4})"),
        "vm_size": T4,
        "nodes": 2,
        "quota": str(quota_of(T4, spec.scale.replicas, OnlineFacts(sizes=SIZES, usage=USAGE))),
    }
    return Plan(spec, **{**defaults, **more})


def test_the_plan_of_a_managed_endpoint():
    made = plan_of(spec_with())
    assert str(made).splitlines() == [
        "service      gpu-rn",
        "target       online",
        "model        resnet50:3",
        "template     tensorflow",
        "endpoint     managed, new",
        f"VM size      {T4}: 4 cores, 28 GB, 1 x T4 with 16 GB",
        "instances    2",
        "GPUs         2 asked for, 2 in the instances",
        f"quota        12 = ceil(1.2 x 2) x 4 cores; 0 of 400 used in {T4_FAMILY}",
        "scored with  a key",
        "workers      1",
        "batching     up to 32 items",
        "time-out     60 s per request",
        "lives        until deleted; sweep() removes it 8 h from now",
        f"creates      endpoint gpu-rn, deployment blue (2 x {T4})",
        "price        $1.05 per hour, $768 per month, with requests or without (list price in eastus)",
    ]
    assert made.to_dict()["quota"] == made.quota


def test_the_plan_of_one_that_follows_the_load_has_two_prices():
    spec = spec_with(FOUR_T4, scale=Scale(1, max_replicas=4), auth="token")
    rows = dict(plan_of(spec, vm_size=FOUR_T4, nodes=1, price_per_hour=4.352, creates=("deployment green",)).rows())
    assert rows["endpoint"] == "managed, there already"
    assert rows["instances"] == "1 to 4, as the load asks for"
    assert rows["GPUs"] == "4 asked for, 16 in the instances"
    assert rows["scored with"] == "a token of Azure ML"
    assert rows["price"].startswith("$4.35 to $17.41 per hour, $3,177 to $12,708 per month, with requests or without")


def test_the_plan_on_kubernetes():
    rows = dict(plan_of(on_kubernetes(), vm_size="", nodes=0, price_per_hour=0.0, quota="").rows())
    assert rows["endpoint"] == "on Kubernetes compute k8s, new"
    assert rows["instance type"] == "gpu"
    assert rows["replicas"] == "2; 2 cores, 4 GB, 1 GPU each"
    assert rows["price"] == "nothing beside the cluster k8s, which is billed as it is"
    assert not {"VM size", "instances", "quota"} & set(rows)
    assert dict(plan_of(on_kubernetes(None)).rows())["instance type"] == "the default of the cluster"


def test_a_price_that_nobody_knows_is_not_nothing():
    rows = dict(plan_of(spec_with("Standard_NEW_X1"), vm_size="Standard_NEW_X1", price_per_hour=0.0).rows())
    assert rows["price"] == "unknown: there is no price for what it would run on"
    assert (rows["VM size"], rows["GPUs"]) == ("Standard_NEW_X1", "2 asked for")


def test_the_command_line_shows_the_plan(capsys: pytest.CaptureFixture[str]):
    show.plan(plan_of(spec_with()))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("creates") and line.endswith("+ endpoint gpu-rn") for line in lines)
    assert any(line.endswith(f"+ deployment blue (2 x {T4})") for line in lines)
