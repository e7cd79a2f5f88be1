"""The conda files that a GPU image is built from: the rules they keep, and that they solve."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "gpu_infer" / "templates"
FRAMEWORKS = ("onnx", "tensorflow", "torch")
# What the GPU build of each framework is called for pip, and the module it brings.
GPU_PACKAGE = {"onnx": "onnxruntime-gpu[cuda,cudnn]", "tensorflow": "tensorflow[and-cuda]", "torch": "torch"}
MODULE = {"onnx": "onnxruntime", "tensorflow": "tensorflow", "torch": "torch"}
SUPPORTED_IMAGE = re.compile(r"mcr\.microsoft\.com/azureml/[a-z0-9.-]*cuda(?P<cuda>\d+)\.\d+[a-z0-9.-]*")


@dataclass(frozen=True)
class Template:
    framework: str
    conda: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def conda_part(self) -> list[str]:
        return [line for line in self.conda["dependencies"] if isinstance(line, str)]

    @property
    def pip_part(self) -> list[str]:
        (section,) = (line["pip"] for line in self.conda["dependencies"] if isinstance(line, dict))
        return section

    @property
    def pins(self) -> dict[str, str]:
        return dict(line.split("==") for line in self.pip_part if "==" in line)


@pytest.fixture(params=FRAMEWORKS)
def template(request: pytest.FixtureRequest) -> Template:
    folder = TEMPLATES / request.param
    return Template(
        framework=request.param,
        conda=yaml.safe_load((folder / "conda.yml").read_text("utf-8")),
        defaults=json.loads((folder / "defaults.json").read_text("utf-8")),
    )


def locked() -> dict[str, str]:
    """The versions in constraints.txt, by package."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_no_conda_file_is_missed_here():
    assert sorted(path.parent.name for path in TEMPLATES.rglob("conda.yml")) == sorted(FRAMEWORKS)
    assert sorted(path.parent.name for path in TEMPLATES.rglob("defaults.json")) == sorted(FRAMEWORKS)


def test_conda_brings_python_and_pip_only(template: Template):
    assert template.conda["channels"] == ["conda-forge"]
    assert template.conda_part == ["python=3.11", "pip"]
    assert template.conda["name"] == f"gpu-infer-{template.framework}"


def test_everything_from_pip_is_pinned(template: Template):
    exact = re.compile(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\d+(\.\d+)+")
    assert [line for line in template.pip_part if not exact.fullmatch(line)] == ["setuptools<82"]


def test_the_framework_is_its_gpu_build(template: Template):
    assert GPU_PACKAGE[template.framework] in template.pins
    names = {re.split(r"[\[=<>]", line)[0] for line in template.pip_part}
    assert not names & {"tensorflow-gpu", "tensorflow-cpu", "onnxruntime"}


def test_the_server_is_there_and_no_other_azureml_package(template: Template):
    azureml = [line for line in template.pip_part if line.startswith("azureml")]
    assert azureml == ["azureml-inference-server-http==1.5.1"]


def test_what_is_common_with_the_laptop_has_the_laptops_version(template: Template):
    """The tests run on constraints.txt, so only these versions are known to work together."""
    # The wheels of the newer torch and ONNX Runtime are built for CUDA 13; see the comments in the conda files.
    framework = GPU_PACKAGE[template.framework]
    expected = {name: locked()[name] for name in template.pins if name != framework}
    assert {name: version for name, version in template.pins.items() if name != framework} == expected


def test_tensorflow_is_the_laptops_version():
    lines = (TEMPLATES / "tensorflow" / "conda.yml").read_text("utf-8")
    assert f"tensorflow[and-cuda]=={locked()['tensorflow']}\n" in lines


def test_the_tensorflow_file_says_why_not_tensorflow_gpu():
    assert "# Not `tensorflow-gpu`" in (TEMPLATES / "tensorflow" / "conda.yml").read_text("utf-8")


def test_defaults_name_an_image_with_cuda_12(template: Template):
    """CUDA 13 images need a driver that GPU nodes may not have."""
    match = SUPPORTED_IMAGE.fullmatch(template.defaults["base_image"])
    assert match is not None
    assert match["cuda"] == "12"


def test_defaults_name_the_extra_and_the_module(template: Template):
    assert template.defaults["framework"] == template.framework
    assert template.defaults["extra"] == template.framework
    assert template.defaults["import_name"] == MODULE[template.framework]
    assert set(template.defaults) == {"framework", "base_image", "extra", "import_name"}


@pytest.mark.slow
@pytest.mark.resolve
def test_the_pip_section_resolves_for_the_container(template: Template, tmp_path: Path):
    """From wheels alone, as a container has no compiler to rely on; and to libraries of CUDA 12."""
    wanted = tmp_path / "requirements.in"
    wanted.write_text("\n".join(template.pip_part), encoding="utf-8")
    command = [sys.executable, "-m", "uv", "pip", "compile", str(wanted), "--no-config", "--no-header", "--no-annotate"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11", "--only-binary", ":all:"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)

    assert done.returncode == 0, done.stderr
    solved = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    assert int(solved["setuptools"].split(".")[0]) < 82
    for name, version in template.pins.items():
        assert solved[name.split("[")[0]] == version
    assert solved["nvidia-cuda-runtime-cu12"].startswith("12.")
    assert "nvidia-cudnn-cu12" in solved
    assert not [name for name in solved if name.endswith("-cu13") or name == "nvidia-cuda-runtime"]
