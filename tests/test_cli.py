"""The command line: what it prints where, its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer.cli import main, results
from gpu_infer.cli.doctor import EXTRAS, examine
from gpu_infer.cli.words import typed
from gpu_infer.client import ScoreResponse
from gpu_infer.serving.hooks import load_hook

ROOT = Path(__file__).parent.parent
COMMANDS = ("demo", "plan", "deploy", "ls", "score", "bench", "logs", "stats", "down", "doctor", "init")

pytestmark = pytest.mark.usefixtures("state")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that doubles ``x`` float32 ``[N, 4]``."""
    return save_elementwise(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def service(model: Path, state: Path) -> str:
    """A service that several tests only look at."""
    gpu_infer.deploy(model, name="shared", keep=True)
    return "shared"


def run(*arguments: str, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Run a command in this process; returns standard output and standard error."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    return capsys.readouterr()


def run_json(*arguments: str, code: int = 0, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command with ``--json``: standard output has to be one document, without a hint beside it."""
    out, err = run(*arguments, "--json", code=code, capsys=capsys)
    assert "Next:" not in out + err
    return json.loads(out)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gpu_infer.cli", *arguments]


# --- start, use, end --------------------------------------------------------------------------------------------------


def test_a_service_from_deploy_to_down(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, err = run("deploy", str(model), "--name", "tiny", "--ttl", "2h", "--env", "GREETING=hi=there", capsys=capsys)
    assert "Healthy" in out
    assert re.search(r"^device +(cpu|cuda:0)", out, re.MULTILINE)
    assert "in 2 h 00 min" in out
    assert "tiny: load model ok" in err
    assert err.splitlines()[-1] == "Next: gpu-infer score tiny FILE"

    out, err = run("ls", capsys=capsys)
    assert out.splitlines()[0].split() == ["NAME", "STATE", "MODEL", "SCORING", "URI", "$/H", "EXPIRES", "IN"]
    (line,) = [line.split() for line in out.splitlines() if line.startswith("tiny ")]
    assert line[1:3] == ["Healthy", "tiny.onnx"]
    assert line[3].startswith("http://127.0.0.1:")
    assert line[4] == "0.00"

    file = tmp_path / "x.npy"
    np.save(file, np.array([1, 2, 3, 4], np.float32))
    out, err = run("score", "tiny", str(file), capsys=capsys)
    assert out == "2  4  6  8\n"
    assert re.search(r"^\d+ ms, (cpu|cuda:0)", err, re.MULTILINE)
    assert err.splitlines()[-1] == "Next: gpu-infer stats tiny"

    out, err = run("down", "tiny", "absent", capsys=capsys)
    assert out == "tiny is removed.\nabsent was not there.\n"
    assert "tiny" not in run("ls", capsys=capsys)[0]


def test_deploy_prints_json_and_takes_the_port(model: Path, capsys: pytest.CaptureFixture[str]):
    told = run_json("deploy", str(model), "--name", "json-tiny", "--workers", "1", capsys=capsys)
    try:
        assert told["name"] == "json-tiny"
        assert told["state"] == "Healthy"
        assert told["kept"] is True
        assert told["device"].startswith(("cpu", "cuda:0"))
        port = told["scoring_uri"].split(":")[2].split("/")[0]
        _, err = run("deploy", str(model), "--name", "other", "--port", port, code=1, capsys=capsys)
        assert err.startswith(f"Error: Port {port} on 127.0.0.1 cannot be used: Address already in use.")
        again = run_json("deploy", str(model), "--name", "json-tiny", "--overwrite", "--port", port, capsys=capsys)
        assert again["scoring_uri"] == told["scoring_uri"]
    finally:
        assert run_json("down", "json-tiny", capsys=capsys) == {"removed": ["json-tiny"], "absent": []}


def test_a_taken_name_is_told(model: Path, service: str, capsys: pytest.CaptureFixture[str]):
    _, err = run("deploy", str(model), "--name", service, code=1, capsys=capsys)
    assert "A local service 'shared' exists already." in err
    assert "Traceback" not in err


def test_an_entry_script_serves_and_is_not_asked_for_its_device(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    script = tmp_path / "score_it.py"
    script.write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    told = run_json("deploy", str(model), "--name", "script", "--entry-script", str(script), capsys=capsys)
    try:
        assert told["device"] is None
        assert "GET /score" not in run("logs", "script", capsys=capsys)[0]
    finally:
        run("down", "script", capsys=capsys)


def test_ls_json(service: str, capsys: pytest.CaptureFixture[str]):
    (found,) = [one for one in run_json("ls", capsys=capsys) if one["name"] == service]
    assert found["state"] == "Healthy"
    assert found["price_per_hour"] == 0
    assert found["expires"].endswith("+00:00")


def test_ls_leaves_columns_out_on_a_narrow_terminal_but_cuts_no_name(
    service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "60")
    out, _ = run("ls", capsys=capsys)
    header, first = out.splitlines()
    assert "MODEL" not in header
    assert first.split()[:2] == [service, "Healthy"]
    assert max(map(len, out.splitlines())) <= 60


def test_score_several_files_tells_each_and_goes_on_after_a_bad_one(
    service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"data": [[1, 2, 3, 4], [5, 6, 7, 8]]}')
    bad.write_text('{"data": [1, 2, 3]}')
    missing = tmp_path / "missing.npy"
    out, err = run("score", service, str(bad), str(good), str(missing), code=1, capsys=capsys)
    assert out.splitlines() == [str(good), "  0  2  4  6  8", "  1  10  12  14  16"]
    assert f"Error: {bad}: The service refused the input" in err
    assert f"Error: {missing}: there is no such file" in err
    told = run_json("score", service, str(bad), str(good), code=1, capsys=capsys)
    assert [sorted(answer) for answer in told] == [["error", "file"], ["device", "file", "milliseconds", "result"]]
    assert told[1]["result"] == [[2, 4, 6, 8], [10, 12, 14, 16]]


@pytest.mark.parametrize("text", ["[1, 2, 3, 4]", '{"data": [1, 2, 3, 4]}', "npy"])
def test_score_reads_standard_input(
    service: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data = io.BytesIO(text.encode())
    if text == "npy":
        np.save(data, np.array([1, 2, 3, 4], np.float32))
        data.seek(0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    (answer,) = run_json("score", service, "-", capsys=capsys)
    assert answer["result"] == [2, 4, 6, 8]


def test_logs_and_stats(service: str, capsys: pytest.CaptureFixture[str]):
    out, err = run("logs", service, capsys=capsys)
    assert "GPU_INFER_STAGE warm_up ok" in out
    assert err == "Next: gpu-infer stats shared\n"
    assert len(run("logs", service, "--tail", "3", capsys=capsys)[0].splitlines()) == 3
    assert len(run_json("logs", service, "--tail", "2", capsys=capsys)["lines"]) == 2

    out, err = run("stats", service, capsys=capsys)
    assert out.splitlines()[0].split()[0] == "device"
    assert "batch sizes" in out
    assert "Next: gpu-infer down shared" in err
    told = run_json("stats", service, capsys=capsys)
    assert set(told) == {"name", "stats", "device"}
    assert told["device"]["framework"] == "onnxruntime"


@pytest.mark.parametrize("arguments", [("score", "nobody", "x"), ("logs", "nobody"), ("stats", "nobody")])
def test_no_such_service(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    out, err = run(*arguments, code=1, capsys=capsys)
    assert out == ""
    assert err.startswith("Error: There is no local service 'nobody'.")


def test_down_all(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    assert run_json("down", "--all", capsys=capsys) == {"removed": [], "absent": []}
    gpu_infer.deploy(model, name="one-of-all", keep=True)
    assert run_json("down", "--all", capsys=capsys) == {"removed": ["one-of-all"], "absent": []}
    out, err = run("ls", capsys=capsys)
    assert out == "No services run on this machine.\n"
    assert err == "Next: gpu-infer deploy MODEL\n"


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_shows_and_starts_nothing(model: Path, capsys: pytest.CaptureFixture[str]):
    before = run_json("ls", capsys=capsys)
    out, err = run("plan", str(model), "--postprocess", "softmax", "--timeout", "5m", "--ttl", "1d", capsys=capsys)
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["model"].strip() == f"{model} (onnx)" or str(model).endswith(rows["model"].strip()[-20:])
    assert rows["postprocess"].strip() == "softmax"
    assert rows["time-out"].strip() == "300 s per request"
    assert rows["lives"].strip() == "until deleted, or 24 h from now"
    assert err.startswith(f"Next: gpu-infer deploy {model}")
    assert run_json("ls", capsys=capsys) == before


def test_plan_with_errors_shows_them_all_and_fails(model: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ("plan", str(model), "--preprocess", "bogus", "--name", "No")
    out, err = run(*arguments, code=1, capsys=capsys)
    assert "Error: --preprocess 'bogus' is no built-in." in out
    assert "Error: 'No' is no name that Azure ML accepts" in out
    assert "Next:" not in err
    told = run_json(*arguments, code=1, capsys=capsys)
    assert told["ok"] is False
    assert [found["code"] for found in told["findings"]] == ["name", "hook"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_library_error_is_a_message_and_with_debug_a_traceback(capsys: pytest.CaptureFixture[str]):
    out, err = run("deploy", "/no/such/model", code=1, capsys=capsys)
    assert out == ""
    assert err.splitlines()[-1].startswith("Error: There is no model at /no/such/model.")
    for arguments in (("deploy", "/no/such/model", "--debug"), ("--debug", "deploy", "/no/such/model")):
        assert "Traceback (most recent call last)" in run(*arguments, code=1, capsys=capsys)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ttl", "soon"), "Invalid value for '--ttl': 'soon' is no duration"),
        (("--ttl", "-5"), "Invalid value for '--ttl': '-5' is no duration"),
        (("--timeout", "0"), "Invalid value for '--timeout': A duration is above 0"),
        (("--template", "caffe"), "'caffe' is none of tensorflow, torch, onnx."),
        (("--wait", "-1s"), "'-1s' is no duration"),
        (("--cpu-cores", "0"), "0 is not above 0."),
        (("--memory-gb", "nan"), "nan is not above 0."),
        (("--replicas", "3", "--max-replicas", "2"), "Invalid value for --max-replicas: 2 is less than --replicas 3."),
    ],
)
def test_a_bad_value_is_a_wrong_command_line(
    model: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
):
    _, err = run("deploy", str(model), *arguments, code=2, capsys=capsys)
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize(("text", "code"), [("banana", 2), ("-1", 2), ("0", 0), ("2h", 0)])
def test_the_age_of_what_is_swept(
    text: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path))
    _, err = run("sweep", "--older-than", text, code=code, capsys=capsys)
    assert ("is no duration" in err) == (code == 2)


def test_what_means_nothing_here_is_said_as_it_was_typed(model: Path, capsys: pytest.CaptureFixture[str]):
    given = ("--cluster", "mine", "--vm-size", "Standard_NC6", "--replicas", "3", "--cpu-cores", "2")
    out, _ = run("plan", str(model), *given, capsys=capsys)
    shown = " ".join(out.split())
    assert "--cluster, --vm-size, --cpu-cores mean nothing on the local target. To deploy to Azure, give the" in shown
    assert "give the workspace with -w WHERE." in shown
    assert "--replicas 3 means nothing on the local target: one server runs. --workers starts more" in shown
    for option in (("--nodes", "2"), ("--dev-test",)):
        assert "--cluster means nothing" in run("plan", str(model), *option, capsys=capsys)[0]
    assert "means nothing" not in run("plan", str(model), capsys=capsys)[0]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Give another name=, overwrite=True, or conda_file=.", "Give another --name, --overwrite, or --conda-file."),
        ("Use overwrite=True (--overwrite), another name", "Use --overwrite, another name"),
        ("Say template='tensorflow', 'torch' or 'onnx'", "Say --template 'tensorflow', 'torch' or 'onnx'"),
        ("Give memory_gb=5. timeout=600 s", "Give --memory-gb 5. --timeout 600 s"),
        ("Lower the most of replicas= to 3", "Lower --max-replicas to 3"),
        ("longer with wait=SECONDS if", "longer with --wait SECONDS if"),
        ('Take more nodes, or Cluster(..., purpose="DevTest").', "Take more nodes, or --dev-test."),
        ("Cluster('gpus', vm_size=\"\") takes it", "--cluster gpus without --vm-size takes it"),
        ("gpu_infer.sweep(workspace) removes it", "gpu-infer sweep -w WHERE removes it"),
        ("environment_variables: SERVER_PORT='x' is no port", "--port 'x' is no port"),
        ("environment_variables={'SERVER_PORT': ...}", "--port"),
        ("Give them as environment_variables={...}.", "Give them as --env NAME=VALUE."),
        (
            "Deploy it again: deploy(model, ml_client, name='x', overwrite=True).",
            "Deploy it again: gpu-infer deploy MODEL -w WHERE --online --name x --overwrite.",
        ),
        ("load(name='x', timeout=3) stays, my_name=3 too", "load(name='x', timeout=3) stays, my_name=3 too"),
        ("GPU_INFER_MAX_BODY_MB=5", "GPU_INFER_MAX_BODY_MB=5"),
    ],
)
def test_the_librarys_words_become_options(said: str, shown: str):
    assert typed(said) == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lss",), "No such command 'lss'. Did you mean 'ls'?"),
        (("deploy",), "Missing argument"),
        (("deploy", "m", "--port", "70000"), "65535"),
        (("deploy", "m", "--workers", "0"), "--workers"),
        (("deploy", "m", "--env", "NOVALUE"), "'NOVALUE' is no K=V."),
        (("down",), "give names of services, or --all."),
        (("down", "x", "--all"), "give names of services, or --all."),
        (("score", "x"), "Missing argument"),
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]):
    out, err = run(*arguments, code=2, capsys=capsys)
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())


def test_a_failing_init_shows_the_scripts_own_traceback(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    script = tmp_path / "score_it.py"
    script.write_text("def init():\n    raise RuntimeError('no such luck')\n\n\ndef run(data):\n    return data\n")
    _, err = run("deploy", str(model), "--name", "fails", "--entry-script", str(script), code=1, capsys=capsys)
    assert "Error: Service 'fails' did not start" in err
    assert "RuntimeError: no such luck" in err
    assert "gpu_infer/cli" not in err
    assert "fails" not in [one["name"] for one in run_json("ls", capsys=capsys)]


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_one_sentence(package: str, tmp_path: Path):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('none', name={package!r})\n")
    done = subprocess.run(
        command("ls"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "The command line needs typer and rich. Run: pip install 'gpu-infer[cli]'\n"


def test_ctrl_c_ends_with_130_one_line_and_no_service(model: Path, tmp_path: Path, state: Path):
    script = tmp_path / "score_it.py"
    script.write_text("import time\n\n\ndef init():\n    time.sleep(60)\n\n\ndef run(data):\n    return data\n")
    arguments = command("deploy", str(model), "--name", "slow", "--entry-script", str(script))
    leader, follower = pty.openpty()
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=follower,
        # A shell that runs the tests in the background has them ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
    ) as process:
        os.close(follower)
        end = time.monotonic() + 30
        while "slow" not in [one.name for one in gpu_infer.services()] and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        shown = os.read(leader, 1 << 20).decode()
        os.close(leader)
    assert process.returncode == 130
    assert out == b""
    assert "slow: start server" in shown
    assert shown.split()[-1] == "Interrupted."
    assert "Traceback" not in shown
    assert "slow" not in [one.name for one in gpu_infer.services()]


def test_a_reader_that_goes_away_is_no_traceback(service: str):
    line = f"{sys.executable} -m gpu_infer.cli logs {service} | head -1"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


# --- doctor, init, help -----------------------------------------------------------------------------------------------


def test_doctor(service: str, capsys: pytest.CaptureFixture[str]):
    out, err = run("doctor", capsys=capsys)
    lines = [line.split() for line in out.splitlines()]
    assert ["✓", "gpu-infer", gpu_infer.__version__] in lines
    assert any(line[:2] == ["✓", "local"] for line in lines)
    assert any(line[1:2] == ["onnxruntime"] for line in lines)
    assert f"{service} (Healthy)" in out
    assert err.startswith("Next: ")


def test_doctor_finds_what_is_missing_and_fails_only_for_the_local_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from gpu_infer.cli import doctor

    monkeypatch.setattr(doctor, "_CUDA_FIX", {})  # the frameworks are seen to in the other test
    monkeypatch.setitem(doctor.EXTRAS, "aks", ("AKS web services", ("no-such-azureml",)))
    told = run_json("doctor", capsys=capsys)
    found = {check["name"]: check for check in told["checks"]}
    assert told["ok"] is True
    assert found["aks"]["state"] == "missing"
    assert found["aks"]["fix"] == "pip install 'gpu-infer[aks]'"
    assert found["frameworks"]["state"] == "warning"

    monkeypatch.setitem(doctor.EXTRAS, "local", ("services on this machine", ("no-such-server", "orjson")))
    out, err = run("doctor", code=1, capsys=capsys)
    assert "✗  local" in out
    assert "without no-such-server; for services on this machine" in out
    assert err == "Next: pip install 'gpu-infer[local]'\n"

    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(doctor, "_CUDA_FIX", {})
    (folder,) = [check for check in examine() if check.name == "state folder"]
    assert folder.state == "error"
    assert folder.detail.startswith("cannot be written: ")


def test_a_framework_that_is_broken_or_blind_is_told_with_a_fix(monkeypatch: pytest.MonkeyPatch):
    from gpu_infer.cli import doctor

    cases = {
        "raise OSError('libcudart.so not found')": ("warning", "cannot be loaded: OSError: libcudart.so not found"),
        "import time; time.sleep(60)": ("warning", "did not answer within 30 s"),
        """print('{"kind": "cpu", "device": "cpu"}')""": ("warning", "does not see the GPU"),
        """print('{"kind": "cuda", "device": "cuda:0 NVIDIA H200"}')""": ("ok", "sees cuda:0 NVIDIA H200"),
    }
    for program, (state, detail) in cases.items():
        monkeypatch.setattr(doctor, "_PROBE", program)
        probe = doctor._start_probe("tensorflow")
        try:
            check = doctor._framework("tensorflow", probe, deadline=time.monotonic() + 2, gpu=True)
        finally:
            probe.kill()
            probe.communicate()
        assert (check.state, check.detail[: len(detail)]) == (state, detail)


def test_the_doctor_knows_the_extras_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names = {
        extra: tuple(line.split(">")[0].split("[")[0] for line in lines if not line.startswith("gpu-infer["))
        for extra, lines in declared.items()
        if extra not in ("all", "tensorflow-gpu")
    }
    assert names == {extra: distributions for extra, (_, distributions) in EXTRAS.items()}


def test_init_writes_files_that_work(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "my service"
    out, err = run("init", str(folder), "--template", "onnx", capsys=capsys)
    assert {path.name for path in folder.iterdir()} == {"hooks.py", "deploy.py", "conda.yml"}
    assert "onnxruntime-gpu" in (folder / "conda.yml").read_text()
    assert "what runs before and behind the model" in out
    assert err.startswith(f"Next: python '{folder}/deploy.py' MODEL FILE")

    hook = load_hook("hooks.py:preprocess", role="preprocess", folder=folder)
    assert hook is not None
    assert hook.item_ndim == 3
    item = hook(np.full((224, 224, 3), 255, np.uint8))
    assert item.dtype == np.float32
    assert item.max() == 1
    answer = load_hook("hooks.py:postprocess", role="postprocess", folder=folder)
    assert answer is not None
    assert answer(np.array([0.25, 0.75])) == {"class": 1, "score": 0.75}

    hooks = "ITEM_NDIM = 1\n\n\ndef preprocess(item):\n    return item + 1\n\n\n"
    (folder / "hooks.py").write_text(hooks + "def postprocess(output):\n    return output\n")
    np.save(tmp_path / "x.npy", np.array([1, 2, 3, 4], np.float32))
    done = subprocess.run(
        [sys.executable, str(folder / "deploy.py"), str(model), str(tmp_path / "x.npy")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[ 4.  6.  8. 10.]" in done.stdout


def test_init_replaces_nothing_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "hooks.py").write_text("mine")
    _, err = run("init", str(tmp_path), code=1, capsys=capsys)
    assert "has hooks.py already; --overwrite replaces what is there." in err
    assert [path.name for path in tmp_path.iterdir()] == ["hooks.py"]
    assert (tmp_path / "hooks.py").read_text() == "mine"
    told = run_json("init", str(tmp_path), "--overwrite", capsys=capsys)
    assert len(told["files"]) == 3
    assert (tmp_path / "hooks.py").read_text() != "mine"


def test_help_names_every_command_and_each_has_help(capsys: pytest.CaptureFixture[str]):
    out, _ = run("--help", capsys=capsys)
    for name in COMMANDS:
        assert f" {name} " in out
        shown, _ = run(name, "--help", capsys=capsys)
        assert ("--json" in shown) is True
    assert run("--version", capsys=capsys)[0] == gpu_infer.__version__ + "\n"


def test_help_loads_neither_numpy_nor_a_framework():
    program = (
        "import sys; from gpu_infer.cli import main; main(['--help']);"
        "print(sorted({'numpy', 'tensorflow', 'torch', 'onnxruntime', 'requests', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_page_names_every_command():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for name in COMMANDS:
        assert f"gpu-infer {name}" in page


# --- how results read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.float32(0.5), ["0.5"]),
        (7, ["7"]),
        ("a cat", ["a cat"]),
        (np.array([1.5, float("nan")]), ["1.5  nan"]),
        ([3, 1, 4], ["3  1  4"]),
        (np.arange(20), ["0  1  2  3  4  5  6  7  8  9  10  11  ... 20 values"]),
        ({"classes": [289, 288], "scores": [0.8, 0.1]}, ["classes  289  288", "scores  0.8  0.1"]),
        ([{"class": 1}, {"class": 2}], ["0  class  1", "1  class  2"]),
        (np.zeros((2, 3, 4), np.float32), ["float32 [2, 3, 4], from 0 to 0; --json prints all values"]),
        (np.zeros((0, 4), np.float32), ["nothing: no items"]),
        ([[1], [2, 3]], ["0  1", "1  2  3"]),
        (None, ["None"]),
    ],
)
def test_short_results_are_shown_whole(value: Any, shown: list[str]):
    assert [line.plain for line in results.lines(value)] == shown


def test_long_scores_are_shown_by_their_largest():
    scores = np.full(1000, 0.0001, np.float32)
    scores[289] = 0.837
    scores[10] = np.nan
    found = [line.plain for line in results.lines(scores)]
    assert found[0] == "1,000 values, the largest:"
    assert found[1].split() == ["289", "0.837", "█" * 20]
    assert len(found) == 6
    (row,) = results.lines(scores[np.newaxis])
    assert row.plain == "0  289: 0.837, 0: 0.0001, 1: 0.0001; the largest of 1,000"


def test_many_results_are_begun():
    found = [line.plain for line in results.lines(np.zeros((2000, 2)))]
    assert len(found) == 21
    assert found[-1] == "... and 1,980 more; --json prints all"


def test_json_has_no_nan_and_no_bytes(capsys: pytest.CaptureFixture[str]):
    from gpu_infer.cli import screen

    response = ScoreResponse(
        {"p": np.array([0.1, np.nan, np.inf], np.float32), "b": b"\xff", "t": b"text"}, "cpu", 1, 0.0, "id", 0.01
    )
    screen.print_json(results.Answer("f", response).to_dict(), indent=None)
    assert json.loads(capsys.readouterr().out)["result"] == {"p": [0.1, None, None], "b": {"b64": "/w=="}, "t": "text"}
