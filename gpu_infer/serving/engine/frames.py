"""What workers and the model process write to each other: frames on a Unix socket of their own.

A frame is its length (4 bytes), its kind (1 byte), the number of the question it belongs to (8 bytes), and a body.
Arrays travel as they lie in memory. Both sides are this very package, on one machine: there is no version.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Tuple, Union

import numpy as np

from ..failures import KINDS, ModelFailure, Overloaded, RequestFailure
from .jobs import BlockResult

RUN = 1
"""To the model: a block of items to run."""
ASK = 2
"""To the model: a report by name."""
DONE = 3
"""From the model: what became of a block."""
REFUSED = 4
"""From the model: why a block was not run."""
TOLD = 5
"""From the model: a report, or, as number 0 and without being asked, the facts about the model."""

_HEAD = struct.Struct("<IBQ")
_RUN = struct.Struct("<dH")
_DONE = struct.Struct("<IffBI")
_OUTPUT = struct.Struct("<BHQ")

Frame = Tuple[int, int, memoryview]


def frame(kind: int, number: int, body: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(len(body), kind, number) + body


def told(number: int, report: Any) -> bytes:
    """A report."""
    return frame(TOLD, number, json.dumps(report).encode())


def run(number: int, rows: np.ndarray, deadline: float) -> bytes:
    """A block of items to run.

    Args:
        number: of the question.
        rows: ``[k, ...]``; an array of ``bytes`` objects for a model of strings.
        deadline: on the clock of ``time.monotonic``, which all processes of a machine share.
    """
    meta, data = _packed(rows)
    return frame(RUN, number, _RUN.pack(deadline, len(meta)) + meta + data)


def read_run(body: memoryview) -> Tuple[np.ndarray, float]:
    """What ``run`` wrote: rows and deadline."""
    deadline, length = _RUN.unpack_from(body)
    at = _RUN.size + length
    return _unpacked(bytes(body[_RUN.size : at]), bytes(body[at:])), deadline


def done(number: int, result: Union[BlockResult, RequestFailure]) -> bytes:
    """What became of a block."""
    if isinstance(result, RequestFailure):
        return frame(REFUSED, number, json.dumps(_failure(result)).encode())
    failures = b""
    if result.failures:
        told_failures = {str(index): _failure(failure) for index, failure in result.failures.items()}
        failures = json.dumps(told_failures).encode()
    pieces = [
        _DONE.pack(result.batch, result.queue_ms, result.compute_ms, len(result.outputs), len(failures)),
        failures,
    ]
    for name, values in result.outputs.items():
        meta, data = _packed(values)
        encoded = name.encode()
        pieces += [_OUTPUT.pack(len(encoded), len(meta), len(data)), encoded, meta, data]
    return frame(DONE, number, b"".join(pieces))


def read_done(body: memoryview) -> BlockResult:
    """What ``done`` wrote of a block that was run."""
    batch, queue_ms, compute_ms, count, length = _DONE.unpack_from(body)
    at = _DONE.size
    failures: Dict[int, RequestFailure] = {}
    if length:
        told_failures: Dict[str, Any] = json.loads(bytes(body[at : at + length]))
        failures = {int(index): read_failure(failure) for index, failure in told_failures.items()}
    at += length
    outputs: Dict[str, np.ndarray] = {}
    for _ in range(count):
        name, meta, data = _OUTPUT.unpack_from(body, at)
        at += _OUTPUT.size
        text = str(body[at : at + name], "utf-8")
        at += name
        outputs[text] = _unpacked(bytes(body[at : at + meta]), bytes(body[at + meta : at + meta + data]))
        at += meta + data
    return BlockResult(outputs, failures, batch, queue_ms, compute_ms)


def read_failure(failure: Any) -> RequestFailure:
    """A failure as another process told it."""
    kind = KINDS[failure["kind"]]
    if kind is Overloaded:
        return Overloaded(failure["message"], retry_after=failure["retry_after"])
    return kind(failure["message"], item=failure["item"])


class Buffer:
    """Bytes as they come in, and the frames that are whole."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes; gives each frame that is whole now: kind, number, body. A body is good until the next call."""
        whole: Union[bytes, bytearray] = data
        if self._bytes:
            self._bytes += data
            whole = self._bytes
        view = memoryview(whole)
        at = 0
        frames: List[Frame] = []
        while len(view) - at >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(view, at)
            end = at + _HEAD.size + length
            if end > len(view):
                break
            frames.append((kind, number, view[at + _HEAD.size : end]))
            at = end
        rest = bytes(view[at:])
        yield from frames
        self._bytes = bytearray(rest)


def _failure(failure: RequestFailure) -> Dict[str, Any]:
    if isinstance(failure, ModelFailure) and failure.__cause__ is not None:
        failure.report()  # the traceback stays here, where the log is
    return {
        "kind": type(failure).__name__,
        "message": failure.message,
        "item": failure.item,
        "retry_after": getattr(failure, "retry_after", 0),
    }


@lru_cache(maxsize=1024)
def _meta(dtype: str, shape: Tuple[int, ...]) -> bytes:
    return f"{dtype};{','.join(map(str, shape))}".encode("ascii")


@lru_cache(maxsize=1024)
def _read_meta(meta: bytes) -> Tuple[Any, Tuple[int, ...]]:
    dtype, _, shape = meta.decode("ascii").partition(";")
    return np.dtype(dtype), tuple(int(axis) for axis in shape.split(",") if axis)


def _packed(array: np.ndarray) -> Tuple[bytes, bytes]:
    """An array as what describes it and what it holds; bytes objects with their lengths before them."""
    if array.dtype.kind == "O":
        items = [item if isinstance(item, bytes) else str(item).encode("utf-8") for item in array.ravel()]
        lengths = np.array([len(item) for item in items], dtype=np.uint32)
        return _meta("|O", array.shape), lengths.tobytes() + b"".join(items)
    if array.dtype.kind == "V":  # bfloat16 and its kin, which have no name of NumPy's own
        array = array.astype(np.float32)
    return _meta(array.dtype.str, array.shape), array.tobytes()


def _unpacked(meta: bytes, data: bytes) -> np.ndarray:
    dtype, shape = _read_meta(meta)
    if dtype.kind != "O":
        return np.frombuffer(data, dtype).reshape(shape)
    count = int(np.prod(shape))
    lengths = np.frombuffer(data, np.uint32, count)
    flat = np.empty(count, dtype=object)
    at = lengths.nbytes
    for index, length in enumerate(lengths.tolist()):
        flat[index] = data[at : at + length]
        at += length
    return flat.reshape(shape)
