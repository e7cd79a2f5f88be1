"""``gpu-infer init``: a folder with what one edits to deploy a model of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gpu_infer.bundle import load_template

__all__ = ["Written", "write_project"]

_PURPOSES = {
    "hooks.py": "what runs before and behind the model",
    "deploy.py": "deploys a model with them, scores a file, tears down",
    "conda.yml": "what the container on Azure holds",
}


@dataclass(frozen=True)
class Written:
    """A file that was written, and what it is for."""

    path: Path
    purpose: str


def write_project(folder: Path, *, template: str, overwrite: bool) -> list[Written]:
    """Write the files.

    Args:
        folder: made where it does not exist.
        template: whose conda file: ``tensorflow``, ``torch`` or ``onnx``.
        overwrite: replace files that are there.

    Raises:
        ValueError: there is no such template.
        FileExistsError: a file is there, and ``overwrite`` is not given; nothing was written.
    """
    source = resources.files("gpu_infer") / "templates" / "project"
    texts = {name: (source / name).read_text("utf-8") for name in ("hooks.py", "deploy.py")}
    texts["conda.yml"] = load_template(template).conda
    present = [name for name in texts if (folder / name).exists()]
    if present and not overwrite:
        raise FileExistsError(f"{folder} has {', '.join(present)} already; --overwrite replaces what is there.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [Written(folder / name, _PURPOSES[name]) for name in texts]
