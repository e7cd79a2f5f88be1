"""What a service takes and gives, as it tells itself: :class:`Signature`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

__all__ = ["Signature", "Tensor", "array_misfit", "bytes_misfit"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model.

    Attributes:
        name: in the model.
        dtype: as NumPy names it, or ``"bytes"`` for a tensor of strings.
        shape: the batch axis first; ``None`` for an axis of any length, and for all where they are not known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def item_shape(self) -> tuple[int | None, ...] | None:
        """The shape without the batch axis, ``None`` where it is not known."""
        return None if self.shape is None else self.shape[1:]

    def __str__(self) -> str:
        axes = "?" if self.shape is None else ", ".join("N" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name}: {self.dtype} [{axes}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs, outputs, hooks and labels of a service, read from what ``describe()`` returns.

    Attributes:
        inputs: of the model, behind ``preprocess``.
        outputs: of the model, before ``postprocess``.
        preprocess: the hook in front of the model, empty without.
        postprocess: the hook behind it, empty without.
        labels: names of the classes, ``None`` where the service has none.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    preprocess: str = ""
    postprocess: str = ""
    labels: tuple[str, ...] | None = None

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Signature:
        """Read what ``describe()`` returned.

        Raises:
            ValueError: it is not what services of ours say.
        """
        try:
            labels = cast("Sequence[Any]", description.get("labels") or ())
            return cls(
                inputs=(_tensor(description["input"]),),
                outputs=tuple(_tensor(output) for output in description["outputs"]),
                preprocess=str(description.get("preprocess") or ""),
                postprocess=str(description.get("postprocess") or ""),
                labels=tuple(map(str, labels)) or None,
            )
        except (LookupError, TypeError, AttributeError) as error:
            msg = f"the description of the service cannot be read: {type(error).__name__}: {error}"
            raise ValueError(msg) from error

    @property
    def input(self) -> Tensor:
        """The one input that requests are for."""
        return self.inputs[0]

    @property
    def item_shape(self) -> tuple[int | None, ...] | None:
        """The shape of an array that is one item of a request; ``None`` where a hook decides, or nobody knows."""
        return None if self.preprocess else self.input.item_shape

    @property
    def dtype(self) -> str | None:
        """The dtype that the model computes on, or ``"bytes"``; ``None`` where a hook stands before it."""
        return None if self.preprocess else self.input.dtype

    @property
    def takes_batches(self) -> bool:
        """Whether items of one shape can be stacked along a new first axis and sent as one array."""
        return self.item_shape is not None and self.dtype != "bytes"


def _tensor(found: Mapping[str, Any]) -> Tensor:
    shape = found["shape"]
    axes = None if shape is None else tuple(None if axis is None else int(axis) for axis in shape)
    return Tensor(str(found["name"]), str(found["dtype"]), axes)


# --- inputs -----------------------------------------------------------------------------------------------------------


def bytes_misfit(content_type: str, tensor: Tensor) -> str:
    """Why encoded bytes are no item for a model without ``preprocess``; empty where they are."""
    if tensor.dtype == "bytes":
        return ""
    what = "an encoded image" if content_type.startswith("image/") else "bytes"
    return (
        f"expected {_expected(tensor)}, got {what}: send an array; a service that is deployed with preprocess= "
        '("image:224x224" and the like) takes pictures'
    )


def array_misfit(
    shape: Sequence[int], dtype: np.dtype[Any], tensor: Tensor, *, items: Literal["one", "many"] | None
) -> str:
    """Why the service would refuse an array, for a model without ``preprocess``; empty where it may take it.

    The rules are those of the service (``serving/codecs/decode.py``, ``serving/check.py``), less those that look at
    values: whatever is left open here, it decides.

    Args:
        shape: of the array.
        dtype: of the array.
        tensor: the model's input.
        items: whether the array is one item or many; ``None``: as its number of axes says.
    """
    item = tensor.item_shape
    if item is None or 0 in shape or dtype.kind not in "biufcV":
        return ""
    got = f"got {dtype.name} {list(shape)}"
    if tensor.dtype == "bytes":
        return (
            f"expected {_expected(tensor)}, {got}: send the file or the bytes themselves" if dtype.kind != "V" else ""
        )
    many = len(shape) == len(item) + 1 if items is None else items == "many"
    if (many and not shape) or not _fits(shape[1:] if many else shape, item):
        hint = _shape_hint(shape, item, items)
        if hint and dtype == np.uint8 and tensor.dtype.startswith(("float", "bfloat")):
            hint += "; its values stay 0 to 255, so divide by 255 if the model was trained on 0 to 1"
        return f"expected {_expected(tensor, items)}, {got}{hint and ': ' + hint}"
    if not _casts(dtype, tensor.dtype):
        hint = f'pass x.astype("{tensor.dtype}") if that is what is meant'
        return f"expected {_expected(tensor, items)}, {got}, and that cast would lose values: {hint}"
    return ""


def _expected(tensor: Tensor, items: Literal["one", "many"] | None = None) -> str:
    if tensor.dtype == "bytes":
        return "bytes, such as an encoded image, one for each item"
    axes = ["any" if axis is None else str(axis) for axis in tensor.item_shape or ()]
    one, many = f"[{', '.join(axes)}]", f"[{', '.join(['N', *axes])}]"
    return f"{tensor.dtype} {one if items == 'one' else many if items == 'many' else f'{one} or {many}'}"


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, have) for have, want in zip(shape, wanted, strict=True))


def _casts(have: np.dtype[Any], want: str) -> bool:
    """Whether the service casts one dtype to the other; what NumPy has no word for (bfloat16) it decides itself."""
    try:
        target = np.dtype(want)
    except TypeError:
        return True
    if have.kind == "V" or target.kind == "V":
        return True
    return np.can_cast(have, target, "same_kind") or (have.kind in "iu" and target.kind in "iu")


def _shape_hint(shape: Sequence[int], item: Sequence[int | None], items: Literal["one", "many"] | None) -> str:
    """What to do where that is certain: as many values as there should be, or channels that stand elsewhere."""
    wanted = [axis for axis in item if axis is not None]
    if len(wanted) != len(item):
        return ""
    for leading in (0, 1):  # one item, or many along the first axis
        inner = list(shape[leading:])
        if len(shape) < leading or math.prod(inner) != math.prod(wanted) or items == ("many", "one")[leading]:
            continue
        if sorted(inner) == sorted(wanted):
            order = _channels_moved(inner, wanted)
            axes = [*range(leading), *(leading + axis for axis in order)]
            return f"its axes stand in another order, pass x.transpose({', '.join(map(str, axes))})" if order else ""
        return f"pass x.reshape({', '.join(map(str, [*shape[:leading], *wanted]))})"
    return ""


def _channels_moved(have: list[int], wanted: list[int]) -> tuple[int, ...]:
    """The order of axes that makes NCHW of NHWC, or the other way round; empty where it is something else."""
    if len(have) == 3 and have[2] in _CHANNELS and [have[2], *have[:2]] == wanted:
        return (2, 0, 1)
    if len(have) == 3 and have[0] in _CHANNELS and [*have[1:], have[0]] == wanted:
        return (1, 2, 0)
    return ()


_CHANNELS = (1, 3, 4)
