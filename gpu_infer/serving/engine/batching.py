"""Micro-batching: device threads own the model, everybody else queues.

A device thread never waits while there is work: it takes what stands in the queue, up to ``max_batch`` items of one
shape, and runs it. While the device is busy the next batch collects by itself, so batches grow with the load and a lone
request waits for nobody. A model that is quicker than a change of threads runs *inline* instead: in the thread that
reads the requests, as soon as none is ready to be read.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from queue import SimpleQueue
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple, Type, Union

import numpy as np

from ..failures import BadInput, DeadlineExceeded, ModelFailure, Overloaded, RequestFailure, first_line
from .jobs import BlockResult, Done, Gather, Job, Outputs, Rows, batch_sizes, count_of, stacked
from .latencies import Latencies
from .scheduling import Scheduler, Threads, TimedOut

_LOOK_AHEAD = 64
"""How many jobs of another shape a device thread passes over in search of more for its batch."""

_INLINE_WAIT = 0.002
"""Seconds after which an inline model runs what waits, however many requests are ready to be read."""

_SOON = 0.1
"""Seconds: however many items wait, with so little work before them they are no queue."""

_NEWEST = 0.2
"""The weight of the latest batch in the pace of the device, from which the wait of a new request is foretold."""

Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def nothing() -> None:
    """Do nothing."""


class Batcher:
    """Runs blocks of items in batches.

    Args:
        predict: runs the model on ``[n, ...]`` rows; called by ``parallel`` threads at once.
        scheduler: how a request waits.
        max_batch: the most items of one run.
        max_queue: the most items that wait.
        max_queue_ms: the longest wait that a request is let in for, foretold from the pace of the device.
        parallel: how many device threads there are.
        inline: run in the thread that reads requests, where the scheduler allows it.
        fixed: the batch size that the model insists on, if it does.
        padded: whether batches are padded to powers of two.
        merge: whether blocks of different requests share a batch.
        invalid_input_errors: exceptions of ``predict`` that mean the values are wrong, not the model.
        after_batch: called when all results of a batch have been handed over.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        scheduler: Optional[Scheduler] = None,
        max_batch: int,
        max_queue: int,
        max_queue_ms: float = math.inf,
        parallel: int = 1,
        inline: bool = False,
        fixed: Optional[int] = None,
        padded: bool = False,
        merge: bool = True,
        invalid_input_errors: Tuple[Type[BaseException], ...] = (),
        after_batch: Callable[[], None] = nothing,
    ) -> None:
        self._predict = predict
        self._scheduler: Scheduler = scheduler or Threads()
        self.max_batch: int = fixed or max_batch
        self._max_queue = max_queue
        self._max_queue_seconds = max_queue_ms / 1e3
        self._parallel = parallel
        self._fixed = fixed
        self._padded = padded
        self._sizes = batch_sizes(self.max_batch, fixed=fixed, padded=padded)
        self._merge = merge
        self._invalid = invalid_input_errors
        self._after_batch = after_batch
        self._jobs: Deque[Job] = deque()
        self._waiting = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._histogram: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._pace = 0.0
        self._flushing = False
        self.latencies: Latencies = Latencies(("queue", "compute"))
        self.inline: bool = inline and self._scheduler.when_idle(nothing)
        count = 0 if self.inline else parallel
        self._threads = [
            threading.Thread(target=self._own_device, name=f"gpu-infer-device-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def sizes(self) -> List[int]:
        """The batch sizes that the model will see, for warm-up."""
        return self._sizes

    # --- for requests -------------------------------------------------------------------------------------------------

    def run(self, rows: Rows, *, deadline: float) -> BlockResult:
        """Run a block of items of one shape and wait for its results.

        Args:
            rows: ``[k, ...]``, any k above 0; or what makes ``[1, ...]`` of one item, see ``Job``.
            deadline: on the clock of ``time.monotonic``.

        Raises:
            Overloaded: the queue has no room.
            DeadlineExceeded: no result in time; what has not started yet never will.
        """
        waiter = self._scheduler.waiter()
        jobs = self.submit(rows, deadline=deadline, done=waiter.set)
        try:
            outcome: Union[BlockResult, RequestFailure] = waiter.wait(deadline)
        except TimedOut:
            for job in jobs:
                job.abandoned = True
            raise DeadlineExceeded("No result within the time-out: the model is slow or the queue is long.") from None
        if isinstance(outcome, RequestFailure):
            raise outcome
        return outcome

    def submit(self, rows: Rows, *, deadline: float, done: Done) -> List[Job]:
        """Queue a block of items.

        Args:
            rows: see ``run``.
            deadline: on the clock of ``time.monotonic``; what has not started by then never will.
            done: called once, by whatever thread is done, with a ``BlockResult`` or a ``RequestFailure``.

        Raises:
            Overloaded: the queue has no room; ``done`` is not called.
        """
        now, count = time.monotonic(), count_of(rows)
        if callable(rows) or count <= self.max_batch:
            jobs = [Job(rows, deadline, now, done)]
        else:
            starts = range(0, count, self.max_batch)
            gather = Gather(len(starts), self.max_batch, done)
            jobs = [
                Job(rows[at : at + self.max_batch], deadline, now, gather.place(index))
                for index, at in enumerate(starts)
            ]
        with self._lock:
            self._admit(count, deadline - now)
            self._jobs.extend(jobs)
            self._waiting += count
            woken = min(self._idle, len(jobs))
            self._idle -= woken
        if self.inline:
            self._schedule_flush()
        else:
            for _ in range(woken):
                self._wake.put(None)
        return jobs

    def _admit(self, items: int, seconds: float) -> None:
        """Refuse what would wait too long or has no such time left; the caller holds the lock."""
        if self._closed:
            raise Overloaded("The service is stopping.", retry_after=1)
        wait = self._waiting * self._pace / self._parallel
        # A queue that is soon empty takes any request: one of more items than may wait must not be refused for ever.
        soon = not self._waiting or 0 < wait <= _SOON
        longest = min(self._max_queue_seconds, seconds)
        if soon or (self._waiting + items <= self._max_queue and wait <= longest):
            return
        self._counts["refused"] += items
        room = f"{self._max_queue} may" if wait <= longest else f"{wait:.1f} s of work"
        full = f"The queue is full: {self._waiting} items wait, {room}. Send less, or later."
        raise Overloaded(full, retry_after=max(1, math.ceil(wait / 2)))

    # --- reports ------------------------------------------------------------------------------------------------------

    def stats(self) -> Dict[str, Any]:
        """Counters since the start: items, batches, failures, seconds on the device, batch sizes, queue length."""
        with self._lock:
            return {
                "items": self._counts["items"],
                "batches": sum(self._histogram.values()),
                "failed_items": self._counts["failed"],
                "refused_items": self._counts["refused"],
                "expired_items": self._counts["expired"],
                "device_seconds": round(self._seconds, 6),
                "batch_sizes": {str(size): count for size, count in sorted(self._histogram.items())},
                "queued_items": self._waiting,
                "parallel": self._parallel,
                "latencies": self.latencies.counts(),
            }

    def forget(self) -> None:
        """Set the counters to 0, so that they count requests and not the warm-up."""
        with self._lock:
            self._histogram.clear()
            self._counts.clear()
            self._seconds = 0.0
            self.latencies.clear()

    def close(self) -> None:
        """Stop the device threads once they have finished what runs; what waits is refused."""
        with self._lock:
            self._closed = True
            waiting, self._jobs = list(self._jobs), deque()
        for job in waiting:
            job.finish(Overloaded("The service is stopping.", retry_after=1))
        for _ in self._threads:
            self._wake.put(None)
        for thread in self._threads:
            thread.join()

    # --- the device ---------------------------------------------------------------------------------------------------

    def _own_device(self) -> None:
        while True:
            jobs = self._take()
            if jobs is None:
                return
            self._finish(jobs)

    def _take(self) -> Optional[List[Job]]:
        """Wait for work; return jobs for one batch, or None when closed."""
        while True:
            with self._lock:
                batch, expired = ([], []) if self._closed else self._pick()
                if not batch:
                    self._idle += 1
            _refuse(expired)
            if batch:
                return batch
            if self._closed:
                return None
            self._wake.get()

    def _schedule_flush(self) -> None:
        """Have an inline model run: when nobody is ready to be read, or enough waits, or it has waited long enough."""
        if not self._flushing:
            self._flushing = True
            self._scheduler.when_idle(self._flush)
        if self._waiting >= self.max_batch or time.monotonic() - self._jobs[0].queued > _INLINE_WAIT:
            self._scheduler.soon(self._flush)

    def _flush(self) -> None:
        """Run what waits now; what comes meanwhile waits for the next time, or a few quick clients would get it all."""
        self._flushing = False
        batches: List[List[Job]] = []
        while True:
            with self._lock:
                batch, expired = self._pick()
            _refuse(expired)
            if not batch:
                break
            batches.append(batch)
        for batch in batches:
            self._finish(batch)

    def _pick(self) -> Tuple[List[Job], List[Job]]:
        """Take the oldest job and those behind it that fit with it; drop what nobody waits for any more.

        The caller holds the lock, and tells those dropped when it has let go of it: a greenlet that is told goes on at
        once. Where several device threads run, each takes its share of what waits.

        Returns:
            the batch, and what was dropped.
        """
        most = self.max_batch
        if self._parallel > 1:
            most = min(most, -(-self._waiting // self._parallel))
        batch: List[Job] = []
        expired: List[Job] = []
        passed_over: List[Job] = []
        size, now = 0, time.monotonic()
        while self._jobs and size < most and len(passed_over) < _LOOK_AHEAD:
            job = self._jobs.popleft()
            count = job.count
            if job.abandoned or job.deadline <= now:
                self._waiting -= count
                self._counts["expired"] += count
                expired.append(job)
            elif not batch or (job.key == batch[0].key and size + count <= self.max_batch):
                batch.append(job)
                size += count
                self._waiting -= count
                if not self._merge:
                    break
            else:
                passed_over.append(job)
        self._jobs.extendleft(reversed(passed_over))
        return batch, expired

    def _finish(self, jobs: List[Job]) -> None:
        """Run one batch; whatever happens, each job of it gets an answer."""
        taken = time.monotonic()
        made = [(job, rows) for job in jobs for rows in (job.make(),) if rows is not None]
        jobs = [job for job, _ in made]
        try:
            results = self._run_jobs(jobs, [rows for _, rows in made], taken) if made else []
        except BaseException as error:  # out of memory between the runs: this batch fails, the next may not
            failure = ModelFailure(f"The batch could not be run: {type(error).__name__}: {first_line(error)}")
            failure.__cause__ = error
            results = [failure] * len(jobs)
        for job, result in zip(jobs, results):
            job.finish(result)
        self._after_batch()

    def _run_jobs(self, jobs: List[Job], parts: List[np.ndarray], taken: float) -> List[Any]:
        """Run one batch of jobs and their rows, which left the queue when ``taken``; returns each job's part."""
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        started = time.monotonic()
        outputs, pieces, failures = self._run_isolated(rows)
        count, seconds = len(rows), time.monotonic() - started
        compute, busy = seconds * 1e3, time.monotonic() - taken
        with self._lock:
            self._histogram[count] += 1
            self._counts["items"] += count
            self._counts["failed"] += len(failures)
            self._seconds += seconds
            pace = busy / count
            self._pace = pace if not self._pace else self._pace + _NEWEST * (pace - self._pace)
            self.latencies.add("compute", compute, len(jobs))
            for job in jobs:
                self.latencies.add("queue", (taken - job.queued) * 1e3)
        results: List[Any] = []
        at = 0
        for job in jobs:
            end = at + job.count
            mine = {index - at: failure for index, failure in failures.items() if at <= index < end} if failures else {}
            part: Outputs = {}
            if not failures:
                part = {name: values[at:end] for name, values in outputs.items()}
            elif not mine:
                part = stacked(pieces[at:end])
            results.append(BlockResult(part, mine, count, (taken - job.queued) * 1e3, compute))
            at = end
        return results

    def _run_isolated(self, rows: np.ndarray) -> Tuple[Outputs, List[Outputs], Dict[int, RequestFailure]]:
        """Run rows; where the run raises, halve until only the items at fault are without a result.

        Returns:
            the outputs of all rows; or, where an item failed, those of each row by itself, and the failures.
        """
        count = len(rows)
        try:
            outputs = self._predict(self._pad(rows))
            return {name: values[:count] for name, values in outputs.items()}, [], {}
        except RequestFailure as failure:
            if count == 1:
                return {}, [{}], {0: failure}
        except self._invalid as error:
            if count == 1:
                return {}, [{}], {0: BadInput(f"The model refused the input: {first_line(error)}")}
        except (Exception, SystemExit) as error:  # whatever the model raises must not end the device thread
            if count == 1:
                failure = ModelFailure(f"The model raised {type(error).__name__}: {first_line(error)}")
                failure.__cause__ = error
                return {}, [{}], {0: failure}
        pieces: List[Outputs] = []
        failures: Dict[int, RequestFailure] = {}
        for half in (rows[: count // 2], rows[count // 2 :]):
            outputs, single, failed = self._run_isolated(half)
            failures.update({len(pieces) + index: failure for index, failure in failed.items()})
            pieces += single or [
                {name: values[index : index + 1] for name, values in outputs.items()} for index in range(len(half))
            ]
        return {}, pieces, failures

    def _pad(self, rows: np.ndarray) -> np.ndarray:
        """Repeat the last item up to the next size; a copy of a real item is valid input, zeros may not be."""
        if self._fixed is not None:
            size = self._fixed
        elif self._padded:
            size = next(size for size in self._sizes if size >= len(rows))
        else:
            return rows
        if size == len(rows):
            return rows
        return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def _refuse(expired: List[Job]) -> None:
    for job in expired:
        job.finish(DeadlineExceeded("The time-out passed before the device was free."))
