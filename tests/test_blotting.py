"""What the user's environment variables hold stays out of every message, where their names say that it is secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import blotting
from gpu_infer.blotting import blot_values, blotted, remember_secrets
from gpu_infer.diagnose import azure_error
from gpu_infer.emulator import Emulator
from gpu_infer.errors import DeploymentError, ModelError, PreflightError, ScoringInitError

T4 = "Standard_NC4as_T4_v3"
SECRET = "correct-horse/battery+staple"
LEAKS = """\
import os

def init():
    if os.environ.get("WHEN") != "run":
        raise ValueError("cannot log in with " + os.environ["FEED_TOKEN"])

def run(data):
    raise ValueError("cannot log in with " + os.environ["FEED_TOKEN"])
"""


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blotting, "_values", frozenset[str]())


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.py"
    path.write_text(LEAKS)
    (tmp_path / "net.onnx").write_bytes(b"not looked at")
    return path


def shown(error: BaseException) -> str:
    """All that an error says, in whatever attribute, and the errors that it comes from."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        texts += [str(current), repr(current.args), *(str(value) for value in vars(current).values())]
        current = current.__cause__
    return "\n".join(texts)


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "APIKEY",
        "api-key",
        "DB_PASSWORD",
        "AzureSqlConn",
        "BLOB_SAS",
        "CLIENT_SECRET",
        "SMTP_PASS",
        "SENTRY_DSN",
    ],
)
def test_names_that_look_secret(name: str) -> None:
    remember_secrets({name: SECRET})
    assert blot_values(f"got {SECRET}!") == "got ***!"


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "MODEL_NAME", "KEYBOARD", "GPU_INFER_OUTPUT_KEY", "CONNECTOR"]
)
def test_names_that_do_not(name: str) -> None:
    remember_secrets({name: SECRET})
    assert blot_values(SECRET) == SECRET


def test_every_form_in_which_a_value_is_written() -> None:
    secret = 'two "lines" of\na+private/key'
    remember_secrets({"THE_KEY": f"{secret}\n"})
    for text in (secret, repr(secret), json.dumps(secret), "two%20%22lines%22%20of%0Aa%2Bprivate%2Fkey"):
        assert "private" not in blot_values(text)
    assert blot_values("log: a+private/key") == "log: ***", "a log is cut into lines"


def test_the_parts_of_connection_strings_and_addresses() -> None:
    remember_secrets(
        {
            "STORE_CONN": "Endpoint=sb://bus.example/;SharedAccessKeyName=root;SharedAccessKey=AbCdEf123456=",
            "DATABASE_DSN": "postgres://me:hunter22@db.example/x",
        }
    )
    assert blot_values("key AbCdEf123456= of bus.example") == "key *** of bus.example"
    assert blot_values("password hunter22 for me") == "password *** for me"


def test_a_short_value_is_only_blotted_by_its_shape() -> None:
    remember_secrets({"PASSWORD": "abcde", "TOKEN": "1"})
    assert blotted("abcde is 1 of 11") == "abcde is 1 of 11"
    assert blotted("password=abcde") == "password=***"


def test_a_value_within_another_goes_with_it() -> None:
    remember_secrets({"A_TOKEN": "abcdef", "B_TOKEN": "abcdefghi"})
    assert blot_values("abcdefghi abcdef") == "*** ***"


def test_what_azure_says() -> None:
    remember_secrets({"FEED_TOKEN": SECRET})
    error = azure_error(None, doing="starting service 'x'", default=DeploymentError, text=f"no: {SECRET}", logs=SECRET)
    assert SECRET not in shown(error)
    assert "***" in str(error)


def test_a_crash_on_aks(script: Path, tmp_path: Path) -> None:
    with Emulator() as emulator, pytest.raises(ScoringInitError, match=r"cannot log in with \*\*\*") as caught:
        gpu_infer.deploy(
            tmp_path / "net.onnx",
            emulator.workspace(),
            cluster=gpu_infer.Cluster("gpus", vm_size=T4),
            entry_script=script,
            environment_variables={"FEED_TOKEN": SECRET},
        )
    assert "cannot log in" in caught.value.logs
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("when", ["init", "run"])
def test_a_failed_smoke_test(script: Path, tmp_path: Path, when: str) -> None:
    with Emulator(run_services=False) as emulator, pytest.raises((PreflightError, ScoringInitError)) as caught:
        gpu_infer.deploy(
            tmp_path / "net.onnx",
            emulator.workspace(),
            cluster=gpu_infer.Cluster("gpus", vm_size=T4),
            entry_script=script,
            environment_variables={"FEED_TOKEN": SECRET, "WHEN": when},
            smoke_test=[1.0],
        )
    assert SECRET not in shown(caught.value)


def test_this_machine(script: Path, tmp_path: Path) -> None:
    variables: dict[str, Any] = {"FEED_TOKEN": SECRET}
    with pytest.raises(ScoringInitError, match=r"cannot log in with \*\*\*") as caught:
        gpu_infer.deploy(tmp_path / "net.onnx", entry_script=script, environment_variables=variables)
    assert r"***" in caught.value.traceback
    assert SECRET not in shown(caught.value)
    with gpu_infer.deploy(
        tmp_path / "net.onnx", entry_script=script, environment_variables={**variables, "WHEN": "run"}
    ) as service:
        with pytest.raises(ModelError) as failed:
            service.score([1.0])
        assert SECRET not in shown(failed.value)
        assert SECRET in service.logs(), "the log itself is the user's own, and whole"


def test_a_service_that_another_process_has_deployed(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator() as emulator:
        workspace = emulator.workspace()
        gpu_infer.deploy(
            tmp_path / "net.onnx",
            workspace,
            name="own",
            cluster=gpu_infer.Cluster("gpus", vm_size=T4),
            entry_script=script,
            environment_variables={"FEED_TOKEN": SECRET, "WHEN": "run"},
        )
        monkeypatch.setattr(blotting, "_values", frozenset[str]())
        with pytest.raises(ModelError) as failed:
            gpu_infer.attach("own", workspace).score([1.0])
        assert SECRET not in shown(failed.value)
