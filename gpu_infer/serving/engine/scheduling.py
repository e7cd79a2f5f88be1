"""How a request waits for its result: as a thread, or as a greenlet of gunicorn's gevent worker.

The worker that this package brings (``_gevent_worker.py``) runs requests as greenlets and patches nothing: a thread
is a thread, a lock is a lock, and a framework or a hook never notices. What must not happen is that a greenlet blocks
its thread, and with it all others; so a greenlet waits here, and what takes long goes to a thread of a pool.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Callable, Deque, Dict, List, Optional, Protocol, Sequence, Set, Tuple, TypeVar

Result = TypeVar("Result")

SWEEP_SECONDS = 0.05
"""How often greenlets whose time is over are looked for; a timer for each would cost more than its request."""


class TimedOut(Exception):  # noqa: N818 - an outcome, not an error
    """The deadline passed before there was a result."""


class Waiter(Protocol):
    """One result that is waited for."""

    def set(self, value: Any) -> None:
        """Hand over the result; from any thread, once."""
        ...

    def wait(self, deadline: float) -> Any:
        """Wait for the result.

        Args:
            deadline: on the clock of ``time.monotonic``.

        Raises:
            TimedOut: it did not come in time.
        """
        ...


class Scheduler(Protocol):
    """The way of waiting of this process."""

    def waiter(self) -> Waiter:
        """A new result to wait for; whoever makes it waits for it."""
        ...

    def when_idle(self, callback: Callable[[], None]) -> bool:
        """Call back once, as soon as no request is ready to be read; ``False`` where nobody can tell when that is."""
        ...

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back once, before the next request is read."""
        ...

    def offload(self, pool: str, size: int, call: Callable[[], Result]) -> Result:
        """Run what takes long and return what it returns, while other requests go on.

        Args:
            pool: name of the pool of threads.
            size: how many threads it has.
            call: what to run.
        """
        ...

    def offload_all(self, pool: str, size: int, calls: Sequence[Callable[[], Result]]) -> List[Result]:
        """The same for several calls, side by side; raises what the first of them raised."""
        ...

    def flush(self, send: Callable[[], None]) -> None:
        """Call ``send`` soon, once for all who ask until then; it may wait."""
        ...

    def spawn(self, call: Callable[[], None]) -> None:
        """Run something beside the requests, for as long as the process lives."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, in what ``spawn`` runs."""
        ...

    def socket(self, sock: socket.socket) -> Any:
        """A connected socket as one whose waiting lets others run."""
        ...


class _ThreadWaiter:
    """A thread waits on a lock that is held until the result is there."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._value: Any = None

    def set(self, value: Any) -> None:
        self._value = value
        with contextlib.suppress(RuntimeError):  # told twice
            self._lock.release()

    def wait(self, deadline: float) -> Any:
        if not self._lock.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)):
            raise TimedOut
        return self._value


class Threads:
    """A request is a thread: gunicorn's gthread worker, tests, the model process."""

    def waiter(self) -> Waiter:
        """See ``Scheduler``."""
        return _ThreadWaiter()

    def when_idle(self, callback: Callable[[], None]) -> bool:
        """See ``Scheduler``."""
        return False

    def soon(self, callback: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        callback()

    def offload(self, pool: str, size: int, call: Callable[[], Result]) -> Result:
        """See ``Scheduler``: the caller is a thread of its own already."""
        return call()

    def offload_all(self, pool: str, size: int, calls: Sequence[Callable[[], Result]]) -> List[Result]:
        """See ``Scheduler``."""
        return [call() for call in calls]

    def flush(self, send: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        send()

    def spawn(self, call: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        threading.Thread(target=call, daemon=True).start()

    def sleep(self, seconds: float) -> None:
        """See ``Scheduler``."""
        time.sleep(seconds)

    def socket(self, sock: socket.socket) -> Any:
        """See ``Scheduler``."""
        return sock


class _GreenletWaiter:
    """A greenlet waits by handing its thread to the hub, which runs the others."""

    __slots__ = ("_done", "_scheduler", "_value", "_waits", "deadline", "greenlet")

    def __init__(self, scheduler: Greenlets) -> None:
        self._scheduler = scheduler
        self._done = False
        self._waits = False
        self._value: Any = None
        self.deadline: float = 0.0
        self.greenlet: Any = None

    def set(self, value: Any) -> None:
        if threading.get_ident() == self._scheduler.thread:
            self.deliver(value)
        else:
            self._scheduler.deliver_later(self, value)

    def deliver(self, value: Any) -> None:
        """Hand over in the hub's own thread."""
        if self._done:
            return
        self._done = True
        self._value = value
        if self._waits:
            self._scheduler.wake(self.greenlet)

    def expire(self) -> None:
        """Its time is over."""
        if not self._done:
            self._scheduler.wake(self.greenlet)

    def wait(self, deadline: float) -> Any:
        if not self._done:
            self.deadline = deadline
            self._waits = True
            self._scheduler.park(self)
            self._waits = False
        if not self._done:
            self._done = True  # a result that comes now is for nobody
            raise TimedOut
        return self._value


class Greenlets:
    """A request is a greenlet, and all of them share one thread.

    Made in the thread that runs the hub.
    """

    def __init__(self) -> None:
        gevent: Any = import_module("gevent")
        self._gevent = gevent
        self._flushing = False
        self._current: Callable[[], Any] = gevent.getcurrent
        self._hub: Any = gevent.get_hub()
        self.thread: int = threading.get_ident()
        self._finished: Deque[Tuple[_GreenletWaiter, Any]] = deque()
        self._parked: Set[_GreenletWaiter] = set()
        self._pools: Dict[str, ThreadPoolExecutor] = {}
        self._idle: Any = self._hub.loop.idle()
        self._signal: Any = self._hub.loop.async_()
        self._signal.start(self._deliver_finished)
        self._sweep: Any = self._hub.loop.timer(SWEEP_SECONDS, repeat=SWEEP_SECONDS, ref=False)
        self._sweep.start(self._expire_parked)

    def waiter(self) -> Waiter:
        """See ``Scheduler``."""
        return _GreenletWaiter(self)

    def when_idle(self, callback: Callable[[], None]) -> bool:
        """See ``Scheduler``."""

        def idle() -> None:
            self._idle.stop()
            callback()

        self._idle.start(idle)
        return True

    def soon(self, callback: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        self._hub.loop.run_callback(callback)

    def offload(self, pool: str, size: int, call: Callable[[], Result]) -> Result:
        """See ``Scheduler``."""
        return self.offload_all(pool, size, [call])[0]

    def offload_all(self, pool: str, size: int, calls: Sequence[Callable[[], Result]]) -> List[Result]:
        """See ``Scheduler``."""
        if pool not in self._pools:
            self._pools[pool] = ThreadPoolExecutor(size, thread_name_prefix=f"gpu-infer-{pool}")
        waiters = [_GreenletWaiter(self) for _ in calls]
        for waiter, call in zip(waiters, calls):
            self._pools[pool].submit(_report, call, waiter)
        outcomes = [waiter.wait(math.inf) for waiter in waiters]
        for _, error in outcomes:
            if error is not None:
                raise error
        return [result for result, _ in outcomes]

    def flush(self, send: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        if not self._flushing:
            self._flushing = True

            def run() -> None:
                self._flushing = False
                send()

            self._gevent.spawn(run)

    def spawn(self, call: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        self._gevent.spawn(call)

    def sleep(self, seconds: float) -> None:
        """See ``Scheduler``."""
        self._gevent.sleep(seconds)

    def socket(self, sock: socket.socket) -> Any:
        """See ``Scheduler``."""
        greened: Any = import_module("gevent.socket")
        return greened.socket(sock.family, sock.type, fileno=sock.detach())

    def park(self, waiter: _GreenletWaiter) -> None:
        """Let the others run until this greenlet is woken."""
        waiter.greenlet = self._current()
        self._parked.add(waiter)
        try:
            self._hub.switch()
        finally:
            self._parked.discard(waiter)

    def wake(self, greenlet: Any) -> None:
        """Go on with a parked greenlet: at once where the hub itself asks, else as soon as it runs."""
        if self._current() is self._hub:
            greenlet.switch()
        else:
            self._hub.loop.run_callback(greenlet.switch)

    def deliver_later(self, waiter: _GreenletWaiter, value: Any) -> None:
        """Hand over from another thread."""
        self._finished.append((waiter, value))
        self._signal.send()

    def _deliver_finished(self) -> None:
        while self._finished:
            waiter, value = self._finished.popleft()
            waiter.deliver(value)

    def _expire_parked(self) -> None:
        now = time.monotonic()
        for waiter in [waiter for waiter in self._parked if waiter.deadline <= now]:
            waiter.expire()


def _report(call: Callable[[], Any], waiter: Waiter) -> None:
    """Run a call in a thread of a pool and hand over what became of it."""
    try:
        waiter.set((call(), None))
    except BaseException as error:  # whatever it is, the greenlet that waits raises it
        waiter.set((None, error))


_scheduler: Optional[Scheduler] = None


def scheduler() -> Scheduler:
    """The way of waiting of this process: greenlets where gunicorn's worker runs them, else threads."""
    global _scheduler  # noqa: PLW0603 - one per process, made when it is known which
    if _scheduler is None:
        _scheduler = Greenlets() if _in_gevent_worker() else Threads()
    return _scheduler


def _in_gevent_worker() -> bool:
    module = sys.modules.get(f"{__package__.rpartition('.')[0]}._gevent_worker") if __package__ else None
    return module is not None and module.serves_greenlets()
