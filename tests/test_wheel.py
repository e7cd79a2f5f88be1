"""What a user installs: the wheel, built without the network."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    pytest.importorskip("hatchling", reason="the test group is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    with zipfile.ZipFile(built) as opened:
        yield opened


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode("utf-8"))


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel: zipfile.ZipFile):
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gpu_infer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == on_disk


@pytest.mark.parametrize(
    "name",
    [
        "gpu_infer/py.typed",
        "gpu_infer/serving/score.py",
        "gpu_infer/templates/onnx/conda.yml",
        "gpu_infer/templates/tensorflow/conda.yml",
        "gpu_infer/templates/tensorflow/defaults.json",
        "gpu_infer/templates/torch/conda.yml",
    ],
)
def test_what_is_not_code_is_in_it(wheel: zipfile.ZipFile, name: str):
    assert name in wheel.namelist()


def test_no_tests_examples_or_benchmarks_are_in_it(wheel: zipfile.ZipFile):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"gpu_infer"}


def test_the_core_needs_numpy_and_requests_only(wheel: zipfile.ZipFile):
    needed = metadata(wheel).get_all("Requires-Dist", [])
    core = [line for line in needed if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in core) == ["numpy", "requests"]


def test_the_extras_are_those_of_the_readme(wheel: zipfile.ZipFile):
    extras = set(metadata(wheel).get_all("Provides-Extra", []))
    frameworks = {"tensorflow", "tensorflow-gpu", "torch", "onnx"}
    azure = {"aks", "online", "autoscale", "clusters"}
    assert extras == frameworks | azure | {"local", "cli", "async", "otel", "parquet", "emulator", "all"}


def test_the_version_and_the_licence_come_along(wheel: zipfile.ZipFile):
    namespace: dict[str, str] = {}
    exec((ROOT / "gpu_infer" / "_version.py").read_text("utf-8"), namespace)
    assert metadata(wheel)["Version"] == namespace["__version__"]
    assert metadata(wheel)["License-Expression"] == "MIT"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_command_is_there(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "gpu-infer = gpu_infer.cli:main" in wheel.read(name).decode("utf-8")
