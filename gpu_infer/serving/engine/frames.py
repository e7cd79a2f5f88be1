"""What workers and the model process write to each other: frames on a Unix socket of their own.

A frame is its length (4 bytes), its kind (1 byte), the number of the question it belongs to (8 bytes), and a body.
Arrays travel as they lie in memory. Both sides are this very package, on one machine: there is no version.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

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
_DONE = struct.Struct("<IffHI")
_OUTPUT = struct.Struct("<HHQ")

CHUNK = 1 << 20
"""Bytes that are read at once, on either side."""

LARGE = 64 << 10
"""Bytes from which on an array is sent from where it lies, and a frame is put together where it stays."""

ALIGNMENT = 16
"""The items of a large frame begin at a multiple of it: frameworks copy what lies askew."""

Frame = Tuple[int, int, memoryview]
Piece = Union[bytes, memoryview]


def frame(kind: int, number: int, body: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(len(body), kind, number) + body


def joined(pieces: Sequence[Piece]) -> List[Piece]:
    """What is to be sent, the small pieces put together."""
    together: List[Piece] = []
    small: List[Piece] = []
    for piece in pieces:
        if len(piece) < LARGE:
            small.append(piece)
            continue
        together += [b"".join(small), piece] if small else [piece]
        small = []
    return [*together, b"".join(small)] if small else together


def told(number: int, report: Any) -> bytes:
    """A report."""
    return frame(TOLD, number, json.dumps(report).encode())


def run(number: int, rows: np.ndarray, deadline: float) -> List[Piece]:
    """A block of items to run, in pieces; ``rows`` must stay as they are until those are sent.

    Args:
        number: of the question.
        rows: ``[k, ...]``; an array of ``bytes`` objects for a model of strings.
        deadline: on the clock of ``time.monotonic``, which all processes of a machine share.
    """
    meta, data = _packed(rows)
    if len(data) >= LARGE:
        meta += b" " * (-(_RUN.size + len(meta)) % ALIGNMENT)
    head = _HEAD.pack(_RUN.size + len(meta) + len(data), RUN, number) + _RUN.pack(deadline, len(meta)) + meta
    return [head, data] if len(data) >= LARGE else [head + data]


def read_run(body: memoryview) -> Tuple[np.ndarray, float]:
    """What ``run`` wrote: rows and deadline."""
    deadline, length = _RUN.unpack_from(body)
    at = _RUN.size + length
    return _unpacked(bytes(body[_RUN.size : at]), body[at:]), deadline


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
        outputs[text] = _unpacked(bytes(body[at : at + meta]), body[at + meta : at + meta + data])
        at += meta + data
    return BlockResult(outputs, failures, batch, queue_ms, compute_ms)


def read_failure(failure: Any) -> RequestFailure:
    """A failure as another process told it."""
    kind = KINDS[failure["kind"]]
    if kind is Overloaded:
        return Overloaded(failure["message"], retry_after=failure["retry_after"])
    return kind(failure["message"], item=failure["item"])


class Space:
    """Where bytes are read to before it is known how many they are.

    ``recv()`` would make an object of the largest size each time and cut it down, which leaves memory in small pieces.
    """

    def __init__(self) -> None:
        self._view = memoryview(bytearray(CHUNK))

    def take(self, sock: Any) -> bytes:
        """What has come; raises what ``recv_into()`` of the socket does."""
        return bytes(self._view[: sock.recv_into(self._view)])


class Buffer:
    """Bytes as they come in, and the frames that are whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._large: Optional[_Large] = None

    def feed(self, data: bytes) -> List[Frame]:
        """Add bytes; returns each frame that is whole now: kind, number, body."""
        frames: List[Frame] = []
        if self._large is not None:
            data = data[self._large.fill(data) :]
            if self._large.missing:
                return frames
            frames.append(self._large.frame)
            self._large = None
        whole = self._rest + data if self._rest else data
        view = memoryview(whole)
        at = 0
        while len(view) - at >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(view, at)
            start = at + _HEAD.size
            end = start + length
            if end > len(view):
                if length >= LARGE:
                    self._large = _Large(kind, number, length)
                    self._large.fill(view[start:])
                    at = len(view)
                break
            frames.append((kind, number, view[start:end]))
            at = end
        self._rest = bytes(view[at:])
        return frames


class _Large:
    """A frame whose body is put together where it stays."""

    def __init__(self, kind: int, number: int, length: int) -> None:
        self.missing: int = length
        self._body = memoryview(bytearray(length))
        self.frame: Frame = (kind, number, self._body)

    def fill(self, data: Piece) -> int:
        """Take what is missing of ``data``; returns how much that was."""
        count = min(len(data), self.missing)
        at = len(self._body) - self.missing
        self._body[at : at + count] = data[:count]
        self.missing -= count
        return count


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
    return np.dtype(dtype), tuple(int(axis) for axis in shape.strip().split(",") if axis)


def _packed(array: np.ndarray) -> Tuple[bytes, Piece]:
    """An array as what describes it and what it holds; bytes objects with their lengths before them."""
    if array.dtype.kind == "O":
        items = [item if isinstance(item, bytes) else str(item).encode("utf-8") for item in array.ravel()]
        lengths = np.array([len(item) for item in items], dtype=np.uint32)
        return _meta("|O", array.shape), lengths.tobytes() + b"".join(items)
    if array.dtype.kind == "V":  # bfloat16 and its kin, which have no name of NumPy's own
        array = array.astype(np.float32)
    meta = _meta(array.dtype.str, array.shape)
    if array.nbytes < LARGE:
        return meta, array.tobytes()
    return meta, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _unpacked(meta: bytes, data: memoryview) -> np.ndarray:
    dtype, shape = _read_meta(meta)
    if dtype.kind != "O":
        # A small one is copied: it would keep all that came with it in memory.
        array = np.frombuffer(data if len(data) >= LARGE else bytes(data), dtype).reshape(shape)
        return array if array.flags.aligned else array.copy()
    count = int(np.prod(shape))
    lengths = np.frombuffer(data, np.uint32, count)
    flat = np.empty(count, dtype=object)
    at = lengths.nbytes
    for index, length in enumerate(lengths.tolist()):
        flat[index] = bytes(data[at : at + length])
        at += length
    return flat.reshape(shape)
