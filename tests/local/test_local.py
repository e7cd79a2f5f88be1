"""The local target: a server that comes, answers, changes, stays when told to, and goes with its parent otherwise."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from processes import alive, supervisors

import gpu_infer
from gpu_infer.errors import PreflightError, ScoringInitError, ServiceNotFoundError, UnsupportedError
from gpu_infer.ledger import Ledger, exclusive
from gpu_infer.progress import Event, listening

from .conftest import Script, environment

ECHO = """
    def init():
        pass
    def run(data):
        return data
"""


def reachable(uri: str) -> bool:
    address = urlsplit(uri)
    try:
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=1):
            return True
    except OSError:
        return False


def wait_until(condition: object, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def child(state: Path, source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        env=environment(state),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_from_a_model_to_an_answer_and_back(tiny_model: Path, state: Path) -> None:
    events: list[Event] = []
    with listening(events.append), gpu_infer.deploy(tiny_model) as service:
        assert service.name == "tiny"
        assert service.state == "Healthy"
        assert service.scoring_uri.startswith("http://127.0.0.1:")
        assert service.price_per_hour == 0
        np.testing.assert_array_equal(service.score(np.arange(4.0)), [0, 2, 4, 6])
        np.testing.assert_array_equal(service.score([[1, 2, 3, 4], [5, 6, 7, 8]]), [[2, 4, 6, 8], [10, 12, 14, 16]])
        assert service.gpu_report()["device"] == "cpu"
        assert service.describe()["input"] == {"name": "x", "dtype": "float32", "shape": [None, 4], "item_ndim": 1}
        assert service.stats()["items"] >= 3
        assert "GPU_INFER_STAGE load_model ok" in service.logs()
        uri = service.scoring_uri
    assert [event.stage for event in events if event.state == "ok"] == [
        "settings",
        "hooks",
        "find_model",
        "load_model",
        "device",
        "warm_up",
        "calibrate",
        "ready",
        "healthy",
    ]
    assert service.state == "Deleted"
    assert not reachable(uri)
    assert list((state / "services").iterdir()) == []
    assert gpu_infer.services() == []
    service.delete()  # the absent


def test_several_at_once_with_names_made_up(tiny_model: Path, square_model: Path) -> None:
    with contextlib.ExitStack() as stack:
        handles = [
            stack.enter_context(gpu_infer.deploy(path, wait=False)) for path in (tiny_model, tiny_model, square_model)
        ]
        for service in handles:
            service.wait(timeout=60)
        assert [service.name for service in handles] == ["tiny", "tiny-2", "square"]
        assert [service.score([3, 0, 0, 0])[0] for service in handles] == [6, 6, 9]
        assert sorted(service.name for service in gpu_infer.services()) == ["square", "tiny", "tiny-2"]


def test_a_name_that_is_taken(tiny_model: Path, square_model: Path) -> None:
    with gpu_infer.deploy(tiny_model, name="svc"):
        with pytest.raises(PreflightError, match=r"'svc' exists already\. Use overwrite=True \(--overwrite\)"):
            gpu_infer.deploy(square_model, name="svc")
        with gpu_infer.deploy(square_model, name="svc", overwrite=True) as second:
            assert second.score([3.0, 0, 0, 0])[0] == 9


def test_the_block_deletes_on_any_exit(tiny_model: Path) -> None:
    with pytest.raises(KeyboardInterrupt), gpu_infer.deploy(tiny_model) as service:
        raise KeyboardInterrupt
    assert not reachable(service.scoring_uri)


def test_an_interrupted_deploy_leaves_nothing(tiny_model: Path, state: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.stage == "load_model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        gpu_infer.deploy(tiny_model)
    assert gpu_infer.services() == []
    assert list((state / "services").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes through /proc")
def test_it_dies_with_its_parent_even_by_sigkill(tiny_model: Path, state: Path) -> None:
    parent = child(
        state,
        """
        import sys, threading, gpu_infer
        def deploy():
            print(gpu_infer.deploy(sys.argv[1]).scoring_uri, flush=True)
        # Started by a thread that is gone when the answer is checked: the thread's end is not the process's.
        thread = threading.Thread(target=deploy); thread.start(); thread.join()
        import time; time.sleep(120)
        """,
        str(tiny_model),
    )
    with parent:
        assert parent.stdout
        uri = parent.stdout.readline().strip()
        time.sleep(1)
        assert reachable(uri)
        below = psutil.Process(parent.pid).children(recursive=True)
        assert len(below) >= 3  # supervisor, gunicorn, worker
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(map(alive, below)), 10)
    assert not reachable(uri)
    assert list((state / "services").iterdir()) == []
    assert gpu_infer.services() == []


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_no_server_outlives_its_supervisor(tiny_model: Path, state: Path) -> None:
    service = gpu_infer.deploy(tiny_model)
    supervisor = supervisors(state)[0]
    below = supervisor.children(recursive=True)
    supervisor.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(map(alive, below)), 10)
    assert service.refresh().state == "Failed"
    service.delete()


def test_a_normal_exit_takes_it_along(tiny_model: Path, state: Path) -> None:
    with child(
        state, "import sys, gpu_infer; print(gpu_infer.deploy(sys.argv[1]).scoring_uri)", str(tiny_model)
    ) as parent:
        assert parent.stdout
        uri = parent.stdout.readline().strip()
    assert parent.returncode == 0
    assert not reachable(uri)


def test_a_kept_service_outlives_its_process_and_another_one_uses_it(tiny_model: Path, state: Path) -> None:
    with child(
        state,
        "import sys, gpu_infer; gpu_infer.deploy(sys.argv[1], name='kept', timeout='5m').keep('1h')",
        str(tiny_model),
    ) as parent:
        parent.wait(60)
    assert parent.returncode == 0
    service = gpu_infer.attach("kept")
    assert service.state == "Healthy"
    assert service.client.timeout == 300
    assert service.kept
    assert service.expires is not None
    assert service.expires == pytest.approx(time.time() + 3600, abs=120)
    assert service.score([1, 2, 3, 4]).tolist() == [2, 4, 6, 8]
    with service:
        pass
    assert reachable(service.scoring_uri), "the block of a kept service does not delete it"
    service.delete()
    assert not reachable(service.scoring_uri)
    with pytest.raises(ServiceNotFoundError, match=r"no local service 'kept'\. Running: none"):
        gpu_infer.attach("kept")


def test_a_kept_service_ends_with_its_time_to_live(tiny_model: Path) -> None:
    service = gpu_infer.deploy(tiny_model, keep=True, ttl=600)
    service.keep(ttl=0.5)
    assert wait_until(lambda: not reachable(service.scoring_uri), 10)
    assert wait_until(lambda: gpu_infer.services() == [], 5)


def test_the_ledger_never_holds_the_users_variables(tiny_model: Path, state: Path) -> None:
    with gpu_infer.deploy(tiny_model, environment_variables={"MY_KEY": "s3cr3t"}):
        assert b"s3cr3t" not in Ledger().path.read_bytes()
        assert Ledger().path.is_relative_to(state)


def test_update_serves_something_else_at_the_same_address(tiny_model: Path, square_model: Path) -> None:
    with gpu_infer.deploy(tiny_model, name="svc") as service:
        uri = service.scoring_uri
        service.update(square_model)
        assert service.scoring_uri == uri
        assert service.score([3.0, 0, 0, 0])[0] == 9
        service.update(postprocess="argmax")
        assert service.score([1.0, 5, 0, 0]) == 1


def test_an_update_that_fails_leaves_the_old_one_serving(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_model.read_bytes()[:-20])
    with gpu_infer.deploy(tiny_model, name="svc") as service:
        with pytest.raises((ScoringInitError, PreflightError)):
            service.update(broken)
        assert service.score([3.0, 0, 0, 0])[0] == 6
        with pytest.raises(ScoringInitError, match=r"no output nix\. It has: y"):
            service.update(output="nix")
        assert service.score([3.0, 0, 0, 0])[0] == 6
        with pytest.raises(TypeError, match="does not have: colour"):
            service.update(colour="red")
        with pytest.raises(ValueError, match=r"does not change keep, name; keep\(\) changes how long"):
            service.update(name="other", keep=True)
        with exclusive("svc"), pytest.raises(PreflightError, match="is being changed by another"):
            service.update(postprocess="argmax")
        assert len(list((Ledger().path.parent / "services").iterdir())) == 1, "nothing half made is left"


def test_scale_and_keys_where_they_mean_something(tiny_model: Path) -> None:
    with gpu_infer.deploy(tiny_model) as service:
        service.scale(workers=2)
        assert service.logs().count("Booting worker") == 2
        assert service.score([3.0, 0, 0, 0])[0] == 6
        with pytest.raises(UnsupportedError, match="one server runs"):
            service.scale(replicas=3)
        with pytest.raises(UnsupportedError, match="has no keys"):
            service.rotate_keys()
        with pytest.raises(ValueError, match="a whole number from 1"):
            service.scale(workers=0)


def test_a_users_own_entry_script(script: Script, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "helper_of_script.py").write_text("def shout(text): return text.upper()\n")
    path = script(
        """
        import json, os
        from helper_of_script import shout
        def init():
            global files
            files = os.listdir(os.environ["AZUREML_MODEL_DIR"])
        def run(data):
            return {"said": shout(json.loads(data)["data"]), "files": files}
        """
    )
    with gpu_infer.deploy(tiny_model, entry_script=path) as service:
        assert service.score({"data": "hello"}) == {"said": "HELLO", "files": ["tiny.onnx"]}
        with gpu_infer.attach(service.name) as again:
            assert again.score({"data": "hi"})["said"] == "HI"
        assert service.score({"data": "still here"})["said"] == "STILL HERE", "the block of an attached handle"
        with pytest.raises(UnsupportedError, match="answers with an entry script of its own"):
            service.stats()


def test_hooks_from_a_file_and_from_a_function(tiny_model: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "my_hooks.py"
    hooks.write_text("ITEM_NDIM = 1\ndef preprocess(x):\n    return x + 1\ndef total(y):\n    return float(y.sum())\n")
    with gpu_infer.deploy(tiny_model, preprocess=hooks, postprocess=f"{hooks}:total") as service:
        assert service.score(np.zeros(4)) == 8.0
        assert service.score(np.zeros((2, 4))).tolist() == [8.0, 8.0]
    sys.path.insert(0, str(tmp_path))
    try:
        import my_hooks  # type: ignore[import-not-found]

        plan = gpu_infer.plan(tiny_model, postprocess=my_hooks.total)
        assert plan.spec.postprocess == f"{hooks}:total"
    finally:
        sys.path.remove(str(tmp_path))
    with pytest.raises(PreflightError, match="a lambda, an inner function, an object"):
        gpu_infer.plan(tiny_model, postprocess=lambda y: y)


def test_a_plan_creates_nothing_and_shows_itself(tiny_model: Path, state: Path) -> None:
    plan = gpu_infer.deploy(tiny_model, name="gpu-rn", dry_run=True, keep=True, ttl="2h", replicas=3)
    assert not (state / "services").exists()
    text = str(plan)
    assert repr(plan).startswith("Plan(")
    assert "gpu-rn" in text
    assert "(onnx)" in text
    assert "$0.00 per hour" in text
    assert "2 h from now" in text
    assert "WARNING" in text
    assert "replicas=3 means nothing on the local target" in text
    assert plan.errors == ()
    assert "<table>" in plan._repr_html_()
    assert json.dumps(plan.to_dict())
    with pytest.raises(TypeError, match="does not have: colour"):
        gpu_infer.plan(tiny_model, colour="red")


@pytest.fixture(scope="module")
def unchanging(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[gpu_infer.Service]:
    """A service for the tests that only look at one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("unchanging")))
        service = gpu_infer.deploy(tiny_model, name="svc")
    with service:
        yield service


def test_a_service_shows_itself_in_a_notebook(unchanging: gpu_infer.Service) -> None:
    page = unchanging._repr_html_()
    assert "svc" in page
    assert unchanging.scoring_uri in page
    assert "until this process ends" in page
    assert "scoring_uri" in repr(unchanging)


def test_it_listens_on_loopback_alone(unchanging: gpu_infer.Service) -> None:
    port = urlsplit(unchanging.scoring_uri).port
    connections: list[Any] = psutil.net_connections("tcp")
    bound = {one.laddr.ip for one in connections if one.laddr and one.laddr.port == port}
    assert bound == {"127.0.0.1"}


def test_the_port_can_be_chosen(tiny_model: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with gpu_infer.deploy(tiny_model, environment_variables={"SERVER_PORT": str(port)}) as service:
        assert urlsplit(service.scoring_uri).port == port


def test_requests_run_side_by_side(tiny_model: Path, tmp_path: Path) -> None:
    """Each waits in its preprocess until all eight are there; one after the other they would wait in vain."""
    hooks = tmp_path / "together.py"
    hooks.write_text(
        "import threading\nITEM_NDIM = 1\nall_there = threading.Barrier(8)\n"
        "def preprocess(x):\n    all_there.wait(20)\n    return x\n"
    )
    with gpu_infer.deploy(tiny_model, preprocess=hooks) as service, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(service.score, [np.ones(4)] * 8))
    assert [result.tolist() for result in results] == [[2, 2, 2, 2]] * 8


def test_the_probe_and_a_get(unchanging: gpu_infer.Service) -> None:
    address = urlsplit(unchanging.scoring_uri)
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"Healthy"
        connection.request("GET", "/score")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (405, b"GET is not supported")
        connection.request("PUT", "/score", b"x")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 405


@pytest.mark.slow
def test_fifty_cycles_leak_nothing(tiny_model: Path, state: Path) -> None:
    me = psutil.Process()

    def cycle() -> None:
        with gpu_infer.deploy(tiny_model) as service:
            service.score(np.zeros(4))

    cycle()
    before = (me.num_fds(), me.num_threads(), len(me.children(recursive=True)))
    for _ in range(50):
        cycle()
    assert (me.num_fds(), me.num_threads(), len(me.children(recursive=True))) == before
    assert list((state / "services").iterdir()) == []
    assert Ledger().entries("service", "local") == []
