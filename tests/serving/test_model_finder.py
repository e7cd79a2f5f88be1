"""The model finder on real models, on folders as Azure ML lays them out, and on halves of models."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpu_infer.serving import model_finder
from gpu_infer.serving.adapters.base import ModelFormatError
from gpu_infer.serving.model_finder import AmbiguousModelError, ModelNotFoundError, find_model, tree

ONNX = b"\x08\x08" + b"\x3a\x03abc" + b"\x42\x02\x10\x11"
"""The top level of an ONNX file: ir_version, a graph, an opset."""


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def archive(path: Path, *names: str) -> Path:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return put(path, stream.getvalue())


def saved_model(folder: Path) -> Path:
    put(folder / "saved_model.pb", b"\x08\x01 save/RestoreV2 ")
    put(folder / "variables" / "variables.index")
    put(folder / "variables" / "variables.data-00000-of-00001")
    return folder


def checkpoint(prefix: Path) -> Path:
    for ending in (".meta", ".index", ".data-00000-of-00001"):
        put(Path(f"{prefix}{ending}"))
    return prefix


def torchscript(path: Path) -> Path:
    return archive(path, "m/data.pkl", "m/constants.pkl", "m/code/__torch__.py")


def message(root: Path, hint: str | None = None) -> str:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(root, hint=hint)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "framework"),
    [
        ("efficientnet_lite0_jpg_savedmodel", "tf_savedmodel", "tensorflow"),
        ("mnist_savedmodel", "tf_savedmodel", "tensorflow"),
        ("tf-dnn-mnist", "tf1_checkpoint", "tensorflow"),
        ("efficientnet_lite0.onnx", "onnx", "onnxruntime"),
        ("efficientnet_lite0.pt", "torchscript", "torch"),
    ],
)
def test_real_models(shared_models: Path, tmp_path: Path, name: str, kind: str, framework: str) -> None:
    found = find_model(shared_models / name)
    assert (found.format, found.framework) == (kind, framework)
    deep = tmp_path / "resnet50" / "3"
    deep.mkdir(parents=True)
    (deep / name).symlink_to(shared_models / name)
    below = find_model(tmp_path)
    assert (below.format, below.path.relative_to(deep).parts[0]) == (kind, name)


def test_a_saved_model_is_not_looked_into(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "m")
    put(folder / "assets" / "other.onnx", ONNX)
    put(folder / "assets.extra" / "tf_serving_warmup_requests")
    assert find_model(tmp_path).path == folder


def test_a_saved_model_by_its_file(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "m")
    assert find_model(folder / "saved_model.pb").path == folder
    assert find_model(tmp_path, hint="m/saved_model.pb").path == folder


def test_a_saved_model_of_constants_needs_no_variables(tmp_path: Path) -> None:
    put(tmp_path / "m" / "saved_model.pb", b"\x08\x01 Const ")
    assert find_model(tmp_path).format == "tf_savedmodel"


@pytest.mark.parametrize("ending", ["", ".meta", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_by_any_of_its_files(tmp_path: Path, ending: str) -> None:
    prefix = checkpoint(tmp_path / "mnist-tf.model")
    checkpoint(tmp_path / "other")
    assert find_model(Path(f"{prefix}{ending}")).path == prefix


def test_the_file_checkpoint_says_which_of_several(tmp_path: Path) -> None:
    for step in (100, 2000):
        checkpoint(tmp_path / f"model.ckpt-{step}")
    assert "2 models lie below" in message(tmp_path)
    put(
        tmp_path / "checkpoint", b'model_checkpoint_path: "/home/me/model.ckpt-2000"\nall_model_checkpoint_paths: "x"\n'
    )
    assert find_model(tmp_path).path == tmp_path / "model.ckpt-2000"


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    assert find_model(torchscript(tmp_path / "a" / "model.bin")).format == "torchscript"
    assert find_model(put(tmp_path / "b" / "model", ONNX)).format == "onnx"
    assert (
        find_model(archive(tmp_path / "c" / "m.zip", "m/archive_format", "m/models/model.json")).format
        == "torch_export"
    )
    keras = archive(tmp_path / "d" / "m.keras", "config.json", "metadata.json", "model.weights.h5")
    assert find_model(keras).format == "keras"


def test_several_models_are_listed(tmp_path: Path) -> None:
    torchscript(tmp_path / "a" / "1" / "model.pt")
    put(tmp_path / "b" / "2" / "model.onnx", ONNX)
    with pytest.raises(AmbiguousModelError) as caught:
        find_model(tmp_path)
    text = str(caught.value)
    assert "2 models lie below" in text
    assert "a/1/model.pt   (torchscript)" in text
    assert "b/2/model.onnx   (onnx)" in text
    assert "GPU_INFER_MODEL_PATH=a/1/model.pt" in text


@pytest.mark.parametrize("hint", ["b/2/model.onnx", "2/model.onnx", "model.onnx", "b", "b/2", "root/b"])
def test_a_hint_picks_one(tmp_path: Path, hint: str) -> None:
    root = tmp_path / "root"
    torchscript(root / "a" / "1" / "model.pt")
    wanted = put(root / "b" / "2" / "model.onnx", ONNX)
    assert find_model(root, hint=hint).path == wanted


def test_a_hint_that_names_nothing(tmp_path: Path) -> None:
    torchscript(tmp_path / "a" / "model.pt")
    text = message(tmp_path, hint="c.onnx")
    assert "GPU_INFER_MODEL_PATH is 'c.onnx', and no model below" in text
    assert "  a/model.pt" in text


def test_a_hint_that_names_half_a_model(tmp_path: Path) -> None:
    torchscript(tmp_path / "a" / "model.pt")
    put(tmp_path / "b" / "model.h5", b"\x89HDF\r\n\x1a\n")
    assert "old HDF5 format" in message(tmp_path, hint="b/model.h5")


def test_nothing_found_shows_the_tree_and_the_formats(tmp_path: Path) -> None:
    put(tmp_path / "resnet50" / "notes.txt", b"12345")
    text = message(tmp_path)
    assert f"No model found in {tmp_path}." in text
    assert "  resnet50/\n    notes.txt  5 bytes" in text
    assert "What can be served:\n  TensorFlow SavedModel" in text
    assert issubclass(ModelNotFoundError, ModelFormatError)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "The folder is empty: the model was not downloaded" in message(tmp_path)


def test_no_such_path(tmp_path: Path) -> None:
    assert "there is no file or folder" in message(tmp_path / "none")


def test_the_tree_is_cut(tmp_path: Path) -> None:
    for folder in range(20):
        for file in range(40):
            put(tmp_path / f"{folder:02}" / f"{file:02}.txt")
    lines = tree(tmp_path).splitlines()
    assert len(lines) == 61
    assert lines[-1] == "  ..."
    assert "    ... and 25 more" in lines


HALVES = [
    ("m.index", b"x", "a TensorFlow checkpoint without a graph: there is no X.meta"),
    ("m.meta", b"x", "a TensorFlow 1 graph without its weights"),
    ("model.h5", b"\x89HDF\r\n\x1a\n", "old HDF5 format"),
    ("model.keras", b"\x89HDF\r\n\x1a\n", "old HDF5 format"),
    ("model.weights.h5", b"\x89HDF\r\n\x1a\n", "Keras weights without a network"),
    ("frozen.pb", b"\x0a\x10", "frozen TensorFlow graph"),
    ("model.safetensors", b"x", "weights without a network (safetensors)"),
    ("model.tflite", b"x", "TensorFlow Lite"),
    ("model.plan", b"x", "TensorRT engine"),
    ("model.pt", b"\x80\x02}q\x00.", "never opened"),
    ("model.pth", b"unknown", "never opened"),
    ("model.pkl", b"\x80\x04}.", "never opened"),
    ("model.onnx", ONNX[:-1], "damaged or cut off"),
    ("model.onnx", b"", "an empty file"),
    ("model.pt", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("model.pt", b"PK\x03\x04 and no more", "damaged or cut off"),
    (
        "saved_model.pb",
        b"\x08\x01 RestoreV2",
        "without variables/variables.index, variables/variables.data-00000-of-00001",
    ),
    ("saved_model.pb", b"", "an empty file"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), HALVES)
def test_halves_get_their_own_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    put(tmp_path / "1" / name, content)
    assert sentence in message(tmp_path)
    assert sentence in message(tmp_path / "1")


def test_a_shard_is_missing(tmp_path: Path) -> None:
    for ending in (".meta", ".index", ".data-00001-of-00002"):
        put(tmp_path / f"m{ending}")
    assert "without m.data-00000-of-00002" in message(tmp_path)


def test_a_pickled_state_dict_is_not_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    archive(tmp_path / "zip.pt", "zip/data.pkl", "zip/version")
    put(tmp_path / "plain.pth", pickle.dumps({"weight": np.zeros(3), "bomb": Bomb()}, protocol=2))
    text = message(tmp_path)
    assert "zip.pt is not served. It is a pickled PyTorch file (a state_dict or a whole module)" in text
    assert "plain.pth is not served." in text
    assert "torch.jit.trace(model.eval(), example)" in text
    assert "torch.export.save(" in text
    assert not (tmp_path / "exploded").exists()


def test_a_keras_file_under_another_name(tmp_path: Path) -> None:
    archive(tmp_path / "best.zip", "config.json", "metadata.json", "model.weights.h5")
    assert "rename it to best.keras" in message(tmp_path)


def test_a_flaw_beside_a_model_does_not_matter(tmp_path: Path) -> None:
    put(tmp_path / "weights.safetensors")
    archive(tmp_path / "train.npz", "a.npy")
    wanted = torchscript(tmp_path / "model.pt")
    assert find_model(tmp_path).path == wanted


def test_links(tmp_path: Path) -> None:
    store = torchscript(tmp_path / "store" / "model.pt")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "up").symlink_to(root, target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    (root / "model.pt").symlink_to(store)
    (root / "again.pt").symlink_to(store)
    assert find_model(root).path == root / "again.pt"
    assert "up/ -> " in tree(root)
    assert "self" in tree(root)


def test_hidden_things_are_left_alone(tmp_path: Path) -> None:
    torchscript(tmp_path / ".cache" / "model.pt")
    put(tmp_path / "._model.onnx", ONNX)
    put(tmp_path / "__MACOSX" / "model.onnx", ONNX)
    assert "No model found" in message(tmp_path)


def test_a_pipe_does_not_stop_the_search(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    wanted = torchscript(tmp_path / "model.pt")
    assert find_model(tmp_path).path == wanted


def test_somebodys_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_finder, "MAX_ENTRIES", 5)
    for number in range(9):
        put(tmp_path / f"{number}.txt")
    assert "more than 5 files and folders" in message(tmp_path)


def test_no_framework_is_imported() -> None:
    code = (
        "import sys; import gpu_infer.serving.model_finder; "
        "sys.exit(str(sorted({'tensorflow', 'torch', 'onnxruntime', 'keras'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
