"""What is deployed runs: scores, scales, is replaced in place, and crashes as on Azure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from processes import alive

from gpu_infer.emulator import Emulator

SCORE = """
import os
from pathlib import Path

def init():
    global weights
    weights = next(Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.bin")).read_text()

def run(data):
    return {"weights": weights, "mode": os.environ.get("MODE", "none"), "pid": os.getpid()}
"""
CRASH = "def init():\n    raise LookupError('the weights are gone')\n\n\ndef run(data): ...\n"


@pytest.fixture(scope="module")
def running(sdk: None) -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator
        assert emulator.errors == []


def settle(service: Any, *states: str, seconds: float = 60) -> str:
    """Wait as the SDK does, but look more often."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        service.update_deployment_state()
        if service.state in states:
            break
        time.sleep(0.05)
    return service.state


@pytest.fixture(scope="module")
def deployed(running: Emulator, steps_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The workspace, the steps, and a healthy service."""
    folder = tmp_path_factory.mktemp("running")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ws, steps = running.workspace(), steps_in(folder)
        (folder / "src" / "score.py").write_text(SCORE)
        service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws, content=b"first")])
        assert service.state == "Transitioning"
        assert settle(service, "Healthy", "Failed") == "Healthy", service.get_logs()
        yield ws, steps, service


def test_it_scores_with_its_model(deployed: Any) -> None:
    _, _, service = deployed
    assert service.run(b"{}")["weights"] == "first"


def test_the_door_asks_for_the_key(deployed: Any, running: Emulator) -> None:
    _, _, service = deployed
    assert requests.post(service.scoring_uri, data=b"{}", timeout=10).status_code == 401
    wrong = requests.post(service.scoring_uri, data=b"{}", headers={"Authorization": "Bearer x"}, timeout=10)
    assert wrong.status_code == 401
    for key in service.get_keys():
        right = requests.post(service.scoring_uri, data=b"{}", headers={"Authorization": f"Bearer {key}"}, timeout=10)
        assert right.json()["weights"] == "first"
    scored = [request for request in running.requests if request.operation == "scoring.post"]
    assert [request.status for request in scored][-4:] == [401, 401, 200, 200]
    assert {request.body for request in scored} == {2}


def test_tokens_open_it_when_asked_to(deployed: Any) -> None:
    _, _, service = deployed
    service.update(token_auth_enabled=True, auth_enabled=False)
    assert settle(service, "Healthy") == "Healthy"
    token = service.get_access_token().access_token
    answer = requests.post(service.scoring_uri, headers={"Authorization": f"Bearer {token}"}, data=b"{}", timeout=10)
    assert answer.status_code == 200
    key = {"Authorization": f"Bearer {service.get_keys()[0]}"}
    assert requests.post(service.scoring_uri, headers=key, data=b"{}", timeout=10).status_code == 401
    service.update(auth_enabled=True, token_auth_enabled=False)
    assert requests.post(service.scoring_uri, headers=key, data=b"{}", timeout=10).status_code == 200


def test_an_update_of_numbers_keeps_the_containers(deployed: Any) -> None:
    _, _, service = deployed
    before = service.run(b"{}")["pid"]
    service.update(num_replicas=2, replica_max_concurrent_requests=2, tags={"now": "two"})
    assert settle(service, "Healthy") == "Healthy"
    assert service.run(b"{}")["pid"] == before


def test_an_update_of_code_and_model_takes_over_when_it_is_healthy(deployed: Any) -> None:
    ws, steps, service = deployed
    service.update(models=[steps.model(ws, content=b"second")], inference_config=steps.inference(MODE="new"))
    assert service.state == "Transitioning"
    assert service.run(b"{}")["weights"] == "first"  # the old one answers until then
    assert settle(service, "Healthy", "Failed") == "Healthy", service.get_logs()
    result = service.run(b"{}")
    assert (result["weights"], result["mode"]) == ("second", "new")


def test_an_update_that_crashes_leaves_the_old_one_in_place(deployed: Any) -> None:
    _, steps, service = deployed
    (steps.folder / "src" / "score.py").write_text(CRASH)
    service.update(inference_config=steps.inference())
    assert settle(service, "Failed") == "Failed"
    assert service.run(b"{}")["weights"] == "second"


def test_a_script_that_crashes_fails_the_deployment_in_azures_words(deployed: Any) -> None:
    from azureml.core.compute import ComputeTarget
    from azureml.exceptions import WebserviceException

    ws, steps, _ = deployed
    (steps.folder / "src" / "score.py").write_text(CRASH)
    service = steps.deploy(ws, ComputeTarget(ws, "aks-gpu"), [steps.model(ws)], "crashes")
    assert settle(service, "Failed") == "Failed"
    with pytest.raises(WebserviceException, match="CrashLoopBackOff[\\s\\S]*Your container application crashed"):
        service.wait_for_deployment()
    assert "LookupError: the weights are gone" in service.get_logs()
    service.delete()


def test_deleting_ends_the_processes(deployed: Any, running: Emulator) -> None:
    _, _, service = deployed
    worker = psutil.Process(service.run(b"{}")["pid"])
    service.delete()
    end = time.monotonic() + 30
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(worker)
    assert requests.post(service.scoring_uri, timeout=10).status_code == 404
