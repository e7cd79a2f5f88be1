"""Labels from the file to the client, on a service of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import gpu_infer
from gpu_infer.client import ClassScores
from gpu_infer.errors import PreflightError, ScoringInitError

SNOW_LEOPARD = 289
LITE0_INPUT = "image:224x224,layout=nchw,mean=127,std=128"


def test_a_photo_gets_the_names_of_its_classes(shared_models: Path, snowleopard: Path, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1000)]
    names[SNOW_LEOPARD] = "snow leopard, ounce"
    labels = tmp_path / "imagenet.txt"
    labels.write_text("\n".join(names), "utf-8")
    with gpu_infer.deploy(shared_models / "efficientnet_lite0.onnx", preprocess=LITE0_INPUT, labels=labels) as service:
        assert service.describe()["labels"] == names
        scores = service.score(snowleopard, result=ClassScores)
        assert scores.best.label == "snow leopard, ounce"
        assert scores.best.index == SNOW_LEOPARD
        assert scores.best.score == pytest.approx(0.837, abs=0.01)
        two = service.score([snowleopard, snowleopard], result=ClassScores)
        assert [one.best.label for one in two] == ["snow leopard, ounce"] * 2


def test_labels_in_the_folder_of_the_model_are_taken(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    shutil.copy(tiny_model, folder)
    (folder / "labels.txt").write_text("a\nb\nc\nd\n", "utf-8")
    plan = gpu_infer.plan(folder)
    assert [str(found) for found in plan.findings if found.code == "labels"] == [
        "4 labels are taken from labels.txt in the model's folder."
    ]
    with gpu_infer.deploy(folder, workers=2) as service:
        assert service.describe()["labels"] == ["a", "b", "c", "d"]
        assert "GPU_INFER_LABELS 4 labels from labels.txt in the model's folder" in service.logs()
        service.update(labels=["w", "x", "y", "z"])
        assert service.score([0.0, 1.0, 5.0, 2.0], result=ClassScores).best.label == "y"


def test_too_few_labels_are_an_error_when_the_model_is_loaded(tiny_model: Path) -> None:
    with pytest.raises(ScoringInitError, match=r"There are 2 labels, and the model gives y: float32 \[N, 4\]"):
        gpu_infer.deploy(tiny_model, labels=["a", "b"])


def test_labels_that_cannot_be_read_are_a_finding(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="The file of labels .* cannot be read: No such file or directory"):
        gpu_infer.deploy(tiny_model, labels=tmp_path / "nix.txt")
    with pytest.raises(PreflightError, match=r"labels=: label 2 is nothing"):
        gpu_infer.deploy(tiny_model, labels=["a", " ", "c"])
    with pytest.raises(TypeError, match="a list of texts, one per class"):
        gpu_infer.deploy(tiny_model, labels=[1, 2])  # pyright: ignore[reportArgumentType]
