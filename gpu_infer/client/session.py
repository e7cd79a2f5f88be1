"""How requests is used: one session for one address, the credential added at the last moment and taken out again."""

from __future__ import annotations

import http.client
import io
import os
import time
import traceback
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from .base import READ_SIZE, ca_file
from .credentials import Token
from .failures import chain_of
from .many.options import MAX_CONCURRENCY
from .messages import FailureKind

__all__ = ["Bearer", "Sessions", "chunks_of", "forget_request", "kind_of_failure"]


def chunks_of(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives, unpacked; urllib3 1 has no ``read1`` and gives it in whole pieces."""
    read = getattr(raw, "read1", raw.read)
    while chunk := read(READ_SIZE, decode_content=True):
        yield chunk


class Sessions:
    """The session of this process, made on first use.

    A process made by ``fork()`` has the connections of its parent, too. Answers of the one would reach the other there,
    so that it gets a session of its own, and leaves the other alone.
    """

    def __init__(self) -> None:
        self._process = 0
        self._session: requests.Session | None = None

    def get(self) -> requests.Session:
        """The session to use now."""
        session, process = self._session, os.getpid()
        if session is None or process != self._process:
            session = _new_session()
            self._session, self._process = session, process
        return session

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()


def _new_session() -> requests.Session:
    """Connections for one address, and nothing of what requests does unasked."""
    session = requests.Session()
    session.headers.clear()
    session.verify = ca_file() or True
    # A load balancer's affinity cookie would tie all requests to one replica.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(pool_connections=1, pool_maxsize=MAX_CONCURRENCY, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Limited(io.RawIOBase):
    """Reads from a socket until a moment; the socket's own time-out begins anew with each byte that comes."""

    def __init__(self, sock: Any, seconds: float) -> None:
        self._sock = sock
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer came too slowly")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed and self._sock.fileno() >= 0:
            self._sock.settimeout(self._seconds)  # the next request on this connection has time of its own
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose time-out covers all of it, the headers too, however slowly they drip."""

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        seconds = sock.gettimeout()
        if seconds is not None:
            reader: Any = io.BufferedReader(_Limited(sock, seconds))
            plain, self.fp = self.fp, reader
            plain.close()


class _Connection(HTTPConnection):
    response_class = _Answer


class _EncryptedConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls: Any = _EncryptedConnection


class _Adapter(HTTPAdapter):
    """Connections whose answers are :class:`_Answer`, through a proxy as well."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if isinstance(manager, urllib3.ProxyManager):  # those of SOCKS have connections of their own
            manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS: dict[str, Any] = {"http": _Pool, "https": _EncryptedPool}


class Bearer(AuthBase):
    """Adds the credential at the last moment; with any ``auth`` at all, requests does not read ``.netrc`` either."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add it to the headers of a request that is about to leave."""
        if self._token is not None:
            r.headers["Authorization"] = self._token.header()
        return r


def forget_request(error: BaseException) -> None:
    """Take the key out of the exception that becomes the cause of ours: requests hangs the whole request on it."""
    for inner in chain_of(error):
        traceback.clear_frames(inner.__traceback__)  # and out of the variables: tools that report errors show those
        request = getattr(inner, "request", None)
        if isinstance(request, requests.PreparedRequest):
            request.headers.pop("Authorization", None)


def kind_of_failure(error: BaseException) -> FailureKind:
    """What may have happened at the other end; certificates left out."""
    chain = chain_of(error)
    # Refused or no such host; asked before the time-outs, one of which it is in urllib3 1.
    if any(isinstance(inner, NewConnectionError | requests.exceptions.ProxyError) for inner in chain):
        return "connect"
    if any(isinstance(inner, requests.ConnectTimeout | ConnectTimeoutError) for inner in chain):
        return "connect_timeout"
    if any(isinstance(inner, TimeoutError | urllib3.exceptions.TimeoutError | requests.Timeout) for inner in chain):
        return "read_timeout"
    return "broken"
