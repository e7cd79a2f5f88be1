"""The model in a process that all workers of a service share: how a worker finds, starts, asks, and loses it."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Generator, List, Mapping, Optional, Tuple

from ..failures import DeadlineExceeded, Overloaded, RequestFailure
from ..model_process import BUFFER, FAILED, READY, is_there
from ..stages import say
from . import frames
from .engine import ModelFacts
from .jobs import BlockResult, Rows
from .scheduling import Scheduler, TimedOut, Waiter

REPORT_SECONDS = 30.0
"""How long a report may take: the device report asks nvidia-smi."""

PAUSE_SECONDS = 1.0
"""Between two tries to start the process anew, and between two times that a worker writes down what it has counted."""

_POLL_SECONDS = 0.05


class ModelProcessError(RuntimeError):
    """The process with the model could not be started; its own traceback is part of the message."""


class SharedEngine:
    """The model, in another process.

    Args:
        bundle: the folder with the settings.
        scheduler: how requests wait.

    Raises:
        ModelProcessError: it could not be started.
    """

    def __init__(self, bundle: Path, *, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._directory = meeting_place()
        self._bundle = bundle
        self._numbers = itertools.count(1)
        self._pending: Dict[int, Waiter] = {}
        self._out: Deque[List[frames.Piece]] = deque()
        self._sending = threading.Lock()
        self._space = frames.Space()
        self._sock: Any = None
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._closed = False
        self._counts: Callable[[], Mapping[str, Any]] = dict
        sock = self._connect()
        self._buffer = frames.Buffer()
        self.facts: ModelFacts = ModelFacts.from_json(self._first_report(sock))
        self._sock = scheduler.socket(sock)
        scheduler.spawn(self._listen)

    # --- for requests -------------------------------------------------------------------------------------------------

    @property
    def makes(self) -> bool:
        """See ``Engine``: what makes an item cannot be sent."""
        return False

    def run(self, rows: Rows, *, deadline: float) -> BlockResult:
        """See ``Engine``."""
        number = next(self._numbers)
        try:
            kind, body = self._ask(number, frames.run(number, rows() if callable(rows) else rows, deadline), deadline)
        except TimedOut:
            raise DeadlineExceeded("No result within the time-out: the model is slow or the queue is long.") from None
        if kind == frames.DONE:
            return frames.read_done(body)
        failure: Dict[str, Any] = json.loads(bytes(body))
        raise frames.read_failure(failure)

    def stats(self) -> Dict[str, Any]:
        """See ``Engine``."""
        report = self._report("stats")
        pid = report.pop("pid")
        return {**report, "model_process": pid}

    def gpu_report(self) -> Dict[str, Any]:
        """See ``Engine``."""
        return self._report("gpu")

    def healthy(self) -> bool:
        """See ``Engine``."""
        return self._sock is not None

    def close(self) -> None:
        """Leave; the process stays for the other workers."""
        self._closed = True
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def _report(self, name: str) -> Dict[str, Any]:
        number = next(self._numbers)
        try:
            _, body = self._ask(
                number, [frames.frame(frames.ASK, number, name.encode())], time.monotonic() + REPORT_SECONDS
            )
        except TimedOut:
            raise DeadlineExceeded(f"The model process gave no report within {REPORT_SECONDS:g} s.") from None
        return json.loads(bytes(body))

    def _ask(self, number: int, question: List[frames.Piece], deadline: float) -> Tuple[int, memoryview]:
        waiter = self._scheduler.waiter()
        self._pending[number] = waiter
        try:
            if self._sock is None:
                raise _gone()
            self._out.append(question)
            if len(self._pending) == 1:
                self._send()  # nobody else to share a packet with
            else:
                self._scheduler.flush(self._send)
            outcome = waiter.wait(deadline)
        finally:
            self._pending.pop(number, None)
        if isinstance(outcome, RequestFailure):
            raise outcome
        return outcome

    def _send(self) -> None:
        """Send all questions that have come up since the last time."""
        while self._out:
            sock = self._sock  # once: it is another when the process has been started anew
            # Never waited for: a greenlet would wait with its whole thread. Whoever sends looks again when it is done.
            if sock is None or not self._sending.acquire(blocking=False):
                return
            try:
                pieces: List[frames.Piece] = []
                with contextlib.suppress(IndexError):
                    while True:
                        pieces += self._out.popleft()
                for piece in frames.joined(pieces):
                    sock.sendall(piece)
            except OSError:
                return  # the process has ended; whoever listens notices, too, and answers them all
            finally:
                self._sending.release()

    def _listen(self) -> None:
        """Hand over answers; when the process ends, start another."""
        while not self._closed:
            if self._sock is None:
                try:
                    sock = self._scheduler.offload("model-process", 1, self._connect)
                except ModelProcessError as error:
                    say(f"GPU_INFER_WARNING {error}")
                    self._scheduler.sleep(PAUSE_SECONDS)
                    continue
                self._buffer = frames.Buffer()
                self._sock = self._scheduler.socket(sock)
                say("GPU_INFER_WARNING the model process is there again")
            try:
                data = self._space.take(self._sock)
            except OSError:
                data = b""
            if not data:
                self._lose()
                continue
            for kind, number, body in self._buffer.feed(data):
                waiter = self._pending.get(number)
                if waiter is not None:
                    waiter.set((kind, body))

    def _lose(self) -> None:
        sock, self._sock = self._sock, None
        sock.close()
        if self._closed:
            return
        pending, self._pending = list(self._pending.values()), {}
        self._out.clear()
        say(f"GPU_INFER_WARNING the model process has ended; {len(pending)} requests are answered with 503")
        for waiter in pending:
            waiter.set(_gone())

    # --- the process --------------------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        """Connect to the process; start it where none is there and nobody else is about to."""
        while not self._closed:
            sock = _try(self._directory / READY)
            if sock is not None:
                return sock
            with _alone(self._directory) as alone:
                if alone and _try(self._directory / READY, keep=False) is None:
                    self._start()
            time.sleep(_POLL_SECONDS)
        raise ModelProcessError("The worker ends.")

    def _start(self) -> None:
        """Start the process and wait until it is ready."""
        for name in (READY, FAILED):
            with contextlib.suppress(FileNotFoundError):
                (self._directory / name).unlink()
        package = __name__.rpartition(".engine.")[0]
        above = Path(__file__).resolve().parents[1 + len(package.split("."))]
        path = os.pathsep.join([str(above), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", f"{package}.model_process"]
        self._child = subprocess.Popen(
            [*command, str(self._directory), str(self._bundle), str(os.getppid())],
            env={**os.environ, "PYTHONPATH": path},
        )
        while _try(self._directory / READY, keep=False) is None:
            if self._child.poll() is not None:
                raise ModelProcessError(self._why())
            time.sleep(_POLL_SECONDS)

    def _why(self) -> str:
        try:
            return f"The process with the model did not start:\n\n{(self._directory / FAILED).read_text('utf-8')}"
        except OSError:
            code = self._child.returncode if self._child else None
            return (
                f"The process with the model ended before it was ready, with code {code} (-9: killed, as for memory)."
            )

    def _first_report(self, sock: socket.socket) -> Mapping[str, Any]:
        """The facts about the model, which the process tells everybody who connects."""
        sock.settimeout(REPORT_SECONDS)
        for data in iter(partial(self._space.take, sock), b""):
            for _kind, _number, body in self._buffer.feed(data):
                sock.settimeout(None)
                facts: Dict[str, Any] = json.loads(bytes(body))
                return facts
        raise ModelProcessError("The process with the model ended as soon as it was ready.")

    # --- the other workers --------------------------------------------------------------------------------------------

    def publish(self, counts: Callable[[], Mapping[str, Any]]) -> None:
        """Write down now and then what this worker has counted, for the others to add up."""
        self._counts = counts
        self._scheduler.spawn(self._write_counts)

    def other_workers(self) -> List[Mapping[str, Any]]:
        """See ``Engine``; what those have counted who have ended is part of it."""
        others: List[Mapping[str, Any]] = []
        for path in self._directory.glob("worker-*.json"):
            if path.name != self._counts_file.name:
                with contextlib.suppress(OSError, ValueError):
                    others.append(json.loads(path.read_text("utf-8")))
        return others

    @property
    def _counts_file(self) -> Path:
        return self._directory / f"worker-{os.getpid()}.json"

    def _write_counts(self) -> None:
        written = ""
        while not self._closed:
            text = json.dumps(self._counts())
            if text != written:
                coming = self._counts_file.with_suffix(".coming")
                coming.write_text(text, "utf-8")
                coming.rename(self._counts_file)
                written = text
            self._scheduler.sleep(PAUSE_SECONDS)


def meeting_place() -> Path:
    """A folder that the workers of this server share, and nobody else can write to.

    Short, since the path of a socket may have about 100 letters.

    Raises:
        ModelProcessError: somebody else has made it.
    """
    short = Path("/tmp")  # noqa: S108 - the folder below is checked: it is ours alone
    base = short if os.access(short, os.W_OK) else Path(tempfile.gettempdir())
    ours = f"gpu-infer-{os.getuid()}-"
    for left in base.glob(f"{ours}*"):
        number = left.name[len(ours) :]
        if number.isdigit() and not is_there(int(number)):  # its server was killed together with its model process
            shutil.rmtree(left, ignore_errors=True)
    directory = base / f"{ours}{os.getppid()}"
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or directory.is_symlink():
        raise ModelProcessError(f"{directory} belongs to somebody else, so the workers cannot meet there.")
    return directory


def _try(path: Path, *, keep: bool = True) -> Optional[socket.socket]:
    """A connection to the process, ``None`` where there is none; ``keep=False`` only looks."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    if not keep:
        sock.close()
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return sock


@contextlib.contextmanager
def _alone(directory: Path) -> Generator[bool, None, None]:
    """Whether this worker is the one that may start the process now."""
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _gone() -> Overloaded:
    return Overloaded("The process with the model has ended and is being started anew.", retry_after=2)
