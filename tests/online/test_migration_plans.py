"""What a migration would do, and how answers are compared: no container runs here."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import PreflightError, ServiceNotFoundError, UnsupportedError
from gpu_infer.migration.comparing import asking, compare, difference
from gpu_infer.migration.mapping import mapped
from gpu_infer.spec import ModelRef, Scale
from gpu_infer.targets import aks
from gpu_infer.targets.aks import WebCluster, WebService
from gpu_infer.targets.base import Deployment

T4 = "Standard_NC4as_T4_v3"
FOUR_T4 = "Standard_NC64as_T4_v3"
CONDA = (
    "name: own\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip\n- pip:\n"
    "  - azureml-inference-server-http==1.5.1\n  - numpy\n"
)

Deploy = Callable[..., Any]


@pytest.fixture
def workspace(emulator: Emulator, home: Path) -> Any:
    return emulator.workspace()


@pytest.fixture
def deployed(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Deploys a script of the user's to AKS, by our own call: what the SDK sends is the same."""
    from azureml.core import Model

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"not a real network")
    Model.register(workspace, "net.onnx", "net")
    (tmp_path / "old.py").write_text("import helper\n\n\ndef init(): ...\n\n\ndef run(data):\n    return data\n")
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    (tmp_path / "own.yml").write_text(CONDA)

    def deploy(name: str = "old", *, vm_size: str = T4, cluster: str = "gpus", **options: Any) -> Any:
        given = {"entry_script": "old.py", "conda_file": "own.yml", "template": "onnx", **options}
        there = Cluster(cluster, vm_size=vm_size, nodes=3)
        return gpu_infer.deploy("net", workspace, name=name, cluster=there, keep=True, ttl="1h", **given)

    return deploy


def codes(plan: gpu_infer.MigrationPlan) -> set[str]:
    return {finding.code for finding in plan.findings}


def moves(plan: gpu_infer.MigrationPlan) -> dict[str, tuple[str, str]]:
    return {move.what: (move.before, move.after) for move in plan.moves}


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_plan_of_a_script(workspace: Any, client: Any, deployed: Deploy, emulator: Emulator) -> None:
    deployed(replicas=2, workers=2, environment_variables={"MODE": "quiet"}, tags={"team": "lynx"}, timeout=45)
    deployed("neighbour")
    emulator.clear_log()
    plan = gpu_infer.migrate_plan(workspace, client, "old")
    assert plan.errors == ()
    assert (plan.price_before, plan.price_after) == (pytest.approx(1.578), pytest.approx(1.052))
    assert dict(plan.arguments) == {
        "model": ModelRef("net", version="1"),
        "name": "old",
        "vm_size": T4,
        "gpus_per_replica": 1,
        "replicas": 2,
        "workers": 2,
        "environment_variables": {"MODE": "quiet"},
        "auth": "key",
        "timeout": 45.0,
        "tags": {"team": "lynx"},
        "properties": {},
        "entry_script": plan.arguments["entry_script"],
        "conda_file": plan.arguments["conda_file"],
    }
    assert "import helper" in plan.arguments["entry_script"].read_text()
    assert "azureml-inference-server-http==1.5.1" in plan.arguments["conda_file"].read_text()
    assert plan.arguments["entry_script"].with_name("helper.py").exists()
    found = moves(plan)
    assert (
        found["machines"][0]
        == f"cluster gpus: 3 nodes, each {T4}: 4 cores, 28 GB, 1 x T4 with 16 GB, shared with 1 other service"
    )
    assert found["address"][1] == "old.eastus.inference.ml.azure.com/score"
    assert found["balancer"][0].startswith("Basic, as Azure ML makes it")
    assert found["time-out"] == ("45 s, then 504", "45 s, then 408")
    assert found["price"] == (
        "$1.58 per hour, $1,152 per month for the cluster of 2 services",
        "$1.05 per hour, $768 per month for the instances",
    )
    (cluster,) = [finding for finding in plan.findings if finding.code == "cluster"]
    assert "neighbour runs on it, too" in cluster.message
    assert "files" not in codes(plan)
    created = {call.operation for call in emulator.requests if call.method in ("PUT", "PATCH", "DELETE")}
    assert created == set()
    assert all(len(line) <= 110 for line in str(plan).splitlines())
    assert plan.to_dict()["ok"] is True


def test_what_is_read_is_overridden_by_what_is_given(workspace: Any, client: Any, deployed: Deploy) -> None:
    deployed()
    plan = gpu_infer.migrate_plan(
        workspace, client, "old", vm_size="Standard_NC24ads_A100_v4", new_name="new", replicas=3, timeout="20s"
    )
    assert (plan.endpoint, plan.arguments["replicas"], plan.arguments["timeout"]) == ("new", 3, "20s")
    assert plan.price_after == pytest.approx(3 * 3.673)
    assert moves(plan)["machines"][1].startswith("3 instances, each Standard_NC24ads_A100_v4")
    with pytest.raises(TypeError, match="colour"):
        gpu_infer.migrate_plan(workspace, client, "old", colour="green")
    with pytest.raises(TypeError, match="no overwrite="):
        gpu_infer.migrate(workspace, client, "old", golden=[[1.0]], overwrite=True)


def test_a_replica_of_one_gpu_on_nodes_of_four_gets_the_machine_with_one(
    workspace: Any, client: Any, deployed: Deploy
) -> None:
    deployed(vm_size=FOUR_T4, cpu_cores=6, memory_gb=40)
    plan = gpu_infer.migrate_plan(workspace, client, "old")
    assert plan.arguments["vm_size"] == "Standard_NC8as_T4_v3"  # the cheapest with 6 cores and 40 GB
    assert "A replica uses 1 of the 4 GPUs" in str([str(one) for one in plan.findings])


def test_an_attached_cluster_is_as_the_tags_of_its_services_say(
    workspace: Any, client: Any, deployed: Deploy, emulator: Emulator
) -> None:
    resource = f"/subscriptions/{workspace.subscription_id}/resourceGroups/r/providers/Microsoft.ContainerService"
    resource += "/managedClusters/mine"
    emulator.add_aks(resource, vm_size="Standard_NC8as_T4_v3", nodes=2)
    there = Cluster("mine", vm_size="Standard_NC8as_T4_v3", nodes=2, resource_id=resource)
    gpu_infer.deploy(
        "net", workspace, name="old", cluster=there, entry_script="old.py", conda_file="own.yml", keep=True, ttl="1h"
    )
    plan = gpu_infer.migrate_plan(workspace, client, "old")
    assert moves(plan)["balancer"] == ("the cluster's", "Azure's own")
    assert plan.old.cluster.attached
    assert plan.arguments["vm_size"] == "Standard_NC8as_T4_v3"
    assert plan.price_before == pytest.approx(2 * 0.752)


def test_an_autoscaler_tokens_and_long_requests(workspace: Any, client: Any, deployed: Deploy) -> None:
    deployed(replicas=(1, 3), auth="token", timeout=250)
    plan = gpu_infer.migrate_plan(workspace, client, "old")
    assert (plan.arguments["replicas"], plan.arguments["auth"], plan.arguments["timeout"]) == ((1, 3), "token", 180.0)
    assert "timeout" in codes(plan)
    assert moves(plan)["scored with"] == ("tokens of Azure ML", "tokens of Azure ML")
    assert moves(plan)["replicas"][0].startswith("1 to 3 replicas by load")


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of the SDK, where a download fails
@pytest.mark.parametrize("operation", ["artifacts.content", "blob.get"])
def test_code_that_cannot_be_read_is_asked_for(
    workspace: Any,
    client: Any,
    deployed: Deploy,
    emulator: Emulator,
    tmp_path: Path,
    operation: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deployed()
    # The SDK would wait 2, 4, 16 and 256 s before it tries again.
    monkeypatch.setattr("azureml._file_utils.file_utils.time", SimpleNamespace(sleep=lambda _: None))
    emulator.add_fault(Fault(operation, status=403, times=None))
    plan = gpu_infer.migrate_plan(workspace, client, "old")
    assert [finding.code for finding in plan.errors] == ["code"]
    assert "cannot be read from the workspace" in plan.errors[0].message
    assert (plan.deployment, plan.price_after) == (None, 0.0)
    assert moves(plan)["code"][1] == "to be given"
    with pytest.raises(PreflightError, match="Give the entry script"):
        gpu_infer.migrate(workspace, client, "old", golden=[[1.0]])
    plan = gpu_infer.migrate_plan(workspace, client, "old", entry_script=tmp_path / "old.py")
    assert plan.errors == ()
    assert plan.arguments["conda_file"].exists()  # that is in the answer itself
    assert not re.search(r"sig=[^*]", caplog.text + str(plan))
    gc.collect()  # here, where the sockets that it left open are forgiven


def test_a_service_of_ours_whose_bundle_cannot_be_read_and_that_does_not_answer(
    workspace: Any, client: Any, deployed: Deploy, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed("ours", entry_script=None, conda_file=None, template="onnx", postprocess="argmax")
    told = {"settings": {"postprocess": "argmax", "preprocess": "hooks.py:scale", "output": ""}, "labels": ["a", "b"]}
    plan = gpu_infer.migrate_plan(workspace, client, "ours")
    assert (plan.arguments["postprocess"], plan.arguments["template"]) == ("argmax", "onnx")
    assert moves(plan)["code"] == ("the library's bundled runtime", "the bundled runtime, built anew")
    old = aks.read_web_service(workspace, "ours", code=False)
    assert [one.code for one in mapped(old, None, vm_size=None, changes={}).findings if one.level == "error"] == [
        "code"
    ]
    found = mapped(old, told, vm_size=None, changes={})
    assert found.arguments["labels"] == ("a", "b")
    assert [one.fix for one in found.findings if one.level == "error"] == [
        "Give the file: preprocess='PATH.py:FUNCTION'."
    ]
    found = mapped(old, told, vm_size=None, changes={"preprocess": "here.py:scale"})
    assert [one for one in found.findings if one.level == "error"] == []
    assert found.arguments["preprocess"] == "here.py:scale"


def test_services_that_are_not_there_or_are_not_on_aks(workspace: Any, client: Any, deployed: Deploy) -> None:
    deployed()
    with pytest.raises(ServiceNotFoundError, match=r"no service 'absent'.*On AKS there: old"):
        gpu_infer.migrate_plan(workspace, client, "absent")
    with pytest.raises(UnsupportedError, match="only web services on AKS"):
        _read_as(workspace, "old", "ACI")


def _read_as(workspace: Any, name: str, kind: str) -> None:
    from gpu_infer.targets.aks import services

    found: Any = services.look(workspace, name)
    found.compute_type = kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "look", lambda *_: found)
        aks.read_web_service(workspace, name)


# --- what does not map ------------------------------------------------------------------------------------------------


def web_service(tmp_path: Path, **given: Any) -> WebService:
    (tmp_path / "score.py").write_text("def init(): ...\n\n\ndef run(data): ...\n")
    cluster = given.pop("cluster", WebCluster("gpus", T4, 3, ("old",), 1.578))
    known = {"models": (ModelRef("net", version="1"),), "code": tmp_path, "entry_script": "score.py", "gpus": 1}
    return WebService("old", "Healthy", "http://aks/score", cluster, **{**known, **given})


@pytest.mark.parametrize(
    ("given", "level", "code", "said"),
    [
        ({"models": ()}, "error", "model", "has no registered model"),
        ({"models": (ModelRef("a", version="1"), ModelRef("b", version="2"))}, "error", "model", "2 models (a:1, b:2)"),
        ({"auth": "none"}, "warning", "auth", "Anybody can score"),
        ({"collects": ("model data",)}, "warning", "collected", "keeps what comes in (model data)"),
        ({"description": "x", "namespace": "y"}, "info", "left-out", "description and namespace"),
        ({"state": "Failed"}, "warning", "state", "is Failed"),
        ({"own_image": True}, "error", "image", "an image of its own"),
        ({"gpus": 0}, "info", "gpu", "asks for no GPU, and the nodes of 'gpus' have some; 1 is taken"),
        ({"entry_script": "absent.py"}, "error", "code", "there is no absent.py in it"),
        ({"cluster": WebCluster("gpus", T4, 3, domain="score.example.org")}, "warning", "domain", "score.example.org"),
        ({"cluster": WebCluster("gpus", T4, 3, internal=True)}, "warning", "network", "virtual network"),
        ({"cluster": WebCluster("gpus")}, "warning", "vm-size", "Azure does not say; Standard_NC4as_T4_v3 is taken"),
        ({"cluster": WebCluster("gpus", "Standard_NC6", 3)}, "info", "retired", f"its successor {T4} is taken"),
    ],
)
def test_what_does_not_map_is_said(tmp_path: Path, given: dict[str, Any], level: str, code: str, said: str) -> None:
    state = given.pop("state", "Healthy")
    old = web_service(tmp_path, **given)
    old = WebService(**{**{name: getattr(old, name) for name in WebService.__dataclass_fields__}, "state": state})
    found = [one for one in mapped(old, None, vm_size=None, changes={}).findings if one.code == code]
    assert [(one.level, said in one.message) for one in found] == [(level, True)]


def test_files_that_the_script_does_not_import_are_named(tmp_path: Path) -> None:
    old = web_service(tmp_path)
    for name in ("stop_words.txt", "gpu_infer.json"):
        (tmp_path / name).write_text("{}")
    (one,) = [one for one in mapped(old, None, vm_size=None, changes={}).findings if one.code == "files"]
    assert "not stop_words.txt." in one.message


def test_cpu_services_and_unknown_sizes_stay_on_their_size(tmp_path: Path) -> None:
    for size in ("Standard_D4s_v5", "Standard_From_The_Future"):
        old = web_service(tmp_path, gpus=0, cluster=WebCluster("cpus", size, 3), scale=Scale(2, max_replicas=4))
        arguments = mapped(old, None, vm_size=None, changes={}).arguments
        assert (arguments["vm_size"], arguments["gpus_per_replica"], arguments["replicas"]) == (size, 0, (2, 4))


def test_variables_that_are_set_anew_are_left_out(tmp_path: Path) -> None:
    from gpu_infer.bundle import GUNICORN

    kept = {"MODE": "quiet", "TF_CPP_MIN_LOG_LEVEL": "2"}
    ours = {
        "WORKER_COUNT": "3",
        "SCORING_TIMEOUT_MS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "GUNICORN_CMD_ARGS": f"{GUNICORN} --pythonpath /var/azureml-app",
    }
    arguments = mapped(web_service(tmp_path, environment_variables={**kept, **ours}), None, vm_size=None, changes={})
    assert arguments.arguments["environment_variables"] == kept
    assert arguments.arguments["workers"] == 3


# --- comparing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "size", "what"),
    [
        ([1, 2.5], np.array([1, 2.5]), 0.0, ""),
        ([[1.0, 2.0]], [[1.0, 2.25]], 0.25, "2 and 2.25"),
        (3, 3, 0.0, ""),
        (True, 0, 1.0, "1 and 0"),
        (b"[1, 2]", [1, 2], 0.0, ""),
        (b'{"a": [1.5]}', {"a": [1.0]}, 0.5, "a: 1.5 and 1"),
        ([math.nan, math.inf], [math.nan, math.inf], 0.0, ""),
        ([1.0, math.nan], [1.0, 2.0], math.inf, "nan and 2"),
        ([1, 2], [1, 2, 3], math.inf, "shapes [2] and [3]"),
        ({"a": 1}, {"b": 1}, math.inf, "keys ['a'] and ['b']"),
        (["cat", 0.5], ["cat", 0.75], 0.25, "0.5 and 0.75"),
        (["cat"], ["dog"], math.inf, "'cat' and 'dog'"),
        ([[1], [2, 3]], [[1], [2]], math.inf, "shapes [2] and [1]"),
        (["a"], ["a", "b"], math.inf, "1 and 2 values"),
        ([], [], 0.0, ""),
        ({}, {}, 0.0, ""),
        (None, None, 0.0, ""),
        (b"\xff\xd8", b"\xff\xd8", 0.0, ""),
        ("ok", {"ok": 1}, math.inf, "'ok' and {'ok': 1}"),
        ({"a": 1}, [1], math.inf, "dict and list"),
        (np.zeros((0, 4)), np.zeros((0, 4)), 0.0, ""),
    ],
)
def test_how_far_answers_are_apart(before: Any, after: Any, size: float, what: str) -> None:
    found = difference(before, after)
    assert (found.size, found.what) == (size, what)


def test_the_worst_of_many_answers_counts() -> None:
    found = compare([1.0, 2.0, 3.0], [1.0, 2.5, 3.1], tolerance=0.2)
    assert (found.requests, found.largest, found.at, found.agree) == (3, 0.5, 1, False)
    assert str(found) == "3 answers compared, differing at most 0.5 (2 and 2.5)"
    assert compare([1.0], [1.0 + 1e-6], tolerance=1e-5).agree
    apart = compare(["a"], [1], tolerance=1.0)
    assert (apart.agree, apart.to_dict()["largest"], "in form" in str(apart)) == (False, None, True)


def test_golden_files_go_to_a_script_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu_infer.client import ScoringClient

    sent: list[tuple[str | None, Any]] = []
    monkeypatch.setattr(ScoringClient, "score", lambda client, item: sent.append((client._codec, item)))
    (tmp_path / "request.json").write_text('{"data": [1]}')
    (tmp_path / "photo.jpg").write_bytes(b"jpeg")
    script = Deployment("old", "Healthy", "http://127.0.0.1:9/score", own_script=True)
    with asking(script) as ask:
        for item in (tmp_path / "request.json", tmp_path / "photo.jpg", b"raw", [[1.0]]):
            ask(item)
    assert sent == [("json", {"data": [1]}), ("bytes", tmp_path / "photo.jpg"), ("bytes", b"raw"), ("json", [[1.0]])]
