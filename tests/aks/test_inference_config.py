"""``build_inference_config()`` checks what it puts together, as ``deploy()`` does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer.errors import PreflightError

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hooks.py").write_text("def preprocess(item): return item\n")
    Path("own.py").write_text("import pandas\ndef init(): ...\ndef run(data): ...\n")
    Path("half.py").write_text("def run(data): ...\n")
    Path("conda.yml").write_text("dependencies: [python=3.6, tensorflow-gpu=1.12]\n")


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ({"preprocess": "imagine:1"}, {"hook"}),
        ({"preprocess": "hooks.py:other"}, {"hook"}),
        ({"entry_script": "half.py"}, {"entry-script"}),
        ({"entry_script": "absent.py"}, {"entry-script"}),
        ({"conda_file": "absent.yml"}, {"conda-file"}),
        (
            {"conda_file": "conda.yml"},
            {"conda-python", "conda-server-missing", "conda-tensorflow-gpu", "runtime-missing"},
        ),
        ({"environment_variables": {"GPU_INFER_MAX_BATCH": "many"}}, {"settings"}),
        ({"timeout": "10m"}, {"timeout"}),
        (
            {"entry_script": "half.py", "timeout": "10m", "conda_file": "absent.yml"},
            {"entry-script", "timeout", "conda-file"},
        ),
    ],
)
def test_everything_that_is_wrong_is_said_at_once(given: dict[str, Any], codes: set[str]) -> None:
    with pytest.raises(PreflightError) as caught:
        gpu_infer.build_inference_config("tensorflow", **given)
    assert {finding.code for finding in caught.value.findings if finding.level == "error"} == codes


def test_a_warning_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gpu_infer"):
        configuration = gpu_infer.build_inference_config("onnx", entry_script="own.py")
    assert configuration.entry_script == "score.py"
    (message,) = [record.message for record in caplog.records if record.name == "gpu_infer"]
    assert "own.py line 1 imports what the conda file does not seem to bring: pandas. Add pandas to" in message


def test_what_is_right_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gpu_infer"):
        gpu_infer.build_inference_config("onnx", preprocess="hooks.py", postprocess="softmax")
    assert [record.message for record in caplog.records if record.name == "gpu_infer"] == []
