"""The model in this process: warmed up, measured, and run the way that gives most."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np

from ..adapters.base import Adapter, ModelFormatError
from ..device import gpu_report
from ..failures import RequestFailure
from ..settings import Settings
from ..stages import stage
from .batching import Batcher, nothing
from .calibration import Form, calibrate
from .engine import ModelFacts
from .jobs import BlockResult, Rows
from .scheduling import Scheduler

WARM_UP_SECONDS = 120.0
"""A warm-up run that takes longer than this is left behind: the service starts without it."""


class LocalEngine:
    """The loaded model behind its queue.

    Args:
        adapter: the loaded model.
        settings: of the bundle.
        sample: an item to warm up with; ``None`` where nobody knows one.
        scheduler: how requests wait.
        making: whether ``run`` may be given what decodes an image.
        after_batch: called when all results of a batch have been handed over.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        settings: Settings,
        sample: Any,
        scheduler: Scheduler,
        making: bool = False,
        after_batch: Callable[[], None] = nothing,
    ) -> None:
        self.facts: ModelFacts = ModelFacts.of(adapter)
        self._adapter = adapter
        self._wanted = tuple(spec.name for spec in adapter.outputs)
        self._after_batch = after_batch
        self._making = making
        self._settings = settings
        self._scheduler = scheduler
        self.form: Form = Form(settings.max_batch, settings.parallel or 1)
        if settings.parallel > 1 and adapter.device.kind == "cpu":
            adapter.use_threads(settings.threads or 1)
        self._batcher = self._new_batcher()
        with stage("warm_up") as current:
            warm = False
            if not settings.warm_up:
                current.note = "skipped: switched off"
            elif sample is None:
                current.note = "skipped: the shape of an item is not known (set GPU_INFER_ITEM_SHAPE)"
            else:
                failed = self._warm_up(sample)
                warm = not failed
                current.note = failed or f"batch sizes {' '.join(map(str, self._batcher.sizes))}"
        if warm and settings.calibrate and not settings.parallel and adapter.input.fixed_batch is None:
            with stage("calibrate") as current:
                self.form = self._calibrate(sample)
                current.note = str(self.form)
        self._batcher.forget()

    @property
    def makes(self) -> bool:
        """See ``Engine``: where each core runs a batch of its own, threads that only decode would take it away."""
        return self.form.parallel > 1 and self.facts.device.kind == "cpu"

    def run(self, rows: Rows, *, deadline: float) -> BlockResult:
        """See ``Engine``."""
        return self._batcher.run(rows, deadline=deadline)

    @property
    def batcher(self) -> Batcher:
        """The queue, for those who wait in a way of their own."""
        return self._batcher

    def stats(self) -> Dict[str, Any]:
        """See ``Engine``."""
        return {**self._batcher.stats(), "form": str(self.form), "curve": self.form.curve or {}}

    def other_workers(self) -> List[Mapping[str, Any]]:
        """See ``Engine``: there are none."""
        return []

    def gpu_report(self) -> Dict[str, Any]:
        """See ``Engine``."""
        return gpu_report(self._adapter)

    def healthy(self) -> bool:
        """See ``Engine``."""
        return True

    def close(self) -> None:
        """See ``Engine``."""
        self._batcher.close()

    def _predict(self, rows: np.ndarray) -> Any:
        return self._adapter.predict(rows, self._wanted)

    def _new_batcher(self) -> Batcher:
        settings, adapter = self._settings, self._adapter
        return Batcher(
            self._predict,
            scheduler=self._scheduler,
            max_batch=self.form.max_batch,
            max_queue=settings.max_queue,
            max_queue_ms=settings.max_queue_ms,
            parallel=self.form.parallel,
            inline=self.form.inline,
            fixed=adapter.input.fixed_batch,
            padded=adapter.device.kind != "cpu",
            merge=settings.batching,
            invalid_input_errors=tuple(adapter.invalid_input_errors),
            after_batch=self._after_batch,
        )

    def _calibrate(self, sample: Any) -> Form:
        self._batcher.close()
        form = self.form
        try:
            form = calibrate(
                self._adapter,
                self._predict,
                lambda size: rows_of(sample, size),
                max_batch=self._settings.max_batch,
                threads=self._settings.threads,
                making=self._making,
            )
        finally:
            self.form = form
            self._batcher = self._new_batcher()
        return form

    def _warm_up(self, sample: Any) -> str:
        """Run every batch size once, through the threads that will run them later; returns why not all were run."""
        for size in self._batcher.sizes:
            failure = self._try(rows_of(sample, size))
            if failure is not None:
                if isinstance(failure.__cause__, ModelFormatError):
                    raise failure.__cause__
                return f"stopped at batch size {size}: {failure.message} (on a made-up sample; real items may be fine)"
        return ""

    def _try(self, rows: np.ndarray) -> Optional[RequestFailure]:
        try:
            outcome = self._batcher.run(rows, deadline=time.monotonic() + WARM_UP_SECONDS)
        except RequestFailure as failure:
            return failure
        failures: List[RequestFailure] = [failure for _, failure in sorted(outcome.failures.items())]
        return failures[0] if failures else None


def rows_of(sample: Any, size: int) -> np.ndarray:
    """A batch that repeats one item."""
    if isinstance(sample, bytes):
        rows = np.empty(size, dtype=object)
        rows[:] = [sample] * size
        return rows
    return np.repeat(sample[np.newaxis], size, axis=0)
