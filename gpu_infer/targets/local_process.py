"""The processes of a local service: a supervisor, and below it the stock server. Starting, watching and ending them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu_infer.errors import Finding, PreflightError
from gpu_infer.targets._supervisor import (
    EXIT_FILE,
    GRACE_SECONDS,
    LEASE_FILE,
    LOG_FILE,
    process_alive,
    process_start,
)

__all__ = [
    "HOST",
    "LOG_FILE",
    "Health",
    "ask_to_stop",
    "bind",
    "disown",
    "dump_stacks",
    "exit_code",
    "is_alive",
    "new_run",
    "process_start",
    "read_log",
    "server_environment",
    "spawn",
    "stop",
    "write_lease",
]

HOST = "127.0.0.1"
_HERE = Path(__file__).parent
_owned: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
"""Supervisors to be reaped, by pid, and the process that has started them."""
_disowned: set[int] = set()
"""Supervisors of ours that outlive us, and are reaped if they do not."""
_FROM_AZURE = ("GPU_INFER_", "AZUREML_", "AML_", "WORKER_", "GUNICORN_", "SCORING_TIMEOUT_MS", "SERVER_PORT", "LISTEN_")
"""What a service reads from its environment: it comes from ``deploy()``, not from the shell that calls it."""


def bind(port: int = 0) -> socket.socket:
    """Bind a loopback port; it is ours from here on, so no two services can choose the same.

    Args:
        port: 0 for any free one.

    Raises:
        PreflightError: the port is taken, or may not be used.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except (OSError, OverflowError) as error:
        bound.close()
        message = f"Port {port} on {HOST} cannot be used: {getattr(error, 'strerror', None) or error}."
        fix = "Choose another as environment_variables={'SERVER_PORT': ...}, or leave it out for any free one."
        raise PreflightError([Finding("error", "port", message, fix)]) from error
    return bound


def spawn(folder: Path, bound: socket.socket, environment: Mapping[str, str], *, owner: tuple[int, str]) -> int:
    """Start the supervisor and, below it, the server.

    Args:
        folder: of the service; has the lease, gets the log.
        bound: the server's socket.
        environment: of the server, complete.
        owner: pid and start of the process with which the service dies unless it is kept.

    Returns:
        the supervisor's pid. It leads a session and process group of its own: Ctrl-C in a terminal is for us alone.
    """
    fd = str(bound.fileno())
    server = [sys.executable, str(_HERE / "_stock_server.py"), fd, str(bound.getsockname()[1])]
    process = subprocess.Popen(
        [sys.executable, str(_HERE / "_supervisor.py"), str(folder), fd, str(owner[0]), owner[1], *server],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[bound.fileno()],
        env={**environment},
        start_new_session=True,
    )
    _owned[process.pid] = (process, os.getpid())
    return process.pid


def server_environment(
    bundle: Path, model_dir: Path, environment: Mapping[str, str], *, entry_script: str = "score.py"
) -> dict[str, str]:
    """The server's environment: this process's own, what Azure ML sets in a container, and the bundle's variables.

    Temporary files go beside the bundle, and with it: frameworks leave some when they are killed.

    Args:
        bundle: the folder that the server works in.
        model_dir: where the script finds the model.
        environment: the bundle's variables.
        entry_script: relative to the bundle.
    """
    temporary = bundle.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    script = bundle / entry_script
    # gunicorn takes classes by name, and looks for them before the server has looked at its own settings.
    arguments = f"{environment.get('GUNICORN_CMD_ARGS', '')} --pythonpath {script.parent}".strip()
    if _gunicorn_has_control_socket():
        # One path per user: several services would fight for it, and nobody here needs it.
        arguments = f"{arguments} --no-control-socket"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_FROM_AZURE)},
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(temporary),
        "GPU_INFER_ALLOW_CPU": "1",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        **environment,
        "GUNICORN_CMD_ARGS": arguments,
        "AZUREML_MODEL_DIR": str(model_dir),
        "AZUREML_ENTRY_SCRIPT": str(script),
        "AML_APP_ROOT": str(bundle),
    }


def _gunicorn_has_control_socket() -> bool:
    try:
        major, minor = (int(piece) for piece in version("gunicorn").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return False
    return (major, minor) >= (25, 1)


def write_lease(folder: Path, *, kept: bool, expires: float | None) -> None:
    """Tell the supervisor whether the service outlives its parent, and until when (seconds since the epoch)."""
    partial = folder / f"{LEASE_FILE}.{os.getpid()}"
    partial.write_text(json.dumps({"kept": kept, "expires": expires}), "utf-8")
    partial.replace(folder / LEASE_FILE)


def new_run(folder: Path) -> None:
    """Put the log and exit code of an earlier server out of the way."""
    (folder / EXIT_FILE).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / LOG_FILE).replace(folder / f"previous-{LOG_FILE}")


def read_log(folder: Path, offset: int = 0) -> str:
    """The server's log from a byte on; empty where there is none."""
    try:
        with (folder / LOG_FILE).open("rb") as log:
            log.seek(offset)
            return log.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def exit_code(folder: Path) -> int | None:
    """How the server ended, ``None`` where that is not known."""
    try:
        return int((folder / EXIT_FILE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def is_alive(pid: int, started: str) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    child = _child(pid)
    if child is not None and child.poll() is not None:
        return False
    return process_alive(pid, started)


def _child(pid: int) -> subprocess.Popen[bytes] | None:
    """The handle of a supervisor that this very process has started; a forked child only inherits the table."""
    process, parent = _owned.get(pid, (None, 0))
    return process if parent == os.getpid() else None


def ask_to_stop(pid: int, started: str) -> None:
    """Ask a supervisor to end, without waiting; ``stop`` after it waits. So several end at once."""
    if is_alive(pid, started):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def stop(pid: int, started: str) -> None:
    """End a supervisor and all below it: asked first, killed when that takes too long. Ending the dead succeeds."""
    if is_alive(pid, started):
        ask_to_stop(pid, started)
        deadline = time.monotonic() + GRACE_SECONDS + 2
        while is_alive(pid, started) and time.monotonic() < deadline:
            time.sleep(0.02)
        if is_alive(pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    child = _child(pid)
    if child is not None:
        child.wait()
        del _owned[pid]
    elif pid in _disowned:
        _disowned.discard(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def disown(pid: int) -> None:
    """Stop being responsible for a supervisor that outlives us."""
    child = _child(pid)
    if child is not None:
        # Or Popen complains, when it is collected, that the process still runs; that is what is meant.
        child.returncode = child.returncode or 0
        del _owned[pid]
        _disowned.add(pid)


def dump_stacks(pid: int) -> None:
    """Ask the server's workers to write the stacks of their threads to the log, where the system can.

    One after the other: they write a line at a time, and into one file.
    """
    for worker in [worker for master in _children(pid) for worker in _children(master)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGRTMIN + 3)
        time.sleep(0.3)


def _children(pid: int) -> list[int]:
    """The children of a process; none off Linux."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]
    except OSError:
        return []


class Health:
    """Asks ``GET /`` once and waits for the answer across calls.

    The server's socket takes connections long before a worker can answer, so one question that waits is cheaper than
    many that time out.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None

    def poll(self, timeout: float) -> bool:
        """Whether the server has answered 200, waiting up to ``timeout`` seconds."""
        if self._connection is None and not self._ask():
            time.sleep(timeout)
            return False
        assert self._connection is not None  # noqa: S101 - _ask has set it
        waiting = select.poll()  # not select(), which takes no file descriptor from 1024 on
        waiting.register(self._connection, select.POLLIN)
        if not waiting.poll(timeout * 1000):
            return False
        try:
            answer = self._connection.recv(64)
        except OSError:
            answer = b""
        self.close()
        return answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))

    def close(self) -> None:
        """Drop the question."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self) -> bool:
        try:
            self._connection = socket.create_connection((HOST, self._port), timeout=1)
            self._connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        except OSError:
            self.close()
            return False
        return True
