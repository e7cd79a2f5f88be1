"""The batcher: one owner, no waiting while idle, nobody pays for a neighbour's mistake."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_infer.serving.engine.batching import Batcher, BlockResult, batch_sizes
from gpu_infer.serving.failures import BadInput, DeadlineExceeded, ModelFailure, Overloaded


def in_a_minute() -> float:
    return time.monotonic() + 60


def values_of(result: BlockResult) -> list[Any]:
    """The doubled value of each item; a block with a failed item has none at all."""
    return [] if result.failures else list(result.outputs["doubled"])


class Gate:
    """A model that doubles its input, holds every run until it is let go, and remembers the batches it saw."""

    def __init__(self, *, open_: bool = True) -> None:
        self.let_go = threading.Event()
        self.entered = threading.Event()
        self.seen: list[int] = []
        if open_:
            self.let_go.set()

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        self.seen.append(len(rows))
        self.entered.set()
        assert self.let_go.wait(30)
        if (rows == 13).any():
            msg = "thirteen"
            raise RuntimeError(msg)
        if (rows == -1).any():
            msg = "negative"
            raise ValueError(msg)
        return {"doubled": rows * 2}


def make(model: Gate, **options: object) -> Batcher:
    defaults: dict[str, object] = {"max_batch": 8, "max_queue": 32, "invalid_input_errors": (ValueError,)}
    return Batcher(model, **{**defaults, **options})  # type: ignore[arg-type]


def test_results_keep_their_order_across_batches() -> None:
    batcher = make(Gate())
    result = batcher.run(np.arange(100.0, 150.0), deadline=in_a_minute())
    assert values_of(result) == [2.0 * i for i in range(100, 150)]
    assert result.batch == 8
    batcher.close()


def test_what_waits_while_the_device_is_busy_forms_one_batch() -> None:
    model = Gate(open_=False)
    batcher = make(model)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(batcher.run, np.array([0.0]), deadline=in_a_minute())
        assert model.entered.wait(10)
        rest = [pool.submit(batcher.run, np.array([float(i)]), deadline=in_a_minute()) for i in range(1, 6)]
        while batcher.stats()["queued_items"] < 5:
            time.sleep(0.001)
        model.let_go.set()
        assert first.result(10).batch == 1
        assert [values_of(future.result(10)) for future in rest] == [[2], [4], [6], [8], [10]]
        assert {future.result(10).batch for future in rest} == {5}
    assert model.seen == [1, 5]
    assert batcher.stats()["batch_sizes"] == {"1": 1, "5": 1}
    batcher.close()


def test_without_merging_requests_keep_to_themselves() -> None:
    model = Gate(open_=False)
    batcher = make(model, merge=False)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(batcher.run, np.ones(1), deadline=in_a_minute()) for _ in range(4)]
        assert model.entered.wait(10)
        model.let_go.set()
        assert all(future.result(10).batch == 1 for future in futures)
    batcher.close()


def test_shapes_never_share_a_batch() -> None:
    model = Gate(open_=False)
    batcher = make(model)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(batcher.run, np.ones((1, width)), deadline=in_a_minute()) for width in (2, 3, 2)]
        assert model.entered.wait(10)
        model.let_go.set()
        shapes = [values_of(future.result(10))[0].shape for future in futures]
    assert shapes == [(2,), (3,), (2,)]
    batcher.close()


@pytest.mark.parametrize(("bad", "kind"), [(13.0, ModelFailure), (-1.0, BadInput)])
def test_only_the_bad_item_fails(bad: float, kind: type) -> None:
    batcher = make(Gate())
    rows = np.array([1.0, 2.0, bad, 4.0, 5.0])
    result = batcher.run(rows, deadline=in_a_minute())
    assert list(result.failures) == [2]
    assert isinstance(result.failures[2], kind)
    assert result.outputs == {}, "the request fails as a whole"
    batcher.close()


def test_a_bad_neighbour_of_another_request_is_not_noticed() -> None:
    model = Gate(open_=False)
    batcher = make(model)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.run, np.zeros(1), deadline=in_a_minute())
        assert model.entered.wait(10)
        good = pool.submit(batcher.run, np.array([3.0, 4.0]), deadline=in_a_minute())
        bad = pool.submit(batcher.run, np.array([13.0]), deadline=in_a_minute())
        while batcher.stats()["queued_items"] < 3:
            time.sleep(0.001)
        model.let_go.set()
        assert first.result(10).failures == {}
        assert good.result(10).failures == {}
        assert list(bad.result(10).failures) == [0]
    batcher.close()


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    model = Gate(open_=False)
    batcher = make(model, max_queue=4)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(batcher.run, np.zeros(1), deadline=in_a_minute())
        assert model.entered.wait(10)
        waiting = pool.submit(batcher.run, np.zeros(4), deadline=in_a_minute())
        while batcher.stats()["queued_items"] < 4:
            time.sleep(0.001)
        with pytest.raises(Overloaded, match="4 items wait, 4 may") as caught:
            batcher.run(np.zeros(1), deadline=in_a_minute())
        assert caught.value.retry_after >= 1
        model.let_go.set()
        assert running.result(10).failures == waiting.result(10).failures == {}
    assert batcher.stats()["refused_items"] == 1
    batcher.close()


def test_an_empty_queue_takes_even_a_request_longer_than_itself() -> None:
    batcher = make(Gate(), max_queue=4)
    assert len(values_of(batcher.run(np.zeros(100), deadline=in_a_minute()))) == 100
    batcher.close()


def test_what_is_not_wanted_any_more_never_reaches_the_model() -> None:
    model = Gate(open_=False)
    batcher = make(model)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(batcher.run, np.zeros(1), deadline=in_a_minute())
        assert model.entered.wait(10)
        with pytest.raises(DeadlineExceeded):
            batcher.run(np.ones(3), deadline=time.monotonic() + 0.02)
        model.let_go.set()
        running.result(10)
    assert len(values_of(batcher.run(np.zeros(1), deadline=in_a_minute()))) == 1
    assert model.seen == [1, 1]
    assert batcher.stats()["expired_items"] == 3
    batcher.close()


def test_the_owner_survives_a_model_that_exits() -> None:
    def exits(rows: np.ndarray) -> dict[str, np.ndarray]:
        raise SystemExit(1)

    batcher = Batcher(exits, max_batch=4, max_queue=8)
    for _ in range(2):
        result = batcher.run(np.zeros(1), deadline=in_a_minute())
        assert "SystemExit" in result.failures[0].message
    batcher.close()


def test_padding_repeats_real_items_and_is_not_answered() -> None:
    model = Gate()
    batcher = make(model, padded=True)
    assert len(values_of(batcher.run(np.arange(5.0), deadline=in_a_minute()))) == 5
    assert model.seen == [8]
    batcher.close()


def test_a_model_of_one_batch_size_gets_that_size() -> None:
    model = Gate()
    batcher = make(model, fixed=4)
    result = batcher.run(np.arange(6.0), deadline=in_a_minute())
    assert values_of(result) == [0, 2, 4, 6, 8, 10]
    assert model.seen == [4, 4]
    batcher.close()


@given(st.integers(1, 500), st.booleans())
def test_every_batch_finds_a_size(max_batch: int, padded: bool) -> None:
    sizes = batch_sizes(max_batch, fixed=None, padded=padded)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] == max_batch


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12), min_size=1, max_size=12), st.integers(1, 3))
def test_nobody_gets_anothers_result(requests: list[list[int]], parallel: int) -> None:
    batcher = make(Gate(), max_queue=10_000, parallel=parallel)
    with ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(batcher.run, np.array(rows, float), deadline=in_a_minute()) for rows in requests]
        for rows, future in zip(requests, futures, strict=True):
            result = future.result(30)
            assert values_of(result) == ([] if 13 in rows else [value * 2 for value in rows])
            assert sorted(result.failures) == [i for i, value in enumerate(rows) if value == 13]
    batcher.close()


def test_the_owner_survives_what_goes_wrong_between_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = make(Gate())
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_run_isolated", lambda rows: (_ for _ in ()).throw(MemoryError("no room")))
        with pytest.raises(ModelFailure, match="MemoryError: no room"):
            batcher.run(np.ones(2), deadline=in_a_minute())
    assert values_of(batcher.run(np.ones(2), deadline=in_a_minute())) == [2, 2]
    batcher.close()


def test_results_that_do_not_fit_together_fail_their_request_and_nobody_else() -> None:
    runs = iter([1, 2, 3, 4])

    def growing(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"doubled": np.zeros((len(rows), next(runs)))}

    batcher = Batcher(growing, max_batch=2, max_queue=32)
    with pytest.raises(ModelFailure, match="do not fit together"):
        batcher.run(np.zeros(3), deadline=in_a_minute())
    assert batcher.run(np.zeros(1), deadline=in_a_minute()).outputs["doubled"].shape == (1, 3)
    batcher.close()


def test_a_mistake_of_whoever_takes_the_result_does_not_end_the_device() -> None:
    batcher = make(Gate())

    def mistaken(_result: Any) -> None:
        raise RuntimeError("not mine")

    batcher.submit(np.array([1.0]), deadline=in_a_minute(), done=mistaken)
    assert values_of(batcher.run(np.array([2.0]), deadline=in_a_minute())) == [4.0]
    batcher.close()


def test_an_item_is_made_where_it_runs_and_one_that_cannot_be_made_fails_alone() -> None:
    threads: list[str] = []

    def make(value: float) -> np.ndarray:
        threads.append(threading.current_thread().name)
        if value < 0:
            raise BadInput("below zero")
        return np.full((1, 2), value, np.float32)

    started, release = threading.Event(), threading.Event()

    def predict(rows: np.ndarray) -> dict[str, np.ndarray]:
        started.set()
        assert release.wait(10)
        return {"y": rows * 2}

    batcher = Batcher(predict, max_batch=4, max_queue=8)
    outcomes: SimpleQueue[tuple[float, Any]] = SimpleQueue()
    try:
        deadline = time.monotonic() + 10
        for value in (1.0, 2.0, -1.0, 3.0):
            done = partial(_put, outcomes, value)
            batcher.submit(partial(make, value), deadline=deadline, done=done)
            assert started.wait(10)  # the first one runs alone, the others wait behind it
        release.set()
        found = dict(outcomes.get(timeout=10) for _ in range(4))
    finally:
        release.set()
        batcher.close()
    assert isinstance(found[-1.0], BadInput)
    assert [found[value].outputs["y"].tolist() for value in (1.0, 2.0, 3.0)] == [[[2, 2]], [[4, 4]], [[6, 6]]]
    assert [found[value].batch for value in (1.0, 2.0, 3.0)] == [1, 2, 2]
    assert set(threads) == {"gpu-infer-device-0"}


def _put(outcomes: SimpleQueue[tuple[float, Any]], value: float, outcome: Any) -> None:
    outcomes.put((value, outcome))
