"""Names of classes: files that can be read, where they are looked for, and how many there have to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_infer.serving.adapters.base import TensorSpec
from gpu_infer.serving.labels import LabelsError, labels_of_model, labels_of_service, read_labels

THREE = (TensorSpec("y", "float32", (None, 3)),)


@pytest.mark.parametrize(
    "content",
    [b"cat\nlynx\ndog\n", b"cat\r\nlynx\r\ndog", "\ufeffcat\n lynx \ndog\n\n\n".encode()],
)
def test_a_file_has_one_label_per_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert read_labels(path) == ("cat", "lynx", "dog")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n\n", "has no label; write one per line"),
        (b"cat\n\ndog\n", "label 2 is nothing. Each class has one line"),
        ("größer".encode("latin-1"), r"is not UTF-8 \(byte 2\)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(LabelsError, match=says):
        read_labels(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"names.txt cannot be read: No such file"):
        read_labels(tmp_path / "names.txt")


def test_labels_that_lie_with_the_model_are_found(tmp_path: Path) -> None:
    assert labels_of_model(tmp_path) is None
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    inside = tmp_path / "a" / "labels.txt"
    inside.write_text("x", "utf-8")
    assert labels_of_model(tmp_path) == inside
    (tmp_path / "b" / "labels.txt").write_text("x", "utf-8")
    assert labels_of_model(tmp_path) is None, "which of the two nobody can tell"
    (tmp_path / "labels.txt").write_text("x", "utf-8")
    assert labels_of_model(tmp_path) == tmp_path / "labels.txt"


def test_those_that_are_given_win(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "labels.txt").write_text("a\nb\nc\n", "utf-8")
    (tmp_path / "given.txt").write_text("x\ny\nz\n", "utf-8")
    assert labels_of_service("given.txt", tmp_path, tmp_path / "model", THREE) == ("x", "y", "z")
    assert labels_of_service("", tmp_path, tmp_path / "model", THREE) == ("a", "b", "c")
    assert labels_of_service("", tmp_path, tmp_path / "nowhere", THREE) == ()


@pytest.mark.parametrize(
    ("shapes", "fits"),
    [
        ([(None, 3)], True),
        ([(None, 7, 3)], True),
        ([(None, 4)], False),
        ([(None, 4), (None, 3)], True),
        ([(None, 4), (None, None)], True),
        ([(None, None)], True),
        ([None], True),
        ([(None,)], True),
    ],
)
def test_there_are_as_many_as_the_model_has_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: list[tuple[int | None, ...] | None], fits: bool
) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n", "utf-8")
    outputs = [TensorSpec("y", "float32", shape) for shape in shapes]
    if fits:
        assert labels_of_service("labels.txt", tmp_path, tmp_path, outputs) == ("a", "b", "c")
        return
    with pytest.raises(
        LabelsError, match=r"3 labels, and the model gives y: float32 \[N, 4\]: write one label per class"
    ):
        labels_of_service("labels.txt", tmp_path, tmp_path, outputs)
    assert labels_of_service("", tmp_path, tmp_path, outputs) == (), "they only lie there, and the model served before"
    assert "GPU_INFER_WARNING labels.txt in the model's folder is not used: There are 3" in capsys.readouterr().err
