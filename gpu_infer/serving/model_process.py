"""The process that has the model when a service has several workers: one copy of it, and batches across all of them.

Started by a worker (``engine/shared.py``), it ends when the server does: it watches gunicorn's master, not the worker
that happened to start it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import sys
import threading
import time
import traceback
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, Optional, Set

from .engine import frames
from .engine.local import LocalEngine
from .engine.scheduling import Threads
from .failures import ModelFailure, RequestFailure, first_line
from .settings import load_settings

READY = "model.sock"
"""The socket; it has this name only once the model is ready."""

FAILED = "failed.txt"
"""The traceback of a model that could not be loaded."""

LOOK_SECONDS = 0.5
"""How often the master is looked for, where the system cannot tell when it ends."""

BUFFER = 4 << 20
"""Bytes that the system may hold of what was sent, on either side."""


class Loop(Threads):
    """Reads from the workers; the scheduler of this process, in which a small model runs in the reading thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._selector = selectors.DefaultSelector()
        self._idle: Optional[Callable[[], None]] = None
        self._soon: Deque[Callable[[], None]] = deque()
        self._woken, self._wake = socket.socketpair()
        self._woken.settimeout(0)
        self._wake.settimeout(0)
        self.watch(self._woken, selectors.EVENT_READ, self._drain)
        self.ended: bool = False

    def watch(self, source: Any, events: int, callback: Callable[[], None]) -> None:
        """Call back when a socket is ready; watching it again changes for what."""
        try:
            self._selector.modify(source, events, callback)
        except KeyError:
            self._selector.register(source, events, callback)

    def forget(self, source: Any) -> None:
        """Watch a socket no more."""
        self._selector.unregister(source)

    def run(self, look: Callable[[], bool]) -> None:
        """Serve until ``look``, asked now and then, says no."""
        looked = time.monotonic()
        while not self.ended:
            busy = self._idle is not None or self._soon
            ready = self._selector.select(0 if busy else LOOK_SECONDS)
            for key, _ in ready:
                key.data()
            while self._soon:
                self._soon.popleft()()
            if not ready and self._idle is not None:
                idle, self._idle = self._idle, None
                idle()
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                self.ended = not look()

    def in_loop(self, callback: Callable[[], None]) -> None:
        """Call back in the reading thread; from any thread."""
        self._soon.append(callback)
        if threading.get_ident() != self._thread:
            with contextlib.suppress(BlockingIOError):  # it has been woken often enough
                self._wake.send(b"x")

    def _drain(self) -> None:
        while True:
            try:
                self._woken.recv(4096)
            except BlockingIOError:
                return

    # --- as a Scheduler -----------------------------------------------------------------------------------------------

    def when_idle(self, callback: Callable[[], None]) -> bool:
        """See ``Scheduler``."""
        self._idle = callback
        return True

    def soon(self, callback: Callable[[], None]) -> None:
        """See ``Scheduler``."""
        self._soon.append(callback)


class Connection:
    """One worker."""

    def __init__(self, sock: socket.socket, service: Service) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._sock = sock
        self._service = service
        self._buffer = frames.Buffer()
        self._out: List[bytes] = []
        self._lock = threading.Lock()
        self._closed = False
        service.loop.watch(sock, selectors.EVENT_READ, self._read)

    def put(self, data: bytes) -> None:
        """Add to what will be sent by the next ``flush``; from any thread."""
        with self._lock:
            self._out.append(data)

    def flush(self) -> None:
        """Send what the socket takes, and the rest when it takes more; from any thread."""
        with self._lock:
            if self._closed or not self._out:
                return
            data = b"".join(self._out)
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the worker has ended; reading says so, too
            self._out = [data[sent:]] if sent < len(data) else []
            if self._out:
                self._service.loop.in_loop(partial(self._watch, selectors.EVENT_READ | selectors.EVENT_WRITE))

    def _watch(self, events: int) -> None:
        if not self._closed:
            self._service.loop.watch(self._sock, events, self._read_and_write)

    def _read_and_write(self) -> None:
        self.flush()
        if not self._out:
            self._watch(selectors.EVENT_READ)
        self._read()

    def _read(self) -> None:
        try:
            data = self._service.space.take(self._sock)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for kind, number, body in self._buffer.feed(data):
            self._service.answer(self, kind, number, body)

    def close(self) -> None:
        """The worker has ended."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._service.loop.forget(self._sock)
        self._sock.close()
        self._service.connections.discard(self)


class Service:
    """The model and those who ask it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.connections: Set[Connection] = set()
        self._dirty: Set[Connection] = set()
        self._lock = threading.Lock()
        self.engine: Optional[LocalEngine] = None
        self.space: frames.Space = frames.Space()

    def accept(self, listener: socket.socket) -> None:
        """A worker comes, and is told the facts."""
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        connection = Connection(sock, self)
        self.connections.add(connection)
        connection.put(frames.told(0, self._engine().facts.to_json()))
        connection.flush()

    def answer(self, connection: Connection, kind: int, number: int, body: memoryview) -> None:
        """Answer a frame, at once or when its batch is done."""
        engine = self._engine()
        if kind == frames.RUN:
            rows, deadline = frames.read_run(body)
            try:
                engine.batcher.submit(rows, deadline=deadline, done=partial(self._done, connection, number))
            except RequestFailure as failure:
                connection.put(frames.done(number, failure))
                connection.flush()
            return
        reports: Dict[str, Callable[[], Any]] = {"stats": engine.stats, "gpu": engine.gpu_report}
        # nvidia-smi takes its time, and the model's work goes on meanwhile.
        name = bytes(body).decode()
        threading.Thread(target=self._report, args=(connection, number, reports[name]), daemon=True).start()

    def flush(self) -> None:
        """Send the results of a batch; called by the thread that ran it."""
        with self._lock:
            dirty, self._dirty = self._dirty, set()
        for connection in dirty:
            connection.flush()

    def _done(self, connection: Connection, number: int, result: Any) -> None:
        try:
            told = frames.done(number, result)
        except Exception as error:  # more than a frame holds, or no memory
            failure = ModelFailure(f"The result cannot be sent: {type(error).__name__}: {first_line(error)}")
            failure.__cause__ = error
            told = frames.done(number, failure)
        connection.put(told)
        with self._lock:
            self._dirty.add(connection)

    def _report(self, connection: Connection, number: int, report: Callable[[], Any]) -> None:
        connection.put(frames.told(number, {"pid": os.getpid(), **report()}))
        connection.flush()

    def _engine(self) -> LocalEngine:
        if self.engine is None:
            raise RuntimeError("asked before the model was loaded")
        return self.engine


def serve(directory: Path, bundle: Path, master: int) -> None:
    """Load the model and answer the workers until the server ends.

    Args:
        directory: where the socket goes.
        bundle: the folder with the settings.
        master: process id of gunicorn's master.
    """
    from .start import load_engine

    loop = Loop()
    service = Service(loop)
    service.engine = load_engine(load_settings(bundle), bundle, loop, after_batch=service.flush)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    coming = directory / f"coming-{os.getpid()}.sock"
    listener.bind(str(coming))
    listener.listen(64)
    listener.settimeout(0)
    loop.watch(listener, selectors.EVENT_READ, partial(service.accept, listener))
    coming.rename(directory / READY)
    loop.run(partial(is_there, master))
    shutil.rmtree(directory, ignore_errors=True)


def is_there(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """``python -m gpu_infer_serving.model_process DIRECTORY BUNDLE MASTER``."""
    directory, bundle, master = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    try:
        serve(directory, bundle, master)
    except BaseException:
        # Not to the log: the worker that waits for this raises it, as it would have with the model in its own process.
        (directory / FAILED).write_text(traceback.format_exc(), "utf-8")
        sys.exit(1)


if __name__ == "__main__":
    main()
