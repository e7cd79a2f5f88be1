"""Drives a ``score_many`` with tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from .flight import Result
from .job import Job
from .pieces import Answer, Group, let_go

__all__ = ["Send", "run"]

Send: TypeAlias = Callable[[Group, Callable[[], None]], Awaitable[Answer]]


async def run(
    open_job: Callable[[], Job],
    source: AsyncIterator[Any] | Iterator[Any],
    *,
    send: Send,
    ours: Callable[[], bool],
) -> AsyncGenerator[Result, None]:
    """Score the items; yields their results. The arguments are those of :func:`threads.run`."""
    with open_job() as job:
        changed = asyncio.Event()
        requests = _Requests(job, send, changed)
        reader = _Reader(job, source, changed)
        try:
            while not job.flight.finished:
                changed.clear()
                reader.read(requests.start)
                requests.start_due()
                # Neither results that are all there already nor a caller who never waits may stop the loop for others.
                await asyncio.sleep(0)
                result = job.next_result()
                if result is not None:
                    yield result
                elif not job.flight.finished:
                    await _wait(changed, job.flight.next_late(job.clock()))
                requests.take_answers()
                if ours():
                    job.flight.allow_groups()
        finally:
            await _end([*requests.tasks, *reader.tasks])
        if job.broken is not None:
            raise job.broken


class _Requests:
    """The requests under way, each a task."""

    def __init__(self, job: Job, send: Send, changed: asyncio.Event) -> None:
        self.tasks: dict[asyncio.Task[None], Group] = {}
        self._job = job
        self._send = send
        self._changed = changed
        self._came: deque[tuple[Group, Answer] | Exception] = deque()

    def start(self, group: Group) -> None:
        """Send a group."""
        task = asyncio.create_task(self._work(group))
        self.tasks[task] = group
        task.add_done_callback(self.tasks.pop)

    def start_due(self) -> None:
        """Send what is to be sent now: groups, and second requests for late ones."""
        flight, now = self._job.flight, self._job.clock()
        for group in [*flight.to_send(now), *flight.late(now)]:
            self.start(group)

    def take_answers(self) -> None:
        """Tell the job what has come."""
        while self._came:
            event = self._came.popleft()
            if isinstance(event, Exception):
                raise event
            self._job.answered(*event)
            for task in [task for task, group in self.tasks.items() if group is event[0] and group.settled]:
                task.cancel()  # this answer was the quicker one

    async def _work(self, group: Group) -> None:
        try:
            answer = await self._send(group, self._job.flight.refused)
            let_go(answer.error)
            self._came.append((group, answer))
        except Exception as error:  # noqa: BLE001  (raised again in the caller's task)
            self._came.append(error)
        self._changed.set()


class _Reader:
    """Reads the caller's items: those of an ordinary iterable at once, others in a task."""

    def __init__(self, job: Job, source: AsyncIterator[Any] | Iterator[Any], changed: asyncio.Event) -> None:
        self._job = job
        self._source = source
        self._changed = changed
        self._next: asyncio.Task[Any] | None = None

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """What is still reading."""
        return [] if self._next is None else [self._next]

    def read(self, start: Callable[[Group], None]) -> None:
        """Read items while they are wanted; full groups go out at once."""
        flight = self._job.flight
        try:
            while flight.wants_item:
                item = next(self._source) if isinstance(self._source, Iterator) else self._item_of(self._source)
                if item is _NOT_YET:
                    return
                self._job.take(item)
                for group in flight.to_send(self._job.clock(), hold=True):
                    start(group)
        except (StopIteration, StopAsyncIteration):
            flight.end()
        except Exception as error:  # noqa: BLE001  (the caller's own code; raised again at the end)
            self._job.fail_source(error)

    def _item_of(self, source: AsyncIterator[Any]) -> Any:
        if self._next is None:
            self._next = asyncio.ensure_future(_anext(source))
            self._next.add_done_callback(lambda _: self._changed.set())
        if not self._next.done():
            return _NOT_YET
        done, self._next = self._next, None
        return done.result()


_NOT_YET = object()


async def _anext(source: AsyncIterator[Any]) -> Any:
    return await anext(source)


async def _wait(changed: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
