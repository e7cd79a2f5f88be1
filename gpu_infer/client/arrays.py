"""Whatever holds numbers, to one NumPy array that can be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, cast

import numpy as np

from ..errors import BadInputError
from .codecs import plain_dtype

__all__ = [
    "array_of",
    "bad_input",
    "bytes_of_array",
    "holds_numbers",
    "is_array_like",
    "is_number",
    "nested_list_to_array",
]

_NUMERIC_KINDS = "biufc"
_TORCH_WITHOUT_NUMPY = ("bfloat16", "float8", "float4")
"""dtypes that torch has and NumPy does not: ``Tensor.numpy()`` refuses them."""

_OPENERS = ("a ", "an ", "the ", "there ", "one ")
"""Words that begin a sentence; names of types and files keep their own case."""

_NAMED_TYPES = 4
"""How many of the types found in a mixed list are named in the message."""


def bad_input(message: str, *, item: int | None = None, cause: BaseException | None = None) -> NoReturn:
    """Raise a :class:`BadInputError` for an input that never left this process."""
    if message.startswith(_OPENERS):
        message = message[0].upper() + message[1:]
    error = BadInputError(f"Item {item}: {message}" if item is not None else message, attempts=0)
    error.item = item
    raise error from cause


def is_array_like(x: object) -> bool:
    """Whether it is an array, or turns itself into one (tensors, data frames, NumPy scalars)."""
    return hasattr(x, "__array__") and not isinstance(x, type)


def is_number(x: object) -> bool:
    """Whether it is one number: Python's, NumPy's, or an array or tensor without axes."""
    if isinstance(x, int | float | complex):
        return True
    return is_array_like(x) and not isinstance(x, bytes | str) and getattr(x, "ndim", None) == 0


def holds_numbers(elements: Sequence[Any]) -> bool:
    """Whether a list that is not empty is one array: of numbers, and of lists of them."""
    return all(isinstance(element, list | tuple | range) or is_number(element) for element in elements)


def array_of(x: Any, *, item: int | None = None) -> np.ndarray[Any, Any]:
    """The array that ``x`` is or turns itself into.

    Torch tensors are detached and brought to the CPU, a bfloat16 one is widened to float32. Arrays of objects come back
    as they are when they hold only ``bytes``, see :func:`bytes_of_array`.

    Args:
        x: anything with ``__array__``.
        item: its index in a list of items, for the message.

    Raises:
        BadInputError: masked values, objects, or an ``__array__`` that raises.
    """
    if isinstance(x, np.ma.MaskedArray):
        masked = cast("Any", x)
        if np.ma.is_masked(masked):
            bad_input("the array has masked values, which cannot be sent; fill them first: x.filled(...)", item=item)
        x = np.ma.getdata(masked)
    try:
        array = np.asarray(_off_torch(x))
    except Exception as error:  # noqa: BLE001  (foreign code: an __array__ may raise anything)
        bad_input(f"{_type_name(x)} cannot be turned into an array: {_first_line(error)}", item=item, cause=error)
    array = plain_dtype(array)
    if array.dtype.kind == "T":
        array = array.astype(np.object_)
        if all(isinstance(value, str) for value in array.ravel()):
            return array.astype(np.str_)
    if array.dtype.hasobject and not _holds_only_bytes(array):
        found = _type_names(array.ravel().tolist() if array.dtype.kind == "O" else [])
        bad_input(
            f"{_type_name(x)} has dtype {array.dtype}{found}; only numbers, text and bytes can be sent. "
            "Choose the columns with numbers, or convert: x.astype('float32')",
            item=item,
        )
    return array


def _off_torch(x: Any) -> Any:
    """A torch tensor that ``np.asarray`` takes; everything else as it is. Never imports torch."""
    if not type(x).__module__.startswith("torch") or not callable(getattr(x, "detach", None)):
        return x
    tensor = x.detach().cpu()
    if str(tensor.dtype).removeprefix("torch.").startswith(_TORCH_WITHOUT_NUMPY):
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg()


def _holds_only_bytes(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind == "O" and array.size > 0 and all(isinstance(value, bytes) for value in array.ravel())


def bytes_of_array(array: np.ndarray[Any, Any], *, item: int | None = None) -> list[bytes] | None:
    """The elements of a one-dimensional array of bytes, ``None`` for an array of anything else.

    Raises:
        BadInputError: an array of bytes with more axes than one.
    """
    if array.dtype.kind not in "SO":
        return None
    if array.ndim > 1:
        bad_input(f"an array of bytes has one axis, this one has the shape {list(array.shape)}", item=item)
    return [bytes(value) for value in array.ravel().tolist()]


def nested_list_to_array(x: Sequence[Any], *, item: int | None = None) -> np.ndarray[Any, Any]:
    """One array from nested lists of numbers.

    Args:
        x: lists of equal lengths on every level, with numbers (or arrays) innermost.
        item: its index in a list of items, for the message.

    Returns:
        an array of bool, int64, uint64, float64 or complex128, as NumPy chooses.

    Raises:
        BadInputError: lists of different lengths, or anything but numbers.
    """
    try:
        array = np.asarray(x)
    except Exception as error:  # noqa: BLE001  (elements may be foreign objects whose __array__ raises anything)
        if isinstance(error, ValueError) and "inhomogeneous" in str(error):
            bad_input(
                f"the nested list is ragged: {_ragged_where(x)}. One array needs lists of equal lengths; "
                "for items of different shapes pass a list of arrays",
                item=item,
                cause=error,
            )
        bad_input(f"the nested list cannot be turned into an array: {_first_line(error)}", item=item, cause=error)
    array = plain_dtype(array)
    if array.dtype.kind in _NUMERIC_KINDS:
        return array
    leaves = list(_leaves(x))
    if all(isinstance(leaf, int) for leaf in leaves):
        bad_input("the nested list holds integers of more than 64 bits", item=item)
    hint = "; write float('nan') for None" if any(leaf is None for leaf in leaves) else ""
    bad_input(f"a nested list holds numbers only{_type_names(leaves)}{hint}", item=item)


def _leaves(x: object) -> Iterable[object]:
    if isinstance(x, list | tuple):
        for inner in cast("Sequence[object]", x):
            yield from _leaves(inner)
    else:
        yield x


def _ragged_where(x: Sequence[Any]) -> str:
    """In words, where the lengths differ: the first list whose elements do not agree."""
    lengths = [len(cast("Sequence[Any]", inner)) if isinstance(inner, list | tuple) else -1 for inner in x]
    for index, length in enumerate(lengths):
        if length != lengths[0]:
            if -1 in (length, lengths[0]):
                return f"element {index} is {_kind(length)}, element 0 is {_kind(lengths[0])}"
            return f"element {index} has length {length}, element 0 has length {lengths[0]}"
    for index, inner in enumerate(x):
        if lengths[index] > 0:
            where = _ragged_where(inner)
            if where != _UNKNOWN:
                return f"inside element {index}, {where}"
    return _UNKNOWN


_UNKNOWN = "its elements have different shapes"


def _kind(length: int) -> str:
    return "no list" if length < 0 else f"a list of length {length}"


def _type_names(values: Iterable[object]) -> str:
    names = sorted({type(value).__name__ for value in values})
    if not names:
        return ""
    shown = ", ".join(names[:_NAMED_TYPES]) + (", ..." if len(names) > _NAMED_TYPES else "")
    return f" (found: {shown})"


def _type_name(x: object) -> str:
    module = type(x).__module__.partition(".")[0]
    return f"{module}.{type(x).__name__}" if module != "builtins" else type(x).__name__


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
