"""``gpu-infer emulator``: what it prints where, that it serves, and that it ends with all it has started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import supervisors

from gpu_infer.cli import main
from gpu_infer.emulator import Emulator

Start = Callable[..., "Running"]


class Running:
    """The command as a process, and what it has written so far."""

    def __init__(self, folder: Path, *options: str) -> None:
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpu_infer.cli", "emulator", *options],
                env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
                stdout=out,
                stderr=err,
                # A shell that runs the tests in the background has them ignore SIGINT, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
            )

    def out(self) -> str:
        return self._out.read_text("utf-8")

    def err(self) -> str:
        return self._err.read_text("utf-8")

    def wait_for(self, pattern: str, name: str = "out") -> str:
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, getattr(self, name)(), re.MULTILINE | re.DOTALL)):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.out()}{self.err()}"
            assert self.process.poll() is None, f"it has ended:\n{self.out()}{self.err()}"
            time.sleep(0.05)
        return found[0]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command; at the end none of its processes and files may be left."""
    running: list[Running] = []
    folder = tmp_path / "tmp"
    folder.mkdir()

    def begin(*options: str) -> Running:
        running.append(Running(folder, *options))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(30)
    assert list(folder.glob("gpu-infer-*")) == []


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_snippet_works_and_calls_show(start: Start, number: int, tmp_path: Path):
    running = start()
    snippet = running.wait_for(r'^from .*workspace\("http://127\.0\.0\.1:\d+"\)$')
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"{snippet}\nprint(ws.name, type(ws).__module__)"],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "emulated azureml.core.workspace\n"
    running.wait_for(r"^\d\d:\d\d:\d\d 200 workspace\.get +GET +/\.\.\.\?api-version=", "err")
    assert running.end(number) == 0
    assert running.err().splitlines()[-1] == "The emulator has ended, and its services with it."
    assert "Traceback" not in running.err()


def test_json_and_a_port_of_its_own(start: Start):
    first = start("--json", "--no-run-services")
    told = json.loads(first.wait_for(r"\{.*\}"))
    assert {"url", "tls_url", "ca_file", "subscription_id", "resource_group", "name"} <= set(told)
    assert Path(told["ca_file"]).exists()
    assert get(f"{told['url']}/nowhere") == 404
    first.wait_for(r"404 unmatched +GET +/nowhere", "err")
    port = told["url"].rpartition(":")[2]
    second = start("--port", port)
    assert second.process.wait(30) == 1
    assert second.err().startswith("Error: ")
    assert "is taken" in second.err()
    assert first.end(signal.SIGTERM) == 0
    assert json.loads(first.out()) == told, "nothing but the document is on standard output"
    third = start("--port", port)
    third.wait_for(f"127.0.0.1:{port}")
    assert third.end(signal.SIGINT) == 0


SERVICE = """
import sys
from azureml.core import Environment
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.model import InferenceConfig, Model
from azureml.core.webservice import AksWebservice
from gpu_infer.emulator import workspace

ws = workspace(sys.argv[1])
cluster = ComputeTarget.create(ws, "aks-gpu", AksCompute.provisioning_configuration(3, "Standard_NC4as_T4_v3"))
cluster.wait_for_completion()
config = InferenceConfig("score.py", environment=Environment("mine"))
gpus = AksWebservice.deploy_configuration(autoscale_enabled=False, num_replicas=1, gpu_cores=1)
service = Model.deploy(ws, "echo", [], config, gpus, cluster)
service.wait_for_deployment()
print("state", service.state, service.run("[1, 2]"))
"""


@pytest.mark.slow
def test_services_end_with_it(start: Start, tmp_path: Path):
    running = start("--transition", "polls:1")
    url = running.wait_for(r"http://127\.0\.0\.1:\d+")
    (tmp_path / "score.py").write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, url],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "state Healthy [1, 2]" in done.stdout, done.stdout + done.stderr
    servers = supervisors(tmp_path)
    assert servers
    running.wait_for(r"200 scoring\.post", "err")
    assert running.end(signal.SIGINT) == 0
    assert supervisors(tmp_path) == []


@pytest.mark.parametrize("text", ["never", "polls", "polls:x", "polls:-1", "seconds:", "at-once:3", ""])
def test_a_wrong_transition_is_a_wrong_command_line(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["emulator", "--transition", text]) == 2
    assert f"{text!r} is none of at-once, polls:N or seconds:S." in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]):
    with Emulator() as running:
        port = running.url.rpartition(":")[2]
        assert main(["emulator", "--port", port]) == 1
    err = capsys.readouterr().err
    assert f"Error: Port {port} on 127.0.0.1 is taken. Give another one as --port, or leave it out" in err
    assert f"-w http://127.0.0.1:{port}" in err


def test_help_names_it(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    assert " emulator " in capsys.readouterr().out
