"""The door of managed endpoints: who may come in, what a model's failure looks like, and how traffic moves."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator
from gpu_infer.emulator.online.door import ManagedDoor
from gpu_infer.emulator.online.shares import Shares
from gpu_infer.emulator.scoring.replicas import Answer, NoReplicaError

WHO = """
import json, os
from pathlib import Path

SEEN = Path(os.environ["SEEN"])
WHO = os.environ["WHO"]

def init(): ...

def run(data):
    with SEEN.open("a") as file:
        file.write(WHO + "\\n")
    return WHO
"""


class Canned:
    """Replicas that answer what they are told, or raise it."""

    name = "gpu-rn-blue"
    replicas = 2

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.sent: list[tuple[str, str]] = []

    def send(self, method: str, path: str, headers: Any, body: bytes, timeout: float) -> Answer:
        self.sent.append((method, path))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def door(answer: Answer | Exception, **options: Any) -> ManagedDoor:
    replicas: Any = Canned(answer)
    made = ManagedDoor(replicas, auth="none", **options)
    made.deployment = "blue"
    return made


def test_a_success_says_who_answered_and_how_long_it_took() -> None:
    status, headers, body = door((200, {"x-ms-server-version": "1.5"}, b"[1]")).handle(
        "POST", "/score", {"X-Ms-Client-Request-Id": "mine"}, b""
    )
    assert (status, body) == (200, b"[1]")
    assert headers["azureml-model-deployment"] == "blue"
    assert headers["x-ms-server-version"] == "1.5"
    assert headers["x-ms-client-request-id"] == "mine"
    assert headers["ms-azureml-model-time"].isdecimal()


@pytest.mark.parametrize("model", [400, 404, 500, 503])
def test_whatever_the_model_answers_else_is_a_424(model: int) -> None:
    status, headers, body = door((model, {"content-type": "text/plain"}, b"why")).handle("POST", "/score", {}, b"")
    assert (status, body, headers["ms-azureml-model-error-statuscode"]) == (424, b"why", str(model))
    assert headers["ms-azureml-model-error-reason"] == "model_error"


@pytest.mark.parametrize(
    ("problem", "status"),
    [(TimeoutError(), 408), (ConnectionResetError(), 502), (NoReplicaError("No ready replicas"), 503)],
)
def test_what_the_container_does_not_answer_has_its_number(problem: Exception, status: int) -> None:
    answered, headers, _ = door(problem).handle("POST", "/score", {}, b"")
    assert (answered, headers["azureml-model-deployment"]) == (status, "blue")
    assert "ms-azureml-model-error-statuscode" not in headers


def test_twice_as_many_as_are_worked_on_may_be_pending() -> None:
    class Busy(Canned):
        def send(self, method: str, path: str, headers: Any, body: bytes, timeout: float) -> Answer:
            inside.release()
            assert gate.wait(30)
            return 200, {}, b""

    gate, inside = threading.Event(), threading.Semaphore(0)
    replicas: Any = Busy((200, {}, b""))
    busy = ManagedDoor(replicas, auth="none", max_concurrent=3)
    with ThreadPoolExecutor(12) as pool:
        pending = [pool.submit(busy.handle, "POST", "/score", {}, b"") for _ in range(12)]  # 2 * 3 * 2 instances
        for _ in range(12):
            assert inside.acquire(timeout=30)
        status, headers, _ = busy.handle("POST", "/score", {}, b"")
        gate.set()
        assert [one.result()[0] for one in pending] == [200] * 12
    assert status == 429
    assert "ms-azureml-model-time" not in headers
    assert busy.handle("POST", "/score", {}, b"")[0] == 200


def test_nobody_comes_in_without_a_key() -> None:
    replicas: Any = Canned((200, {}, b""))
    locked = ManagedDoor(replicas, keys=("one", "two"))
    for secret, status in (("one", 200), ("two", 200), ("three", 401)):
        assert locked.handle("POST", "/score", {"Authorization": f"Bearer {secret}"}, b"")[0] == status
    assert locked.handle("POST", "/score", {}, b"")[0] == 401


def test_shares_are_exact_and_spread() -> None:
    shares = Shares()
    drawn = [shares.next({"blue": 90, "green": 10}) for _ in range(100)]
    assert Counter(drawn) == {"blue": 90, "green": 10}
    assert Counter(drawn[:10]) == {"blue": 9, "green": 1}
    assert [shares.next({"green": 100}) for _ in range(3)] == ["green"] * 3
    assert shares.next({"green": 0}) is None


@pytest.fixture
def running(start: Callable[..., Emulator], online: Any, tmp_path: Path) -> Iterator[tuple[Emulator, Any]]:
    """A managed endpoint with two deployments that say who they are, ``blue`` with all the traffic."""
    emulator = start(run_services=True)
    client = emulator.ml_client()
    online.endpoint(client)
    (tmp_path / "seen").touch()
    pollers = [
        client.online_deployments.begin_create_or_update(
            online.deployment(who, script=WHO, environment_variables={"WHO": who, "SEEN": str(tmp_path / "seen")})
        )
        for who in ("blue", "green")
    ]
    for poller in pollers:
        poller.result()
    online.send(client, {"blue": 100})
    yield emulator, client
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


HELD = """
import os, time
from pathlib import Path

HERE = Path(os.environ["HERE"])

def init(): ...

def run(data):
    (HERE / "inside").touch()
    while not (HERE / "gate").exists():
        time.sleep(0.01)
    return "served"
"""


def test_who_is_inside_is_served_though_the_deployment_goes(
    start: Callable[..., Emulator], tmp_path: Path, header: dict[str, str]
) -> None:
    emulator = start(run_services=True)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(HELD)
    emulator.add_endpoint("gpu-rn", managed=True)
    options = {"environment_variables": {"HERE": str(tmp_path)}, "request_timeout_ms": 60_000, "traffic": 0}
    emulator.add_deployment("gpu-rn", tmp_path / "code", name="blue", **options)
    assert emulator.billed() == ["gpu-rn/blue"]
    scope = f"/subscriptions/{emulator.subscription_id}/resourceGroups/{emulator.resource_group}"
    arm = f"{emulator.url}{scope}/providers/Microsoft.MachineLearningServices/workspaces/{emulator.name}"
    keys = requests.post(f"{arm}/onlineEndpoints/gpu-rn/listKeys", headers=header, timeout=30).json()
    headers = {"Authorization": f"Bearer {keys['primaryKey']}", "azureml-model-deployment": "blue"}
    url = f"{emulator.url}/api/v1/endpoint/gpu-rn/score"
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(requests.post, url, data="{}", headers=headers, timeout=60)
        for _ in range(600):
            if (tmp_path / "inside").exists():
                break
            threading.Event().wait(0.05)
        gone = requests.delete(f"{arm}/onlineEndpoints/gpu-rn/deployments/blue", headers=header, timeout=30)
        assert gone.status_code == 202
        assert requests.get(gone.headers["Location"], headers=header, timeout=30).status_code == 204
        assert requests.post(url, data="{}", headers=headers, timeout=30).status_code == 404
        (tmp_path / "gate").touch()
        assert (asking.result().status_code, asking.result().json()) == (200, "served")
    assert emulator.billed() == []


def session(client: Any) -> requests.Session:
    made = requests.Session()
    made.headers["Authorization"] = f"Bearer {client.online_endpoints.get_keys('gpu-rn').primary_key}"
    return made


def test_traffic_moves_and_no_request_is_lost(running: tuple[Emulator, Any], online: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    _, client = running
    url = client.online_endpoints.get("gpu-rn").scoring_uri
    moved, answers = threading.Event(), list[tuple[int, str, str]]()

    def ask() -> None:
        with session(client) as asking:
            left = 20
            while left:
                left -= moved.is_set()
                answer = asking.post(url, data="{}", timeout=30)
                answers.append((answer.status_code, answer.text, answer.headers["azureml-model-deployment"]))

    with ThreadPoolExecutor(2) as pool:  # as many as may be pending of one instance
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            online.send(client, {"blue": 50, "green": 50})
            with pytest.raises(HttpResponseError, match="Set it to 0"):
                client.online_deployments.begin_delete("blue", "gpu-rn")
            online.send(client, {"green": 100})
            client.online_deployments.begin_delete("blue", "gpu-rn").result()
        finally:
            moved.set()
        for one in asking:
            one.result()
    assert {status for status, _, _ in answers} == {200}
    assert {(text, header) for _, text, header in answers} == {('"blue"', "blue"), ('"green"', "green")}
    with session(client) as asking:
        assert asking.post(url, data="{}", headers={"azureml-model-deployment": "blue"}, timeout=30).status_code == 404


def test_a_mirror_gets_copies_and_changes_nothing(running: tuple[Emulator, Any], online: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    _, client = running
    online.send(client, {"blue": 100}, {"green": 50})
    endpoint = client.online_endpoints.get("gpu-rn")
    assert endpoint.mirror_traffic == {"green": 50}
    with session(client) as asking:
        answers = [asking.post(endpoint.scoring_uri, data="{}", timeout=30) for _ in range(8)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, '"blue"')}
    seen = Counter[str]()
    for _ in range(400):  # nobody waits for a copy
        seen = Counter((tmp_path / "seen").read_text().split())
        if seen["green"] == 4:
            break
        threading.Event().wait(0.05)
    assert seen == {"blue": 8, "green": 4}
    for mirror in ({"blue": 10}, {"green": 51}, {"red": 10}):
        with pytest.raises(HttpResponseError, match="Mirror traffic is for one|does not have: red"):
            online.send(client, {"blue": 100}, mirror)
    online.send(client, {"blue": 100})
    client.online_deployments.begin_delete("green", "gpu-rn").result()
