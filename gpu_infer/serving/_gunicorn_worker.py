"""How gunicorn runs the stock server: many requests at once in one thread, and without a log line for each.

gunicorn takes both classes by name from ``GUNICORN_CMD_ARGS``, which the bundle sets; the server is not touched.
"""

# pyright: basic, reportMissingImports=false
# gunicorn and gevent carry no types.

from __future__ import annotations

import sys
from typing import Any

from gunicorn.glogging import Logger

from .health import is_healthy

_Base: Any
try:
    from gevent import socket as gevent_socket
    from gunicorn.workers.ggevent import GeventWorker as _Base

    _GREENLETS = True
except (ImportError, RuntimeError):  # gunicorn's word for a gevent that is missing or too old
    from gunicorn.workers.gthread import ThreadWorker as _Base

    _GREENLETS = False

_serving = False

_UNHEALTHY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 9\r\nRetry-After: 1\r\n\r\n"
    b"Unhealthy"
)
_TOO_LATE = "gevent is not installed: each request takes a thread of its own. Add gevent to the conda file.\n"


def serves_greenlets() -> bool:
    """Whether this process runs requests as greenlets."""
    return _serving


class Worker(_Base):
    """gunicorn's gevent worker without its patches: only the sockets of requests are gevent's.

    A lock of a framework or of a user's hook stays a lock; what would block is done in threads, see
    ``engine/scheduling.py``.
    """

    def patch(self) -> None:
        """Make gevent's sockets of those that gunicorn listens on, and patch nothing."""
        global _serving  # noqa: PLW0603 - said once per process
        _serving = True
        listening: Any = self.sockets
        green: Any = gevent_socket
        self.sockets = [green.socket(one.FAMILY, green.SOCK_STREAM, fileno=one.sock.detach()) for one in listening]

    def init_process(self) -> None:
        """Begin; without gevent say so."""
        if not _GREENLETS:
            sys.stderr.write(f"GPU_INFER_WARNING {_TOO_LATE}")
        super().init_process()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer the probe of a service that has lost its model; the stock server is well whatever happens."""
        if req.path == "/" and not is_healthy():
            sock.sendall(_UNHEALTHY)
            return None
        corked = _Corked(sock)
        try:
            return super().handle_request(listener_name, req, corked, addr)
        finally:
            corked.flush()


class _Corked:
    """A socket that sends the head of an answer together with its body, in one packet instead of two."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._held = b""

    def sendall(self, data: bytes) -> None:
        """Hold what is a head, send anything else at once."""
        if not self._held and data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n"):
            self._held = bytes(data)
            return
        held, self._held = self._held, b""
        self._sock.sendall(held + bytes(data) if held else data)

    def flush(self) -> None:
        """Send a head that no body has followed."""
        held, self._held = self._held, b""
        if held:
            self._sock.sendall(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class QuietLogger(Logger):
    """gunicorn's logger without the line per request: for a small model it is a good part of the work."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Say nothing; ``stats()`` counts."""
