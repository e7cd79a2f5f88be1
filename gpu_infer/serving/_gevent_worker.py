"""gunicorn's gevent worker as this service runs it: nothing patched, and a short way for plain requests."""

# pyright: basic, reportMissingImports=false
# gunicorn and gevent carry no types.

from __future__ import annotations

import contextlib
import math
import re
import time
from typing import Any, Dict, List, Optional

import gevent
from gevent import socket as gevent_socket
from gunicorn import util
from gunicorn.http import RequestParser
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.ggevent import GeventWorker

from . import direct
from .health import UNHEALTHY, is_healthy

CHUNK = 1 << 16
"""Bytes that are read at once."""

FULL = 0.9
"""From this part of gunicorn's ``--worker-connections`` on, a connection ends with its answer, or when it is idle."""

LARGEST_PIECE = 1 << 20
"""Bytes of a body that are read at once."""

LONGEST_HEAD = 1 << 16
"""Bytes after which a head without an end is refused."""

SWEEP_SECONDS = 1.0
"""How often connections are looked for that have been silent too long; a timer for each would cost each request."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_NO_PROXY = (False, "off")
"""What gunicorn's setting is without the proxy protocol, before and after it got words for it."""

_LONE_LF = re.compile(rb"(?<!\r)\n")

_serving = False


def serves_greenlets() -> bool:
    """Whether this process runs requests as greenlets."""
    return _serving


class Connection:
    """A caller's socket, as gunicorn sees it: with the bytes that have been read already, and few packets.

    Args:
        sock: gevent's.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._head = b""
        self.held: bytes = b""
        self.passing: bool = True
        self.silent_since: float = math.inf

    def recv(self, size: int) -> bytes:
        """What is held, then what comes; nothing where only what is held may be read."""
        if self.held:
            data, self.held = self.held[:size], self.held[size:]
            return data
        return self._sock.recv(size) if self.passing else b""

    def sendall(self, data: bytes) -> None:
        """Send; the head of an answer goes with its body, in one packet instead of two."""
        if not self._head and data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n"):
            self._head = bytes(data)
            return
        head, self._head = self._head, b""
        self._send(head + bytes(data) if head else data)

    def _send(self, data: bytes) -> None:
        # gevent's sendall asks the system for the size of its buffer each time; nearly all answers go at once.
        sent = self._sock.send(data)
        if sent < len(data):
            self._sock.sendall(memoryview(data)[sent:])

    def flush(self) -> None:
        """Send a head that no body has followed."""
        head, self._head = self._head, b""
        if head:
            self._send(head)

    def await_head(self) -> int:
        """Read until the head of a request is held; returns where it ends, 0 where none comes."""
        end = self.held.find(b"\r\n\r\n")
        if end < 0:
            self.silent_since = time.monotonic()
            while end < 0:
                data = self._sock.recv(CHUNK)
                if not data:
                    return 0
                if len(self.held) > LONGEST_HEAD:
                    self._send(_TOO_LONG)
                    return 0
                seen = max(0, len(self.held) - 3)
                self.held = self.held + data if self.held else data
                end = self.held.find(b"\r\n\r\n", seen)
                if end < 0 and _LONE_LF.search(self.held, seen):
                    end = len(self.held)  # not HTTP as it should be: gunicorn knows what to say
            self.silent_since = math.inf
        return end + 4

    def take(self, length: int) -> bytes:
        """Read so many bytes; fewer where the caller hangs up."""
        held = self.held
        if len(held) == length:
            self.held = b""
            return held
        if len(held) > length:
            self.held = held[length:]
            return held[:length]
        pieces: List[bytes] = [held]
        missing, self.held = length - len(held), b""
        while missing > 0:
            self.silent_since = time.monotonic()
            piece = self._sock.recv(min(missing, LARGEST_PIECE))  # no more: what follows is another request
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        self.silent_since = math.inf
        return b"".join(pieces)

    def send(self, data: bytes) -> int:
        """Send some of it, after what is held."""
        self.flush()
        return self._sock.send(data)

    def sendfile(self, *args: Any, **kwargs: Any) -> int:
        """Send a file, after what is held."""
        self.flush()
        return self._sock.sendfile(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Worker(GeventWorker):
    """gunicorn's gevent worker without its patches: only the sockets of requests are gevent's.

    A lock of a framework or of a user's hook stays a lock; what would block is done in threads, see
    ``engine/scheduling.py``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: Dict[Connection, None] = {}

    def patch(self) -> None:
        """Make gevent's sockets of those that gunicorn listens on, and patch nothing."""
        global _serving  # noqa: PLW0603 - said once per process
        _serving = True
        listening: Any = self.sockets
        green: Any = gevent_socket
        self.sockets = [green.socket(one.FAMILY, green.SOCK_STREAM, fileno=one.sock.detach()) for one in listening]

    def run(self) -> None:
        """Serve until told to stop."""
        gevent.spawn(self._sweep)
        super().run()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Answer the requests of a connection, plain ones by the short way."""
        runtime = direct.offered()
        plain = not self.cfg.is_ssl and self.cfg.proxy_protocol in _NO_PROXY and self.cfg.keepalive
        if runtime is None or not plain:
            super().handle(listener, client, addr)
            return
        client.setblocking(1)
        connection = Connection(client)
        self._connections[connection] = None
        try:
            while self._answer_next(connection, listener, addr, runtime):
                pass
        except OSError as error:
            self.log.debug("A connection has ended: %s", error)
        except Exception as error:  # no memory, or a mistake of ours: the caller is told, as gunicorn does it
            self.handle_error(None, client, addr, error)
        finally:
            del self._connections[connection]
            util.close(client)

    def _answer_next(self, connection: Connection, listener: Any, addr: Any, runtime: direct.Runtime) -> bool:
        """Answer one request; returns whether another may follow."""
        end = connection.await_head()
        if not end:
            return False
        head = direct.take(connection.held[:end])
        if head is None or head.length > runtime.max_body:
            return self._answer_as_stock(connection, listener, addr)
        connection.held = connection.held[end:]
        body = connection.take(head.length)
        self._count()
        keep_alive = self.alive and not self._is_full() and not head.closes and len(body) == head.length
        connection.sendall(direct.answer(head, body, runtime, keep_alive=keep_alive))
        return keep_alive

    def _answer_as_stock(self, connection: Any, listener: Any, addr: Any) -> bool:
        """Have gunicorn read the request and the stock server answer it."""
        request: Optional[Any] = None
        connection.passing = True
        try:
            parser = RequestParser(self.cfg, connection, addr)
            connection.silent_since = time.monotonic()
            request = next(parser)
            connection.silent_since = math.inf
            self.handle_request(listener.getsockname(), request, connection, addr)
            connection.silent_since = time.monotonic()
            while request.body.read(CHUNK):
                connection.silent_since = time.monotonic()  # nobody wanted it, and the next request comes after it
            connection.silent_since = math.inf
            connection.passing = False
            connection.held = parser.unreader.read() + connection.held
        except (NoMoreData, StopIteration):
            return False
        except OSError:
            raise
        except Exception as error:  # gunicorn turns it into an answer, as it does itself
            self.handle_error(request, connection, addr, error)
            connection.flush()
            return False
        return True

    def _is_full(self) -> bool:
        """Whether hardly another caller could connect: idle connections would keep all others out."""
        return len(self._connections) > FULL * self.worker_connections

    def _count(self) -> None:
        """Count a request, as gunicorn does, which may want this worker to end after so many."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def _sweep(self) -> None:
        """End connections over which nothing has come for as long as gunicorn's keep-alive allows."""
        while True:
            gevent.sleep(SWEEP_SECONDS)
            hurry = self._is_full() or not self.alive
            longest = time.monotonic() - (SWEEP_SECONDS if hurry else self.cfg.keepalive)
            for connection in [one for one in self._connections if one.silent_since < longest]:
                connection.silent_since = math.inf
                with contextlib.suppress(OSError):  # it has been reset meanwhile
                    connection.shutdown(gevent_socket.SHUT_RD)  # gevent wakes what waits for more

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer the probe of a service that has lost its model; the stock server is well whatever happens."""
        if req.path == "/" and not is_healthy():
            head, _, body = UNHEALTHY.partition(b"\r\n\r\n")
            sock.sendall(head + b"\r\n\r\n" + (b"" if req.method == "HEAD" else body))
            raise StopIteration  # gunicorn's word for an answer after which the connection ends
        corked: Any = sock if isinstance(sock, Connection) else Connection(sock)
        try:
            return super().handle_request(listener_name, req, corked, addr)
        finally:
            with contextlib.suppress(OSError):  # the caller, or gunicorn itself, has ended the connection
                corked.flush()
