"""Whether the conda file brings what the user's scripts import, and the TensorFlow that they are written for."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name

from gpu_infer.bundle import hook_files
from gpu_infer.errors import Finding
from gpu_infer.preflight.conda_reader import CondaFile, read_conda
from gpu_infer.sources import local_imports, parse
from gpu_infer.spec import ServiceSpec

__all__ = ["check_imports"]

_PACKAGES_OF = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "google.protobuf": "protobuf",
    "jwt": "pyjwt",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "azureml.core": "azureml-core",
    "azureml_inference_server_http": "azureml-inference-server-http",
    "inference_schema": "inference-schema",
    "onnxruntime": "onnxruntime-gpu",
}
"""The package to write into the conda file for a module of another name."""

_SAME = {
    "opencv-python-headless": {"opencv-python", "opencv-contrib-python", "py-opencv", "opencv"},
    "onnxruntime-gpu": {"onnxruntime"},
    "tensorflow": {"tensorflow-gpu", "tensorflow-cpu", "intel-tensorflow"},
    "torch": {"pytorch", "pytorch-gpu"},
    "faiss-cpu": {"faiss-gpu", "faiss-gpu-cu12", "faiss"},
}

_BRINGS = {
    "tensorflow": "absl-py astunparse flatbuffers gast h5py keras ml-dtypes numpy opt-einsum packaging protobuf "
    "requests six termcolor typing-extensions wrapt",
    "torch": "filelock fsspec jinja2 networkx setuptools sympy typing-extensions",
    "torchvision": "numpy pillow torch",
    "onnxruntime-gpu": "flatbuffers numpy packaging protobuf sympy",
    "keras": "absl-py h5py ml-dtypes numpy optree packaging",
    "pandas": "numpy python-dateutil pytz",
    "scikit-learn": "joblib numpy scipy threadpoolctl",
    "scikit-image": "imageio networkx numpy packaging pillow scipy",
    "transformers": "filelock huggingface-hub numpy packaging pyyaml regex requests safetensors tokenizers tqdm",
    "scipy": "numpy",
    "opencv-python-headless": "numpy",
    "opencv-python": "numpy",
    "matplotlib": "numpy packaging pillow python-dateutil",
    "azureml-defaults": "azureml-core azureml-inference-server-http",
    "azureml-core": "azure-core msal packaging pyjwt python-dateutil pytz requests urllib3",
    "azureml-contrib-services": "flask",
    "azureml-inference-server-http": "certifi flask flask-cors gunicorn inference-schema pydantic pydantic-settings "
    "werkzeug",
    "flask": "click itsdangerous jinja2 markupsafe werkzeug",
    "requests": "certifi charset-normalizer idna urllib3",
}
"""What a package installs beside itself, as far as scripts tend to import it."""

_RUNTIME = ("numpy", "orjson", "pillow")
"""What ``gpu_infer_serving`` imports beside the framework."""

_SERVER_MODULES = ("azureml.contrib.services.aml_request", "azureml.contrib.services.aml_response")
"""The inference server puts these in place itself (1.4.1 and newer)."""

_TENSORFLOW_1 = frozenset(
    (
        *("ConfigProto", "GPUOptions", "InteractiveSession", "Session", "get_default_graph", "get_default_session"),
        *("global_variables_initializer", "placeholder", "reset_default_graph", "train.Saver"),
        *("train.import_meta_graph", "saved_model.loader", "gfile.FastGFile", "layers.dense"),
    )
)


def check_imports(spec: ServiceSpec, conda: str) -> list[Finding]:
    """Check the imports of entry script and hooks, and of what they import beside them.

    Args:
        spec: names the scripts.
        conda: text of the conda file that the image will have.
    """
    file = read_conda(conda)
    if not file.packages:
        return []
    there = _installed(file)
    findings: list[Finding] = []
    for path in _scripts(spec):
        tree = parse(path)
        missing: dict[str, int] = {}
        for module, line in _imports(tree.body):
            package = _package_of(module, path)
            if package and package not in there:
                missing.setdefault(package, line)
        findings += [_missing(path, line, package) for package, line in missing.items()]
        findings += _check_tensorflow_1(path, tree, file)
    return findings if spec.entry_script else [*findings, *_check_runtime(there)]


# --- inside -----------------------------------------------------------------------------------------------------------


def _scripts(spec: ServiceSpec) -> list[Path]:
    """The user's Python files that can be read; what is wrong with the others is said by the checks of each."""
    first = [spec.entry_script] if spec.entry_script else []
    first += [path for hook in (spec.preprocess, spec.postprocess) for path, _ in hook_files(hook)]
    found: list[Path] = []
    for path in first:
        try:
            beside = [each for each in local_imports(path) if each.is_file()]
        except (OSError, SyntaxError):
            continue
        found += [each for each in (path, *beside) if each not in found]
    return found


def _installed(file: CondaFile) -> set[str]:
    there = {package.name for package in file.packages}
    there |= {name for name, others in _SAME.items() if there & others}
    while True:
        more = {name for package in there for name in _BRINGS.get(package, "").split()} - there
        if not more:
            return there
        there |= more


def _package_of(module: str, path: Path) -> str:
    """The package of a module, empty for what needs none: Python's own, ours, the server's, and files beside it."""
    top = module.partition(".")[0]
    beside = path.parent / top
    if top in sys.stdlib_module_names or top in ("gpu_infer_serving", "__future__"):
        return ""
    if module.startswith(_SERVER_MODULES) or beside.with_suffix(".py").exists() or beside.is_dir():
        return ""
    known = next((name for name in _PACKAGES_OF if module == name or module.startswith(f"{name}.")), None)
    if known:
        return _PACKAGES_OF[known]
    if top in ("azureml", "azure", "google"):
        return "azureml-contrib-services" if module.startswith("azureml.contrib.services") else ""
    return canonicalize_name(top)


def _imports(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Modules that are imported whatever happens: not those that a ``try`` catches or that only type checkers read."""
    for node in body:
        match node:
            case ast.Import(names=aliases):
                yield from ((alias.name, node.lineno) for alias in aliases)
            case ast.ImportFrom(module=str(module), level=0, names=aliases):
                whole = module in ("google", "azureml", "azureml.contrib")
                yield from ((f"{module}.{alias.name}" if whole else module, node.lineno) for alias in aliases)
            case ast.Try():
                if not any(_catches_import(handler) for handler in node.handlers):
                    yield from _imports(node.body)
                yield from _imports([*node.orelse, *node.finalbody])
            case ast.If():
                if "TYPE_CHECKING" not in ast.unparse(node.test):
                    yield from _imports([*node.body, *node.orelse] if not _is_main(node.test) else node.orelse)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.With() | ast.For() | ast.While():
                yield from _imports(node.body)
            case _:
                pass


def _catches_import(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type else "Exception"
    return any(name in caught for name in ("ImportError", "ModuleNotFoundError", "Exception"))


def _is_main(test: ast.expr) -> bool:
    return "__name__" in ast.unparse(test)


def _missing(path: Path, line: int, package: str) -> Finding:
    message = f"{path.name} line {line} imports what the conda file does not seem to bring: {package}."
    fix = f"Add {package} to the list pip: of conda_file=, or the service fails at its start."
    return Finding("warning", "import-missing", message, fix)


def _check_runtime(there: set[str]) -> Iterator[Finding]:
    """What ``gpu_infer_serving`` itself imports, which every template brings and a conda file of one's own may not."""
    missing = [package for package in _RUNTIME if package not in there]
    if missing:
        message = f"The conda file does not bring what the serving runtime imports: {', '.join(missing)}."
        fix = f"Add {', '.join(missing)} to the list pip: of conda_file=, or the service fails at its start."
        yield Finding("error", "runtime-missing", message, fix)
    if "gevent" not in there:
        message = "The conda file does not bring gevent: each request takes a thread of its own, which costs speed."
        yield Finding("info", "runtime-gevent", message, "Add gevent to the list pip: of conda_file=.")


def _check_tensorflow_1(path: Path, tree: ast.Module, file: CondaFile) -> list[Finding]:
    """Names that TensorFlow 2 has under ``tf.compat.v1`` only."""
    package = file.get("tensorflow", "tensorflow-gpu", "tensorflow-cpu")
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "tensorflow"
    }
    if package is None or package.stays_below("2.0") or not names:
        return []
    used: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            top, _, rest = ast.unparse(node).partition(".")
            if top in names and rest in _TENSORFLOW_1:
                used.setdefault(f"{top}.{rest}", node.lineno)
    if not used:
        return []
    listed = ", ".join(f"{name} (line {line})" for name, line in sorted(used.items(), key=lambda item: item[1]))
    message = f"{path.name} uses names that TensorFlow 2 no longer has: {listed}."
    fix = "Write import tensorflow.compat.v1 as tf; or leave entry_script= out: TensorFlow 1 models are served anyway."
    return [Finding("error", "tensorflow-1", message, fix)]
