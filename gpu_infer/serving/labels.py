"""Names of a model's classes: a text file in UTF-8, one label per line, in the order of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from .adapters.base import TensorSpec
from .stages import say

LABELS_FILE = "labels.txt"
"""What the file is called in the bundle, and where it lies with the model."""

_SHOWN = 60
"""Characters of a path that a message repeats."""


class LabelsError(ValueError):
    """The labels cannot be used; the message says why and what to do."""


def read_labels(path: Path) -> Tuple[str, ...]:
    """The labels in a file; white space around them and empty lines at the end are left out.

    Raises:
        LabelsError: no such file, no UTF-8, or an empty line between others.
    """
    name = str(path) if len(str(path)) <= _SHOWN else path.name
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise LabelsError(f"The file of labels {name} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"The file of labels {name} is not UTF-8 (byte {error.start:,}); save it so.") from error
    return check_labels([line.strip() for line in lines], where=f"The file of labels {name}")


def check_labels(lines: Sequence[str], *, where: str) -> Tuple[str, ...]:
    """The labels without empty ones at the end.

    Raises:
        LabelsError: there is none, an empty one between others, or one of several lines.
    """
    labels: List[str] = list(lines)
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        raise LabelsError(f"{where} has no label; write one per line.")
    for number, label in enumerate(labels, 1):
        if not label or len(label.splitlines()) != 1:
            what = "several lines" if label else "nothing"
            raise LabelsError(f"{where}: label {number:,} is {what}. Each class has one line, in their order.")
    return tuple(labels)


def labels_of_model(folder: Path) -> Optional[Path]:
    """The file of labels in a folder with a model, or in its only folder that has one; ``None`` without."""
    if (folder / LABELS_FILE).is_file():
        return folder / LABELS_FILE
    inside = [path for path in folder.glob(f"*/{LABELS_FILE}") if path.is_file()]
    return inside[0] if len(inside) == 1 else None


def labels_of_service(name: str, bundle: Path, model: Path, outputs: Sequence[TensorSpec]) -> Tuple[str, ...]:
    """The labels of the bundle, else those that lie with the model, else none.

    Args:
        name: of the file in the bundle, empty without.
        bundle: the folder of ``score.py``.
        model: ``AZUREML_MODEL_DIR``.
        outputs: those that the service answers with.

    Raises:
        LabelsError: those of the bundle cannot be read, or are not as many as the model has classes. Those that only
            lie with the model are left out then, with a line in the log.
    """
    path = bundle / name if name else labels_of_model(model)
    if path is None:
        return ()
    try:
        labels = read_labels(path)
        _check_number(labels, outputs)
    except LabelsError as error:
        if name:
            raise
        say(f"GPU_INFER_WARNING labels.txt in the model's folder is not used: {error}")
        return ()
    if not name:
        say(f"GPU_INFER_LABELS {len(labels)} labels from labels.txt in the model's folder")
    return labels


def _check_number(labels: Sequence[str], outputs: Sequence[TensorSpec]) -> None:
    """Compare with the last axis of the outputs, as far as that is known."""
    lengths = [spec.item_shape[-1] if spec.item_shape else None for spec in outputs]
    if not lengths or None in lengths or len(labels) in lengths:
        return
    shown = ", ".join(map(str, outputs))
    raise LabelsError(f"There are {len(labels):,} labels, and the model gives {shown}: write one label per class.")
