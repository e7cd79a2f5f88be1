"""The folder that runs in the container: ``score.py``, ``gpu_infer_serving/``, ``conda.yml``, ``gpu_infer.json``.

It is the same on every target and is named by a hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from gpu_infer._version import __version__
from gpu_infer.serving.hooks import split_file_hook
from gpu_infer.serving.labels import LABELS_FILE, check_labels, read_labels
from gpu_infer.sources import local_imports
from gpu_infer.spec import Batching, ServiceSpec

__all__ = [
    "APP_ROOT",
    "TEMPLATES",
    "Bundle",
    "Template",
    "azure_environment",
    "bare_template",
    "build_bundle",
    "bundle_arguments",
    "hook_files",
    "labels_in",
    "load_template",
    "model_files",
    "requests_at_once",
]

TEMPLATES = ("tensorflow", "torch", "onnx")
FRAMEWORK_TEMPLATES = {"tensorflow": "tensorflow", "torch": "torch", "onnxruntime": "onnx"}

SETTINGS_FILE = "gpu_infer.json"

BUNDLE_FILES = ("score.py", "gpu_infer_serving", "conda.yml", SETTINGS_FILE, "config.json")
"""Names that no file of the user's may have; ``config.json`` the stock server would read as its own."""

GUNICORN = (
    "--worker-class gpu_infer_serving._gunicorn_worker.Worker "
    "--logger-class gpu_infer_serving._gunicorn_worker.QuietLogger "
    "--worker-connections 1000 --threads 160 --keep-alive 75"
)
"""For gunicorn: see ``serving/_gunicorn_worker.py``. The threads are for an image without gevent."""

APP_ROOT = "/var/azureml-app"
"""Where a container of Azure ML has the source folder; ``DOCKER_IMAGE_APP_ROOT_DIR`` of azureml-core."""

_NEVER_MS = 24 * 3600 * 1000
"""The stock server's time-out is an alarm signal, one for all requests of a process. Ours has deadlines."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a framework needs in the container: the data of ``templates/<name>/``.

    Args:
        name: ``tensorflow``, ``torch`` or ``onnx``.
        conda: text of the conda file.
        base_image: GPU image that it goes on.
        extra: the extra of this package that installs the same on a laptop.
        import_name: the module to look for.
    """

    name: str
    conda: str
    base_image: str
    extra: str
    import_name: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A built bundle.

    Args:
        folder: where it lies.
        digest: hash of its content, 12 hex digits, also the end of the folder's name.
        environment: variables that the container must have.
    """

    folder: Path
    digest: str
    environment: Mapping[str, str]


def load_template(name: str) -> Template:
    """Read a template.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TEMPLATES:
        msg = f"There is no template {name!r}; there are {', '.join(TEMPLATES)}."
        raise ValueError(msg)
    folder = resources.files("gpu_infer") / "templates" / name
    defaults: dict[str, Any] = json.loads((folder / "defaults.json").read_text("utf-8"))
    conda = (folder / "conda.yml").read_text("utf-8")
    return Template(name, conda, defaults["base_image"], defaults["extra"], defaults["import_name"])


def bare_template() -> Template:
    """What an entry script with a conda file of its own runs on: the image of all templates, and nothing else of them.

    Without a base image the SDK would leave the choice to Azure, and what that takes has no CUDA.
    """
    return replace(load_template(TEMPLATES[0]), name="", conda="")


def hook_files(hook: str) -> list[tuple[Path, str]]:
    """The files that a hook names, each with its function (empty for the default one)."""
    pieces = (piece.strip() for piece in hook.split("|"))
    return [(Path(path), function) for path, function in map(split_file_hook, pieces) if path]


def build_bundle(spec: ServiceSpec, parent: Path, *, template: Template) -> Bundle:
    """Write the bundle of a service into a new folder below ``parent``.

    Args:
        spec: what to serve; its hooks, entry script and conda file must exist.
        parent: an existing folder.
        template: of the model's framework.
    """
    building = parent / "bundle-building"
    building.mkdir()
    if spec.entry_script is not None:
        _copy_script(spec.entry_script, building, name="score.py")
    else:
        _copy_serving(building)
    settings = spec.runtime_settings()
    for role, hook in (("preprocess", spec.preprocess), ("postprocess", spec.postprocess)):
        for path, _ in hook_files(hook):
            _copy_script(path, building, name=path.name)
        if hook:
            settings[role] = "|".join(_by_name(piece.strip()) for piece in hook.split("|"))
    if spec.labels is not None:
        (building / LABELS_FILE).write_text("\n".join(labels_in(spec.labels)) + "\n", "utf-8")
        settings["labels"] = LABELS_FILE
    conda = spec.conda_file.read_text("utf-8") if spec.conda_file else template.conda
    (building / "conda.yml").write_text(conda, "utf-8")
    environment = container_environment(spec)
    content = {"version": __version__, "template": template.name, "settings": settings, "environment": environment}
    (building / SETTINGS_FILE).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    digest = _digest(building)
    folder = building.rename(parent / f"gpu-infer-{digest}")
    return Bundle(folder, digest, environment)


def bundle_arguments(folder: Path) -> dict[str, Any]:
    """What ``deploy()`` is given to build a bundle anew; what stands for the container alone is left out.

    Args:
        folder: of the bundle; hooks, labels and conda file are taken from there.

    Raises:
        ValueError: it is no bundle.
    """
    try:
        content: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
        settings: dict[str, Any] = content["settings"]
        known = {name: settings[name] for name in ("max_batch", "max_queue")}
        found: dict[str, Any] = {"batching": Batching(**known, enabled=settings["batching"])}
    except (OSError, LookupError, TypeError, ValueError) as error:
        message = f"{folder} is no bundle of this library: {error}"
        raise ValueError(message) from error
    template: str = content.get("template") or ""
    if template:
        found["template"] = template
    conda = folder / "conda.yml"
    if template not in TEMPLATES or conda.read_text("utf-8") != load_template(template).conda:
        found["conda_file"] = conda
    for role in ("preprocess", "postprocess"):
        if settings.get(role):
            found[role] = "|".join(_from_folder(piece.strip(), folder) for piece in settings[role].split("|"))
    if settings.get("output"):
        found["output"] = settings["output"]
    if settings.get("labels"):
        found["labels"] = folder / settings["labels"]
    return found


def labels_in(given: Path | tuple[str, ...]) -> tuple[str, ...]:
    """The labels of a spec, checked.

    Raises:
        LabelsError: they cannot be used; it says why.
    """
    if isinstance(given, Path):
        return read_labels(given)
    return check_labels([label.strip() for label in given], where="labels=")


def model_files(path: Path) -> list[Path]:
    """A model file and what belongs to it: a checkpoint's parts, an ONNX file's external data; a folder is itself."""
    if path.is_dir():
        return [path]
    models = {".onnx", ".pt", ".pth", ".ts", ".pt2", ".keras", ".h5", ".meta"}
    parts = (other for other in path.parent.glob("*") if other.name.startswith((f"{path.stem}.", f"{path.name}_")))
    return [path, *sorted(part for part in parts if part != path and part.is_file() and part.suffix not in models)]


def container_environment(spec: ServiceSpec) -> dict[str, str]:
    """The variables that the stock server and the runtime read, the user's own last, so that they win.

    The stock server starts gunicorn with synchronous workers, which hold one request at a time. ``GUNICORN_CMD_ARGS``
    makes ours hold many, so that they can share a batch, and leaves out a line of log for each. A user's script keeps
    the stock behaviour: it may not be safe under threads.
    """
    ours = {"GUNICORN_CMD_ARGS": GUNICORN, "SCORING_TIMEOUT_MS": str(_NEVER_MS)}
    stock = {"SCORING_TIMEOUT_MS": str(round(spec.timeout * 1000))}
    return {
        "WORKER_COUNT": str(spec.scale.workers),
        **(stock if spec.entry_script else ours),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        **spec.environment_variables,
    }


def azure_environment(bundle: Bundle) -> dict[str, str]:
    """The variables of a bundle in a container of Azure ML.

    Gunicorn is told a class of the bundle's by name, and looks for it before the server has put it on the path.
    """
    arguments = bundle.environment.get("GUNICORN_CMD_ARGS", "")
    if "gpu_infer_serving" not in arguments or "--pythonpath" in arguments:
        return dict(bundle.environment)
    path = f"{APP_ROOT}/{bundle.folder.name},{APP_ROOT}"
    return {**bundle.environment, "GUNICORN_CMD_ARGS": f"{arguments} --pythonpath {path}"}


def requests_at_once(spec: ServiceSpec) -> int:
    """Requests that a router may send to one replica at once.

    Azure's default of 1 suits the stock server's one thread. Ours makes batches of what comes together, so it gets two
    batches per worker: one on the device, one that fills meanwhile.
    """
    if spec.entry_script is not None:
        return spec.scale.workers
    return spec.scale.workers * (2 * spec.batching.max_batch if spec.batching.enabled else 8)


def _by_name(piece: str) -> str:
    """A step as the bundle names it: files by their name alone, since they lie beside score.py there."""
    path, function = split_file_hook(piece)
    if not path:
        return piece
    return Path(path).name + (f":{function}" if function else "")


def _from_folder(piece: str, folder: Path) -> str:
    """A step of a bundle as ``deploy()`` takes it: files by where they lie."""
    path, function = split_file_hook(piece)
    if not path:
        return piece
    return str(folder / path) + (f":{function}" if function else "")


def _copy_serving(folder: Path) -> None:
    with resources.as_file(resources.files("gpu_infer") / "serving") as serving:
        shutil.copytree(
            serving, folder / "gpu_infer_serving", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "score.py")
        )
        shutil.copyfile(serving / "score.py", folder / "score.py")


def _copy_script(path: Path, folder: Path, *, name: str) -> None:
    """Copy a user's script and the files beside it that it imports."""
    shutil.copyfile(path, folder / name)
    for other in local_imports(path):
        if other.is_dir():
            shutil.copytree(
                other, folder / other.name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        else:
            shutil.copyfile(other, folder / other.name)


def _digest(folder: Path) -> str:
    """Hash of names and contents, the same wherever and whenever the folder is built."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
