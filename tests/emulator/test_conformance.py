"""Every call of the reference's table, made by the real SDK, and the emulator's log: a row that is missing fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, LoggedRequest, variables
from gpu_infer.emulator.routes import MANAGEMENT, ONLINE, TABLE
from gpu_infer.emulator.routing import Table

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A row of the table: which operation, and what is true of one such call at least."""

    operation: str
    holds: Callable[[LoggedRequest], bool] = lambda request: True


ROWS = {
    "1 workspace": Row("workspace.get", lambda it: it.query["api-version"] == "2022-05-01"),
    "2 discovery": Row("discovery.get"),
    "3 new artifacts": Row("artifacts.create", lambda it: bool(it.body["paths"][0]["path"])),
    "4 upload": Row("blob.put", lambda it: it.body > 0 and it.status == 201),
    "5 upload check": Row("blob.head", lambda it: it.status == 200),
    "6 new asset": Row("assets.create", lambda it: it.body["artifacts"][0]["prefix"].startswith("LocalUpload/")),
    "7 new model": Row("models.create", lambda it: it.body["url"].startswith("aml://asset/")),
    "8 model by name": Row("models.list", lambda it: it.query.get("count") == "1"),
    "8 list of models": Row("models.list", lambda it: it.query.get("count") == "255"),
    "9 model by id": Row("models.get", lambda it: it.path.endswith("/models/net:1")),
    "9 model absent": Row("models.get", lambda it: it.status == 404),
    "10 asset of a model": Row("assets.get"),
    "10 files of a model": Row("artifacts.content", lambda it: "/prefix/contentinfo/" in it.path),
    "10 download": Row("blob.get"),
    "11 delete model": Row("models.delete", lambda it: it.status == 200),
    "12 compute": Row("compute.get", lambda it: it.path.startswith("/rp/workspaces") and it.status == 200),
    "12 compute absent": Row("compute.get", lambda it: it.status == 404),
    "13 create": Row("compute.create", lambda it: it.body["properties"]["properties"]["agentCount"] == 3),
    "14 poll": Row("compute.operation"),
    "15 delete": Row("compute.delete", lambda it: it.query["underlyingResourceAction"] == "delete"),
    "15 detach": Row("compute.detach", lambda it: it.query["underlyingResourceAction"] == "detach"),
    "16 list of computes": Row("compute.list"),
    "17 credentials": Row("compute.keys"),
    "18 sizes": Row("compute.sizes"),
    "19 validate name": Row("services.validate", lambda it: it.path.endswith("/validate/name/gpu-rn")),
    "20 validate": Row("services.validate", lambda it: (it.body or {}).get("type") == "Create"),
    "20 validate update": Row("services.validate", lambda it: (it.body or {}).get("type") == "Update"),
    "20 validate delete": Row("services.validate", lambda it: (it.body or {}).get("type") == "Delete"),
    "21 validate resource": Row("services.validate", lambda it: it.path.endswith("/validate/resource")),
    "22 deploy": Row("services.create", lambda it: it.body["containerResourceRequirements"]["gpu"] == 1),
    "23 service": Row("services.get", lambda it: it.query["expand"] == "true"),
    "24 poll": Row("services.operation", lambda it: it.status == 200),
    "25 keys": Row("services.keys"),
    "26 new key": Row("services.regenerate", lambda it: it.body == {"keyType": "Primary", "keyValue": None}),
    "27 token": Row("services.token", lambda it: it.status == 200),
    "28 logs": Row("services.logs", lambda it: it.query == {"tail": "5000", "init": "False"}),
    "29 update": Row("services.update", lambda it: it.body[0]["op"] == "replace"),
    "30 delete": Row("services.delete", lambda it: it.status == 200),
    "30 delete absent": Row("services.delete", lambda it: it.status == 204),
    "31 list of services": Row("services.list", lambda it: it.query.get("computeType") == "AKS"),
    "32 scoring": Row("scoring.post"),
    "33 subscriptions": Row("subscriptions.list"),
    "33 cloud metadata": Row("metadata.get"),
    "33 sign-in, where": Row("aad.configuration"),
    "33 sign-in": Row("aad.token", lambda it: it.status == 200),
}


def flow(ws: Any, steps: Any, emulator: Emulator) -> None:
    """All that mode A can do."""
    from azureml.core import Model, Webservice
    from azureml.core.compute import AmlCompute, ComputeTarget
    from azureml.exceptions import ComputeTargetException, WebserviceException

    assert ws.get_details()["name"] == ws.name
    with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
        ComputeTarget(ws, "aks-gpu")
    assert {"Standard_NC4as_T4_v3", "Standard_D3_v2"} <= {size["name"] for size in AmlCompute.supported_vmsizes(ws)}
    cluster = steps.cluster(ws)
    cluster.wait_for_completion(show_output=True)
    assert cluster.get_status() == "Succeeded"
    assert set(ws.compute_targets) == {"aks-gpu"}
    assert cluster.get_credentials()["userKubeConfig"]

    model = steps.model(ws, tags={"of": "the test"})
    assert (Model(ws, "net").id, Model(ws, "net", version=1).tags) == ("net:1", {"of": "the test"})
    assert [found.id for found in Model.list(ws, latest=True)] == ["net:1"]
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(ws, id="net:7")
    assert Path(model.download("downloaded")).read_bytes() == b"weights"
    model.add_tags({"more": "tags"})
    assert Model(ws, "net").tags == {"of": "the test", "more": "tags"}

    service = steps.deploy(ws, cluster, [model])
    service.wait_for_deployment(show_output=True)
    gone: Any = Webservice(ws, "gpu-rn")
    assert (service.state, gone.compute_name) == ("Healthy", "aks-gpu")
    before, _ = service.get_keys()
    service.regen_key("Primary")
    assert service.get_keys()[0] != before
    assert "run_services=False" in service.get_logs()
    service.update(num_replicas=2, tags={"new": "tag"})
    assert (service.num_replicas, service.tags) == (2, {"new": "tag"})
    with pytest.raises(WebserviceException, match="Response Code: 503"):
        service.run(b"{}")
    assert requests.get(service.scoring_uri, timeout=10).status_code == 503
    service.update(token_auth_enabled=True, auth_enabled=False)
    assert service.get_access_token().token_type == "Bearer"
    assert [found.name for found in Webservice.list(ws, compute_type="AKS")] == ["gpu-rn"]
    service.delete()
    gone.delete()  # of this the service knows nothing any more
    model.delete()
    rest(ws, steps, emulator, cluster)


def rest(ws: Any, steps: Any, emulator: Emulator, cluster: Any) -> None:
    """What the reference leaves out, and what ends the flow."""
    from azureml.core.compute import AksCompute, ComputeTarget
    from azureml.core.compute.aks import AksUpdateConfiguration

    cluster.update(AksUpdateConfiguration(load_balancer_type="InternalLoadBalancer", load_balancer_subnet="mine"))
    updated: Any = ComputeTarget(ws, "aks-gpu")
    assert updated.load_balancer_subnet == "mine"
    outside = "/subscriptions/s/resourcegroups/other/providers/Microsoft.ContainerService/managedClusters/theirs"
    emulator.add_aks(outside, vm_size="Standard_NC4as_T4_v3", nodes=1)
    attached = ComputeTarget.attach(ws, "attached", AksCompute.attach_configuration(resource_id=outside))
    attached.wait_for_completion()
    attached.detach()
    attached.wait_for_completion(is_delete_operation=True)
    cluster.delete()
    cluster.wait_for_completion(is_delete_operation=True)
    assert ws.compute_targets == {}
    assert requests.get(f"{emulator.url}/common/discovery/instance", timeout=10).json()["metadata"]


def run_mode(mode: str, folder: Path, stack: ExitStack) -> tuple[subprocess.Popen[str], Emulator]:
    """One of the other modes, with an emulator of its own."""
    emulator = stack.enter_context(Emulator(run_services=False))
    (folder / mode / "home").mkdir(parents=True)
    environment = {
        **os.environ,
        **variables(emulator.url, mode=mode),  # pyright: ignore[reportArgumentType]
        "HOME": str(folder / mode / "home"),
        "TMPDIR": str(folder / mode / "home"),
    }
    process = subprocess.Popen(
        [sys.executable, HERE / "modes.py", mode, emulator.url],
        cwd=folder / mode,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, emulator


@pytest.fixture(scope="module")
def modes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[subprocess.Popen[str], Emulator]]]:
    """Modes B and C, on their way in processes of their own."""
    folder = tmp_path_factory.mktemp("modes")
    with ExitStack() as stack:
        started = {mode: run_mode(mode, folder, stack) for mode in ("environment", "proxy")}
        yield started
        for process, _ in started.values():
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def logs(
    modes: dict[str, tuple[subprocess.Popen[str], Emulator]],
    steps_in: Callable[[Path], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[LoggedRequest]]:
    """What each mode asked of its emulator."""
    folder = tmp_path_factory.mktemp("conformance")
    logs: dict[str, list[LoggedRequest]] = {}
    with Emulator(run_services=False) as emulator, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flow(emulator.workspace(), steps_in(folder), emulator)
        logs["subclass"] = emulator.requests
        assert emulator.errors == []
    for mode, (process, other) in modes.items():
        text, _ = process.communicate(timeout=100)
        logs[mode] = other.requests
        assert process.returncode == 0, f"{mode}: {text}"
        assert other.errors == []
    return logs


def test_mode_a_runs_the_whole_flow(logs: dict[str, list[LoggedRequest]]) -> None:
    assert {"aad.token", "metadata.get", "subscriptions.list"}.isdisjoint(names(logs["subclass"]))


def test_mode_b_finds_the_emulator_by_the_metadata_of_clouds(logs: dict[str, list[LoggedRequest]]) -> None:
    assert {"metadata.get", "subscriptions.list", "blob.put", "services.create"} <= names(logs["environment"])
    assert "aad.token" not in names(logs["environment"])


def test_mode_c_calls_azure_by_its_own_names(logs: dict[str, list[LoggedRequest]]) -> None:
    assert {"aad.configuration", "aad.token", "blob.put", "blob.get", "services.create"} <= names(logs["proxy"])
    assert "metadata.get" not in names(logs["proxy"])


@pytest.mark.parametrize("title", ROWS)
def test_the_row_was_asked_for(title: str, logs: dict[str, list[LoggedRequest]]) -> None:
    row = ROWS[title]
    of_its_kind = [request for log in logs.values() for request in log if request.operation == row.operation]
    assert any(row.holds(request) for request in of_its_kind), of_its_kind


def test_every_operation_of_the_emulator_was_asked_for(logs: dict[str, list[LoggedRequest]]) -> None:
    known = Table(
        route for route in TABLE.routes if route not in (*ONLINE, *MANAGEMENT)
    ).operations  # of azure-ai-ml: see test_online.py
    assert {name for log in logs.values() for name in names(log)} == known


def test_nothing_was_asked_that_the_emulator_does_not_know(logs: dict[str, list[LoggedRequest]]) -> None:
    for log in logs.values():
        assert [request for request in log if request.operation == "unmatched"] == []
        assert [request for request in log if request.status is None] == []


def test_the_table_is_the_references_own() -> None:
    assert {int(title.split()[0]) for title in ROWS} == set(range(1, 34))


def names(log: list[LoggedRequest]) -> set[str]:
    return {request.operation for request in log}
