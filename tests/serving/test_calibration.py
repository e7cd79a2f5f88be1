"""The way of running a model is measured, for models whose costs are made up."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpu_infer.serving import cores
from gpu_infer.serving.engine import calibration
from gpu_infer.serving.engine.calibration import calibrate


class Model:
    """A model that takes ``per_run + per_item * items`` seconds, as a stand-in for an adapter."""

    def __init__(self, per_run: float, per_item: float, *, kind: str = "cpu", gain: float = 1.0) -> None:
        self.device = SimpleNamespace(kind=kind)
        self.threads = 0
        self._cost = (per_run, per_item)
        self._gain = gain

    def use_threads(self, threads: int) -> None:
        self.threads = threads

    def predict(self, rows: np.ndarray) -> Any:
        """All threads together are ``gain`` times as quick as one."""
        per_run, per_item = self._cost
        time.sleep((per_run + per_item * len(rows)) / (1 if self.threads == 1 else self._gain))


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "usable_cores", lambda: 2)


def form_of(model: Any, **options: Any) -> Any:
    batch: Callable[[int], np.ndarray] = lambda size: np.zeros((size, 1))  # noqa: E731
    return calibrate(model, model.predict, batch, **{"max_batch": 16, **options})


def test_a_quick_model_runs_where_requests_are_read(two_cores: None) -> None:
    model = Model(0.0001, 0)
    form = form_of(model)
    assert (form.inline, form.parallel) == (True, 1)
    assert form.max_batch > 1
    assert model.threads == 1, "other threads would only be in the way of requests"


def test_what_costs_by_the_item_runs_side_by_side(two_cores: None) -> None:
    model = Model(0, 0.004)
    form = form_of(model)
    assert (form.inline, form.parallel, model.threads) == (False, 2, 1)
    assert form.max_batch < 16, "a larger batch gives no more and answers later"


def test_what_costs_by_the_run_takes_batches(two_cores: None) -> None:
    form = form_of(Model(0.03, 0.00001, gain=6))  # far apart: a busy machine sleeps longer than it is told
    assert (form.inline, form.parallel, form.max_batch) == (False, 1, 16)


def test_threads_that_help_are_left_to_the_framework(two_cores: None) -> None:
    model = Model(0.004, 0.004, gain=2)
    form = form_of(model)
    assert (form.parallel, model.threads) == (1, 0)


def test_where_runs_also_decode_images_they_go_side_by_side_for_less(two_cores: None) -> None:
    for making, parallel in ((False, 1), (True, 2)):
        assert form_of(Model(0.004, 0.004, gain=2), making=making).parallel == parallel


@pytest.mark.parametrize(("seconds", "size"), [(0.0025, 4), (0.05, 1)])
def test_of_batches_that_the_model_likes_alike_one_is_taken_that_pays_for_its_run(seconds: float, size: int) -> None:
    curve = {f"1x{items}": 1 / seconds for items in (1, 2, 4, 8, 16)}
    assert calibration._enough(curve, 1) == size


def test_a_gpu_is_never_inline_nor_side_by_side(two_cores: None) -> None:
    model = Model(0.0005, 0, kind="cuda")
    form = form_of(model)
    assert (form.inline, form.parallel, form.max_batch) == (False, 1, 16)


def test_a_slow_model_is_measured_with_one_item_alone(two_cores: None) -> None:
    form = form_of(Model(0.6, 0))
    assert form.curve is not None
    assert set(form.curve) <= {"1x1", "2x1"}
    assert form.max_batch == 1


def test_the_curve_is_told(two_cores: None) -> None:
    form = form_of(Model(0, 0.002), max_batch=4)
    assert set(form.curve) == {"1x1", "1x2", "1x4", "2x1", "2x2", "2x4"}
    assert "2 runs side by side" in str(form)


@pytest.mark.parametrize(("text", "expected"), [("150000 100000", 2), ("max 100000", 8), ("50000 100000", 1), ("?", 8)])
def test_a_containers_limit_counts(text: str, expected: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cores.usable_cores() == expected
