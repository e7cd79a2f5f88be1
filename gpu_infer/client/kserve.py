"""KServe's second protocol (Open Inference Protocol) with binary tensors, as Triton speaks it, to arrays and back.

A body is a JSON head that names each tensor, its datatype, shape and number of bytes, and then the tensors one after
the other: little-endian, in C order. The header ``Inference-Header-Content-Length`` says where the head ends. What a
stranger's head claims is held against the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from .codecs import memory_of, plain_dtype
from .json_text import decode_json, encode_json

__all__ = ["DATATYPES", "HEAD_LENGTH", "datatype_of", "decode_tensors", "encode_tensors"]

HEAD_LENGTH = "Inference-Header-Content-Length"

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{
        f"{prefix}{8 * size}": np.dtype(f"<{kind}{size}")
        for prefix, kind in (("UINT", "u"), ("INT", "i"))
        for size in (1, 2, 4, 8)
    },
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""What the protocol calls NumPy's dtypes. ``BF16`` and ``BYTES`` have none and stand apart."""

_LONGEST_NAME = 200
"""Characters of a name, which messages repeat."""

_MOST_AXES = 64
"""As many as NumPy has."""

_NAMES = {(dtype.kind, dtype.itemsize): name for name, dtype in DATATYPES.items()}


def datatype_of(array: np.ndarray[Any, Any]) -> str:
    """What the protocol calls the dtype of an array.

    Raises:
        ValueError: it has no name for it.
    """
    if array.dtype.name == "bfloat16":
        return "BF16"
    if array.dtype.kind in "SUO":
        return "BYTES"
    name = _NAMES.get((array.dtype.kind, array.dtype.itemsize))
    if name is None:
        raise ValueError(f"the protocol has no datatype for {array.dtype}; it has BYTES, BF16, {', '.join(DATATYPES)}")
    return name


def encode_tensors(tensors: Mapping[str, np.ndarray[Any, Any]], *, bf16: Iterable[str] = ()) -> tuple[bytes, int]:
    """The body of a request that asks for binary outputs.

    Args:
        tensors: arrays by name; text and bytes (also in arrays of objects) become ``BYTES``.
        bf16: names of float32 arrays to send as ``BF16``, rounded to the nearest.

    Returns:
        the body, and the length of its JSON head in bytes.

    Raises:
        ValueError: a dtype that the protocol has no name for.
    """
    heads: list[dict[str, Any]] = []
    bodies: list[bytes | memoryview] = []
    for name, given in tensors.items():
        array = _bfloat16(given) if name in bf16 else given
        datatype = "BF16" if name in bf16 else datatype_of(array)
        body = _bytes_of_elements(array) if datatype == "BYTES" else _memory(array)
        size = len(body)
        heads.append(
            {"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": {"binary_data_size": size}}
        )
        bodies.append(body)
    head = encode_json({"inputs": heads, "parameters": {"binary_data_output": True}})
    return b"".join([head, *bodies]), len(head)


def _memory(array: np.ndarray[Any, Any]) -> bytes | memoryview:
    if array.nbytes == 0:
        return b""
    if array.dtype.kind in "iuf":
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return memory_of(np.ascontiguousarray(array))


def _bfloat16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even; NaN stays NaN."""
    single = np.asarray(array, "<f4", order="C")
    bits = single.view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype("<u4")) >> 16
    return np.where(np.isnan(single), bits >> 16 | 0x40, rounded).astype("<u2")


def _bytes_of_elements(array: np.ndarray[Any, Any]) -> bytes:
    pieces: list[bytes] = []
    for element in array.ravel().tolist():
        if not isinstance(element, bytes | str):
            found = type(element).__name__
            raise ValueError(f"an array of objects holds text or bytes, this one holds {found}")  # noqa: TRY004
        data = element.encode() if isinstance(element, str) else element
        pieces += (len(data).to_bytes(4, "little"), data)
    return b"".join(pieces)


def decode_tensors(body: bytes, head_length: str | None) -> dict[str, np.ndarray[Any, Any]]:
    """Read an answer: binary tensors, tensors in its JSON, or some of each.

    Args:
        body: the whole answer.
        head_length: what its header ``Inference-Header-Content-Length`` says, ``None`` where there is none.

    Returns:
        the outputs by name, in the answer's order: ``BF16`` widened to float32, ``BYTES`` as arrays of ``bytes``.

    Raises:
        ValueError: it is cut short, claims what is not there, or is no such answer.
    """
    head, rest = _split(body, head_length)
    answer = decode_json(head)
    outputs: Any = cast("dict[str, Any]", answer).get("outputs") if isinstance(answer, dict) else None
    if not isinstance(outputs, list) or not outputs:
        raise ValueError('its head has no list of "outputs"')
    found: dict[str, np.ndarray[Any, Any]] = {}
    start = 0
    for output in cast("list[Any]", outputs):
        name, datatype, shape, size = _described(output)
        if name in found:
            raise ValueError(f"it has two outputs {name!r}")
        if size is None:
            found[name] = _from_json(output.get("data"), datatype, shape, name)
            continue
        data = rest[start : start + size]
        if len(data) < size:
            raise ValueError(f"it is cut short: output {name!r} claims {size:,} bytes, {len(data):,} are there")
        found[name] = _from_bytes(data, datatype, shape, name)
        start += size
    if start != len(rest):
        raise ValueError(f"it has {len(rest) - start:,} bytes behind its last output")
    return found


def _split(body: bytes, head_length: str | None) -> tuple[bytes, memoryview]:
    if head_length is None:
        return body, memoryview(b"")
    # A number of thousands of digits is none that Python reads; no body has 2 ** 64 bytes, which are twenty.
    length = int(head_length) if head_length.isascii() and head_length.isdigit() and len(head_length) <= 20 else -1
    if not 0 <= length <= len(body):
        raise ValueError(f"its {HEAD_LENGTH} is {head_length[:40]!r}, and it has {len(body):,} bytes")
    return body[:length], memoryview(body)[length:]


def _described(output: Any) -> tuple[str, str, tuple[int, ...], int | None]:
    """Name, datatype, shape and number of bytes (``None``: the numbers are in the JSON) of an output."""
    if not isinstance(output, dict):
        raise ValueError("an output is no JSON object")  # noqa: TRY004  (as for all that a stranger sent)
    fields = cast("dict[str, Any]", output)
    name, datatype, shape = fields.get("name"), fields.get("datatype"), fields.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise ValueError("an output has no name or no datatype")  # noqa: TRY004
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"an output has a name of {len(name):,} characters")
    if datatype not in DATATYPES and datatype not in ("BF16", "BYTES"):
        raise ValueError(f"output {name!r} has the unknown datatype {datatype[:40]!r}")
    if not isinstance(shape, list) or not all(type(axis) is int and axis >= 0 for axis in cast("list[Any]", shape)):
        raise ValueError(f"the shape of output {name!r} is no list of lengths")
    if len(cast("list[Any]", shape)) > _MOST_AXES:
        raise ValueError(f"output {name!r} has more than {_MOST_AXES} axes")
    parameters = fields.get("parameters")
    size: Any = cast("dict[str, Any]", parameters).get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(f"the binary_data_size of output {name!r} is no number of bytes")
    return name, datatype, tuple(cast("list[int]", shape)), size


def _from_bytes(data: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> np.ndarray[Any, Any]:
    count = math.prod(shape)
    if datatype == "BYTES":
        return _shaped(_objects(_elements(data, count, name)), shape, name)
    dtype = DATATYPES.get(datatype, np.dtype("<u2"))
    if len(data) != count * dtype.itemsize:
        raise ValueError(
            f"output {name!r} is {datatype} {list(shape)}, which takes {count * dtype.itemsize:,} bytes; "
            f"{len(data):,} are there"
        )
    flat = np.frombuffer(data, dtype)
    if datatype == "BF16":
        return _shaped((flat.astype("<u4") << 16).view("<f4"), shape, name)
    # A byte that is neither 0 nor 1 would be a bool of which NumPy does not know whether it is true.
    return _shaped(flat.view("u1") != 0 if datatype == "BOOL" else flat.copy(), shape, name)


def _elements(data: memoryview, count: int, name: str) -> list[bytes]:
    if count > len(data) // 4:
        raise ValueError(f"output {name!r} claims {count:,} elements of bytes in {len(data):,} bytes")
    found: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise ValueError(f"an element of output {name!r} is cut short")
        found.append(bytes(data[at + 4 : end]))
        at = end
    if len(found) != count:
        raise ValueError(f"output {name!r} claims {count:,} elements, {len(found):,} are there")
    return found


def _from_json(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> np.ndarray[Any, Any]:
    if not isinstance(data, list):
        raise ValueError(f"output {name!r} has neither binary_data_size nor data")  # noqa: TRY004
    flat = _flat(cast("list[Any]", data))
    if len(flat) != math.prod(shape):
        raise ValueError(f"output {name!r} claims {list(shape)}, and has {len(flat):,} elements")
    if datatype == "BYTES":
        if not all(isinstance(element, str) for element in flat):
            raise ValueError(f"output {name!r} is BYTES, and holds something else than text")
        return _shaped(_objects([element.encode("utf-8", "surrogatepass") for element in flat]), shape, name)
    dtype = DATATYPES.get(datatype, np.dtype("<f4"))
    if any(not isinstance(element, int | float | None) for element in flat):
        raise ValueError(f"output {name!r} is {datatype}, and holds something else than numbers")
    if dtype.kind == "f":
        flat = [math.nan if element is None else element for element in flat]
    if dtype.kind in "iu" and any(isinstance(element, float) for element in flat):
        raise ValueError(f"output {name!r} is {datatype}, and holds fractions")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"output {name!r} is no {datatype}: {str(error)[:100]}") from error
    return _shaped(array, shape, name)


def _flat(values: list[Any]) -> list[Any]:
    """Nested lists as one; the protocol allows both."""
    while any(isinstance(value, list) for value in values):
        values = [
            inner for value in values for inner in (cast("list[Any]", value) if isinstance(value, list) else [value])
        ]
    return values


def _objects(elements: Sequence[bytes]) -> np.ndarray[Any, Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _shaped(array: np.ndarray[Any, Any], shape: tuple[int, ...], name: str) -> np.ndarray[Any, Any]:
    try:
        return plain_dtype(array.reshape(shape))
    except (ValueError, OverflowError) as error:  # more axes than NumPy has, or a length beyond 64 bits beside a 0
        raise ValueError(f"output {name!r} has a shape that no array has: {len(shape)} axes") from error
