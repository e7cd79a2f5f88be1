"""Several workers and one model: what they share, and what becomes of a service when a process of it dies."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from processes import alive, below

import gpu_infer
from gpu_infer import ScoringClient
from gpu_infer.errors import OverloadedError, ScoringError
from gpu_infer.service import Service


def model_processes(state: Path) -> list[psutil.Process]:
    return below(state, running="gpu_infer_serving.model_process")


def workers(state: Path) -> list[psutil.Process]:
    """The children of gunicorn's master that are no model process, which is told its number."""
    master = psutil.Process(int(model_processes(state)[0].cmdline()[-1]))
    return [child for child in master.children() if alive(child)]


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def probe(service: Service) -> int:
    address = urlsplit(service.scoring_uri)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


class Load:
    """Clients that score numbers and check that each gets its own answer."""

    def __init__(self, service: Service, clients: int = 6) -> None:
        self.outcomes: Counter[str] = Counter()
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        client = ScoringClient(self._service.scoring_uri, retries=0, timeout=30)
        value = float(number)
        while not self._stop.is_set():
            value += 10
            try:
                right = client.score(np.full(4, value, np.float32)).tolist() == [2 * value] * 4
                self.outcomes["right" if right else "wrong"] += 1
            except OverloadedError:
                self.outcomes["503"] += 1
                time.sleep(0.05)
            except ScoringError as error:
                self.outcomes[type(error).__name__] += 1
                time.sleep(0.05)


@pytest.fixture
def service(tiny_model: Path) -> Iterator[Service]:
    with gpu_infer.deploy(tiny_model, workers=2) as deployed:
        yield deployed


def test_one_model_for_all(service: Service, state: Path) -> None:
    assert len(workers(state)) == 2
    assert len(model_processes(state)) == 1
    with Load(service) as load:
        wait_until(lambda: load.outcomes["right"] > 200)
    assert set(load.outcomes) == {"right"}
    wait_until(lambda: service.stats()["requests"].get("200", 0) >= load.outcomes["right"])
    stats = service.stats()
    assert stats["workers"] == 2
    assert stats["items"] == stats["milliseconds"]["compute"]["count"] == load.outcomes["right"]
    assert stats["model_process"] == model_processes(state)[0].pid
    assert service.gpu_report()["pid"] == stats["model_process"]
    assert service.describe()["input"]["name"] == "x"


def test_arrays_texts_and_refusals_pass_through(service: Service, lookup_model: Path) -> None:
    np.testing.assert_array_equal(service.score(np.ones((100, 4))), np.full((100, 4), 2.0))
    with gpu_infer.deploy(lookup_model, workers=2) as lookup:
        assert lookup.score(np.arange(5)).shape[0] == 5
        with pytest.raises(ScoringError):
            lookup.score(np.array([1, 77]))


def test_a_model_process_that_dies_comes_back(service: Service, state: Path) -> None:
    (first,) = model_processes(state)
    seen: list[int] = []
    with Load(service) as load:
        wait_until(lambda: load.outcomes["right"] > 50)
        first.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(first))
        while not seen or seen[-1] != 200 or 503 not in seen:
            seen.append(probe(service))
            assert len(seen) < 5000
            time.sleep(0.005)
        before = load.outcomes["right"]
        wait_until(lambda: load.outcomes["right"] > before + 50)
    assert set(load.outcomes) <= {"right", "503"}, load.outcomes
    assert load.outcomes["503"] > 0
    (second,) = model_processes(state)
    assert second.pid != first.pid
    assert "the model process has ended" in service.logs()


def test_a_worker_that_dies_leaves_the_rest_and_the_model(service: Service, state: Path) -> None:
    (model,) = model_processes(state)
    with Load(service) as load:
        wait_until(lambda: load.outcomes["right"] > 50)
        for worker in workers(state):  # one of them has started the model process
            worker.send_signal(signal.SIGKILL)
            before = load.outcomes["right"]
            wait_until(lambda before=before: load.outcomes["right"] > before + 50)
            wait_until(lambda: len(workers(state)) == 2)
    assert load.outcomes["wrong"] == 0
    assert set(load.outcomes) <= {"right", "503", "ScoringConnectionError"}, load.outcomes
    assert model_processes(state) == [model]


def test_it_goes_with_the_server(tiny_model: Path, state: Path) -> None:
    with gpu_infer.deploy(tiny_model, workers=2):
        (model,) = model_processes(state)
        meeting = Path(model.cmdline()[-3])
        assert meeting.stat().st_mode & 0o777 == 0o700
    wait_until(lambda: not alive(model), 10)
    with gpu_infer.deploy(tiny_model, workers=2):
        assert not meeting.exists(), "what a killed server leaves, the next one takes away"


def test_it_goes_when_the_server_is_killed(tiny_model: Path, state: Path) -> None:
    service = gpu_infer.deploy(tiny_model, workers=2)
    (model,) = model_processes(state)
    master = psutil.Process(int(model.cmdline()[-1]))
    os.kill(master.pid, signal.SIGKILL)
    wait_until(lambda: not alive(model), 10)
    service.delete()


def test_a_model_that_cannot_be_loaded_is_told_as_with_one_worker(tiny_model: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(tiny_model))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, str(tmp_path / "broken.onnx"))
    with pytest.raises(gpu_infer.errors.ScoringInitError, match="No Op registered for NoSuchOperator"):
        gpu_infer.deploy(tmp_path / "broken.onnx", workers=2)


def test_head_and_body_come_in_one_piece_and_an_empty_body_comes_at_all(tiny_model: Path) -> None:
    with gpu_infer.deploy(tiny_model) as service:
        address = urlsplit(service.scoring_uri)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        for _ in range(3):
            connection.request("OPTIONS", "/score")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (405, b'{"message":"OPTIONS is not supported"}')
            connection.request("HEAD", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        connection.close()


def test_a_hook_that_waits_holds_up_nobody(tiny_model: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "slow.py"
    hooks.write_text("import time\nITEM_NDIM = 1\ndef preprocess(x):\n    time.sleep(3 if x[0] else 0)\n    return x\n")
    with gpu_infer.deploy(tiny_model, preprocess=hooks) as service:
        slow = threading.Thread(target=service.score, args=(np.ones(4),))
        slow.start()
        time.sleep(0.3)
        for _ in range(5):
            service.score(np.zeros(4))
            assert probe(service) == 200
        assert slow.is_alive(), "all this while it waited"
        slow.join()


def test_half_a_body_holds_up_nobody(tiny_model: Path) -> None:
    import socket

    with gpu_infer.deploy(tiny_model) as service:
        address = urlsplit(service.scoring_uri)
        slow = []
        for _ in range(300):
            sock = socket.create_connection((address.hostname or "", address.port or 0), timeout=10)
            sock.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            slow.append(sock)
        assert service.score(np.ones(4)).tolist() == [2, 2, 2, 2]
        assert probe(service) == 200
        for sock in slow:
            sock.close()
