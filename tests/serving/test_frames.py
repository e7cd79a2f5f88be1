"""What workers and the model process write to each other comes out as it went in, however it is cut up on the way."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gpu_infer.serving.engine import frames
from gpu_infer.serving.engine.jobs import BlockResult
from gpu_infer.serving.failures import KINDS, BadInput, ModelFailure, Overloaded

DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "<i8", "<i4", "|i1", "|u1", "|b1", "<c8", ">f4"])
ARRAYS = DTYPES.flatmap(lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=4, max_side=5)))
TEXTS = st.lists(st.binary(max_size=50), min_size=1, max_size=6)


def objects(items: list[bytes]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def sent(pieces: list[frames.Piece]) -> bytes:
    return b"".join(frames.joined(pieces))


def only(data: bytes) -> tuple[int, int, memoryview]:
    (frame,) = frames.Buffer().feed(data)
    return frame


@given(ARRAYS, st.integers(0, 2**63), st.floats(0, 1e9))
def test_arrays(rows: np.ndarray, number: int, deadline: float) -> None:
    kind, told, body = only(sent(frames.run(number, rows, deadline)))
    assert (kind, told) == (frames.RUN, number)
    read, until = frames.read_run(body)
    assert until == deadline
    assert read.dtype == rows.dtype
    np.testing.assert_array_equal(read, rows)


@given(TEXTS)
def test_bytes(items: list[bytes]) -> None:
    rows, _ = frames.read_run(only(sent(frames.run(1, objects(items), 0.0)))[2])
    assert rows.tolist() == items


@given(st.dictionaries(st.text(max_size=8), st.one_of(ARRAYS, TEXTS.map(objects)), max_size=4), st.integers(0, 500))
def test_results(outputs: dict[str, np.ndarray], batch: int) -> None:
    result = frames.read_done(only(frames.done(3, BlockResult(outputs, {}, batch, 1.5, 2.5)))[2])
    assert list(result.outputs) == list(outputs)
    for name, values in outputs.items():
        np.testing.assert_array_equal(result.outputs[name], values)
    assert (result.batch, result.queue_ms, result.compute_ms) == (batch, 1.5, 2.5)


def test_failures_of_items() -> None:
    failures: dict[int, Any] = {3: BadInput("zażółć", item=3), 0: ModelFailure("x")}
    result = frames.read_done(only(frames.done(1, BlockResult({}, failures, 4, 0, 0)))[2])
    assert {index: (type(f), f.message, f.item) for index, f in result.failures.items()} == {
        3: (BadInput, "zażółć", 3),
        0: (ModelFailure, "x", None),
    }


def test_refusals_of_every_kind() -> None:
    for name, kind in KINDS.items():
        failure = Overloaded("full", retry_after=7) if kind is Overloaded else kind("no", item=2)
        told = json.loads(bytes(only(frames.done(1, failure))[2]))
        again = frames.read_failure(told)
        assert (type(again).__name__, again.message, again.item) == (name, failure.message, failure.item)
    assert frames.read_failure({"kind": "Overloaded", "message": "", "item": None, "retry_after": 7}).retry_after == 7  # type: ignore[attr-defined]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=40), max_size=10), st.data())
def test_a_stream_may_be_cut_anywhere(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames.frame(frames.ASK, number, body) for number, body in enumerate(bodies))
    buffer = frames.Buffer()
    got: list[tuple[int, bytes]] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += [(number, bytes(body)) for _, number, body in buffer.feed(stream[:size])]
        stream = stream[size:]
    assert got == list(enumerate(bodies))


@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 4 * frames.LARGE), min_size=1, max_size=4),
    st.sampled_from(["<f4", "|u1", ">f8"]),
    st.data(),
)
def test_large_arrays_come_whole_and_in_line(lengths: list[int], dtype: str, data: st.DataObject) -> None:
    arrays = [np.arange(length).astype(dtype) for length in lengths]
    stream = sent([piece for number, array in enumerate(arrays) for piece in frames.run(number, array, 0.0)])
    buffer = frames.Buffer()
    got: list[frames.Frame] = []
    while stream:
        size = data.draw(st.sampled_from([1, 13, 1000, frames.LARGE, 3 * frames.LARGE, len(stream)]))
        got += buffer.feed(stream[:size])
        stream = stream[size:]
    read = [frames.read_run(body)[0] for _, _, body in got]  # only now: a body stays what it is
    assert [number for _, number, _ in got] == list(range(len(arrays)))
    for array, again in zip(arrays, read, strict=True):
        np.testing.assert_array_equal(again, array)
        assert again.dtype == array.dtype
        assert again.flags.aligned


def test_what_does_not_lie_in_one_piece() -> None:
    rows = np.arange(200_000, dtype=np.float32).reshape(400, 500)[::2, ::-1]
    read, _ = frames.read_run(only(sent(frames.run(1, rows, 0.0)))[2])
    np.testing.assert_array_equal(read, rows)


def test_many_outputs_and_long_names() -> None:
    outputs = {f"{number}-{'n' * 300}": np.zeros((1, 2), np.float32) for number in range(300)}
    result = frames.read_done(only(frames.done(3, BlockResult(outputs, {}, 1, 0, 0)))[2])
    assert list(result.outputs) == list(outputs)
