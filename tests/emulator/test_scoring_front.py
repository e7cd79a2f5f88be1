"""The door of an emulated service: keys, tokens, concurrency, queue, time-outs, and what comes through."""

from __future__ import annotations

import json
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gpu_infer.emulator.scoring.front import Front
from gpu_infer.emulator.scoring.replicas import Answer, NoReplicaError, Replicas

KEYS = ("primary-key", "secondary-key")

SCRIPT = """
    import json
    import sys
    import time

    from azureml.contrib.services.aml_request import rawhttp
    from azureml.contrib.services.aml_response import AMLResponse

    def init():
        pass

    @rawhttp
    def run(request):
        if request.method == "GET":
            return AMLResponse("GET is not supported", 405)
        order = json.loads(request.get_data())
        time.sleep(order.get("sleep", 0))
        if order.get("raise"):
            raise ValueError("the model is broken")
        if order.get("end"):
            # The master ends, too: to gunicorn 3 is the exit code of a worker that cannot boot.
            sys.stdout.flush()
            __import__("os")._exit(3)
        headers = {"x-gpu-infer-device": "cpu", "x-seen": request.headers.get("x-custom", "")}
        headers.update(order.get("headers", {}))
        return AMLResponse(order.get("answer", "fine"), order.get("status", 200), headers)
"""


def start(folder: Path, replicas: int = 1) -> Replicas:
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "score.py").write_text(textwrap.dedent(SCRIPT))
    made = Replicas("gpu-rn", folder, entry_script="score.py", environment={}, replicas=replicas, processes=None)
    made.start()
    deadline = time.monotonic() + 60
    while made.state() != "Healthy":
        assert time.monotonic() < deadline, made.logs()
        time.sleep(0.05)
    return made


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two replicas that several tests share."""
    made = start(tmp_path_factory.mktemp("front") / "service", replicas=2)
    yield made
    made.stop()


def post(front: Front, order: object = None, *, key: str = KEYS[0], **headers: str) -> Answer:
    authorization = {"authorization": f"Bearer {key}"} if key else {}
    return front.handle(
        "POST",
        "/score",
        {"content-type": "application/json", **authorization, **headers},
        json.dumps(order or {}).encode(),
    )


# --- who may come in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_both_keys_open(replicas: Replicas, key: str):
    assert post(Front(replicas, keys=KEYS), key=key)[0] == 200


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Bearer wrong", "key_auth_access_denied"),
        ("Bearer primary-keY", "key_auth_access_denied"),
        ("Bearer ż", "key_auth_access_denied"),
        ("Bearer ", "key_auth_bad_header_forbidden"),
        ("primary-key", "key_auth_bad_header_forbidden"),
        ("Basic primary-key", "key_auth_bad_header_forbidden"),
        ("", "key_auth_bad_header_forbidden"),
    ],
)
def test_all_else_is_refused(replicas: Replicas, header: str, reason: str):
    status, headers, body = Front(replicas, keys=KEYS).handle("POST", "/score", {"Authorization": header}, b"{}")
    assert (status, body.decode()) == (401, reason)
    assert headers["content-type"].startswith("text/plain")
    assert headers["x-ms-request-id"]


def test_a_new_key_takes_the_place_of_the_old_one(replicas: Replicas):
    front = Front(replicas, keys=KEYS)
    front.keys = ("regenerated", KEYS[1])
    assert post(front, key=KEYS[0])[0] == 401
    assert post(front, key="regenerated")[0] == 200


def test_a_token_opens_until_it_expires(replicas: Replicas):
    now = 1000.0
    front = Front(replicas, keys=KEYS, tokens={"fresh": 1010.0, "old": 990.0}, auth="token", clock=lambda: now)
    assert post(front, key="fresh")[0] == 200
    assert post(front, key="old")[::2] == (401, b"Jwt is expired")
    assert post(front, key=KEYS[0])[::2] == (401, b"Jwt verification fails")
    assert post(front, key="")[::2] == (401, b"Jwt is missing")
    now = 1010.0
    assert post(front, key="fresh")[::2] == (401, b"Jwt is expired")
    front.tokens["next"] = 2000.0
    assert post(front, key="next")[0] == 200


def test_without_authentication_everybody_may(replicas: Replicas):
    assert post(Front(replicas, auth="none"), key="")[0] == 200


# --- what comes through -----------------------------------------------------------------------------------------------


def test_headers_and_bodies_pass_both_ways(replicas: Replicas):
    status, headers, body = post(
        Front(replicas, keys=KEYS),
        {"answer": "ż" * 100_000, "headers": {"x-ms-own": "1", "Content-Type": "text/x-own"}},
        **{"x-custom": "hello", "x-ms-client-request-id": "mine", "Content-Length": "1", "Connection": "keep-alive"},
    )
    named = {name.lower(): value for name, value in headers.items()}
    assert status == 200
    assert body.decode() == "ż" * 100_000
    assert named["x-seen"] == "hello"
    assert named["x-gpu-infer-device"] == "cpu"
    assert named["x-ms-own"] == "1"
    assert named["content-type"] == "text/x-own"
    assert named["x-ms-client-request-id"] == "mine"
    assert float(named["x-ms-run-fn-exec-ms"]) >= 0
    assert not {"connection", "transfer-encoding", "content-length"} & set(named)


def test_get_reaches_the_script_and_options_does_not(replicas: Replicas):
    front = Front(replicas, keys=KEYS)
    authorization = {"Authorization": f"Bearer {KEYS[0]}"}
    assert front.handle("GET", "/score?a=b", authorization, b"")[::2] == (405, b"GET is not supported")
    assert front.handle("OPTIONS", "/score", authorization, b"")[::2] == (405, b"Method not allowed")


def test_an_exception_of_the_script_is_a_502_that_says_whose_fault_it_is(replicas: Replicas):
    status, headers, body = post(Front(replicas, keys=KEYS), {"raise": True})
    assert status == 502
    assert {name.lower(): value for name, value in headers.items()}["x-ms-run-function-failed"] == "True"
    assert "An unexpected error occurred in scoring script" in json.loads(body)["message"]


@pytest.mark.parametrize("status", [400, 404, 415, 429, 501, 503])
def test_other_answers_of_the_script_stay_as_they_are(replicas: Replicas, status: int):
    assert post(Front(replicas, keys=KEYS), {"status": status, "answer": "why"})[::2] == (status, b"why")


def test_a_body_larger_than_100_mb_is_refused(replicas: Replicas):
    front = Front(replicas, keys=KEYS)
    status, _, body = front.handle(
        "POST", "/score", {"Authorization": f"Bearer {KEYS[0]}"}, bytes(100 * 1024 * 1024 + 1)
    )
    assert status == 413
    assert b"104857601 bytes" in body


# --- how many, how long -----------------------------------------------------------------------------------------------


class Held:
    """Stands for replicas whose requests stay inside until they are let go."""

    name = "gpu-rn"

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.inside = 0
        self.most = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            if not self.go.wait(timeout):
                raise TimeoutError
        finally:
            with self._lock:
                self.inside -= 1
        return 200, {}, b""


def held_front(held: Held, **options: Any) -> Front:
    return Front(held, keys=KEYS, **options)  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("replicas_", "each"), [(1, 1), (3, 1), (2, 2)])
def test_as_many_run_as_replicas_have_room_and_one_more_is_overload(replicas_: int, each: int):
    held = Held(replicas_)
    front = held_front(held, max_concurrent=each, max_wait_ms=20)
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(post, front) for _ in range(replicas_ * each)]
        wait_until(lambda: held.inside == replicas_ * each)
        assert post(front)[::2] == (503, b"Too many requests for service gpu-rn (overloaded)")
        held.go.set()
        assert [each.result()[0] for each in running] == [200] * len(running)
    assert post(front)[0] == 200, "there is room again"


def test_a_request_waits_for_its_turn(replicas: Replicas):
    held = Held(1)
    front = held_front(held, max_wait_ms=30_000)
    with ThreadPoolExecutor(8) as pool:
        answers: list[Future[Answer]] = [pool.submit(post, front) for _ in range(6)]
        wait_until(lambda: held.inside == 1)
        held.go.set()
        assert [answer.result()[0] for answer in answers] == [200] * 6
    assert held.most == 1


def test_a_queue_time_of_nothing_refuses_at_once():
    held = Held(1)
    front = held_front(held, max_wait_ms=0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, front)
        wait_until(lambda: held.inside == 1)
        assert post(front)[0] == 503
        held.go.set()
        assert running.result()[0] == 200


def test_refused_keys_take_no_place_in_the_queue():
    held = Held(1)
    front = held_front(held, max_wait_ms=0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, front)
        wait_until(lambda: held.inside == 1)
        assert post(front, key="wrong")[0] == 401
        held.go.set()
        assert running.result()[0] == 200


def test_a_failed_request_gives_its_place_back():
    class Broken(Held):
        def send(self, *arguments: Any, **options: Any) -> Answer:
            raise MemoryError

    front = held_front(Broken(1), max_wait_ms=0)
    for _ in range(2):
        with pytest.raises(MemoryError):
            post(front)


def test_more_replicas_take_more_at_once():
    held = Held(1)
    front = held_front(held, max_wait_ms=30_000)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(post, front) for _ in range(2)]
        wait_until(lambda: held.inside == 1)
        held.replicas = 2
        held.go.set()
        assert [answer.result()[0] for answer in answers] == [200, 200]


def test_two_real_replicas_work_side_by_side(replicas: Replicas):
    front = Front(replicas, keys=KEYS, max_wait_ms=20)
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(post, front, {"sleep": 1.5}) for _ in range(2)]
        wait_until(lambda: front._running == 2)
        assert post(front)[0] == 503
        assert [answer.result()[0] for answer in slow] == [200, 200]


def test_an_answer_that_takes_too_long_is_a_504(replicas: Replicas):
    front = Front(replicas, keys=KEYS, scoring_timeout_ms=100)
    status, _, body = post(front, {"sleep": 1})
    assert status == 504
    assert body == b"Replica did not reply within 100 ms"


def test_without_a_ready_replica_it_says_so():
    class NotYet(Held):
        def send(self, *arguments: Any, **options: Any) -> Answer:
            message = "No ready replicas for service gpu-rn"
            raise NoReplicaError(message)

    assert post(held_front(NotYet(1)))[::2] == (503, b"No ready replicas for service gpu-rn")


def test_a_replica_that_ends_while_it_works_is_a_502_and_comes_back(tmp_path: Path):
    replicas = start(tmp_path / "ends")
    try:
        front = Front(replicas, keys=KEYS)
        assert post(front, {"end": True})[::2] == (502, b"Replica closed connection before replying")
        wait_until(lambda: replicas.state() == "Starting")
        assert post(front)[0] == 503
        wait_until(lambda: replicas.state() == "Healthy")
        assert post(front)[0] == 200
    finally:
        replicas.stop()
