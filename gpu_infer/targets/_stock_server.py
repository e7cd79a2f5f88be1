"""Starts the unchanged ``azureml-inference-server-http`` on a socket that is already bound.

Run as a script. The stock command binds 0.0.0.0 and takes no address. gunicorn, which it starts, takes a bound socket
the way systemd hands one over, so the server is reachable from this machine alone, and no port is chosen twice.

Usage: ``python _stock_server.py SOCKET_FD PORT SUPERVISOR_PID``, with everything else in the environment.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
LISTEN_FD = 3
"""The first file descriptor of a socket handed over (sd_listen_fds(3))."""


def main() -> None:
    """Become the server."""
    socket_fd, port, supervisor = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    die_with_parent(supervisor)
    master = os.getpid()
    os.register_at_fork(after_in_child=lambda: die_with_parent(master))
    if hasattr(signal, "SIGRTMIN"):
        # Writes the stacks of all threads to the log: where a hanging init() hangs. Workers inherit it.
        faulthandler.register(signal.SIGRTMIN + 3, all_threads=True)
    if socket_fd != LISTEN_FD:
        os.dup2(socket_fd, LISTEN_FD)
        os.close(socket_fd)
    os.environ["LISTEN_FDS"] = "1"
    os.environ["LISTEN_PID"] = str(os.getpid())
    # This folder would otherwise be the first place that imports look at.
    sys.path.pop(0)
    sys.argv = ["azmlinfsrv", "--entry_script", os.environ["AZUREML_ENTRY_SCRIPT"], "--port", port]
    from azureml_inference_server_http import amlserver

    amlserver.run()


def die_with_parent(parent: int) -> None:
    """On Linux, be killed when the process that started this one dies; elsewhere gunicorn's workers notice it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
