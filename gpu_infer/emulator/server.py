"""The two listeners on loopback, plain and TLS, and HTTP/1.1 on their connections."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from .app import App, Dropped
from .wire import Request, Response

__all__ = ["HOST", "Listener"]

HOST = "127.0.0.1"
_IDLE = 300.0
"""Seconds after which a silent connection is closed."""
_CHUNK = 1 << 20


class Listener:
    """Accepts connections on one port; each is served by a thread of its own.

    Args:
        app: answers.
        port: 0 for any free one.
        tls: of the connections; ``None`` for a plain listener.
        proxied: what a plain listener uses after ``CONNECT`` to one of ``hosts``.
        hosts: names to which it lets clients connect. Nothing ever leaves this machine.
        folder: for bodies that go to files.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        app: App,
        port: int,
        *,
        folder: Path,
        tls: ssl.SSLContext | None = None,
        proxied: ssl.SSLContext | None = None,
        hosts: tuple[str, ...] = (),
    ) -> None:
        self.app = app
        self.folder = folder
        self.tls = tls
        self.proxied = proxied
        self.hosts = hosts
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
            self._socket.listen(128)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._accept, name=f"emulator-{self.port}", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more, break all connections, and wait for their threads (a second at most)."""
        with self._lock:
            self._stopped = True
            links = list(self._links)
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            pass  # wakes the accepting thread
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()
        for link in links:
            link.wake()
        deadline = time.monotonic() + 1
        for link in links:
            if link.thread and link.thread is not threading.current_thread():
                link.thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            link = _Link(connection)
            with self._lock:
                if self._stopped:
                    link.close()
                    return
                self._links.add(link)
            link.thread = threading.Thread(
                target=self._serve, args=(link,), name=f"emulator-{self.port}-connection", daemon=True
            )
            link.thread.start()

    def _serve(self, link: _Link) -> None:
        try:
            link.socket.settimeout(_IDLE)
            if self.tls:
                link.socket = self.tls.wrap_socket(link.socket, server_side=True)
            _Handler(link, self)
        except OSError:
            pass  # the client went away, does not trust us, or was cut off
        finally:
            link.close()
            with self._lock:
                self._links.discard(link)


@dataclass(eq=False, slots=True)
class _Link:
    """One connection. TLS replaces its socket object on the way."""

    socket: socket.socket
    thread: threading.Thread | None = None
    files: list[BufferedIOBase] = field(default_factory=list[BufferedIOBase])

    def wake(self) -> None:
        """Make whoever reads or writes give up."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        for file in self.files:
            with suppress(OSError):
                file.close()
        self.files.clear()
        with suppress(OSError):
            self.socket.close()

    def reset(self) -> None:
        """End the connection with a TCP reset: no linger, no farewell."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 on one connection."""

    protocol_version = "HTTP/1.1"
    request: Any  # the base class wants a socket here; ours is a _Link

    def __init__(self, link: _Link, listener: Listener) -> None:
        self.link = link
        self.listener = listener
        self.secure = listener.tls is not None
        super().__init__(cast("Any", link), (HOST, 0), cast("Any", listener))

    def setup(self) -> None:
        """Open the connection's files."""
        self.connection = self.link.socket
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", -1)
        self.link.files += [self.wfile, self.rfile]

    def finish(self) -> None:
        """The link closes what is open."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named by the base class)
        """Keep quiet: the emulator has a log of its own."""

    def do_CONNECT(self) -> None:
        """Act as the proxy on the way to Azure, and as Azure at its end."""
        host = self.path.partition(":")[0].lower()
        if self.listener.proxied is None or host not in self.listener.hosts:
            self._send(Response(403, f"The emulator stands for {', '.join(self.listener.hosts)} only.".encode()))
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.link.files.clear()
        self.link.socket = self.listener.proxied.wrap_socket(self.connection, server_side=True)
        self.secure = True
        self.setup()
        self.close_connection = False

    def _serve(self) -> None:
        app = self.listener.app
        parts = urlsplit(self.path)
        path = re.sub("/+", "/", unquote(parts.path))
        headers = {name.lower(): value for name, value in self.headers.items()}
        route, arguments, refusal = app.table.find(self.command, path)
        number = 0 if route and route.hidden else app.log.number()
        host = headers.get("host", f"{HOST}:{self.listener.port}")
        upload = self.listener.folder / f"upload-{number}-{threading.get_ident()}" if route and route.streams else None
        try:
            body = self._read(headers, upload)
            request = Request(
                number,
                self.command,
                path,
                f"{parts.path}?{parts.query}" if parts.query else parts.path,
                dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers,
                f"{'https' if self.secure else 'http'}://{host}",
                host.partition(":")[0],
                body,
                upload,
                _json(body),
                arguments,
            )
            self._send(app.serve(route, refusal, request))
        except Dropped:
            self.link.reset()
            raise ConnectionResetError from None  # the base class must not touch the connection any more
        finally:
            if upload:
                upload.unlink(missing_ok=True)

    def __getattr__(self, name: str) -> Any:
        """The base class looks for ``do_GET`` and the like; all go one way."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _read(self, headers: dict[str, str], upload: Path | None) -> bytes:
        """The body: into memory, or into a file."""
        if upload:
            with upload.open("wb") as file:
                for block in self._blocks(headers):
                    file.write(block)
            return b""
        return b"".join(self._blocks(headers))

    def _blocks(self, headers: dict[str, str]) -> Any:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            while size := int(self.rfile.readline(1024).partition(b";")[0], 16):
                yield self._exactly(size)
                self.rfile.readline(8)
            while self.rfile.readline(65536).strip():
                pass
            return
        left = int(headers.get("content-length") or 0)
        while left:
            block = self._exactly(min(left, _CHUNK))
            left -= len(block)
            yield block

    def _exactly(self, size: int) -> bytes:
        block = self.rfile.read(size)
        if len(block) < size:
            raise ConnectionError("The client went away in the middle of a body.")
        return block

    def _send(self, response: Response) -> None:
        """Write an answer, in one piece where it is small: two would wait for each other."""
        bodyless = self.command == "HEAD" or response.status in (204, 304)
        self.send_response_only(response.status)
        if response.status not in (204, 304) and "Content-Length" not in response.headers:
            response.headers["Content-Length"] = str(response.size)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not bodyless:
            self.wfile.write(response.body)
            if response.path:
                self._send_file(response.path, response.span or (0, response.size))
        self.wfile.flush()

    def _send_file(self, path: Path, span: tuple[int, int]) -> None:
        start, end = span
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                block = file.read(min(_CHUNK, end - start))
                if not block:
                    raise ConnectionError("The file grew shorter while it was sent.")
                start += len(block)
                self.wfile.write(block)


def _json(body: bytes) -> Any:
    if body[:1] not in (b"{", b"["):
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None
