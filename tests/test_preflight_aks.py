"""Every check of a deployment to AKS, with the message it gives; what is right gives none."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer.bundle import load_template
from gpu_infer.cli import show
from gpu_infer.errors import Finding
from gpu_infer.plans import Plan
from gpu_infer.preflight import ClusterFacts, WorkspaceFacts, check_aks, check_cluster, makes_cluster, resolve_size
from gpu_infer.preflight.vm_sizes import same_size
from gpu_infer.serving.model_finder import FoundModel
from gpu_infer.spec import Cluster, ModelRef, Resources, Scale, ServiceSpec

TODAY = date(2026, 11, 24)
T4 = "Standard_NC4as_T4_v3"
FOUR_T4 = "Standard_NC64as_T4_v3"
LISTED: Mapping[str, int] = {T4: 1, "Standard_NC24ads_A100_v4": 1, "Standard_D3_v2": 0, "Standard_NEW_X1": 2}
AKS_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/mine"
TF1 = "import tensorflow as tf\ndef init():\n    tf.reset_default_graph()\n    s = tf.Session()\ndef run(data): ...\n"


def shown(findings: list[Finding]) -> list[Finding]:
    for finding in findings:
        print(finding.level, finding.code, finding, sep="  ")
    return findings


# --- VM sizes ---------------------------------------------------------------------------------------------------------


def resolve(
    asked: str, sizes: Mapping[str, int] | None = LISTED, *, keep: bool = False, today: date = TODAY
) -> tuple[str, list[Finding]]:
    size, findings = resolve_size(asked, sizes, replace_retired=not keep, today=today)
    return size, shown(findings)


@pytest.mark.parametrize("sizes", [LISTED, None])
def test_the_tutorials_size_becomes_its_successor_with_one_warning_and_both_prices(sizes: Mapping[str, int] | None):
    size, (finding,) = resolve("Standard_NC6", sizes)
    assert size == T4
    assert (finding.level, finding.code) == ("warning", "vm-retired")
    assert "retired Standard_NC6 (1 x K80 with 12 GB, $0.90 per hour and node) on 31 August 2023" in finding.message
    assert f"Its successor {T4} (1 x T4 with 16 GB, $0.53 per hour and node) is taken instead" in finding.message
    assert "replace_retired=False" in finding.fix


def test_a_retired_size_is_an_error_where_it_must_not_be_replaced():
    size, (finding,) = resolve("nc6", keep=True)
    assert size == "Standard_NC6"
    assert str(finding) == (
        "Azure has retired Standard_NC6 on 31 August 2023: none can be had. "
        f'Give vm_size="{T4}" (1 x T4 with 16 GB, $0.53 per hour and node).'
    )
    assert finding.level == "error"


def test_a_retired_size_that_the_region_still_lists_is_tried_where_it_is_asked_for():
    size, (finding,) = resolve("Standard_NC6s_v3", {"Standard_NC6s_v3": 1}, keep=True)
    assert size == "Standard_NC6s_v3"
    assert (finding.level, "though the region still lists it" in finding.message) == ("warning", True)


def test_before_its_day_a_size_is_only_warned_of():
    assert resolve("Standard_NC6s_v3", None, today=date(2025, 1, 1)) == ("Standard_NC6s_v3", [])
    size, (finding,) = resolve("Standard_NC6s_v3", None, today=date(2025, 6, 1))
    assert size == "Standard_NC6s_v3"
    assert (finding.level, finding.code) == ("warning", "vm-retiring")
    assert "retires Standard_NC6s_v3 on 30 September 2025" in str(finding)
    assert resolve("Standard_NC6s_v3", None, today=date(2025, 9, 30))[0] == "Standard_NC24ads_A100_v4"


@pytest.mark.parametrize(
    ("asked", "size", "level", "code", "message"),
    [
        (T4.lower(), T4, "", "", ""),
        ("NC24ads_A100_v4", "Standard_NC24ads_A100_v4", "", "", ""),
        ("Standard_D3_v2", "Standard_D3_v2", "error", "vm-cpu", "Standard_D3_v2 has no GPU"),
        ("standard_new_x1", "Standard_NEW_X1", "warning", "vm-unknown", "does not know Standard_NEW_X1, so neither"),
        ("Standard_NC4s_T4_v3", "Standard_NC4s_T4_v3", "warning", "vm-unknown", f"If it is misspelt: there is {T4}"),
        ("Standard_ZZ", "Standard_ZZ", "warning", "vm-unknown", "Neither this version nor the region's list knows"),
        ("NG32ads_V620_v1", "Standard_NG32ads_V620_v1", "error", "vm-amd", "AMD's V620, which CUDA"),
        ("ND96asr_v4", "Standard_ND96asr_v4", "warning", "vm-region", f"It does name {T4} ($0.53 per hour and node)"),
    ],
)
def test_other_sizes(asked: str, size: str, level: str, code: str, message: str):
    found, findings = resolve(asked)
    assert found == size
    assert [(finding.level, finding.code) for finding in findings] == ([(level, code)] if code else [])
    assert not message or message in str(findings[0])


def test_a_size_that_only_the_region_knows_may_have_no_gpu():
    _, (finding,) = resolve("Standard_Y1", {"Standard_Y1": 0})
    assert (finding.level, finding.code) == ("error", "vm-cpu")


def test_without_the_regions_list_an_unknown_size_passes():
    _, (finding,) = resolve("Standard_Y1", None)
    assert str(finding) == "This version does not know Standard_Y1. It is passed on unchecked."
    assert finding.level == "warning"


def test_a_part_of_a_gpu_is_said():
    _, (finding,) = resolve("NV6ads_A10_v5", None)
    assert (finding.level, finding.code) == ("warning", "vm-fraction")
    assert "Nodes of size Standard_NV6ads_A10_v5 have 1/6 of an A10 with 4 GB. It counts as one GPU" in str(finding)


def test_nothing_asked_is_nothing_said():
    assert resolve("") == ("", [])


def test_which_sizes_are_the_same():
    assert same_size("Standard_NC6", "standard_nc6")
    assert same_size("Standard_NC6", T4)
    assert same_size(T4, "nc6")
    assert not same_size("Standard_NC6", "Standard_NC6s_v2"), "two retired ones with one successor are not the same"
    assert not same_size(T4, FOUR_T4)


# --- the rest ---------------------------------------------------------------------------------------------------------


def spec_with(**changes: Any) -> ServiceSpec:
    base = ServiceSpec(
        name="gpu-rn",
        model=ModelRef("resnet50", version="3"),
        target="aks",
        template="tensorflow",
        cluster=Cluster("aks-gpu", vm_size=T4, nodes=3),
        scale=Scale(replicas=3),
        resources=Resources(gpus=1, cpu_cores=2, memory_gb=4),
    )
    return replace(base, **changes)


def check(
    spec: ServiceSpec,
    *,
    model_bytes: int | None = 100_000_000,
    found: FoundModel | None = None,
    **facts: Any,
) -> list[Finding]:
    there = WorkspaceFacts(location="eastus", sizes=LISTED, **facts)
    return shown(
        check_aks(spec, there, found, load_template("tensorflow"), model_bytes=model_bytes, today=TODAY),
    )


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.code) for finding in findings]


def test_the_tutorials_deployment_is_fine():
    assert check(spec_with()) == []
    assert check(spec_with(), cluster=ClusterFacts("aks-gpu", vm_size=T4, nodes=3, purpose="FastProd")) == []


CLUSTERS: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("short-name", {"name": "ab"}, {}, "error", "cluster-name", "'ab' is no name that Azure ML accepts for a cluster"),
    ("long-name", {"name": "a" * 25}, {}, "error", "cluster-name", "3 to 24 letters"),
    ("dash-last", {"name": "aks-"}, {}, "error", "cluster-name", "no dash last"),
    ("reserved", {"name": "local"}, {}, "error", "cluster-name", "keeps for itself"),
    ("no-size", {"vm_size": ""}, {}, "error", "cluster-size", "to create one its VM size must be said"),
    (
        "resource-id",
        {"vm_size": "", "resource_id": "mine"},
        {},
        "error",
        "cluster-resource-id",
        "`az aks show --query id` prints it",
    ),
    (
        "too-small",
        {"nodes": 2},
        {},
        "error",
        "cluster-too-small",
        f"needs 12 virtual CPUs, and 2 x {T4} with 4 each has 8: Azure ML refuses it",
    ),
    (
        "few-nodes",
        {"vm_size": FOUR_T4, "nodes": 1},
        {},
        "warning",
        "cluster-few-nodes",
        "at least 3 nodes, one for each copy of the router that Azure ML runs in it; this one has 1",
    ),
    (
        "https-by-half",
        {"options": {"ssl_cname": "rn.example"}},
        {},
        "error",
        "cluster-options",
        "there is no ssl_cert_pem_file, ssl_key_pem_file",
    ),
    (
        "network-by-half",
        {"options": {"vnet_name": "net", "subnet_name": "sub"}},
        {},
        "error",
        "cluster-options",
        "a virtual network takes vnet_name, vnet_resourcegroup_name",
    ),
    (
        "balancer",
        {"options": {"load_balancer_subnet": "sub"}},
        {},
        "error",
        "cluster-options",
        "means nothing without an internal load balancer",
    ),
    (
        "another-size",
        {},
        {"vm_size": "Standard_NC24ads_A100_v4", "nodes": 3},
        "error",
        "cluster-size",
        f"is there with 3 nodes of size Standard_NC24ads_A100_v4, not {T4}",
    ),
    ("cpu", {"vm_size": ""}, {"vm_size": "Standard_D3_v2", "nodes": 3}, "error", "vm-cpu", "have no GPU"),
    ("amd", {"vm_size": ""}, {"vm_size": "Standard_NV32as_v4", "nodes": 3}, "error", "vm-cpu", "AMD's MI25"),
    (
        "failed",
        {},
        {"state": "Failed", "errors": "QuotaExceeded"},
        "error",
        "cluster-failed",
        "making it has ended Failed. Azure says: QuotaExceeded Cluster('aks-gpu', replace_failed=True) deletes it",
    ),
    (
        "failed-and-replaced",
        {"replace_failed": True},
        {"state": "Failed"},
        "info",
        "cluster-failed",
        "It is deleted and made anew",
    ),
    ("being-deleted", {}, {"state": "Deleting"}, "info", "cluster-deleting", "a new one is made when it is gone"),
    (
        "being-made",
        {},
        {"state": "Creating", "vm_size": T4, "nodes": 3},
        "info",
        "cluster-creating",
        "is still Creating; it is waited for",
    ),
    (
        "other-nodes",
        {"nodes": 5},
        {"vm_size": T4, "nodes": 3},
        "info",
        "cluster-nodes",
        "has 3 nodes, not 5; azureml-core cannot change that. `az aks nodepool scale` does.",
    ),
    (
        "other-purpose",
        {},
        {"vm_size": T4, "nodes": 3, "purpose": "DevTest"},
        "info",
        "cluster-purpose",
        "was made for DevTest, not for FastProd",
    ),
    (
        "attached",
        {"vm_size": "", "resource_id": AKS_ID},
        {"attached": True},
        "info",
        "cluster-size-unknown",
        "of what size the nodes of the attached cluster 'aks-gpu' are",
    ),
]


@pytest.mark.parametrize(
    ("asked", "there", "level", "code", "message"), [case[1:] for case in CLUSTERS], ids=[case[0] for case in CLUSTERS]
)
def test_clusters(asked: dict[str, Any], there: dict[str, Any], level: str, code: str, message: str):
    cluster = Cluster(**{"name": "aks-gpu", "vm_size": T4, "nodes": 3, **asked})
    facts = WorkspaceFacts(sizes=LISTED, cluster=ClusterFacts("aks-gpu", **there) if there else None)
    findings = shown(check_cluster(cluster, facts))
    assert codes(findings) == [(level, code)]
    assert message in str(findings[0])
    # and the whole check says the same, besides what follows from it
    spec = spec_with(cluster=cluster, scale=Scale(1))
    assert (level, code) in codes(check_aks(spec, facts, None, None, model_bytes=None, today=TODAY))


@pytest.mark.parametrize(
    ("cluster", "there"),
    [
        (Cluster("aks-gpu", vm_size=T4, nodes=1, purpose="DevTest"), None),
        (Cluster("aks-gpu", vm_size="Standard_NC6"), ClusterFacts("aks-gpu", vm_size=T4, nodes=3)),
        (Cluster("aks-gpu", vm_size=T4), ClusterFacts("aks-gpu", vm_size="Standard_NC6", nodes=3)),
        (Cluster("aks-gpu", vm_size=""), ClusterFacts("aks-gpu", vm_size=T4, nodes=7, purpose="DevTest")),
        (Cluster.attach(AKS_ID), None),
        (Cluster("x", vm_size=T4, options={"load_balancer_type": "InternalLoadBalancer"}), None),
    ],
)
def test_clusters_that_fit(cluster: Cluster, there: ClusterFacts | None):
    facts = WorkspaceFacts(cluster=there)
    assert [
        one for one in shown(check_cluster(cluster, facts)) if cluster.name != "x" or one.code != "cluster-name"
    ] == []


def test_when_a_cluster_is_made():
    facts = [
        WorkspaceFacts(cluster=ClusterFacts("c", state)) for state in ("Succeeded", "Creating", "Failed", "Deleting")
    ]
    assert [makes_cluster(Cluster("c"), each) for each in facts] == [False, False, False, True]
    assert [makes_cluster(Cluster("c", replace_failed=True), each) for each in facts] == [False, False, True, True]
    assert makes_cluster(Cluster("c"), WorkspaceFacts())


def test_a_failed_cluster_that_is_replaced_is_checked_as_a_new_one():
    cluster = Cluster("aks-gpu", vm_size=T4, nodes=2, replace_failed=True)
    facts = WorkspaceFacts(cluster=ClusterFacts("aks-gpu", "Failed", vm_size="Standard_D3_v2", nodes=1))
    assert codes(check_cluster(cluster, facts)) == [("info", "cluster-failed"), ("error", "cluster-too-small")]


ROOM: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    (
        "too-many-replicas",
        {"scale": Scale(4)},
        {},
        "error",
        "gpu-count",
        (
            "Too few GPUs: 4 replicas x 1 GPU = 4, and the cluster has 3 nodes x 1 GPU = 3. Lower replicas= to 3, or "
            "take 4 nodes."
        ),
    ),
    (
        "too-many-after-autoscaling",
        {"scale": Scale(1, max_replicas=10)},
        {},
        "error",
        "gpu-count",
        "10 replicas x 1 GPU = 10, and the cluster has 3 nodes x 1 GPU = 3. Lower the most of replicas= to 3, or",
    ),
    (
        "taken-by-others",
        {"scale": Scale(2)},
        {"gpus_taken": 2},
        "error",
        "gpu-count",
        (
            "2 replicas x 1 GPU = 2, and the cluster has 3 nodes x 1 GPU = 3, of which other services hold 2. "
            "Lower replicas= to 1, or take 4 nodes."
        ),
    ),
    (
        "all-taken",
        {"scale": Scale(1)},
        {"gpus_taken": 3},
        "error",
        "gpu-count",
        (
            "1 replica x 1 GPU = 1, and the cluster has 3 nodes x 1 GPU = 3, of which other services hold 3. "
            "Remove another service, or take 4 nodes."
        ),
    ),
    (
        "more-than-a-node-has",
        {"resources": Resources(gpus=2), "scale": Scale(1)},
        {},
        "error",
        "gpu-node",
        "A replica asks for 2 GPUs and lies on one node, and a node has 1",
    ),
    (
        "a-rest-on-each-node",
        {"cluster": Cluster("aks-gpu", vm_size=FOUR_T4, nodes=3), "resources": Resources(gpus=3), "scale": Scale(4)},
        {},
        "error",
        "gpu-count",
        (
            "4 replicas x 3 GPU = 12, and the cluster has 3 nodes x 4 GPU = 12, and each node takes 1 of them. Lower "
            "replicas= to 3, or take 4 nodes."
        ),
    ),
    (
        "no-gpu-asked-for",
        {"resources": Resources(gpus=0)},
        {},
        "warning",
        "gpu-unused",
        f"the GPUs of 3 x {T4} are paid for and not used",
    ),
    (
        "cores",
        {"resources": Resources(cpu_cores=4)},
        {},
        "error",
        "node-room",
        (
            "A replica with 4 cores does not fit on a node: of the 4 of Standard_NC4as_T4_v3 about 3.4 are left for "
            "services, the rest is Kubernetes' own. Lower cpu_cores= to 3"
        ),
    ),
    (
        "memory",
        {"resources": Resources(memory_gb=26)},
        {},
        "error",
        "node-room",
        "about 23.9 are left for services, the rest is Kubernetes' own. Lower memory_gb= to 23.5",
    ),
    (
        "memory-of-several-on-a-node",
        {
            "cluster": Cluster("aks-gpu", vm_size=FOUR_T4, nodes=3),
            "scale": Scale(12),
            "resources": Resources(memory_gb=120),
        },
        {},
        "error",
        "node-room",
        "4 replicas x 120 GB of memory = 480 do not fit on a node: of the 440",
    ),
    (
        "update",
        {"overwrite": True},
        {"service_exists": True},
        "info",
        "gpu-update",
        "the new replicas may wait for the old ones to stop. One node more makes the change seamless.",
    ),
]


@pytest.mark.parametrize(
    ("changes", "facts", "level", "code", "message"), [case[1:] for case in ROOM], ids=[case[0] for case in ROOM]
)
def test_room_on_the_nodes(changes: dict[str, Any], facts: dict[str, Any], level: str, code: str, message: str):
    findings = [one for one in check(spec_with(**changes), **facts) if one.code != "replaces"]
    assert codes(findings) == [(level, code)]
    assert message in str(findings[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scale": Scale(5), "resources": Resources(1, 8, 64)}, ["gpu-count", "node-room", "node-room"]),
        ({"scale": Scale(1), "resources": Resources(2, 8, 4)}, ["gpu-node", "node-room"]),
        # Two of them would not fit on a node, but a node has a GPU for one.
        ({"scale": Scale(6), "resources": Resources(1, 2, 16)}, ["gpu-count"]),
        ({"scale": Scale(4), "overwrite": True}, ["gpu-count"]),
    ],
)
def test_too_few_gpus_and_too_little_room_are_said_at_once(changes: dict[str, Any], expected: list[str]):
    findings = check(spec_with(**changes), service_exists="overwrite" in changes)
    assert [one.code for one in findings if one.code != "replaces"] == expected


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"scale": Scale(1, max_replicas=3)}, {}),
        ({"scale": Scale(1)}, {"gpus_taken": 2}),
        ({"cluster": Cluster("aks-gpu", vm_size=FOUR_T4, nodes=3), "scale": Scale(12)}, {}),
        ({"cluster": Cluster("aks-gpu", vm_size=FOUR_T4), "resources": Resources(2), "scale": Scale(6)}, {}),
        ({"cluster": Cluster("aks-gpu", vm_size="NV6ads_A10_v5")}, {}),
        ({"cluster": Cluster("aks-gpu", vm_size="Standard_NEW_X1"), "scale": Scale(6)}, {}),
        ({"cluster": Cluster.attach(AKS_ID), "scale": Scale(50)}, {}),
        ({"cluster": Cluster("aks-gpu", vm_size="Standard_ZZ"), "scale": Scale(50)}, {}),
    ],
)
def test_what_has_room_or_cannot_be_counted_passes(changes: dict[str, Any], facts: dict[str, Any]):
    assert check(spec_with(**changes), **facts) == []


def test_a_new_size_that_the_region_lists_is_counted():
    (finding,) = check(spec_with(cluster=Cluster("aks-gpu", vm_size="Standard_NEW_X1"), scale=Scale(7)))
    assert "the cluster has 3 nodes x 2 GPU = 6" in str(finding)


OTHERS: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("name", {"name": "Gpu_RN"}, {}, "error", "name", "'Gpu_RN' is no name that Azure ML accepts for a service"),
    (
        "service-there",
        {},
        {"service_exists": True},
        "error",
        "name-taken",
        (
            "There is a service 'gpu-rn' in the workspace already. Give another name=, overwrite=True, or use "
            "gpu_infer.attach('gpu-rn', workspace)."
        ),
    ),
    (
        "service-replaced",
        {"overwrite": True, "scale": Scale(2)},
        {"service_exists": True},
        "info",
        "replaces",
        "it is replaced by this one",
    ),
    (
        "too-large-for-sure",
        {"resources": Resources(memory_gb=22)},
        {"model_bytes": 17_000_000_000},
        "error",
        "gpu-memory",
        (
            "a model of 17.0 GB needs about 20.4 GB there with what the framework adds, and a replica on "
            f"{T4} has 16 GB. Take a size with more GPU memory."
        ),
    ),
    (
        "maybe-too-large",
        {"resources": Resources(memory_gb=22)},
        {"model_bytes": 14_000_000_000},
        "warning",
        "gpu-memory",
        "needs about 16.8 GB there",
    ),
    (
        "checkpoint",
        {"resources": Resources(memory_gb=22)},
        {"model_bytes": 17_000_000_000, "found": FoundModel("tf1_checkpoint", Path("/m/x"), "tensorflow")},
        "warning",
        "gpu-memory",
        "The GPU may be too small",
    ),
    (
        "main-memory",
        {},
        {"model_bytes": 6_000_000_000},
        "warning",
        "memory",
        (
            "On its way to the GPU a model of 6.0 GB passes through main memory, and a replica has 4 GB of that. Give "
            "memory_gb=9."
        ),
    ),
    ("timeout", {"timeout": 301.0}, {}, "error", "timeout", "the router in front of AKS services waits 300 s at most"),
    (
        "payload",
        {"environment_variables": {"GPU_INFER_MAX_BODY_MB": "200"}},
        {},
        "warning",
        "payload",
        "the router takes requests of 100 MB at most",
    ),
    (
        "cpu-allowed",
        {"environment_variables": {"GPU_INFER_ALLOW_CPU": "1"}},
        {},
        "warning",
        "cpu-allowed",
        "will run on the CPU, with the GPU paid for",
    ),
    (
        "setting",
        {"environment_variables": {"GPU_INFER_MAXBATCH": "3"}},
        {},
        "warning",
        "settings",
        "GPU_INFER_MAXBATCH",
    ),
    ("hook", {"preprocess": "bogus"}, {}, "error", "hook", "preprocess='bogus' is no built-in."),
    ("no-script", {"entry_script": Path("/no/score.py")}, {}, "error", "entry-script", "There is no entry script at"),
    ("no-conda-file", {"conda_file": Path("/no/conda.yml")}, {}, "error", "conda-file", "There is no conda file at"),
    (
        "template",
        {},
        {"found": FoundModel("onnx", Path("/m/x.onnx"), "onnxruntime")},
        "error",
        "template",
        "template='tensorflow' does not fit the model, which is onnx",
    ),
]


@pytest.mark.parametrize(
    ("changes", "facts", "level", "code", "message"), [case[1:] for case in OTHERS], ids=[case[0] for case in OTHERS]
)
def test_the_other_checks(changes: dict[str, Any], facts: dict[str, Any], level: str, code: str, message: str):
    findings = check(spec_with(**changes), **facts)
    assert codes(findings) == [(level, code)]
    assert message in str(findings[0])


def test_only_a_users_script_loads_the_model_in_each_worker(tmp_path: Path):
    several: dict[str, Any] = {"resources": Resources(memory_gb=22), "scale": Scale(3, workers=4)}
    assert check(spec_with(**several), model_bytes=5_000_000_000) == []
    script = tmp_path / "score.py"
    script.write_text("def init(): ...\ndef run(data): ...\n")
    (finding,) = check(spec_with(entry_script=script, **several), model_bytes=5_000_000_000)
    assert (finding.level, finding.code) == ("error", "gpu-memory")
    assert (
        "4 workers x 5.0 GB needs about 24.0 GB there with what the framework adds, and a replica on "
        f"{T4} has 16 GB. Take a size with more GPU memory, or fewer workers."
    ) in str(finding)


def test_a_number_that_is_none_is_said_once():
    findings = check(spec_with(environment_variables={"GPU_INFER_MAX_BODY_MB": "much"}))
    assert codes(findings) == [("error", "settings")]


def test_a_folder_with_too_many_files(tmp_path: Path):
    for number in range(1501):
        (tmp_path / str(number)).touch()
    (finding,) = check(spec_with(model=ModelRef("m", path=tmp_path)))
    assert (finding.level, finding.code) == ("error", "model-files")
    assert "holds more than 1,500 files" in str(finding)
    (tmp_path / "0").unlink()
    assert check(spec_with(model=ModelRef("m", path=tmp_path))) == []


def test_the_conda_file_is_checked(tmp_path: Path):
    conda = tmp_path / "conda.yml"
    conda.write_text("dependencies: [python=3.6, tensorflow-gpu=1.12]")
    found = codes(check(spec_with(conda_file=conda)))
    assert {code for level, code in found if level == "error"} == {
        "conda-python",
        "conda-server-missing",
        "conda-tensorflow-gpu",
        "runtime-missing",
    }
    conda.write_bytes(b"\xff\xfe\x00")
    assert ("error", "conda-yaml") in codes(check(spec_with(conda_file=conda)))


# --- the user's scripts -----------------------------------------------------------------------------------------------


def test_imports_that_the_conda_file_does_not_bring(tmp_path: Path):
    (tmp_path / "helper.py").write_text("import sklearn\nfrom PIL import Image\n")
    script = tmp_path / "score.py"
    script.write_text(
        "import json, os\nimport numpy\nimport helper\nimport pandas as pd\nfrom azureml.core.model import Model\n"
        "from azureml.contrib.services.aml_request import rawhttp\nimport gpu_infer_serving\n"
        "try:\n    import ujson\nexcept ImportError:\n    ujson = json\n"
        "def init():\n    import cv2\n\ndef run(data): ...\n"
        "if __name__ == '__main__':\n    import matplotlib\n"
    )
    findings = check(spec_with(entry_script=script))
    assert codes(findings) == [("warning", "import-missing")] * 4
    assert [str(finding).split(":")[0].split()[:3] for finding in findings] == [
        ["score.py", "line", "4"],
        ["score.py", "line", "5"],
        ["score.py", "line", "13"],
        ["helper.py", "line", "1"],
    ]
    for finding, package in zip(
        findings, ("pandas", "azureml-core", "opencv-python-headless", "scikit-learn"), strict=True
    ):
        assert f"does not seem to bring: {package}. Add {package} to the list pip:" in str(finding)


def test_what_the_runtime_imports(tmp_path: Path):
    conda, script = tmp_path / "conda.yml", tmp_path / "score.py"
    script.write_text("def init(): ...\ndef run(data): ...\n")
    conda.write_text(load_template("onnx").conda.replace("- orjson==3.13.0", "").replace("- gevent==26.9.0", ""))
    assert codes(check(spec_with(conda_file=conda))) == [("error", "runtime-missing"), ("info", "runtime-gevent")]
    assert check(spec_with(conda_file=conda, entry_script=script)) == [], "a script of one's own needs neither"


def test_imports_of_hooks_are_checked(tmp_path: Path):
    (tmp_path / "hooks.py").write_text("import transformers\nimport numpy\ndef preprocess(item): return item\n")
    (finding,) = check(spec_with(preprocess=str(tmp_path / "hooks.py")))
    assert (finding.level, finding.code) == ("warning", "import-missing")
    assert "hooks.py line 1 imports what the conda file does not seem to bring: transformers" in str(finding)


def test_what_the_conda_file_brings_by_another_name_or_through_another_package(tmp_path: Path):
    conda = tmp_path / "conda.yml"
    good = load_template("tensorflow").conda
    conda.write_text(good + "      - opencv-python-headless==4.10.0.84\n      - scikit-learn==1.5.0\n")
    script = tmp_path / "score.py"
    script.write_text(
        "import cv2, sklearn, scipy, joblib, h5py, keras, flask, werkzeug, requests, yaml as y\n"
        "from google.protobuf import message\ndef init(): ...\ndef run(data): ...\n"
    )
    findings = check(spec_with(entry_script=script, conda_file=conda))
    assert [str(finding).split(":")[1].split(".")[0] for finding in findings] == [" pyyaml"]


def test_names_of_tensorflow_1(tmp_path: Path):
    script = tmp_path / "score.py"
    script.write_text(TF1)
    (finding,) = check(spec_with(entry_script=script))
    assert (finding.level, finding.code) == ("error", "tensorflow-1")
    assert (
        "score.py uses names that TensorFlow 2 no longer has: tf.reset_default_graph (line 3), tf.Session (line 4)"
        in str(finding)
    )
    assert "import tensorflow.compat.v1 as tf" in str(finding)
    script.write_text(TF1.replace("import tensorflow as tf", "import tensorflow.compat.v1 as tf"))
    assert check(spec_with(entry_script=script)) == []


def test_a_script_that_cannot_be_read_is_said_once(tmp_path: Path):
    script = tmp_path / "score.py"
    script.write_text("def init(:\n")
    assert codes(check(spec_with(entry_script=script))) == [("error", "entry-script")]


# --- spec and plan ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cluster(nodes=0), "nodes must be a whole number from 1, got 0"),
        (lambda: Cluster(nodes=True), "nodes must be a whole number from 1, got True"),
        (lambda: Cluster(purpose="Prod"), 'purpose is "FastProd" or "DevTest", got \'Prod\''),  # type: ignore[arg-type]
        (
            lambda: Cluster(options={"ssl_name": "x"}),
            "A cluster is created without ssl_name; options= takes dns_service_ip",
        ),
        (
            lambda: Cluster(resource_id=AKS_ID, options={"vnet_name": "x"}),
            "A cluster is attached without vnet_name; options= takes load_balancer_subnet, load_balancer_type",
        ),
        (lambda: Scale(0), "replicas must be a whole number from 1, got 0"),
        (lambda: Scale(1, 0), "workers must be a whole number from 1, got 0"),
        (lambda: Scale(3, max_replicas=2), "max_replicas must be a whole number from 3, got 2"),
        (lambda: Resources(gpus=-1), "gpus_per_replica must be a whole number from 0, got -1"),
        (lambda: Resources(gpus=0.5), "gpus_per_replica must be a whole number from 0, got 0.5"),  # type: ignore[arg-type]
        (lambda: Resources(cpu_cores=0), "cpu_cores is a number above 0, got 0"),
        (lambda: Resources(memory_gb=float("nan")), "memory_gb is a number above 0, got nan"),
        (lambda: spec_with(auth="none"), 'auth is "key" or "token", got \'none\''),
    ],
)
def test_nonsense_is_refused_at_once(make: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_paths_of_keys_are_not_shown():
    assert "key.pem" not in repr(Cluster(options={"ssl_key_pem_file": "key.pem"}))


def plan_of(spec: ServiceSpec, **more: Any) -> Plan:
    defaults: dict[str, Any] = {
        "model_format": "tf_savedmodel",
        "template": "tensorflow",
        "price_per_hour": 1.578,
        "creates": (f"cluster aks-gpu (3 x {T4})", "service gpu-rn"),
        "vm_size": T4,
        "nodes": 3,
    }
    return Plan(spec, **{**defaults, **more})


def test_the_plan_shows_the_cluster_and_its_price():
    rows = dict(plan_of(spec_with()).rows())
    assert rows["cluster"] == "aks-gpu, for production"
    assert rows["VM size"] == f"{T4}: 4 cores, 28 GB, 1 x T4 with 16 GB"
    assert rows["nodes"] == "3"
    assert rows["GPUs"] == "3 asked for, 3 in the cluster"
    assert rows["replicas"] == "3; 2 cores, 4 GB, 1 GPU each"
    assert rows["scored with"] == "a key"
    assert rows["creates"] == f"cluster aks-gpu (3 x {T4}), service gpu-rn"
    assert rows["price"] == "$1.58 per hour, $1,152 per month, for the cluster (list price in eastus)"


def test_the_plan_of_what_is_there_already():
    spec = spec_with(scale=Scale(1, max_replicas=3), auth="token", cluster=Cluster.attach(AKS_ID, purpose="DevTest"))
    rows = dict(plan_of(spec, creates=("service gpu-rn",)).rows())
    assert rows["cluster"] == "aks-gpu, dev-test"
    assert rows["replicas"] == "1 to 3, as the load asks for; 2 cores, 4 GB, 1 GPU each"
    assert rows["scored with"] == "a token of Azure ML"
    assert rows["price"].endswith("per month, already, for the cluster (list price in eastus)")
    unknown = dict(plan_of(spec, vm_size="", nodes=0, price_per_hour=0.0).rows())
    assert unknown["GPUs"] == "3 asked for"
    assert unknown["price"] == "unknown: there is no price for what it would run on"
    assert "VM size" not in unknown


def test_the_plan_as_text_has_its_findings_below_in_lines_that_fit():
    findings = tuple(check(spec_with(scale=Scale(4), timeout=400)))
    made = plan_of(spec_with(), findings=findings)
    table, _, below = str(made).partition("\n\n")
    assert len(table.splitlines()) == len(made.rows())
    assert below.startswith("ERROR")
    assert "\n\nERROR" in below
    assert max(len(line) for line in below.splitlines()) <= 110
    assert " ".join(below.split()).count("Lower replicas= to 3, or take 4 nodes.") == 1
    as_json = made.to_dict()
    assert as_json["ok"] is False
    assert (as_json["vm_size"], as_json["nodes"]) == (T4, 3)
    assert as_json["creates"] == [f"cluster aks-gpu (3 x {T4})", "service gpu-rn"]


def test_the_command_line_shows_the_plan(capsys: pytest.CaptureFixture[str]):
    findings = tuple(check(spec_with(scale=Scale(4), timeout=400)))
    show.plan(plan_of(spec_with(), findings=findings))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("creates") and line.endswith(f"+ cluster aks-gpu (3 x {T4})") for line in lines)
    assert any(line.endswith("+ service gpu-rn") for line in lines)
    assert "Lower --replicas to 3, or take 4 nodes." in lines
    assert lines[-1] == "2 errors stand in the way: nothing would be started."
    show.plan(plan_of(spec_with()))
    assert "stand" not in capsys.readouterr().out


# --- the page ---------------------------------------------------------------------------------------------------------


def codes_in_the_source() -> dict[str, set[str]]:
    """Every code that a check can give, with its levels."""
    found: dict[str, set[str]] = {}
    for path in Path(gpu_infer.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                levels = re.findall(r"'(error|warning|info)'", ast.unparse(node.args[0]))
                found.setdefault(ast.literal_eval(node.args[1]), set()).update(levels)
    return found


def test_the_page_lists_every_check():
    page = (Path(__file__).parent.parent / "docs" / "preflight.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| `")
    ]
    listed = {row[0].strip("`"): set(row[1].split(", ")) for row in rows}
    assert len(listed) == len(rows), "a code stands there once"
    assert listed == codes_in_the_source()
    assert all(len(row) == 4 and row[2] and row[3] for row in rows)
