"""The README's job on AKS, and its test, run as they stand there, against an emulated workspace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_the_readmes_job_on_aks(
    readers_folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    from azureml.core import Model

    from gpu_infer.emulator import Emulator

    block = python_blocks()[3]
    assert "Workspace.from_config()" in block
    with Emulator() as emulator:
        workspace = emulator.workspace()
        register = tmp_path_factory.mktemp("models")
        os.chdir(register)
        (register / "resnet50").symlink_to((readers_folder / "models" / "resnet50").resolve())
        Model.register(workspace, "resnet50", "resnet50")
        os.chdir(readers_folder)
        names: dict[str, Any] = {"emulated": workspace}
        exec(block.replace("Workspace.from_config()", "emulated"), names)
        assert names["scores"]["classes"] == 289
        assert emulator.billed() == []
    printed = capsys.readouterr().out
    assert "$1.58 per hour" in printed
    assert printed.splitlines()[-1] == "[]"


def test_the_readmes_test(readers_folder: Path) -> None:
    """As its reader would run it: pytest, in a folder with the files that it names."""
    (readers_folder / "test_ours.py").write_text(python_blocks()[5], "utf-8")
    (readers_folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ours.py"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=readers_folder)
    assert done.returncode == 0, done.stdout + done.stderr
