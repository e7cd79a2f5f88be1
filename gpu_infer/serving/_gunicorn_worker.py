"""How gunicorn runs the stock server: many requests at once in one thread, and without a log line for each.

gunicorn takes both classes by name from ``GUNICORN_CMD_ARGS``, which the bundle sets; the server is not touched.
"""

# pyright: basic, reportMissingImports=false
# gunicorn and gevent carry no types.

from __future__ import annotations

import sys
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from .health import UNHEALTHY, is_healthy

_TOO_LATE = "gevent is not installed: each request takes a thread of its own. Add gevent to the conda file.\n"


class Threaded(ThreadWorker):
    """Stands in where there is no gevent."""

    def init_process(self) -> None:
        """Begin, and say what is missing."""
        sys.stderr.write(f"GPU_INFER_WARNING {_TOO_LATE}")
        super().init_process()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer the probe of a service that has lost its model; the stock server is well whatever happens."""
        if req.path == "/" and not is_healthy():
            conn.sock.sendall(UNHEALTHY)
            return False
        return super().handle_request(req, conn)


Worker: Any
try:
    from ._gevent_worker import Worker
except (ImportError, RuntimeError):  # gunicorn's word for a gevent that is missing or too old
    Worker = Threaded


class QuietLogger(Logger):
    """gunicorn's logger without the line per request: for a small model it is a good part of the work."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Say nothing; ``stats()`` counts."""
