"""Micro-batching: one thread owns the device, everybody else queues.

The owner never waits while there is work: it takes what stands in the queue, up to ``max_batch`` items of one shape,
and runs it. While the device is busy the next batch collects by itself, so batches grow with the load and a lone
request waits for nobody.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence, Tuple, Type

import numpy as np

from .failures import BadInput, DeadlineExceeded, ModelFailure, Overloaded, RequestFailure

_LOOK_AHEAD = 64
"""How many jobs of another shape the owner passes over in search of more for its batch."""

Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class BlockResult:
    """What became of a block of items.

    Args:
        outputs: by output name, one row per item; a failed item has ``None``.
        failures: by index in the block, why an item has no output.
        batch: how many items the largest batch held that this block was part of, padding not counted.
        queue_ms: the longest time an item waited for the device.
    """

    outputs: List[Optional[Dict[str, Any]]]
    failures: Dict[int, RequestFailure]
    batch: int
    queue_ms: float


def _new_future() -> Future[BlockResult]:
    return Future()


@dataclass
class _Job:
    """Some items of one request, at most a batch of them, waiting for the device."""

    rows: np.ndarray
    deadline: float
    queued: float
    future: Future[BlockResult] = field(default_factory=_new_future)
    abandoned: bool = False

    @property
    def key(self) -> Tuple[Any, ...]:
        """Jobs of one key can run in one batch."""
        return (self.rows.dtype.str, self.rows.shape[1:])


def batch_sizes(max_batch: int, *, fixed: Optional[int], padded: bool) -> List[int]:
    """The batch sizes that the model will see.

    Args:
        max_batch: the largest.
        fixed: the only size that the model takes, where it insists on one.
        padded: whether sizes are rounded up to powers of two, so that a GPU framework plans each shape once.

    Returns:
        ascending sizes; without padding just the smallest and the largest, since any size between them runs as it is.
    """
    if fixed is not None:
        return [fixed]
    if not padded:
        return sorted({1, max_batch})
    return [1 << power for power in range(int(math.log2(max_batch)) + 1)] + (
        [] if max_batch & (max_batch - 1) == 0 else [max_batch]
    )


class Batcher:
    """Runs blocks of items in batches.

    Args:
        predict: runs the model on ``[n, ...]`` rows; called by the owner thread alone.
        max_batch: the most items of one run.
        max_queue: the most items that wait.
        fixed: the batch size that the model insists on, if it does.
        padded: whether batches are padded to powers of two.
        merge: whether blocks of different requests share a batch.
        invalid_input_errors: exceptions of ``predict`` that mean the values are wrong, not the model.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        max_batch: int,
        max_queue: int,
        fixed: Optional[int] = None,
        padded: bool = False,
        merge: bool = True,
        invalid_input_errors: Tuple[Type[BaseException], ...] = (),
    ) -> None:
        self._predict = predict
        self._max_batch = fixed or max_batch
        self._max_queue = max_queue
        self._fixed = fixed
        self._padded = padded
        self._merge = merge
        self._invalid = invalid_input_errors
        self._jobs: Deque[_Job] = deque()
        self._waiting = 0
        self._wake = threading.Condition()
        self._closed = False
        self._histogram: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._own_device, name="gpu-infer-device", daemon=True)
        self._thread.start()

    @property
    def sizes(self) -> List[int]:
        """The batch sizes that the model will see, for warm-up."""
        return batch_sizes(self._max_batch, fixed=self._fixed, padded=self._padded)

    def run(self, rows: np.ndarray, *, deadline: float) -> BlockResult:
        """Run a block of items of one shape and wait for its results.

        Args:
            rows: ``[k, ...]``, any k.
            deadline: on the clock of ``time.monotonic``.

        Raises:
            Overloaded: the queue has no room.
            DeadlineExceeded: no result in time; what has not started yet never will.
        """
        now = time.monotonic()
        starts = range(0, len(rows), self._max_batch)
        jobs = [_Job(rows[at : at + self._max_batch], deadline, now) for at in starts]
        self._enqueue(jobs, len(rows))
        try:
            parts = [job.future.result(timeout=max(0.0, deadline - time.monotonic())) for job in jobs]
        except FutureTimeoutError:
            raise DeadlineExceeded("No result within the time-out: the model is slow or the queue is long.") from None
        finally:
            for job in jobs:
                job.abandoned = True
        return _join(parts)

    def stats(self) -> Dict[str, Any]:
        """Counters since the start: items, batches, failures, seconds on the device, batch sizes, queue length."""
        with self._wake:
            return {
                "items": self._counts["items"],
                "batches": sum(self._histogram.values()),
                "failed_items": self._counts["failed"],
                "refused_items": self._counts["refused"],
                "expired_items": self._counts["expired"],
                "device_seconds": round(self._seconds, 6),
                "batch_sizes": {str(size): count for size, count in sorted(self._histogram.items())},
                "queued_items": self._waiting,
            }

    def forget(self) -> None:
        """Set the counters to 0, so that they count requests and not the warm-up."""
        with self._wake:
            self._histogram.clear()
            self._counts.clear()
            self._seconds = 0.0

    def close(self) -> None:
        """Stop the owner thread once it has finished what runs; what waits is refused."""
        with self._wake:
            self._closed = True
            for job in self._jobs:
                job.future.set_exception(Overloaded("The service is stopping.", retry_after=1))
            self._jobs.clear()
            self._wake.notify_all()
        self._thread.join()

    def _enqueue(self, jobs: List[_Job], items: int) -> None:
        with self._wake:
            if self._closed:
                raise Overloaded("The service is stopping.", retry_after=1)
            # An empty queue takes any request: one with more items than the queue is long must not be refused for ever.
            if self._waiting and self._waiting + items > self._max_queue:
                self._counts["refused"] += items
                wait = self._waiting * self._seconds / max(1, self._counts["items"])
                raise Overloaded(
                    f"The queue is full: {self._waiting} items wait, {self._max_queue} may. Send less, or later.",
                    retry_after=max(1, math.ceil(wait)),
                )
            self._jobs.extend(jobs)
            self._waiting += items
            self._wake.notify()

    def _take(self) -> Optional[List[_Job]]:
        """Wait for work; return jobs for one batch, or None when closed."""
        with self._wake:
            while True:
                while not self._jobs and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return None
                batch = self._pick()
                if batch:
                    return batch

    def _pick(self) -> List[_Job]:
        """Take the oldest job and those behind it that fit with it; drop what nobody waits for any more."""
        batch: List[_Job] = []
        passed_over: List[_Job] = []
        size, now = 0, time.monotonic()
        while self._jobs and size < self._max_batch and len(passed_over) < _LOOK_AHEAD:
            job = self._jobs.popleft()
            if job.abandoned or job.deadline <= now:
                self._waiting -= len(job.rows)
                self._counts["expired"] += len(job.rows)
                job.future.set_exception(DeadlineExceeded("The time-out passed before the device was free."))
            elif not batch or (job.key == batch[0].key and size + len(job.rows) <= self._max_batch):
                batch.append(job)
                size += len(job.rows)
                self._waiting -= len(job.rows)
                if not self._merge:
                    break
            else:
                passed_over.append(job)
        self._jobs.extendleft(reversed(passed_over))
        return batch

    def _own_device(self) -> None:
        while True:
            jobs = self._take()
            if jobs is None:
                return
            try:
                self._run_jobs(jobs)
            except BaseException as error:  # out of memory between the runs: this batch fails, the next may not
                failure = ModelFailure(f"The batch could not be run: {type(error).__name__}: {_first_line(error)}")
                failure.__cause__ = error
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(failure)

    def _run_jobs(self, jobs: List[_Job]) -> None:
        """Run one batch and hand each job its part."""
        started = time.monotonic()
        rows = jobs[0].rows if len(jobs) == 1 else np.concatenate([job.rows for job in jobs])
        clock = time.perf_counter()
        outputs, failures = self._run_isolated(rows)
        seconds = time.perf_counter() - clock
        with self._wake:
            self._histogram[len(rows)] += 1
            self._counts["items"] += len(rows)
            self._counts["failed"] += len(failures)
            self._seconds += seconds
        at = 0
        for job in jobs:
            end = at + len(job.rows)
            mine = {index - at: failure for index, failure in failures.items() if at <= index < end}
            job.future.set_result(BlockResult(outputs[at:end], mine, len(rows), (started - job.queued) * 1e3))
            at = end

    def _run_isolated(self, rows: np.ndarray) -> Tuple[List[Optional[Dict[str, Any]]], Dict[int, RequestFailure]]:
        """Run rows; where the run raises, halve until only the items at fault are without a result."""
        try:
            outputs = self._predict(self._pad(rows))
            return [{name: values[i] for name, values in outputs.items()} for i in range(len(rows))], {}
        except RequestFailure as failure:
            if len(rows) == 1:
                return [None], {0: failure}
        except self._invalid as error:
            if len(rows) == 1:
                return [None], {0: BadInput(f"The model refused the input: {_first_line(error)}")}
        except (Exception, SystemExit) as error:  # whatever the model raises must not end the one thread there is
            if len(rows) == 1:
                failure = ModelFailure(f"The model raised {type(error).__name__}: {_first_line(error)}")
                failure.__cause__ = error
                return [None], {0: failure}
        half = len(rows) // 2
        first, first_failures = self._run_isolated(rows[:half])
        second, second_failures = self._run_isolated(rows[half:])
        return first + second, {**first_failures, **{half + i: failure for i, failure in second_failures.items()}}

    def _pad(self, rows: np.ndarray) -> np.ndarray:
        """Repeat the last item up to the next size; a copy of a real item is valid input, zeros may not be."""
        if self._fixed is not None:
            size = self._fixed
        elif self._padded:
            size = next(size for size in self.sizes if size >= len(rows))
        else:
            return rows
        if size == len(rows):
            return rows
        return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def _join(parts: Sequence[BlockResult]) -> BlockResult:
    """Put the results of a request's blocks together again."""
    outputs: List[Optional[Dict[str, Any]]] = []
    failures: Dict[int, RequestFailure] = {}
    for part in parts:
        failures.update({len(outputs) + index: failure for index, failure in part.failures.items()})
        outputs.extend(part.outputs)
    batch = max((part.batch for part in parts), default=0)
    return BlockResult(outputs, failures, batch, max((part.queue_ms for part in parts), default=0.0))


def _first_line(error: BaseException) -> str:
    """The first line of an exception's text, short enough for an answer; the log has the rest."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
