"""The process between us and a local server: it ends the server when nobody wants it any more.

Run as a script, with the standard library alone. It looks several times a second whether its parent is still the one
it started with, so it notices the parent's death however it comes, SIGKILL included. (The kernel's parent-death signal
would not do: it comes when the *thread* that started us ends.) A lease file says whether the server outlives the parent
and until when. On Linux the server also dies with this process, see ``_stock_server.py``.

Usage: ``python _supervisor.py FOLDER SOCKET_FD PARENT_PID COMMAND...``
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


def main() -> None:
    """Start the server, watch, clean up."""
    folder, socket_fd, parent, command = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGRTMIN"):
        signal.signal(signal.SIGRTMIN + 3, signal.SIG_IGN)  # asks the server for its stacks; see _stock_server.py
    forget_folder = False
    with (folder / LOG_FILE).open("ab", buffering=0) as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[socket_fd],
            cwd=os.environ["AML_APP_ROOT"],
        )
    os.close(socket_fd)
    try:
        forget_folder = _watch(server, folder, parent)
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


def _watch(server: subprocess.Popen[bytes], folder: Path, parent: int) -> bool:
    """Return when the server has ended (False) or nobody wants it any more (True: its folder can go, too)."""
    while server.poll() is None:
        time.sleep(POLL_SECONDS)
        kept, expires = _lease(folder)
        if (not kept and os.getppid() != parent) or (kept and expires is not None and time.time() >= expires):
            return True
    return False


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


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise _Stop


if __name__ == "__main__":
    main()
