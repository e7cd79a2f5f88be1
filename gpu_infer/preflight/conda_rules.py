"""The rules that a conda file for a GPU image is held against; each takes the file and names what it finds.

The facts are of November 2026: TensorFlow's table of tested builds, what the wheels of each framework are built for,
what Azure ML's inference server asks for, and threads of users whose image failed for the reason that a finding gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date

from packaging.version import Version

from gpu_infer.errors import Finding
from gpu_infer.preflight.conda_reader import CondaFile, Package

__all__ = ["RULES"]

Rule = Callable[[CondaFile], Iterable[Finding]]

SERVER = "azureml-inference-server-http"
TENSORFLOW = "tensorflow[and-cuda]==2.21.0"

_PYTHON_ENDS = {"3.9": date(2025, 10, 31), "3.10": date(2026, 10, 31), "3.11": date(2027, 10, 31)}
"""When a Python gets no more security fixes (devguide.python.org)."""

_TENSORFLOW_PYTHONS = (
    ("2.21", "3.10", "3.13"),
    ("2.20", "3.9", "3.13"),
    ("2.16", "3.9", "3.12"),
    ("2.14", "3.9", "3.11"),
    ("2.12", "3.8", "3.11"),
    ("2.8", "3.7", "3.10"),
    ("2.0", "3.5", "3.9"),
    ("1.0", "3.3", "3.7"),
)
"""From which TensorFlow on which Pythons have a wheel (tensorflow.org, tested build configurations)."""

_NOT_ON_LINUX = frozenset(
    (
        *("appnope", "libcxx", "pyobjc-core", "pyobjc-framework-cocoa"),
        *("pywin32", "pywin32-ctypes", "pywinpty", "winpty", "win-inet-pton", "wincertstore", "menuinst", "icc-rt"),
        *("vc", "vc14-runtime", "vs2015-runtime", "ucrt", "console-shortcut", "msys2-conda-epoch", "m2w64-gcc-libs"),
    )
)
_SERVING_STACK = frozenset(
    ("click", "flask", "flask-cors", "gunicorn", "itsdangerous", "jinja2", "markupsafe", "pydantic", "werkzeug")
)
_PIP_SHELLS = {
    "pytorch": "torch",
    "sklearn": "scikit-learn",
    "pil": "pillow",
    "cv2": "opencv-python-headless",
    "opencv": "opencv-python-headless",
    "yaml": "pyyaml",
    "dotenv": "python-dotenv",
}
_UNPINNED_IS_FINE = frozenset(("pip", "python", "setuptools", "wheel"))
_FIRST_FOR_NUMPY_2 = {"tensorflow": "2.18", "torch": "2.3", "onnxruntime": "1.19", "onnxruntime-gpu": "1.19"}
_FIRST_FOR_CUDA_13 = {"torch": "2.11", "onnxruntime-gpu": "1.27"}


def _python(file: CondaFile) -> Iterable[Finding]:
    python = file.get("python", where="conda")
    fix = "Write - python=3.11."
    if python is None or (python.versions is not None and not python.versions):
        message = (
            "The conda file does not say which Python; conda then takes the newest, for which wheels may be missing."
        )
        yield Finding("warning", "conda-python-missing", message, fix)
        return
    version = python.pinned
    if version is None:
        return
    minor = f"{version.major}.{version.minor}"
    if version < Version("3.9"):
        message = f"{python.line}: the inference server and the bundle need Python 3.9 or newer."
        yield Finding("error", "conda-python", message, fix)
    elif file.today > _PYTHON_ENDS.get(minor, date.max):
        message = f"{python.line}: Python {minor} gets no security fixes since {_PYTHON_ENDS[minor]:%B %Y}."
        yield Finding("warning", "conda-python", message, fix)


def _tensorflow_and_python(file: CondaFile) -> Iterable[Finding]:
    python, framework = file.get("python", where="conda"), file.get("tensorflow", "tensorflow-gpu", "tensorflow-cpu")
    if python is None or framework is None or python.pinned is None or framework.pinned is None:
        return
    version = Version(f"{python.pinned.major}.{python.pinned.minor}")
    row = next((row for row in _TENSORFLOW_PYTHONS if framework.pinned >= Version(row[0])), None)
    if row is None or Version(row[1]) <= version <= Version(row[2]):
        return
    message = f"TensorFlow {framework.pinned} has no build for Python {version}, only for {row[1]} to {row[2]}."
    yield Finding("error", "conda-tensorflow-python", message, f"Write - python=3.11 and {TENSORFLOW!r} under pip.")


def _tensorflow_gpu(file: CondaFile) -> Iterable[Finding]:
    package = file.get("tensorflow-gpu")
    if package is None:
        return
    if package.stays_below("2.0"):
        message = (
            f"{package.line}: TensorFlow 1 has builds for Python up to 3.7 only, which the inference server no longer "
            "takes, and for a CUDA that no image has any more."
        )
        fix = f"Write {TENSORFLOW!r} under pip; a SavedModel or checkpoint of TensorFlow 1 is served by it as it is."
    elif package.where == "pip":
        message = f"{package.line}: since December 2022 this package is an empty shell that only raises an error."
        fix = f"Write {TENSORFLOW!r}."
    else:
        message = f"{package.line}: only pip's wheels of TensorFlow are supported by its authors, and bring their CUDA."
        fix = f"Write {TENSORFLOW!r} under pip."
    yield Finding("error", "conda-tensorflow-gpu", message, fix)


def _tensorflow(file: CondaFile) -> Iterable[Finding]:
    cpu = file.get("tensorflow-cpu", "intel-tensorflow")
    if file.gpu and cpu is not None:
        message = f"{cpu.line} knows the CPU only: the GPU would be paid for and not used."
        yield Finding("error", "conda-cpu-build", message, f"Write {TENSORFLOW!r} under pip.")
    package = file.get("tensorflow")
    if package is None or not file.gpu:
        return
    brings_cuda = "and-cuda" in package.extras or any(each.name.startswith("nvidia-cudnn") for each in file.packages)
    if package.where == "conda" and "cuda" not in package.build:
        message = (
            f"{package.line} in the conda section: an image is built on a machine without a GPU, so conda takes the "
            "build for the CPU."
        )
        yield Finding("error", "conda-cpu-build", message, f"Write {TENSORFLOW!r} under pip.")
    elif package.where == "pip" and not brings_cuda:
        if package.stays_below("2.14"):
            message = f"{package.line} takes CUDA 11 from the image, and the images of today have CUDA 12."
        else:
            message = (
                f"{package.line} alone brings no CUDA libraries: without them TensorFlow runs on the CPU, silently."
            )
        fix = f"Write {_with_extra(package)!r}." if not package.stays_below("2.14") else f"Write {TENSORFLOW!r}."
        yield Finding("error", "conda-cpu-build", message, fix)


def _torch(file: CondaFile) -> Iterable[Finding]:
    if not file.gpu:
        return
    fix = "Write 'torch==2.10.0' under pip: its wheel is built for CUDA 12."
    only = file.get("cpuonly", "pytorch-cpu")
    plus = next((each for each in file.packages if each.name == "torch" and "+cpu" in each.line), None)
    index = next((line for line in file.options if line.rstrip("/").endswith("/cpu")), None)
    torch = file.get("torch", where="pip")
    line = only.line if only else plus.line if plus else index if torch else None
    if line:
        message = f"{line}: that is PyTorch for the CPU; the GPU would be paid for and not used."
        yield Finding("error", "conda-cpu-build", message, fix)
    package = file.get("pytorch", where="conda")
    if package and not only and not file.get("pytorch-cuda", "pytorch-gpu") and "cuda" not in package.build:
        message = (
            f"{package.line} in the conda section: an image is built on a machine without a GPU, so conda takes the "
            "build for the CPU."
        )
        yield Finding("error", "conda-cpu-build", message, fix)


def _onnx(file: CondaFile) -> Iterable[Finding]:
    cpu, cuda = file.get("onnxruntime"), file.get("onnxruntime-gpu")
    fix = "Write 'onnxruntime-gpu[cuda,cudnn]==1.26.0' under pip."
    if cpu and cuda:
        message = "onnxruntime and onnxruntime-gpu share a folder and overwrite each other."
        yield Finding("error", "conda-onnx-both", message, "Keep onnxruntime-gpu alone.")
    elif cpu and file.gpu and "cuda" not in cpu.build:
        message = f"{cpu.line} knows the CPU only: the GPU would be paid for and not used."
        yield Finding("error", "conda-cpu-build", message, fix)


def _cuda_13(file: CondaFile) -> Iterable[Finding]:
    for name, first in _FIRST_FOR_CUDA_13.items():
        package = file.get(name, where="pip")
        if file.gpu and package and not package.stays_below(first) and "+cu12" not in package.line:
            message = (
                f"{package.line}: from {first} on the wheels are built for CUDA 13, which needs a driver from 580 on; "
                "GPU nodes may have an older one, and then no GPU is found."
            )
            yield Finding("warning", "conda-cuda-13", message, f"Pin a version below {first}.")


def _server(file: CondaFile) -> Iterable[Finding]:
    server, defaults = file.get(SERVER), file.get("azureml-defaults")
    fix = f"Write '{SERVER}==1.5.1' under pip; it needs no other azureml package."
    if server is None and defaults is None:
        message = "The conda file does not bring the inference server, so the container cannot answer."
        yield Finding("error", "conda-server-missing", message, fix)
    old = "brings a server that no longer runs with the Flask and Jinja2 of today"
    if defaults is not None and defaults.stays_below("1.39"):
        yield Finding("error", "conda-server-old", f"{defaults.line} {old}, nor on Python 3.9.", fix)
    elif defaults is not None and server is None and defaults.stays_below("1.55"):
        yield Finding("warning", "conda-server-old", f"{defaults.line} brings a server of before November 2023.", fix)
    if server is not None and server.stays_below("1.0"):
        yield Finding("error", "conda-server-old", f"{server.line} {old}.", fix)


def _serving_stack(file: CondaFile) -> Iterable[Finding]:
    pinned = [each.line for each in file.packages if each.name in _SERVING_STACK and each.versions]
    if pinned:
        message = f"{', '.join(pinned)}: the inference server brings the versions that it works with."
        yield Finding("warning", "conda-serving-pins", message, "Leave them out.")


def _setuptools(file: CondaFile) -> Iterable[Finding]:
    package = file.get("setuptools")
    fix = "Write 'setuptools<82' under pip."
    if package is not None and package.starts_at("82"):
        message = f"{package.line}: 82 has removed pkg_resources, which azureml-core and older packages import."
        yield Finding("error", "conda-setuptools", message, fix)
    elif package is None or not package.stays_below("82"):
        message = "Without an upper bound setuptools is 82 or newer, without pkg_resources that older packages import."
        yield Finding("warning", "conda-setuptools", message, fix)


def _numpy(file: CondaFile) -> Iterable[Finding]:
    numpy = file.get("numpy")
    for name, first in _FIRST_FOR_NUMPY_2.items():
        package = file.get(name)
        if numpy is None or package is None or not package.stays_below(first) or numpy.stays_below("2.0"):
            continue
        message = f"{package.line} is built for NumPy 1, and {numpy.line!r} lets NumPy 2 in."
        # TensorFlow's wheels name the NumPy that they take, so pip keeps to it unless it is told otherwise.
        sure = name != "tensorflow" or numpy.starts_at("2.0")
        yield Finding(
            "error" if sure else "info", "conda-numpy", message, "Write 'numpy<2', or take a newer framework."
        )


def _pip(file: CondaFile) -> Iterable[Finding]:
    if file.has_pip_section and file.get("pip", where="conda") is None:
        message = (
            "There is a list pip:, and pip itself is not among the dependencies: conda has to guess which one is meant."
        )
        yield Finding("warning", "conda-pip-missing", message, "Write - pip behind - python.")


def _shells(file: CondaFile) -> Iterable[Finding]:
    for package in file.packages:
        if package.where == "pip" and package.name in _PIP_SHELLS:
            message = f"{package.line}: for pip that package has another name."
            yield Finding("error", "conda-name", message, f"Write {_PIP_SHELLS[package.name]!r}.")
    opencv = file.get("opencv-python", "opencv-contrib-python", where="pip")
    if opencv is not None:
        message = f"{opencv.line} needs libGL, which the images do not have."
        yield Finding("warning", "conda-opencv", message, "Write 'opencv-python-headless'.")


def _platform(file: CondaFile) -> Iterable[Finding]:
    foreign = [each.line for each in file.packages if each.name in _NOT_ON_LINUX or each.name.startswith("m2w64")]
    if foreign:
        message = f"The image is Linux, and these have no build for it: {', '.join(foreign)}."
        yield Finding("error", "conda-platform", message, "Leave them out; `conda env export --from-history` does.")
    if file.exported:
        message = "The file was exported from one machine: its builds may not exist for Linux, or no longer exist."
        yield Finding(
            "warning", "conda-exported", message, "List what you use, with versions: python, pip, and the rest."
        )


def _channels(file: CondaFile) -> Iterable[Finding]:
    names = {channel.lower().rstrip("/").rpartition("/")[2] for channel in file.channels}
    if not names or names & {"defaults", "anaconda", "main"}:
        which = "names no channel, so conda takes its defaults" if not names else f"takes {', '.join(file.channels)}"
        message = (
            f"The file {which}: that channel needs a licence in larger companies, and its TensorFlow trails behind."
        )
        yield Finding("warning", "conda-channels", message, "Write channels: [conda-forge].")


def _twice(file: CondaFile) -> Iterable[Finding]:
    by_conda = {each.name for each in file.packages if each.where == "conda"}
    twice = sorted({each.name for each in file.packages if each.where == "pip"} & by_conda)
    if twice:
        message = f"conda and pip both install {', '.join(twice)}: the second overwrites files of the first."
        yield Finding("warning", "conda-twice", message, "Keep the line under pip.")


def _unpinned(file: CondaFile) -> Iterable[Finding]:
    names = [
        each.name
        for each in file.packages
        if each.name not in _UNPINNED_IS_FINE and each.versions is not None and not each.versions
    ]
    if names:
        message = f"No version is given for {', '.join(names)}: the same file makes another image next month."
        yield Finding("warning", "conda-unpinned", message, "Pin each one with ==.")


def _with_extra(package: Package) -> str:
    return f"tensorflow[and-cuda]{package.versions or '==2.21.0'}"


RULES: tuple[Rule, ...] = (
    _python,
    _server,
    _tensorflow_gpu,
    _tensorflow,
    _tensorflow_and_python,
    _torch,
    _onnx,
    _numpy,
    _setuptools,
    _platform,
    _shells,
    _cuda_13,
    _serving_stack,
    _pip,
    _channels,
    _twice,
    _unpinned,
)
