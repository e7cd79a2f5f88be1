"""NumPy's ``.npy`` format, for bytes that a stranger sent."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, Tuple

import numpy as np

from ..failures import BadInput

MAGIC = b"\x93NUMPY"

_MAX_EMPTY = 1 << 16
"""How many items a body without any value may claim: they cost the sender nothing, and us a place each."""

_VERSION_1 = MAGIC + b"\x01\x00"

_MAX_REMEMBERED = 1024
"""Longer headers are read anew: remembered ones take memory, and 256 of them are."""

_READABLE_KINDS = "biufcSU"
"""Booleans, integers, floats, complex, bytes, text: what is an array of plain values."""


Header = Tuple[Tuple[int, ...], bool, Any, int]
"""Shape, whether it is in Fortran order, dtype, and where the values begin."""


def decode(body: bytes) -> np.ndarray:
    """Read one array, read-only, without copying.

    The header is checked against the length of the body before anything is allocated: a header may claim terabytes.

    Raises:
        BadInput: no ``.npy`` data, pickled objects, structured or unknown dtypes, a body that is too short or too long.
    """
    # Clients send the same header again and again; reading it anew takes longer than all the rest.
    end = 10 + int.from_bytes(body[8:10], "little")
    if body.startswith(_VERSION_1) and end <= min(len(body), _MAX_REMEMBERED):
        shape, fortran, dtype, start = _remembered_header(body[:end])
    else:
        shape, fortran, dtype, start = _read_header(body)
    have = len(body) - start
    need = math.prod(shape) * dtype.itemsize
    if have != need:
        what = "cut short" if have < need else "longer than it says"
        raise BadInput(f"The .npy body is {what}: {dtype} {list(shape)} takes {need:,} bytes, {have:,} are there.")
    try:
        values: np.ndarray = np.frombuffer(body, dtype, offset=start) if need else np.empty(0, dtype)
        if dtype.kind == "U":
            "".join(values.tolist()).encode("utf-8")  # code points that are none make trouble wherever they are used
        return values.reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, SystemError) as error:  # zero-size dtypes, too many axes, text that is none
        raise BadInput(f"The .npy array of shape {list(shape)} cannot be used: {error}.") from error


def encode(array: np.ndarray) -> bytes:
    """Write one array; dtypes that NumPy does not know itself (bfloat16) are widened to float32."""
    if array.dtype.kind == "V":
        array = array.astype(np.float32)
    return _header(array.dtype, array.shape) + array.tobytes()


@lru_cache(maxsize=256)
def _header(dtype: Any, shape: Tuple[int, ...]) -> bytes:
    """The header of an array in C order."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def _read_header(body: bytes) -> Header:
    """Read and check what stands before the values."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # the header is a Python literal: hostile ones raise nearly anything
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInput(f"The body is not a .npy array: {text}.") from error
    if dtype.hasobject or dtype.kind not in _READABLE_KINDS:
        raise BadInput(f"A .npy array of dtype {dtype} is not accepted; send numbers, booleans, bytes or text.")
    if any(axis < 0 for axis in shape):
        raise BadInput(f"A .npy array cannot have the shape {shape}.")
    if 0 in shape and math.prod(axis for axis in shape if axis) > _MAX_EMPTY:
        raise BadInput(f"A .npy array of shape {list(shape)} holds no value.")
    return shape, fortran, dtype, stream.tell()


_remembered_header = lru_cache(maxsize=256)(_read_header)
