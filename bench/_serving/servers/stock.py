"""Starts the unchanged ``azureml-inference-server-http`` on 127.0.0.1, with its own defaults otherwise.

The stock command binds 0.0.0.0 and takes no address; gunicorn below it takes a bound socket as systemd would hand one
over. Run: ``python stock.py SCRIPT PORT``.
"""

from __future__ import annotations

import os
import socket
import sys
from importlib import import_module

LISTEN_FD = 3
"""The first descriptor that is handed over (sd_listen_fds(3))."""


def main() -> None:
    """Become the server."""
    script, port = sys.argv[1:]
    bound = socket.create_server(("127.0.0.1", int(port)))
    if bound.fileno() != LISTEN_FD:
        os.dup2(bound.fileno(), LISTEN_FD)
        bound.close()
    else:
        bound.detach()
    os.set_inheritable(LISTEN_FD, True)  # noqa: FBT003 - takes no keyword
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    if any(known.name == "control_socket_disable" for known in import_module("gunicorn.config").KNOWN_SETTINGS):
        os.environ["GUNICORN_CMD_ARGS"] = "--no-control-socket"  # one path per user: two servers would fight for it
    sys.path.pop(0)  # this folder
    sys.argv = ["azmlinfsrv", "--entry_script", script, "--port", port]
    import_module("azureml_inference_server_http.amlserver").run()


if __name__ == "__main__":
    main()
