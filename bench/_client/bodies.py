"""What it costs to write a body and to read it again: the tutorials' way, two JSON libraries, and ours."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson

from gpu_infer.client.codecs import decode_npy
from gpu_infer.client.inputs import encode

ROWS = (1, 64, 1024)
_TURN_SECONDS = 0.05
"""A turn repeats its work for about so long."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to write a body.

    Args:
        name: in the table.
        write: gives the body.
        read: gives back what was written.
    """

    name: str
    write: Callable[[], bytes]
    read: Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """A way's figures, medians over the rounds.

    Args:
        what, way: names.
        size: of the body, in bytes.
        write_ms: to encode it.
        read_ms: to decode it.
    """

    what: str
    way: str
    size: int
    write_ms: float
    read_ms: float

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return asdict(self)


def measure(jpeg: bytes, *, rounds: int, sizes: tuple[int, ...] = ROWS) -> list[Measured]:
    """All bodies in all ways, which take turns.

    Raises:
        SystemExit: a way does not give back what it was given.
    """
    found: list[Measured] = []
    for count in sizes:
        rows = np.random.default_rng(0).random((count, 784), dtype=np.float32)
        what = f"{count:,} row{'s' if count > 1 else ''}"
        found += _turns(what, ways_of_rows(rows), rounds, lambda read, rows=rows: np.allclose(read, rows))
    return found + _turns("JPEG", ways_of_jpeg(jpeg), rounds, lambda read: read == jpeg)


def ways_of_rows(rows: np.ndarray[Any, Any]) -> list[Way]:
    """An array ``[n, 784]`` of float32."""

    def tutorial() -> bytes:
        # The second tutorial writes str(list(row)). With NumPy 2 that is "[np.float32(0.5), ...]", which is no JSON;
        # with tolist() it is what it was meant to be.
        return ('{"data": [' + ", ".join(str(row.tolist()) for row in rows) + "]}").encode()

    def from_json(body: bytes) -> Any:
        return np.array(json.loads(body)["data"])

    def from_orjson(body: bytes) -> Any:
        return np.array(orjson.loads(body)["data"])

    return [
        Way("tutorial", tutorial, from_json),
        Way("json", lambda: json.dumps({"data": rows.tolist()}).encode(), from_json),
        Way("orjson", lambda: orjson.dumps({"data": rows}, option=orjson.OPT_SERIALIZE_NUMPY), from_orjson),
        Way("ours, JSON", lambda: bytes(encode(rows, "json").body), from_orjson),
        Way("ours, npy", lambda: bytes(encode(rows, "npy").body), decode_npy),
    ]


def ways_of_jpeg(jpeg: bytes) -> list[Way]:
    """A file: as it is, as the first tutorial sends it, or as text in JSON."""
    text = base64.b64encode

    def from_json(body: bytes) -> bytes:
        return base64.b64decode(json.loads(body)["data"][0])

    def from_orjson(body: bytes) -> bytes:
        return base64.b64decode(orjson.loads(body)["data"][0])

    def from_ours(body: bytes) -> bytes:
        return base64.b64decode(orjson.loads(body)["data"]["b64"])

    return [
        Way("tutorial", lambda: jpeg, lambda body: body),
        Way("json", lambda: json.dumps({"data": [text(jpeg).decode()]}).encode(), from_json),
        Way("orjson", lambda: orjson.dumps({"data": [text(jpeg).decode()]}), from_orjson),
        Way("ours, JSON", lambda: bytes(encode(jpeg, "json").body), from_ours),
        Way("ours, bytes", lambda: bytes(encode(jpeg).body), lambda body: body),
    ]


def _turns(what: str, ways: list[Way], rounds: int, same: Callable[[Any], bool]) -> list[Measured]:
    bodies = {way.name: way.write() for way in ways}
    for way in ways:
        if not same(way.read(bodies[way.name])):
            raise SystemExit(f"{way.name} does not give back {what} as it was given.")
    writes: dict[str, list[float]] = {way.name: [] for way in ways}
    reads: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
            body = bodies[way.name]
            writes[way.name].append(_milliseconds(way.write))
            reads[way.name].append(_milliseconds(lambda way=way, body=body: way.read(body)))
    return [
        Measured(
            what,
            way.name,
            len(bodies[way.name]),
            statistics.median(writes[way.name]),
            statistics.median(reads[way.name]),
        )
        for way in ways
    ]


def _milliseconds(work: Callable[[], Any]) -> float:
    """Of one run, the mean of as many as fill a turn."""
    started = time.perf_counter()
    work()
    repeats = max(1, round(_TURN_SECONDS / max(1e-7, time.perf_counter() - started)))
    repeats = min(repeats, 20_000)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - started) / repeats * 1e3
