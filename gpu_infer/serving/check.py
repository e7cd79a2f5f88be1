"""An item against what the model takes: right dtype and shape, or a sentence about the difference."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from .adapters.base import TensorSpec
from .failures import BadInput
from .narrow import is_array


def as_model_item(item: Any, spec: TensorSpec) -> Any:
    """Make an item what the model takes.

    Args:
        item: bytes, text, an array or a number, after ``preprocess``.
        spec: the model's input.

    Returns:
        ``bytes`` for a model of strings, else an array of ``spec.dtype`` and the shape of one item.

    Raises:
        BadInput: another kind, shape or dtype, or values that the dtype cannot hold.
    """
    if spec.dtype == "bytes":
        return _as_bytes(item, spec)
    if isinstance(item, (bytes, str)):
        what = "encoded bytes" if isinstance(item, bytes) else "text"
        raise BadInput(
            f"The model takes {spec}, got {what} ({len(item):,} long). Send an array; or deploy with preprocess= "
            '("image:224x224" and the like) if it is a picture.'
        )
    try:
        array = np.asarray(item)
    except (ValueError, TypeError) as error:
        raise BadInput(f"The model takes {spec}, and the item is no array: {error}.") from error
    if array.dtype.kind not in "biufc" and not (array.dtype.kind == "V" and array.dtype.names is None):
        raise BadInput(f"The model takes {spec}, got {array.dtype if array.size else type(item).__name__} values.")
    _check_shape(array, spec)
    return _cast(array, spec)


def _as_bytes(item: Any, spec: TensorSpec) -> bytes:
    if is_array(item) and item.ndim == 0 and item.dtype.kind in "SU":
        item = item.item()
    if isinstance(item, str):
        return item.encode("utf-8")
    if isinstance(item, bytes):
        return item
    got = f"{item.dtype} {list(item.shape)}" if is_array(item) else type(item).__name__
    raise BadInput(
        f"The model takes {spec}: one string of bytes per item, such as an encoded JPEG. Got {got}. "
        'Send the file itself, or {"data": [{"b64": "..."}]}.'
    )


def _check_shape(array: np.ndarray, spec: TensorSpec) -> None:
    wanted: Optional[Tuple[Optional[int], ...]] = spec.item_shape
    if wanted is None:
        return
    fits = len(wanted) == array.ndim and all(want in (None, have) for want, have in zip(wanted, array.shape))
    if fits:
        return
    item = "[" + ", ".join("any" if axis is None else str(axis) for axis in wanted) + "]"
    got = f"{array.dtype} {list(array.shape)}"
    hint = ""
    if None not in wanted and array.size == int(np.prod([axis or 0 for axis in wanted])):
        hint = _rearranged(array.shape, wanted) or f" The number of values is right: reshape each item to {item}."
    raise BadInput(f"The model takes {spec}, so an item is {spec.dtype} {item}; got {got}.{hint}")


def _rearranged(have: Sequence[int], wanted: Sequence[Optional[int]]) -> str:
    """What to do with an item whose axes only stand in another order; reshaping would scramble its values."""
    if len(have) != len(wanted) or sorted(have) != sorted(axis or 0 for axis in wanted):
        return ""
    left = list(range(len(have)))
    order: List[int] = []
    for axis in wanted:
        order.append(next(at for at in left if have[at] == axis))
        left.remove(order[-1])
    return f" The axes stand in another order: send x.transpose({order}); do not reshape, that scrambles the values."


def _cast(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    target = np.dtype(spec.dtype)
    if array.dtype == target:
        return array
    if array.dtype.kind == "f" and target.kind in "iub" and np.isnan(array).any():
        raise BadInput(f"The model takes {spec}; null or NaN is no value of {spec.dtype}.")
    same_kind = np.can_cast(array.dtype, target, "same_kind") or (array.dtype.kind in "iu" and target.kind in "iu")
    if not same_kind:
        raise BadInput(
            f"The model takes {spec}, got {array.dtype}: that cast would lose values. "
            f"Send x.astype({spec.dtype!r}) if that is what is meant."
        )
    if target.kind in "iu" and array.size and not np.can_cast(array.dtype, target, "safe"):
        limits = np.iinfo(target)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise BadInput(f"The model takes {spec}; the values {low} to {high} do not fit {spec.dtype}.")
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    if (
        target.kind == "f"
        and array.dtype.kind == "f"
        and np.isinf(cast).any()
        and np.isfinite(array[np.isinf(cast)]).any()
    ):
        raise BadInput(f"The model takes {spec}; a value is too large for {spec.dtype}.")
    return cast
