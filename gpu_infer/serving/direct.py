"""The short way of a plain scoring request: from the bytes of its head to the runtime, and back.

For a small model the stock server's own work on a request costs several times what the model does. Most of it serves
requests that are not plain, so those alone take that way: here, a head that is all usual is read, the runtime is asked,
and the answer gets the headers that the stock server would have given it. ``take`` says no to anything else.
"""

from __future__ import annotations

import io
import logging
import os
import re
import time
import uuid
from email.utils import formatdate
from http import HTTPStatus
from importlib import import_module
from typing import Any, Dict, List, NamedTuple, Optional, Protocol

from .answering import Answer

_LINE = b"POST /score HTTP/1.1\r\n"

_USUAL = re.compile(rb"(?:[A-Za-z0-9-]+:[\t\x20-\x7e]*\r\n)+\r\n")
"""Header lines that every server reads the same way; others (folded, not ASCII) are for gunicorn to judge."""

_UNUSUAL = frozenset(("transfer-encoding", "expect", "upgrade", "trailer", "te"))
"""Headers of requests that take the stock server's way."""

_IDS = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
_CONNECTION = ("", "keep-alive", "close")
_LONGEST_ID = 100
_MOST_LINES, _LONGEST_LINE = 100, 8190  # what gunicorn accepts unless told otherwise
_LONGEST_NUMBER = 12
_MANY_NAMES = 256
"""Names of headers that are remembered; callers may think of any number."""

_PHRASES = {status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus}

_wsgi_names: Dict[str, str] = {"content-length": "CONTENT_LENGTH", "content-type": "CONTENT_TYPE"}
_dated = (0, "")
_server_version = ""


class Head(NamedTuple):
    """What the head of a plain request says.

    Args:
        environ: its headers under the names of WSGI.
        length: of its body in bytes.
        closes: whether the caller wants no other answer on this connection.
    """

    environ: Dict[str, Any]
    length: int
    closes: bool


class Request:
    """As much of a Flask request as the runtime looks at."""

    method = "POST"
    path = "/score"

    def __init__(self, environ: Dict[str, Any]) -> None:
        self.environ = environ
        self.max_content_length: Optional[int] = None


class Runtime(Protocol):
    """What answers plain requests."""

    @property
    def max_body(self) -> int:
        """The most bytes of a body; a longer one is refused before it is read."""
        ...

    def handle(self, request: Any) -> Answer:
        """Answer one request."""
        ...


def take(head: bytes) -> Optional[Head]:
    """Read the head of a request, if it is a plain one.

    Args:
        head: up to and with the empty line.

    Returns:
        ``None`` for one that is not: another route, a body in chunks or of several parts, a header twice.
    """
    if not head.startswith(_LINE) or not _USUAL.fullmatch(head, len(_LINE)):
        return None
    headers: Dict[str, str] = {}
    lines = head[len(_LINE) : -4].decode("ascii").split("\r\n")
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    length, connection = headers.get("content-length", ""), headers.get("connection", "").lower()
    plain = (
        len(headers) == len(lines) <= _MOST_LINES  # none of them twice
        and max(map(len, lines)) <= _LONGEST_LINE
        and "host" in headers
        and length.isdigit()
        and len(length) <= _LONGEST_NUMBER
        and connection in _CONNECTION
        and _UNUSUAL.isdisjoint(headers)
        and all(0 < len(headers[name]) <= _LONGEST_ID for name in _IDS if name in headers)
        and not headers.get("content-type", "").lower().startswith("multipart/")
    )
    if not plain:
        return None
    environ: Dict[str, Any] = {_wsgi_name(name): value for name, value in headers.items()}
    return Head(environ, int(length), connection == "close")


def answer(head: Head, body: bytes, runtime: Runtime, *, keep_alive: bool) -> bytes:
    """Answer a plain request.

    Args:
        head: from ``take``.
        body: of the request.
        runtime: answers it.
        keep_alive: whether another request may follow on the connection.

    Returns:
        head and body of the answer.
    """
    started = time.perf_counter()
    environ = head.environ
    environ["wsgi.input"] = io.BytesIO(body)
    answered = runtime.handle(Request(environ))
    milliseconds = (time.perf_counter() - started) * 1e3
    connection = "keep-alive" if keep_alive else "close"
    lines: List[str] = [
        f"HTTP/1.1 {_PHRASES[answered.status]}\r\nServer: gunicorn\r\nDate: {_date()}\r\nConnection: {connection}\r\n"
    ]
    lines += [f"{name}: {value}\r\n" for name, value in answered.headers.items()]
    failed = answered.status >= HTTPStatus.INTERNAL_SERVER_ERROR  # the stock server sets it over what run() said
    lines.append(
        f"x-ms-run-function-failed: {failed}\r\nContent-Length: {len(answered.body)}\r\n"
        f"x-ms-run-fn-exec-ms: {milliseconds:.3f}\r\n{_server_version}"
    )
    lines += _ids(environ)
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + answered.body


def _ids(environ: Dict[str, Any]) -> List[str]:
    """The headers by which a request is found again, as the stock server gives them back."""
    request_id = environ.get("HTTP_X_REQUEST_ID") or str(uuid.uuid4())
    older = environ.get("HTTP_X_MS_REQUEST_ID", "")
    client_id = environ.get("HTTP_X_MS_CLIENT_REQUEST_ID", "") or older
    lines = [f"x-request-id: {request_id}\r\nx-ms-request-id: {older or client_id or request_id}\r\n"]
    if client_id:
        lines.append(f"x-ms-client-request-id: {client_id}\r\n")
    if "HTTP_TRACEID" in environ:
        lines.append(f"TraceId: {environ['HTTP_TRACEID']}\r\n")
    return lines


def _wsgi_name(name: str) -> str:
    known = _wsgi_names.get(name)
    if known is None:
        known = "HTTP_" + name.upper().replace("-", "_")
        if len(_wsgi_names) < _MANY_NAMES:
            _wsgi_names[name] = known
    return known


def _date() -> str:
    """The time as HTTP writes it, made once a second."""
    global _dated  # noqa: PLW0603 - a cache
    second = int(time.time())
    if _dated[0] != second:
        _dated = (second, formatdate(second, usegmt=True))
    return _dated[1]


_runtime: Optional[Runtime] = None


def offer(runtime: Runtime) -> None:
    """Let plain requests go to a runtime without passing ``run()``, which must do nothing else with them.

    Not where the stock server does more for each of them: tell Application Insights, allow other origins, write a line.
    """
    global _runtime, _server_version  # noqa: PLW0603 - one runtime per process
    try:
        config: Any = import_module("azureml_inference_server_http.server.config").config
        plain = not (config.app_insights_enabled or config.cors_origins)
    except (ImportError, AttributeError):  # an older server: nobody knows what it does
        plain = False
    _runtime = runtime if plain and not logging.getLogger("azmlinfsrv").isEnabledFor(logging.INFO) else None
    version = os.environ.get("HTTP_X_MS_SERVER_VERSION", "")
    _server_version = f"x-ms-server-version: {version}\r\n" if version else ""


def offered() -> Optional[Runtime]:
    """What plain requests go to, ``None`` where they take the stock server's way."""
    return _runtime
