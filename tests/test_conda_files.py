"""What is wrong with a conda file: every rule with its message, the tutorials' files, and ours, which are clean."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import yaml

from gpu_infer.bundle import TEMPLATES, load_template
from gpu_infer.errors import Finding
from gpu_infer.preflight import lint_conda
from gpu_infer.preflight.conda_reader import read_conda

TODAY = date(2026, 11, 24)
GOOD_PIP = ("azureml-inference-server-http==1.5.1", "tensorflow[and-cuda]==2.21.0", "numpy==2.4.6", "setuptools<82")

# As the two published pages have them.
MNIST = """\
name: project_environment
dependencies:
  # The python interpreter version.
  # Currently Azure ML only supports 3.5.2 and later.
- python=3.6.2

- pip:
  - azureml-defaults==1.0.43.*
- numpy
- tensorflow-gpu=1.12
channels:
- conda-forge
"""
RESNET50 = """\
name: aml-accel-perf
channels:
  - defaults
dependencies:
  - tensorflow-gpu = 1.12
  - numpy
  - ujson
  - pip:
    - azureml-core
    - azureml-contrib-services
"""


def conda_file(*pip: str, conda: tuple[str, ...] = ("python=3.11", "pip"), **more: object) -> str:
    lines = [*conda, *([{"pip": [*pip]}] if pip else [])]
    return yaml.safe_dump({"channels": ["conda-forge"], "dependencies": lines, **more})


def with_line(*lines: str, instead_of: str = "") -> str:
    """A good file with a line more, and one less."""
    kept = [line for line in GOOD_PIP if not instead_of or not line.startswith(instead_of)]
    return conda_file(*kept, *lines)


def found(text: str, *, gpu: bool = True) -> dict[str, Finding]:
    findings = lint_conda(text, gpu=gpu, today=TODAY)
    for finding in findings:
        print(finding.level, finding.code, finding, sep="  ")
    return {finding.code: finding for finding in findings}


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_own_files_are_clean(name: str):
    assert lint_conda(load_template(name).conda, today=TODAY) == []


def test_a_good_file_is_clean():
    assert lint_conda(conda_file(*GOOD_PIP), today=TODAY) == []
    assert lint_conda(conda_file("tensorflow==2.21.0", *GOOD_PIP[:1], *GOOD_PIP[2:]), gpu=False, today=TODAY) == []


def test_today_is_the_day_where_none_is_given():
    assert lint_conda(conda_file(*GOOD_PIP, conda=("python=3.9", "pip")))[0].code == "conda-tensorflow-python"


def test_the_first_tutorials_file_is_refused_with_all_its_mistakes():
    findings = found(MNIST)
    assert {code: finding.level for code, finding in findings.items()} == {
        "conda-python": "error",
        "conda-server-old": "error",
        "conda-tensorflow-gpu": "error",
        "conda-setuptools": "warning",
        "conda-pip-missing": "warning",
        "conda-unpinned": "warning",
    }
    assert "python=3.6.2: the inference server and the bundle need Python 3.9" in str(findings["conda-python"])
    assert "azureml-defaults==1.0.43.* brings a server that no longer runs" in str(findings["conda-server-old"])
    assert "TensorFlow 1 has builds for Python up to 3.7 only" in str(findings["conda-tensorflow-gpu"])
    assert "numpy" in str(findings["conda-unpinned"])


def test_the_second_tutorials_file_is_refused_with_all_its_mistakes():
    findings = found(RESNET50)
    assert {code: finding.level for code, finding in findings.items()} == {
        "conda-server-missing": "error",
        "conda-tensorflow-gpu": "error",
        "conda-python-missing": "warning",
        "conda-setuptools": "warning",
        "conda-pip-missing": "warning",
        "conda-channels": "warning",
        "conda-unpinned": "warning",
    }
    assert "does not bring the inference server, so the container cannot answer" in str(
        findings["conda-server-missing"]
    )
    assert "numpy, ujson, azureml-core, azureml-contrib-services" in str(findings["conda-unpinned"])


# --- one rule each ----------------------------------------------------------------------------------------------------

CASES: list[tuple[str, str, str, str, str]] = [
    ("no-yaml", "a: [", "conda-yaml", "error", "The conda file cannot be read"),
    ("requirements", "numpy\ntensorflow", "conda-yaml", "error", "it has no keys such as dependencies:"),
    ("nothing-in-it", "name: x\ndependencies:\n", "conda-yaml", "error", "it has no list dependencies:"),
    (
        "conda-extras",
        conda_file(*GOOD_PIP[:1], "setuptools<82", conda=("python=3.11", "pip", "tensorflow[and-cuda]")),
        "conda-syntax",
        "error",
        "conda knows no extras in brackets. Move it below pip:",
    ),
    (
        "conda-marker",
        conda_file(*GOOD_PIP, conda=("python=3.11", "pip", "@scope/package")),
        "conda-syntax",
        "error",
        "'@scope/package' is no package that conda can read",
    ),
    (
        "a-key-that-is-not-pip",
        yaml.safe_dump({"channels": ["conda-forge"], "dependencies": ["python=3.11", {"npm": ["x"]}]}),
        "conda-syntax",
        "error",
        "Nothing can be made of 'npm' there",
    ),
    (
        "one-equals-sign",
        with_line("tensorflow-gpu=1.12"),
        "conda-pip-syntax",
        "error",
        "pip compares versions with two equals signs. Write 'tensorflow-gpu==1.12'.",
    ),
    ("no-requirement", with_line("two words"), "conda-pip-syntax", "error", "it is no requirement"),
    ("requirements-file", with_line("-r requirements.txt"), "conda-local-file", "error", "only the conda file itself"),
    ("editable", with_line("-e ."), "conda-local-file", "error", "names a file"),
    ("wheel", with_line("./dist/mine-1.0-py3-none-any.whl"), "conda-local-file", "error", "names a file"),
    ("old-python", conda_file(*GOOD_PIP, conda=("python=3.8", "pip")), "conda-python", "error", "Python 3.9 or newer"),
    (
        "python-out-of-support",
        conda_file(*GOOD_PIP, conda=("python=3.10.4", "pip")),
        "conda-python",
        "warning",
        "python=3.10.4: Python 3.10 gets no security fixes since October 2026",
    ),
    (
        "any-python",
        conda_file(*GOOD_PIP, conda=("python", "pip")),
        "conda-python-missing",
        "warning",
        "conda then takes the newest",
    ),
    (
        "tensorflow-too-old-for-the-python",
        with_line("tensorflow[and-cuda]==2.10.1", instead_of="tensorflow"),
        "conda-tensorflow-python",
        "error",
        "TensorFlow 2.10.1 has no build for Python 3.11, only for 3.7 to 3.10",
    ),
    (
        "python-too-new-for-the-tensorflow",
        conda_file(*GOOD_PIP, conda=("python=3.14", "pip")),
        "conda-tensorflow-python",
        "error",
        "TensorFlow 2.21.0 has no build for Python 3.14",
    ),
    (
        "tensorflow-gpu-pip",
        with_line("tensorflow-gpu==2.12.0", instead_of="tensorflow"),
        "conda-tensorflow-gpu",
        "error",
        "an empty shell that only raises an error. Write 'tensorflow[and-cuda]==2.21.0'.",
    ),
    (
        "tensorflow-gpu-conda",
        conda_file(*GOOD_PIP[:1], conda=("python=3.11", "pip", "tensorflow-gpu=2.15")),
        "conda-tensorflow-gpu",
        "error",
        "only pip's wheels of TensorFlow are supported",
    ),
    (
        "tensorflow-cpu",
        with_line("tensorflow-cpu==2.21.0", instead_of="tensorflow"),
        "conda-cpu-build",
        "error",
        "knows the CPU only: the GPU would be paid for and not used",
    ),
    (
        "bare-tensorflow",
        with_line("tensorflow==2.19.0", instead_of="tensorflow"),
        "conda-cpu-build",
        "error",
        "without them TensorFlow runs on the CPU, silently. Write 'tensorflow[and-cuda]==2.19.0'.",
    ),
    (
        "tensorflow-of-cuda-11",
        conda_file(*GOOD_PIP[:1], "tensorflow==2.11.0", conda=("python=3.10", "pip")),
        "conda-cpu-build",
        "error",
        "takes CUDA 11 from the image, and the images of today have CUDA 12",
    ),
    (
        "tensorflow-conda",
        conda_file(*GOOD_PIP[:1], conda=("python=3.11", "pip", "tensorflow=2.15")),
        "conda-cpu-build",
        "error",
        "built on a machine without a GPU, so conda takes the build for the CPU",
    ),
    (
        "torch-cpu-index",
        with_line("torch==2.10.0", "--index-url wheels/cpu", instead_of="tensorflow"),
        "conda-cpu-build",
        "error",
        "that is PyTorch for the CPU",
    ),
    ("torch-cpu", with_line("torch==2.10.0+cpu"), "conda-cpu-build", "error", "torch==2.10.0+cpu: that is PyTorch for"),
    (
        "pytorch-conda-cpuonly",
        conda_file(*GOOD_PIP[:1], conda=("python=3.11", "pip", "pytorch=2.5", "cpuonly")),
        "conda-cpu-build",
        "error",
        "cpuonly: that is PyTorch for the CPU",
    ),
    (
        "pytorch-conda",
        conda_file(*GOOD_PIP[:1], conda=("python=3.11", "pip", "pytorch=2.5")),
        "conda-cpu-build",
        "error",
        "pytorch=2.5 in the conda section",
    ),
    (
        "onnxruntime",
        with_line("onnxruntime==1.26.0"),
        "conda-cpu-build",
        "error",
        "Write 'onnxruntime-gpu[cuda,cudnn]==1.26.0' under pip",
    ),
    (
        "onnxruntime-both",
        with_line("onnxruntime==1.26.0", "onnxruntime-gpu==1.26.0"),
        "conda-onnx-both",
        "error",
        "share a folder and overwrite each other",
    ),
    ("torch-cuda-13", with_line("torch==2.11.0"), "conda-cuda-13", "warning", "a driver from 580 on"),
    ("onnx-cuda-13", with_line("onnxruntime-gpu"), "conda-cuda-13", "warning", "Pin a version below 1.27"),
    (
        "no-server",
        conda_file(*GOOD_PIP[1:]),
        "conda-server-missing",
        "error",
        "so the container cannot answer. Write 'azureml-inference-server-http==1.5.1' under pip",
    ),
    (
        "server-of-2023",
        with_line("azureml-defaults==1.50", instead_of="azureml"),
        "conda-server-old",
        "warning",
        "before November 2023",
    ),
    (
        "old-server",
        with_line("azureml-inference-server-http==0.7.7", instead_of="azureml"),
        "conda-server-old",
        "error",
        "no longer runs with the Flask and Jinja2 of today",
    ),
    (
        "pins-of-the-servers-own",
        with_line("flask==1.0.3", "jinja2<3.1"),
        "conda-serving-pins",
        "warning",
        "flask==1.0.3, jinja2<3.1: the inference server brings the versions that it works with. Leave them out.",
    ),
    (
        "setuptools-82",
        with_line("setuptools>=82", instead_of="setuptools"),
        "conda-setuptools",
        "error",
        "82 has removed pkg_resources",
    ),
    (
        "setuptools-82-pinned",
        with_line("setuptools==82.0.1", instead_of="setuptools"),
        "conda-setuptools",
        "error",
        "82 has removed pkg_resources",
    ),
    ("any-setuptools", conda_file(*GOOD_PIP[:3]), "conda-setuptools", "warning", "Without an upper bound"),
    (
        "numpy-2-and-an-old-torch",
        with_line("torch==2.1.0", "numpy==2.0.0", instead_of="numpy"),
        "conda-numpy",
        "error",
        "torch==2.1.0 is built for NumPy 1, and 'numpy==2.0.0' lets NumPy 2 in. Write 'numpy<2'",
    ),
    (
        "numpy-2-and-an-old-tensorflow",
        conda_file("tensorflow[and-cuda]==2.16.1", "numpy==2.0.0", GOOD_PIP[0], "setuptools<82"),
        "conda-numpy",
        "error",
        "built for NumPy 1",
    ),
    (
        "any-numpy-and-an-old-tensorflow",
        conda_file("tensorflow[and-cuda]==2.16.1", "numpy", GOOD_PIP[0], "setuptools<82"),
        "conda-numpy",
        "info",
        "lets NumPy 2 in",
    ),
    (
        "no-pip",
        conda_file(*GOOD_PIP, conda=("python=3.11",)),
        "conda-pip-missing",
        "warning",
        "pip itself is not among",
    ),
    ("pytorch-by-pip", with_line("pytorch==2.5"), "conda-name", "error", "for pip that package has another name"),
    ("sklearn", with_line("sklearn==0.0"), "conda-name", "error", "Write 'scikit-learn'"),
    ("opencv", with_line("opencv-python==4.10.0.84"), "conda-opencv", "warning", "needs libGL"),
    (
        "exported-on-a-mac",
        conda_file(*GOOD_PIP, conda=("python=3.11", "pip", "libcxx=14.0.6"), prefix="/Users/me/env"),
        "conda-platform",
        "error",
        "have no build for it: libcxx=14.0.6",
    ),
    (
        "exported",
        conda_file(*GOOD_PIP, conda=("python=3.11.7=h1_0_cpython", "pip")),
        "conda-exported",
        "warning",
        "exported from one machine",
    ),
    (
        "no-channel",
        yaml.safe_dump({"dependencies": ["python=3.11", "pip", {"pip": [*GOOD_PIP]}]}),
        "conda-channels",
        "warning",
        "names no channel, so conda takes its defaults",
    ),
    (
        "twice",
        conda_file(*GOOD_PIP, conda=("python=3.11", "pip", "numpy=2.4")),
        "conda-twice",
        "warning",
        "conda and pip both install numpy",
    ),
    ("unpinned", with_line("pandas", "ujson"), "conda-unpinned", "warning", "No version is given for pandas, ujson"),
]


@pytest.mark.parametrize(("text", "code", "level", "message"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_mistake_is_named(text: str, code: str, level: str, message: str):
    finding = found(text)[code]
    assert finding.level == level
    assert message in str(finding)


def test_every_rule_has_a_case():
    source = Path(read_conda.__code__.co_filename).parent
    codes = {
        word for path in source.glob("conda_*.py") for word in path.read_text("utf-8").split('"') if "conda-" in word
    }
    codes = {code for code in codes if code.startswith("conda-") and " " not in code and "forge" not in code}
    assert codes == {case[2] for case in CASES}


@pytest.mark.parametrize(
    "text",
    [
        with_line("tensorflow-cpu==2.21.0", instead_of="tensorflow"),
        with_line("tensorflow==2.21.0", instead_of="tensorflow"),
        with_line("onnxruntime==1.26.0", "torch==2.10.0+cpu"),
    ],
)
def test_without_a_gpu_the_cpu_is_fine(text: str):
    assert "conda-cpu-build" not in found(text, gpu=False)


@pytest.mark.parametrize(
    "line",
    ["torch", "torch==2.10.0", "torch>=2.6,<2.11", "git+https://github.com/me/mine.git", "pandas~=2.2", "einops==0.8"],
)
def test_what_is_right_is_not_an_error(line: str):
    assert [finding for finding in lint_conda(with_line(line), today=TODAY) if finding.level == "error"] == []


def test_what_the_messages_advise_is_what_our_files_have():
    advice = " ".join(finding.fix for case in CASES for finding in lint_conda(case[1], today=TODAY))
    ours = " ".join(load_template(name).conda for name in TEMPLATES)
    for line in (
        "azureml-inference-server-http==1.5.1",
        "tensorflow[and-cuda]==2.21.0",
        "torch==2.10.0",
        "onnxruntime-gpu[cuda,cudnn]==1.26.0",
        "setuptools<82",
        "python=3.11",
    ):
        assert line in advice, line
        assert line in ours, line


@pytest.mark.parametrize(
    ("line", "name", "takes", "refuses"),
    [
        ("numpy", "numpy", "2.0", ""),
        ("numpy=1.26", "numpy", "1.26.4", "1.27"),
        ("numpy==1.26.4", "numpy", "1.26.4", "1.26.5"),
        ("numpy>=1.26,<2", "numpy", "1.27", "2.0"),
        ("numpy 1.26", "numpy", "1.26.4", "1.27"),
        ("conda-forge::Numpy_Base=1.26", "numpy-base", "1.26.1", "2"),
        ("numpy = 1.26", "numpy", "1.26.4", "1.27"),
        ("numpy=1.26.4=py311_0", "numpy", "1.26.4", "1.26.5"),
    ],
)
def test_condas_way_to_write_versions(line: str, name: str, takes: str, refuses: str):
    (package,) = read_conda(json.dumps({"dependencies": [line]})).packages
    assert package.name == name
    assert package.versions is not None
    assert package.versions.contains(takes)
    assert not refuses or not package.versions.contains(refuses)


@pytest.mark.parametrize(
    ("line", "stays_below_2", "starts_at_2"),
    [
        ("x", False, False),
        ("x<2", True, False),
        ("x<=2", False, False),
        ("x<=1.9", True, False),
        ("x>=1.5,<1.9", True, False),
        ("x>=2", False, True),
        ("x>2.1", False, True),
        ("x>1.9", False, False),
        ("x~=1.4", True, False),
        ("x~=1.4.2", True, False),
        ("x~=2.0", False, True),
        ("x==1.9", True, False),
        ("x==2.0.1", False, True),
        ("x==1.*", True, False),
        ("x==2.*", False, True),
        ("x!=2", False, False),
    ],
)
def test_bounds_of_versions(line: str, stays_below_2: bool, starts_at_2: bool):
    (package,) = read_conda(json.dumps({"dependencies": [{"pip": [line]}]})).packages
    assert (package.stays_below("2"), package.starts_at("2")) == (stays_below_2, starts_at_2)
