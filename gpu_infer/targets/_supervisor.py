"""The process between us and a local server: it ends the server when nobody wants it any more.

Run as a script, with the standard library alone. It looks several times a second whether the process that owns the
service still runs, so it notices that one's death however it comes, SIGKILL included. (The kernel's parent-death signal
would not do: it comes when the *thread* that started us ends.) A lease file says whether the server outlives the owner
and until when. On Linux the server also dies with this process, see ``_stock_server.py``.

Usage: ``python _supervisor.py FOLDER SOCKET_FD OWNER_PID OWNER_START COMMAND...``; its own pid is added to the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.25
GRACE_SECONDS = 3.0
LEASE_FILE = "lease.json"
EXIT_FILE = "exit-code"
LOG_FILE = "server.log"


class _Stop(Exception):  # noqa: N818 - a request, not an error
    """SIGTERM came: whoever sent it removes the folder."""


class _Wish:
    """What SIGTERM asks for. It interrupts only while there is a server to end: in between a child would be lost."""

    def __init__(self) -> None:
        self.stop = False
        self.armed = False

    def on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self.stop = True
        if self.armed:
            self.armed = False
            raise _Stop

    def arm(self) -> None:
        self.armed = True
        if self.stop:
            self.armed = False
            raise _Stop


def main() -> None:
    """Start the server, watch, clean up."""
    folder, socket_fd, owner, owner_started, command = (
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5:],
    )
    wish = _Wish()
    signal.signal(signal.SIGTERM, wish.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGRTMIN"):
        signal.signal(signal.SIGRTMIN + 3, signal.SIG_IGN)  # asks the server for its stacks; see _stock_server.py
    forget_folder = False
    with (folder / LOG_FILE).open("ab", buffering=0) as log:
        server = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[socket_fd],
            cwd=os.environ["AML_APP_ROOT"],
        )
    try:
        wish.arm()
        os.close(socket_fd)
        forget_folder = _watch(server, folder, owner, owner_started)
    except _Stop:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(server)
        if forget_folder:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            # Gone already where the one who stopped us removes the folder.
            with contextlib.suppress(OSError):
                (folder / EXIT_FILE).write_text(str(server.returncode), "utf-8")
        # Whatever the server has started and left behind is in our process group, and so are we.
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _watch(server: subprocess.Popen[bytes], folder: Path, owner: int, owner_started: str) -> bool:
    """Return when the server has ended (False) or nobody wants it any more (True: its folder can go, too)."""
    while server.poll() is None:
        time.sleep(POLL_SECONDS)
        kept, expires = _lease(folder)
        over = kept and expires is not None and time.time() >= expires
        # Our parent as a rule, which is quick to see; not where another process has restarted the server.
        owned = os.getppid() == owner or process_alive(owner, owner_started)
        if over or not (kept or owned):
            return True
    return False


def process_alive(pid: int, started: str) -> bool:
    """Whether that very process still runs; a zombie does not.

    Args:
        pid: of the process; 0 and below name no process.
        started: its ``process_start``, empty where that was not known.
    """
    if pid <= 0:
        return False
    now = process_start(pid)
    return bool(now) and not now.endswith("Z") and (not started or now == started)


def process_start(pid: int) -> str:
    """When a process was started, in the words of the system: with its pid it names a process for good.

    Ends with ``Z`` for a zombie; empty where there is no such process.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            return ""
        return fields[19] + ("Z" if fields[0] in "ZX" else "")
    command = ["ps", "-o", "lstart=,stat=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    when, _, state = done.stdout.strip().rpartition(" ")
    return when.strip() + ("Z" if state.startswith("Z") else "")


def _lease(folder: Path) -> tuple[bool, float | None]:
    """Whether the server outlives the parent, and until when; a folder that is gone means that nobody wants it."""
    try:
        lease = json.loads((folder / LEASE_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return False, None
    return bool(lease["kept"]), lease["expires"]


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to finish what it answers, then insist."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
