"""Arrays and multipart bodies to bytes and back, for bytes that a stranger sent.

Nothing here pickles or unpickles. :class:`ValueError` says that something cannot be written or read; the callers turn
it into the error that names the input or the answer.
"""

from __future__ import annotations

import ast
import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np

from .messages import Payload

__all__ = [
    "BYTES",
    "JSON",
    "MULTIPART",
    "NPY",
    "NPY_MAGIC",
    "decode_npy",
    "encode_npy",
    "image_type",
    "memory_of",
    "multipart",
    "npy_dtype",
    "npy_form",
    "plain_dtype",
]

NPY = "application/x-npy"
JSON = "application/json"
BYTES = "application/octet-stream"
MULTIPART = "multipart/form-data"

NPY_MAGIC = b"\x93NUMPY"

MAX_NPY_HEADER = 10_000
"""Bytes; NumPy's own limit. The header is a Python literal, and parsing a huge one can exhaust the stack."""

_NPY_WRITABLE_KINDS = "biufcmMSUV"
"""Every kind that ``.npy`` holds without pickle. ``O`` (objects) and ``T`` (variable-width text) need it."""

_IMAGE_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


def image_type(data: bytes) -> str | None:
    """The content type of an encoded image by its first bytes, ``None`` where they are none of a common format."""
    for magic, content_type in _IMAGE_MAGIC:
        if data.startswith(magic):
            return content_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    # "BM" alone begins many a text; the four reserved zeros make it a bitmap.
    if data[:2] == b"BM" and data[6:10] == b"\x00\x00\x00\x00":
        return "image/bmp"
    return None


def plain_dtype(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Widen the dtypes of ``ml_dtypes`` (bfloat16, float8, int4, ...) to the next one that NumPy itself has.

    ``np.save`` would write them as raw bytes (``|V2``) without a word, and nobody could read them.
    """
    scalar = array.dtype.type
    if not scalar.__module__.startswith("ml_dtypes"):
        return array
    name = array.dtype.name
    for prefix, wider in (("uint", np.uint8), ("int", np.int8), ("complex", np.complex64), ("bcomplex", np.complex64)):
        if name.startswith(prefix):
            return array.astype(wider)
    return array.astype(np.float32)


def encode_npy(array: np.ndarray[Any, Any]) -> bytes:
    """Write an array as ``.npy``; one that lies in memory in one piece is copied once, into the body.

    Args:
        array: any shape, order and byte order; bfloat16 and its like are widened to float32.

    Raises:
        ValueError: a dtype that holds Python objects.
    """
    array = plain_dtype(array)
    if array.dtype.kind not in _NPY_WRITABLE_KINDS or array.dtype.hasobject:
        raise ValueError(f"an array of dtype {array.dtype} cannot be written without pickling Python objects")
    if array.dtype.names is not None or array.nbytes == 0:
        # Names of fields may need another version of the header, and there are no bytes to save.
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, allow_pickle=False)
        return stream.getvalue()
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = np.ascontiguousarray(array)
    fortran = not array.flags.c_contiguous
    pieces = (_npy_header(array.dtype, array.shape, fortran=fortran), memory_of(array.T if fortran else array))
    return b"".join(pieces)


def memory_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of an array in C order, not copied; of any dtype that holds no objects, and of at least one byte."""
    return memoryview(cast("Any", array.reshape(-1).view(np.uint8)))


@lru_cache(maxsize=64)
def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], *, fortran: bool) -> bytes:
    """What stands before the elements, made once for each kind of array: NumPy takes longer for it than for a row."""
    stream = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def decode_npy(body: bytes) -> np.ndarray[Any, Any]:
    """Read a ``.npy`` body, version 1 to 3, into an array of its own that can be written to.

    The header is checked against the length of the body before anything is allocated: a header may claim terabytes.

    Raises:
        ValueError: no ``.npy`` data, pickled objects, or a body that is cut short or too long.
    """
    shape, fortran, dtype, start = _read_npy_header(body)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never loaded")
    have, need = len(body) - start, math.prod(shape) * dtype.itemsize
    if have != need:
        what = "is cut short" if have < need else "has bytes behind its end"
        raise ValueError(f"it {what}: {dtype} {list(shape)} takes {need:,} bytes, {have:,} are there")
    order = "F" if fortran else "C"
    if need == 0:
        return np.zeros(shape, dtype, order=order)
    return np.frombuffer(body, dtype, offset=start).reshape(shape, order=order).copy(order="K")


def npy_dtype(body: bytes) -> np.dtype[Any] | None:
    """The dtype in the header of a ``.npy`` body, ``None`` where there is no header that can be read."""
    try:
        return _read_npy_header(body)[2]
    except ValueError:
        return None


def npy_form(body: bytes) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and dtype in the header of a ``.npy`` body, ``None`` where there is no header that can be read."""
    try:
        shape, _, dtype, _ = _read_npy_header(body)
    except ValueError:
        return None
    return shape, dtype


def _read_npy_header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    if len(body) < 10 or not body.startswith(NPY_MAGIC):
        raise ValueError("it does not begin as .npy data does")
    version = body[6]
    if version not in (1, 2, 3):
        raise ValueError(f"it is .npy version {version}; 1 to 3 are known")
    begin = 10 if version == 1 else 12
    length = int.from_bytes(body[8:begin], "little")
    if length > MAX_NPY_HEADER:
        raise ValueError(f"its header claims {length:,} bytes; {MAX_NPY_HEADER:,} are the most")
    raw = body[begin : begin + length]
    if len(raw) != length:
        raise ValueError("it is cut short inside its header")
    return *_parse_npy_header(raw, "utf-8" if version == 3 else "latin-1"), begin + length


@lru_cache(maxsize=64)
def _parse_npy_header(raw: bytes, encoding: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype; a service answers with the same few headers again and again."""
    try:
        header = ast.literal_eval(raw.decode(encoding))
        shape, fortran = header["shape"], header["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(header["descr"])
        shape = tuple(int(axis) for axis in shape)
    # A hostile literal raises nearly anything, RecursionError and MemoryError of the parser included.
    except Exception as error:
        raise ValueError(f"its header cannot be read: {type(error).__name__}") from error
    if any(axis < 0 for axis in shape):
        raise ValueError(f"its header claims the shape {shape}")
    return shape, bool(fortran), dtype


def multipart(parts: Sequence[Payload], boundary: str) -> Payload:
    """One ``multipart/form-data`` body of one file part per item: field ``item``, file names ``0``, ``1``, ...

    Args:
        parts: the encoded items, in order.
        boundary: text that occurs in no part; random enough is enough.
    """
    pieces: list[bytes] = []
    for index, part in enumerate(parts):
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="item"; filename="{index}"\r\n'
            f"Content-Type: {part.content_type}\r\n\r\n"
        )
        pieces += (head.encode("ascii"), part.body, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode("ascii"))
    return Payload(f"{MULTIPART}; boundary={boundary}", b"".join(pieces))
