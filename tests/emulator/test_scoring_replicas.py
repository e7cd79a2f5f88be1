"""The processes of an emulated service: what they see, how they start, crash, grow and end."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import pytest
from processes import supervisors

from gpu_infer.emulator.scoring.replicas import NoReplicaError, Replicas

Make = Callable[..., Replicas]

REPORT = """
    import json, os, sys

    def init():
        print("init has run")

    def run(data):
        if data == '"exit"':
            os._exit(1)
        return {"pid": os.getpid(), "cwd": os.getcwd(), "echo": json.loads(data or "null"),
                "environment": {name: os.environ.get(name) for name in (
                    "AZUREML_MODEL_DIR", "AML_APP_ROOT", "GPU_INFER_ALLOW_CPU", "GREETING", "SERVICE_NAME",
                    "AZUREML_RUN_ID")}}
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes replicas of a service in the test's folder; at the end none of their processes may be left."""
    made: list[Replicas] = []

    def build(
        script: str = REPORT,
        *,
        at: str = "score.py",
        models: tuple[str, ...] = ("net/1/weights.txt",),
        environment: dict[str, str] | None = None,
        replicas: int = 1,
        processes: int | None = 1,
        entry_script: str | None = None,
    ) -> Replicas:
        folder = tmp_path / f"service-{len(made)}"
        write(folder / "app" / at, script)
        for model in models:
            write(folder / "azureml-models" / model, "0.5")
        replicas_ = Replicas(
            "gpu-rn",
            folder,
            entry_script=entry_script or at,
            environment=environment or {},
            replicas=replicas,
            processes=processes,
        )
        made.append(replicas_)
        replicas_.start()
        return replicas_

    yield build
    for replicas in made:
        replicas.stop()
    assert not processes.below(tmp_path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def wait_for(replicas: Replicas, state: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while replicas.state() != state:
        assert time.monotonic() < deadline, f"still {replicas.state()}:\n{replicas.logs()}"
        time.sleep(0.05)


def ask(replicas: Replicas, data: object = None, timeout: float = 30) -> dict[str, object]:
    status, headers, body = replicas.send(
        "POST", "/score", {"Content-Type": "application/json"}, json.dumps(data).encode(), timeout
    )
    assert status == 200, body
    assert headers["Content-Type"] == "application/json"
    return json.loads(body)


def test_the_script_sees_what_a_container_has(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZUREML_RUN_ID", "of the shell, not of the service")
    replicas = make(environment={"GREETING": "hi", "GPU_INFER_ALLOW_CPU": "0"})
    assert replicas.state() == "Starting"
    with pytest.raises(NoReplicaError, match="No ready replicas for service gpu-rn"):
        ask(replicas)
    wait_for(replicas, "Healthy")
    app = tmp_path / "service-0" / "app"
    seen = ask(replicas, [1, "ż"])
    assert seen["echo"] == [1, "ż"]
    assert seen["cwd"] == str(app)
    assert seen["environment"] == {
        "AZUREML_MODEL_DIR": str(tmp_path / "service-0" / "azureml-models" / "net" / "1"),
        "AML_APP_ROOT": str(app),
        "GPU_INFER_ALLOW_CPU": "1",
        "GREETING": "hi",
        "SERVICE_NAME": "gpu-rn",
        "AZUREML_RUN_ID": None,
    }
    assert "The GPUs of this cluster are make-believe" in replicas.logs()
    assert "init has run" in replicas.logs()


def test_get_model_path_works_as_in_the_tutorials(make: Make):
    # The SDK looks for azureml-models/NAME/VERSION/ONE_ENTRY below the app root.
    script = """
        import os
        from azureml.core.model import Model

        def init():
            global paths
            paths = [Model.get_model_path("net"), Model.get_model_path("other", version=3)]

        def run(data):
            return [open(path).read() if os.path.isfile(path) else os.listdir(path) for path in paths]
    """
    replicas = make(script, models=("net/1/weights.txt", "other/2/old/a.bin", "other/3/new/b.bin"))
    wait_for(replicas, "Healthy")
    assert ask(replicas) == ["0.5", ["b.bin"]]


def test_a_copy_that_the_sdk_cached_in_the_source_folder_is_not_taken_for_the_model(make: Make, tmp_path: Path):
    write(tmp_path / "service-0" / "app" / "azureml-models" / "net" / "1" / "weights.txt", "stale")
    replicas = make("""
        from azureml.core.model import Model

        def init():
            pass

        def run(data):
            return open(Model.get_model_path("net")).read()
    """)
    wait_for(replicas, "Healthy")
    assert ask(replicas) == "0.5"


def test_several_models_lie_below_one_folder(make: Make, tmp_path: Path):
    replicas = make(models=("net/1/weights.txt", "other/3/new/b.bin"))
    wait_for(replicas, "Healthy")
    environment = ask(replicas)["environment"]
    assert isinstance(environment, dict)
    assert environment["AZUREML_MODEL_DIR"] == str(tmp_path / "service-0" / "azureml-models")


@pytest.mark.parametrize("entry_script", ["source/score.py", "score.py"])
def test_a_source_folder_is_on_the_path(make: Make, tmp_path: Path, entry_script: str):
    write(tmp_path / "service-0" / "app" / "source" / "helper.py", "ANSWER = 42")
    script = """
        from helper import ANSWER

        def init():
            pass

        def run(data):
            return {"answer": ANSWER}
    """
    replicas = make(
        script,
        at="source/score.py",
        entry_script=entry_script,
        environment={"AZUREML_SOURCE_DIRECTORY": "source"},
    )
    wait_for(replicas, "Healthy")
    assert ask(replicas) == {"answer": 42}


def test_a_crash_in_init_is_told_with_its_traceback(make: Make):
    replicas = make("def init():\n    raise KeyError('no such weight')\n\n\ndef run(data):\n    pass\n")
    wait_for(replicas, "Crashed")
    logs = replicas.logs()
    assert "Traceback (most recent call last)" in logs
    assert "KeyError: 'no such weight'" in logs
    with pytest.raises(NoReplicaError):
        ask(replicas)
    replicas.stop()
    assert replicas.logs() == logs


def test_a_worker_that_dies_in_init_over_and_over_is_a_crash(make: Make):
    # gunicorn would start it anew for ever: os._exit(0) is no boot error to it.
    replicas = make("import os\n\n\ndef init():\n    os._exit(0)\n\n\ndef run(data):\n    pass\n")
    wait_for(replicas, "Crashed")


def test_a_replica_that_ends_while_it_works_closes_the_connection_and_comes_back(make: Make):
    replicas = make()
    wait_for(replicas, "Healthy")
    with pytest.raises(ConnectionError):
        ask(replicas, "exit")
    # gunicorn starts the worker anew; the request waits for it.
    assert ask(replicas, "back")["echo"] == "back"


def test_a_container_that_ends_is_started_anew(make: Make, tmp_path: Path):
    replicas = make()
    wait_for(replicas, "Healthy")
    first = ask(replicas)["pid"]
    [supervisor] = supervisors(tmp_path)
    supervisor.kill()
    supervisor.wait(10)
    assert replicas.state() == "Starting"
    assert not replicas.ready()
    wait_for(replicas, "Healthy")
    assert replicas.ready()
    assert ask(replicas)["pid"] != first
    assert "replica 2" in replicas.logs()


def test_a_container_that_cannot_start_anew_is_a_crash(make: Make, tmp_path: Path):
    replicas = make()
    wait_for(replicas, "Healthy")
    write(tmp_path / "service-0" / "app" / "score.py", "def init():\n    raise MemoryError\n\n\ndef run(data): ...\n")
    [supervisor] = supervisors(tmp_path)
    supervisor.kill()
    supervisor.wait(10)
    wait_for(replicas, "Crashed")
    assert not replicas.ready()


def test_requests_go_to_all_processes(make: Make):
    replicas = make(replicas=3, processes=None)
    wait_for(replicas, "Healthy")
    assert len({server._identity for server in replicas._running}) == 3
    # One that is busy is passed by.
    for server in replicas._running[:2]:
        server.busy += 1
    only = {ask(replicas)["pid"] for _ in range(3)}
    assert len(only) == 1
    replicas._running[2].busy += 2
    assert ask(replicas)["pid"] not in only
    assert replicas.logs().count("init has run") == 3


def test_resize_starts_and_ends_processes(make: Make, tmp_path: Path):
    replicas = make(replicas=1, processes=None)
    wait_for(replicas, "Healthy")
    first = ask(replicas)["pid"]
    replicas.resize(2)
    assert replicas.state() == "Starting"
    assert ask(replicas)["pid"] == first, "the first one serves while the second one starts"
    wait_for(replicas, "Healthy")
    assert len(supervisors(tmp_path)) == 2
    replicas.resize(1)
    assert len(supervisors(tmp_path)) == 1
    assert replicas.state() == "Healthy"
    assert ask(replicas)["pid"] == first


def test_who_is_served_by_a_process_that_is_too_many_is_served(make: Make, tmp_path: Path):
    held = f"""
        import os, pathlib, time
        here = pathlib.Path({str(tmp_path)!r})

        def init(): ...

        def run(data):
            (here / f"inside-{{os.getpid()}}").touch()
            while not (here / "gate").exists():
                time.sleep(0.01)
            return os.getpid()
    """
    replicas = make(held, replicas=2, processes=None)
    wait_for(replicas, "Healthy")
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(replicas.send, "POST", "/score", {}, b"{}", 60) for _ in range(2)]
        deadline = time.monotonic() + 30
        while len(list(tmp_path.glob("inside-*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        resizing = pool.submit(replicas.resize, 1)
        (tmp_path / "gate").touch()
        assert [one.result()[0] for one in asking] == [200, 200]
        resizing.result()
    assert len(supervisors(tmp_path)) == 1


def test_one_process_can_stand_for_all_replicas(make: Make, tmp_path: Path):
    replicas = make(replicas=3, processes=1)
    wait_for(replicas, "Healthy")
    replicas.resize(5)
    assert replicas.replicas == 5
    assert replicas.state() == "Healthy"
    assert len(supervisors(tmp_path)) == 1


def test_stop_leaves_no_process_and_can_be_repeated(make: Make, tmp_path: Path):
    replicas = make(replicas=2, processes=None)
    wait_for(replicas, "Healthy")
    assert processes.below(tmp_path)
    replicas.stop()
    assert not processes.below(tmp_path)
    replicas.stop()
    assert replicas.state() == "Crashed"


def test_stop_while_it_starts_leaves_no_process(make: Make, tmp_path: Path):
    replicas = make("import time\n\n\ndef init():\n    time.sleep(60)\n\n\ndef run(data):\n    pass\n")
    replicas.stop()
    assert not processes.below(tmp_path)


def test_they_end_with_the_process_that_started_them_even_when_it_is_killed(tmp_path: Path):
    write(tmp_path / "service" / "app" / "score.py", REPORT)
    program = f"""
        import time
        from pathlib import Path
        from gpu_infer.emulator.scoring.replicas import Replicas

        folder = Path({str(tmp_path / "service")!r})
        replicas = Replicas("gpu-rn", folder, entry_script="score.py", environment={{}}, replicas=2, processes=None)
        replicas.start()
        while replicas.state() != "Healthy":
            time.sleep(0.05)
        print("healthy", flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "healthy\n"
        assert len(supervisors(tmp_path)) == 2
        process.kill()
    deadline = time.monotonic() + 30
    while processes.below(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
