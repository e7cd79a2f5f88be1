"""Which model format a file or folder is, told by content. Opens no pickle and imports no framework."""

from __future__ import annotations

import glob
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, FrozenSet, List, Optional, Sequence, Set, Tuple, Union

FRAMEWORKS = {
    "tf_savedmodel": "tensorflow",
    "tf1_checkpoint": "tensorflow",
    "keras": "tensorflow",
    "torchscript": "torch",
    "torch_export": "torch",
    "onnx": "onnxruntime",
}

KNOWN_FORMATS = """\
  TensorFlow SavedModel     a folder with saved_model.pb and variables/   tf.saved_model.save(), model.export()
  TensorFlow 1 checkpoint   X.meta, X.index, X.data-00000-of-00001        tf.train.Saver().save()
  Keras 3                   X.keras                                       model.save("X.keras")
  TorchScript               X.pt                                          torch.jit.script() or .trace(), then .save()
  torch.export              X.pt2                                         torch.export.save()
  ONNX                      X.onnx                                        torch.onnx.export(), tf2onnx, ..."""

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")

TORCH_EXPORT_ADVICE = (
    'Export it where its class is defined: torch.jit.trace(model.eval(), example).save("model.pt") or '
    'torch.jit.script(model.eval()).save("model.pt"), or '
    'torch.export.save(torch.export.export(model.eval(), (example,)), "model.pt2").'
)

_SHARD = re.compile(r"^(?P<prefix>.+)\.data-\d{5}-of-(?P<count>\d{5})$")
_GIT_LFS = b"version https://git-lfs"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MODEL_SUFFIXES = {".onnx", ".keras", ".pt", ".pth", ".ts", ".pt2", ".pb"}

_NOT_OPENED = "no TorchScript or torch.export archive, but a pickle or unknown bytes, so it is never opened. "
_OLD_KERAS = (
    "a Keras model in the old HDF5 format. Load it once with tf.keras.models.load_model() and save it with "
    'model.save("model.keras"), or as a SavedModel with model.export("folder").'
)
_FLAWS_BY_SUFFIX = {
    ".safetensors": f"weights without a network (safetensors). {TORCH_EXPORT_ADVICE}",
    ".tflite": "a TensorFlow Lite model, made for phones: serve the SavedModel that it was converted from.",
    **dict.fromkeys(
        (".engine", ".plan", ".trt"),
        "a TensorRT engine, built for one GPU and one version: serve the ONNX file that it was built from.",
    ),
    ".pb": "a frozen TensorFlow graph (GraphDef), which does not say what goes in and out. Write it as a SavedModel: "
    "tf.compat.v1.saved_model.simple_save(session, folder, inputs={...}, outputs={...}).",
    **dict.fromkeys((".pt", ".pth"), _NOT_OPENED + TORCH_EXPORT_ADVICE),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _NOT_OPENED + "Convert it to ONNX (skl2onnx, hummingbird)."),
    **dict.fromkeys(
        (".keras", ".ts", ".pt2"), "no archive, as its name says: damaged or another format. Save the model again."
    ),
    ".weights.h5": 'Keras weights without a network: save the whole model, model.save("model.keras").',
    **dict.fromkeys((".h5", ".hdf5"), _OLD_KERAS),
}

# Wire type of each field of ONNX's ModelProto; a file that has others is another kind of protobuf.
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH, _ONNX_OPSET = 7, 8


@dataclass(frozen=True)
class FoundModel:
    """A model that can be served.

    Args:
        format: a key of ``FRAMEWORKS``.
        path: the file; the folder of a SavedModel; the prefix of a TF1 checkpoint (``X`` of ``X.meta``).
        framework: ``tensorflow``, ``torch`` or ``onnxruntime``.
    """

    format: str
    path: Path
    framework: str

    @property
    def aliases(self) -> Tuple[Path, ...]:
        """All paths by which a user may name this model."""
        if self.format == "tf_savedmodel":
            return (self.path, *(self.path / name for name in SAVED_MODEL_FILES))
        if self.format == "tf1_checkpoint":
            parts = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.*"))
            return (
                self.path,
                *(part for part in parts if part.suffix in {".meta", ".index"} or _SHARD.match(part.name)),
            )
        return (self.path,)


@dataclass(frozen=True)
class Flaw:
    """Something that looks like a model and cannot be served; ``message`` says why and what to do."""

    path: Path
    message: str


Sighting = Union[FoundModel, Flaw]


@dataclass(frozen=True)
class FolderSighting:
    """What the files of one folder are together.

    Args:
        seen: models and flaws.
        names: the files that they account for.
        whole: the folder is the model; nothing below it is looked at.
    """

    seen: Tuple[Sighting, ...] = ()
    names: FrozenSet[str] = frozenset()
    whole: bool = False


def model(kind: str, path: Path) -> FoundModel:
    """A ``FoundModel`` with the framework of its format."""
    return FoundModel(kind, path, FRAMEWORKS[kind])


def look_at_folder(folder: Path, files: Sequence[str], folders: Sequence[str]) -> FolderSighting:
    """Recognise the formats that are several files: SavedModel and TF1 checkpoint.

    Args:
        folder: where they lie.
        files: names of the files in it.
        folders: names of the folders in it.
    """
    for name in SAVED_MODEL_FILES:
        if name in files:
            flaw = _saved_model_flaw(folder, name, folders)
            return FolderSighting((flaw or model("tf_savedmodel", folder),), frozenset(files), whole=True)
    return _look_for_checkpoints(folder, files)


def _saved_model_flaw(folder: Path, name: str, folders: Sequence[str]) -> Optional[Flaw]:
    """What is missing of a SavedModel, ``None`` where nothing is."""
    head = _head(folder / name)
    if head is None or not head or head.startswith(_GIT_LFS):
        return _unreadable(folder / name, head)
    variables = folder / "variables"
    found = sorted(path.name for path in variables.glob("variables.*")) if "variables" in folders else []
    # Every SavedModel that needs its variables folder restores it by an op of this name; one of constants has none.
    if not found and not _contains(folder / name, b"RestoreV2"):
        return None
    missing = [] if "variables.index" in found else ["variables.index"]
    missing += _missing_shards("variables", found) or []
    if not missing:
        return None
    return Flaw(
        folder,
        f"a SavedModel without {', '.join(f'variables/{part}' for part in missing)}: its weights are missing. Copy or "
        "register the whole folder (saved_model.pb and variables/), not the file alone.",
    )


def _look_for_checkpoints(folder: Path, files: Sequence[str]) -> FolderSighting:
    """TF1 checkpoints: ``X.meta`` (the graph), ``X.index`` and ``X.data-*`` (the weights)."""
    prefixes = {name[: -len(".index")] for name in files if name.endswith(".index")}
    metas = {name[: -len(".meta")] for name in files if name.endswith(".meta")}
    shards = {match["prefix"] for match in map(_SHARD.match, files) if match}
    seen = [
        _checkpoint(folder, prefix, files, has_meta=prefix in metas, has_index=prefix in prefixes)
        for prefix in sorted(prefixes | shards)
    ]
    seen += [_bare_graph(folder / f"{prefix}.meta") for prefix in sorted(metas - prefixes - shards)]
    latest = _latest(folder, files)
    models = [one for one in seen if isinstance(one, FoundModel)]
    if len(models) > 1 and any(one.path.name == latest for one in models):
        # The file `checkpoint` is TensorFlow's own word on which of several is the current one.
        seen = [one for one in models if one.path.name == latest]
    parts = prefixes | metas | shards
    names = {name for name in files if any(name.startswith(f"{prefix}.") for prefix in parts)}
    return FolderSighting(tuple(seen), frozenset(names | ({"checkpoint"} if parts else set())))


def _checkpoint(folder: Path, prefix: str, files: Sequence[str], *, has_meta: bool, has_index: bool) -> Sighting:
    if not has_meta:
        return Flaw(
            folder / f"{prefix}.index",
            "a TensorFlow checkpoint without a graph: there is no X.meta, so these are weights without a network. Save "
            "the model as a SavedModel (tf.saved_model.save(model, folder), model.export(folder)); a TensorFlow 1 "
            "Saver writes X.meta unless write_meta_graph=False.",
        )
    missing = ([] if has_index else [f"{prefix}.index"]) + _missing_shards(prefix, files)
    if missing:
        return Flaw(
            folder / f"{prefix}.meta",
            f"a TensorFlow 1 checkpoint without {', '.join(missing)}: copy or register all of its files.",
        )
    return model("tf1_checkpoint", folder / prefix)


def _bare_graph(path: Path) -> Sighting:
    return Flaw(
        path,
        "a TensorFlow 1 graph without its weights: X.index and X.data-* must lie beside X.meta. (Checkpoints older "
        "than TensorFlow 0.12 are one file without .index: restore one and save it again.)",
    )


def _missing_shards(prefix: str, names: Sequence[str]) -> List[str]:
    """The data files that a checkpoint lacks."""
    counts = {int(m["count"]) for m in map(_SHARD.match, names) if m and m["prefix"] == prefix}
    count = max(counts, default=1)
    wanted = [f"{prefix}.data-{i:05}-of-{count:05}" for i in range(count)]
    return [name for name in wanted if name not in names]


def _latest(folder: Path, files: Sequence[str]) -> Optional[str]:
    if "checkpoint" not in files:
        return None
    text = (_head(folder / "checkpoint", 4096) or b"").decode("utf-8", "replace")
    match = re.search(r'^model_checkpoint_path:\s*"([^"]*)"', text, re.MULTILINE)
    return re.split(r"[/\\]", match[1])[-1] if match else None


def look_at_file(path: Path) -> Optional[Sighting]:
    """Recognise the formats that are one file; ``None`` for a file that is no model."""
    head = _head(path)
    if head is None:
        return _unreadable(path, head)
    looks = (
        look(path, head) for look in (_look_for_emptiness, _look_at_zip, _look_at_onnx, _look_at_pickle, _look_by_name)
    )
    return next((sighting for sighting in looks if sighting is not None), None)


def _look_for_emptiness(path: Path, head: bytes) -> Optional[Sighting]:
    if path.suffix.lower() in _MODEL_SUFFIXES and (not head or head.startswith(_GIT_LFS)):
        return _unreadable(path, head)
    return None


def _look_at_zip(path: Path, head: bytes) -> Optional[Sighting]:
    if not head.startswith(b"PK\x03\x04"):
        return None
    suffix = path.suffix.lower()
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        broken = "an archive that is damaged or cut off. Copy or save it again."
        return Flaw(path, broken) if suffix in _MODEL_SUFFIXES else None
    inner = {name.partition("/")[2] for name in names}
    sighting: Optional[Sighting] = None
    if {"config.json", "metadata.json"} <= names and any(name.endswith(".weights.h5") for name in names):
        sighting = model("keras", path)
        if suffix != ".keras":
            text = f"a Keras model under another name, which Keras refuses: rename it to {path.stem}.keras."
            sighting = Flaw(path, text)
    elif "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        sighting = model("torchscript", path)
    elif any(re.match(r"models/[^/]+\.json$", name) for name in inner) or "serialized_exported_program.json" in names:
        sighting = model("torch_export", path)
    elif any(name.startswith("data/aotinductor/") for name in inner):
        sighting = Flaw(path, f"an AOTInductor package, built for one machine. {TORCH_EXPORT_ADVICE}")
    elif "data.pkl" in inner:
        sighting = _pickle_flaw(path)
    elif suffix in _MODEL_SUFFIXES - {".pb", ".onnx"}:
        text = f"an archive, but no model of the format that {suffix} stands for. Save the model again."
        sighting = Flaw(path, text)
    return sighting


def _look_at_onnx(path: Path, head: bytes) -> Optional[Sighting]:
    if head[:1] == b"\x08" and _is_onnx(path):
        return model("onnx", path)
    if path.suffix.lower() == ".onnx":
        return Flaw(path, "named .onnx, but no complete ONNX model: damaged or cut off. Copy or export it again.")
    return None


def _look_at_pickle(path: Path, head: bytes) -> Optional[Sighting]:
    is_torch = path.suffix.lower() in {".pt", ".pth", ".bin", ".ckpt"}
    return _pickle_flaw(path) if head.startswith(_TORCH_LEGACY) or (head[:1] == b"\x80" and is_torch) else None


def _pickle_flaw(path: Path) -> Flaw:
    return Flaw(
        path,
        "a pickled PyTorch file (a state_dict or a whole module): it cannot run without its Python class, and "
        f"unpickling runs whatever code it holds, so it is never opened. {TORCH_EXPORT_ADVICE}",
    )


def _look_by_name(path: Path, head: bytes) -> Optional[Sighting]:
    """Files that are models elsewhere."""
    suffix = path.suffix.lower()
    if suffix == ".pb" and head[:1] != b"\x0a":  # a protobuf of another kind
        return None
    if path.name.lower().endswith(".weights.h5"):
        suffix = ".weights.h5"
    elif suffix == ".keras" and head.startswith(_HDF5):
        suffix = ".h5"
    message = _FLAWS_BY_SUFFIX.get(suffix)
    return None if message is None else Flaw(path, message)


def _unreadable(path: Path, head: Optional[bytes]) -> Flaw:
    if head is None:
        return Flaw(path, "cannot be read: its permissions, or a link to nowhere. Make it readable for this user.")
    if not head:
        return Flaw(path, "an empty file. Copy or save it again.")
    return Flaw(path, "a Git LFS pointer, not the file itself. Run `git lfs pull`, then register or deploy again.")


def _head(path: Path, size: int = 64) -> Optional[bytes]:
    """The first bytes of a file, ``None`` where it cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return None
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError:
        return None


def _contains(path: Path, needle: bytes) -> bool:
    """Whether a file holds the bytes anywhere; read in pieces, since a graph may be gigabytes."""
    tail = b""
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            if needle in tail + piece:
                return True
            tail = piece[-len(needle) :]
    return False


def _is_onnx(path: Path) -> bool:
    """Whether a file is a complete ONNX ``ModelProto``: walks its top-level fields without reading their contents."""
    size = path.stat().st_size
    fields: Set[int] = set()
    with path.open("rb") as stream:
        while stream.tell() < size:
            key = _varint(stream)
            if key is None or _ONNX_FIELDS.get(key >> 3) != key & 7:
                return False
            fields.add(key >> 3)
            value = _varint(stream)
            if value is None:
                return False
            if key & 7 == 2:
                stream.seek(value, 1)
        complete = stream.tell() == size
    return complete and {1, _ONNX_GRAPH, _ONNX_OPSET} <= fields


def _varint(stream: BinaryIO) -> Optional[int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
