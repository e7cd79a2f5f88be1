"""Finds the one model below a folder, or says what it saw instead.

Runs in the container on ``AZUREML_MODEL_DIR`` and before that, in preflight, on the user's own disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional, Sequence, Set, Tuple, Union

from .adapters.base import ModelFormatError
from .model_formats import KNOWN_FORMATS, Flaw, FolderSighting, FoundModel, Sighting, look_at_file, look_at_folder

__all__ = ["AmbiguousModelError", "FoundModel", "ModelNotFoundError", "find_model", "tree"]

MAX_ENTRIES = 20_000
"""A folder with more files and folders than this is no model folder but somebody's disk."""

TREE_LINES = 60
TREE_LINES_PER_FOLDER = 15
_SKIPPED = {"__pycache__", "__MACOSX"}


class ModelNotFoundError(ModelFormatError):
    """There is no model that can be served; the message shows what is there instead."""


class AmbiguousModelError(ModelNotFoundError):
    """There are several models; the message names them and says how to pick one."""


@dataclass
class _Search:
    """What a walk has seen so far."""

    models: List[FoundModel] = field(default_factory=list[FoundModel])
    flaws: List[Flaw] = field(default_factory=list[Flaw])
    folders: Set[Tuple[int, int]] = field(default_factory=set[Tuple[int, int]])
    entries: int = 0

    def add(self, sightings: Sequence[Sighting]) -> None:
        for sighting in sightings:
            if isinstance(sighting, FoundModel):
                self.models.append(sighting)
            else:
                self.flaws.append(sighting)


def find_model(root: Union[str, Path], *, hint: Optional[str] = None) -> FoundModel:
    """Find the model in a file or below a folder.

    Args:
        root: a model file, a model folder, or any folder with one model below it.
        hint: a path relative to root, or its last parts, that picks one of several.

    Raises:
        ModelNotFoundError: none, only half of one, or none that the hint names.
        AmbiguousModelError: several.
    """
    root = Path.cwd() / root
    search, only = _look(root)
    models = _without_twins(search.models)
    if only is not None:
        models = [one for one in models if only in one.aliases]
    if hint and root.is_dir():
        models = _pick(root, models, search.flaws, hint)
    if len(models) == 1:
        return models[0]
    if models:
        raise AmbiguousModelError(_ambiguous(root, models))
    raise ModelNotFoundError(_not_found(root, search.flaws))


def _look(root: Path) -> Tuple[_Search, Optional[Path]]:
    """Search root; where it is one file of several, search its folder and say which file was meant."""
    search = _Search()
    if root.is_dir():
        _walk(root, search)
        return search, None
    folder = root.parent
    if not root.exists() and not Path(f"{root}.meta").exists():
        raise ModelNotFoundError(f"No model found: there is no file or folder {root}.")
    sighting = look_at_file(root) if root.exists() else None
    if sighting is not None:
        search.add([sighting])
        return search, None
    files, folders = _names(folder, search)
    together = look_at_folder(folder, files, folders)
    if root.name in together.names or not root.exists():
        search.add(together.seen)
        return search, root
    return search, None


def _walk(root: Path, search: _Search) -> None:
    """Look at every folder below root once; links are followed, circles are not."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in search.folders:
            continue
        search.folders.add((status.st_dev, status.st_ino))
        files, folders = _names(folder, search)
        if search.entries > MAX_ENTRIES:
            raise ModelNotFoundError(
                f"{root} holds more than {MAX_ENTRIES:,} files and folders, too many to look through. Name the "
                f"model's own file or folder.\n{tree(root)}"
            )
        together = look_at_folder(folder, files, folders)
        search.add(together.seen)
        if together.whole:
            continue
        search.add(_look_at_files(folder, files, together))
        waiting.extend(folder / name for name in reversed(folders))


def _look_at_files(folder: Path, files: Sequence[str], together: FolderSighting) -> List[Sighting]:
    sightings = (look_at_file(folder / name) for name in files if name not in together.names)
    return [sighting for sighting in sightings if sighting is not None]


def _names(folder: Path, search: _Search) -> Tuple[List[str], List[str]]:
    """Names of the files and folders in a folder, links behind what they may point to."""
    files: List[Tuple[bool, str]] = []
    folders: List[Tuple[bool, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                search.entries += 1
                if entry.name.startswith(".") or entry.name in _SKIPPED:
                    continue
                (folders if _is_dir(entry) else files).append((entry.is_symlink(), entry.name))
    except PermissionError:
        search.flaws.append(Flaw(folder, "a folder that cannot be read. Make it readable for this user."))
    return [name for _, name in sorted(files)], [name for _, name in sorted(folders)]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _without_twins(models: Sequence[FoundModel]) -> List[FoundModel]:
    """Drop a model that was only reached a second time, through a link to the same file."""
    kept: List[FoundModel] = []
    seen: Set[Tuple[str, Path]] = set()
    for one in sorted(models, key=lambda one: (one.path.is_symlink(), not one.path.suffix)):
        key = (one.format, Path(os.path.realpath(one.path)))
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return sorted(kept, key=lambda one: one.path)


def _pick(root: Path, models: Sequence[FoundModel], flaws: Sequence[Flaw], hint: str) -> List[FoundModel]:
    """The models that a hint names: by their full path, else by its last parts, else as the folder around them."""
    parts = Path(hint).parts
    exact = Path(os.path.realpath(root / hint))
    named = [one for one in models if exact in {Path(os.path.realpath(alias)) for alias in one.aliases}]
    if not named:
        named = [one for one in models if any(alias.parts[-len(parts) :] == parts for alias in one.aliases)]
    if not named:
        named = [one for one in models if _has_run(one.path.parts[len(root.parts) - 1 :], parts)]
    if named:
        return named
    mine = [flaw for flaw in flaws if _has_run(flaw.path.parts, parts)]
    if mine:
        raise ModelNotFoundError(_not_found(root, mine))
    listing = "\n".join(f"  {_relative(root, one.path)}" for one in models) or "  none"
    raise ModelNotFoundError(
        f"GPU_INFER_MODEL_PATH is {hint!r}, and no model below {root} has that path. Models there:\n{listing}\n"
        f"{tree(root)}"
    )


def _has_run(parts: Sequence[str], run: Sequence[str]) -> bool:
    """Whether ``run`` stands in ``parts``, in one piece."""
    return any(tuple(parts[i : i + len(run)]) == tuple(run) for i in range(len(parts) - len(run) + 1))


def _relative(root: Path, path: Path) -> str:
    return path.name if path == root or root not in path.parents else path.relative_to(root).as_posix()


def _ambiguous(root: Path, models: Sequence[FoundModel]) -> str:
    listing = "\n".join(f"  {_relative(root, one.path)}   ({one.format})" for one in models[:TREE_LINES])
    return (
        f"{len(models)} models lie below {root}, and one is served:\n{listing}\n"
        f"Pick one with the environment variable GPU_INFER_MODEL_PATH={_relative(root, models[0].path)} "
        "(deploy(..., environment_variables={...})), or give the path of that model alone."
    )


def _not_found(root: Path, flaws: Sequence[Flaw]) -> str:
    reasons = "".join(f"\n{_relative(root, flaw.path)} is not served. It is {flaw.message}" for flaw in flaws[:10])
    if len(flaws) > 10:
        reasons += f"\n... and {len(flaws) - 10} more files like these."
    if root.is_dir() and not any(root.iterdir()):
        reasons += "\nThe folder is empty: the model was not downloaded, or the wrong folder was registered."
    return f"No model found in {root}.{reasons}\nWhat is there:\n{tree(root)}\nWhat can be served:\n{KNOWN_FORMATS}"


def tree(root: Path, *, limit: int = TREE_LINES) -> str:
    """What lies below a path, one entry per line with its size, at most ``limit`` lines."""
    lines = [f"{root}{'/' if root.is_dir() else _size(root)}"]
    if root.is_dir():
        _grow(root, "  ", lines, limit, {os.path.realpath(root)})
    if len(lines) > limit:
        lines[limit:] = ["  ..."]
    return "\n".join(lines)


def _grow(folder: Path, indent: str, lines: List[str], limit: int, above: Set[str]) -> None:
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        lines.append(f"{indent}({error.strerror})")
        return
    for count, child in enumerate(children):
        if len(lines) > limit:
            return
        if count == TREE_LINES_PER_FOLDER:
            lines.append(f"{indent}... and {len(children) - count:,} more")
            return
        target = f" -> {child.readlink()}" if child.is_symlink() else ""
        real = os.path.realpath(child)
        if not child.is_dir():
            lines.append(f"{indent}{child.name}{target}{_size(child)}")
        else:
            lines.append(f"{indent}{child.name}/{target}")
            if real not in above:
                _grow(child, indent + "  ", lines, limit, above | {real})


def _size(path: Path) -> str:
    try:
        return f"  {path.stat().st_size:,} bytes"
    except OSError:
        return "  (cannot be read)"
