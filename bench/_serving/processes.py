"""Starting a server, waiting for it, looking at what it uses while idle, and ending all of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""Ray takes longest: it starts a cluster first."""
STOP_SECONDS = 15.0

_RAISED = re.compile(r"[\w.]*(Error|Exception)\b: ")


class NotAvailableError(Exception):
    """A contender cannot run here; the message is what the table says of it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    Args:
        port: on 127.0.0.1.
        pids: its processes, all of them.
        network: file descriptor of the network namespace that it is in, see ``network.py``; ``None``: everybody's.
    """

    port: int
    pids: tuple[int, ...]
    network: int | None = None

    def idle_cpu(self, seconds: float = 2.0) -> float:
        """Share of one core that it uses while nobody asks anything."""
        time.sleep(1)  # connections are still being closed
        before = _cpu_seconds(self.pids)
        time.sleep(seconds)
        return max(0.0, _cpu_seconds(self.pids) - before) / seconds

    def memory_mb(self) -> float:
        """Its memory in MB; what processes share is counted once, each its part (PSS)."""
        total = 0
        for pid in self.pids:
            with contextlib.suppress(psutil.Error):
                memory = psutil.Process(pid).memory_full_info()
                total += getattr(memory, "pss", memory.rss)
        return total / 1e6


def free_port() -> int:
    """A port that nobody has at the moment; most servers take a number only, not a socket."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serve(
    command: Sequence[str],
    *,
    port: int,
    log: Path,
    health: str = "/",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server for the length of a ``with`` block.

    Args:
        command: what to start.
        port: where it will listen.
        log: gets its output.
        health: path that answers 200 once it is ready.
        environment: variables on top of this process's own.

    Raises:
        NotAvailableError: it ended, or was not ready in time; with the end of its log.
    """
    with log.open("wb") as output:
        # A session of its own: Ctrl-C is for this process alone, which then ends the others in order.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Temporary files go with this run: killed servers leave theirs behind.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(log.parent), **(environment or {})},
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port, health):
            if process.poll() is not None:
                raise NotAvailableError(f"ended with {process.returncode} while starting: {log_end(log)}")
            if time.monotonic() > deadline:
                raise NotAvailableError(f"not ready after {START_SECONDS:g} s: {log_end(log)}")
            time.sleep(0.1)
        yield Server(port, (process.pid, *descendants(process.pid)))
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, also what has gone into sessions of its own."""
    below = [process.pid, *descendants(process.pid)]
    started = {pid: _created(pid) for pid in below}
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid, created in started.items():
        if created is not None and _created(pid) == created:  # not another process that got the number since
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def log_end(log: Path, *, characters: int = 300) -> str:
    """The last words of a log, on one line; an exception's message where there is one."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    if raised:
        return raised[-1][:characters]
    return " ".join(lines)[-characters:] or "it wrote nothing"


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _cpu_seconds(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def _created(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
