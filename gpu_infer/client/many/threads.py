"""Drives a ``score_many`` with threads: the caller's own reads items and hands on results, others send."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from .flight import Result
from .job import Job
from .options import ManyOptions
from .pieces import Answer, Group, let_go
from .tuning import HEDGE_SAVED

__all__ = ["SLOW_SOURCE", "Event", "Refused", "run"]

SLOW_SOURCE = 1e-3
"""Seconds: items that take longer to come are not held back until there are enough for a full request."""


class Refused:
    """A request was turned away, and will be tried again."""


Event: TypeAlias = "tuple[Group, Answer] | Refused | BaseException"


def run(
    open_job: Callable[[], Job],
    source: Iterator[Any],
    options: ManyOptions,
    *,
    send: Callable[[Group, Callable[[], None], threading.Event], Answer],
    ours: Callable[[], bool],
) -> Generator[Result, None, None]:
    """Score the items; yields their results.

    Args:
        open_job: makes the job, when the first result is asked for.
        source: the caller's items.
        options: what the caller asked for.
        send: sends a group, tells the function it gets of refusals, gives up when the event is set.
        ours: whether the service is known to take several items in a request.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    abandoned = threading.Event()

    def work(group: Group) -> None:
        try:
            answer = send(group, lambda: events.put(Refused()), abandoned)
            let_go(answer.error)
            events.put((group, answer))
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            events.put(error)

    # What belongs to the caller's context, as a trace that this is part of, goes along.
    context = contextvars.copy_context()

    def submit(group: Group) -> None:
        own = context.copy()
        pool.submit(lambda: own.run(work, group))

    pool = _Pool(options.most + int(HEDGE_SAVED))
    try:
        with open_job() as job:
            flight = job.flight
            while not flight.finished:
                _read(job, source, submit)
                for group in [*flight.to_send(job.clock()), *flight.late(job.clock())]:
                    submit(group)
                result = job.next_result()
                if result is not None:
                    yield result
                _take_events(job, events, wait=result is None and not flight.finished)
                if ours():
                    flight.allow_groups()
            if job.broken is not None:
                raise job.broken
    finally:
        abandoned.set()
        # Those in flight end by their own time-out; whoever leaves the loop does not wait for them.
        pool.close()


class _Pool:
    """Threads that send, made as they are needed.

    Daemons: the end of the process waits for the threads of an executor, and so, after Ctrl-C, for requests that nobody
    wants any more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def submit(self, task: Callable[[], object]) -> None:
        """Have a task done by a thread."""
        self._tasks.put(task)
        if self._count < self._most and not self._idle.acquire(blocking=False):
            self._count += 1
            name = f"gpu-infer-score_{self._count}"
            threading.Thread(target=_do, args=(self._tasks, self._idle), name=name, daemon=True).start()

    def close(self) -> None:
        """Drop the tasks that have not begun, and have the threads end after those that have."""
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            for _ in range(self._count):
                self._tasks.put(None)


def _do(tasks: SimpleQueue[Callable[[], object] | None], idle: threading.Semaphore) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # with it the item, which would stay until the next comes
        idle.release()


def _read(job: Job, source: Iterator[Any], submit: Callable[[Group], None]) -> None:
    """Read items while they are wanted; groups that are full, or of a slow source, go out at once."""
    flight = job.flight
    while flight.wants_item:
        begun = job.clock()
        try:
            item = next(source)
        except StopIteration:
            flight.end()
            return
        except Exception as error:  # noqa: BLE001  (the caller's own code; raised again at the end)
            job.fail_source(error)
            return
        job.take(item)
        for group in flight.to_send(job.clock(), hold=job.clock() - begun < SLOW_SOURCE):
            submit(group)


def _take_events(job: Job, events: SimpleQueue[Event], *, wait: bool) -> None:
    """What has come of requests; waits for one if there is nothing else to do."""
    try:
        event = events.get(timeout=job.flight.next_late(job.clock())) if wait else events.get_nowait()
        while True:
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, Refused):
                job.flight.refused()
            else:
                job.answered(*event)
            event = events.get_nowait()
    except Empty:
        return
