"""How aiohttp is used: one session for each event loop, the credential added at the last moment and taken out again.

Loaded by the asynchronous client alone, since aiohttp is an extra.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import traceback
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import certifi
import yarl
from requests.utils import get_environ_proxies, select_proxy

from .base import ca_file
from .credentials import Token
from .failures import chain_of
from .many.options import MAX_CONCURRENCY
from .messages import FailureKind

__all__ = [
    "body_of",
    "errors",
    "forget_request",
    "headers_of",
    "kind_of_failure",
    "new_session",
    "proxy_of",
    "timeouts",
    "url_of",
]

errors = (aiohttp.ClientError, OSError, TimeoutError)
"""What it raises when there is no answer."""

LARGE = 1 << 20
"""Bytes: a larger body is written piece by piece, so that others have their turn in between."""


def new_session() -> aiohttp.ClientSession:
    """Connections for one address, and nothing of what aiohttp does unasked. Call it in the loop that will use it."""
    connector = aiohttp.TCPConnector(limit=MAX_CONCURRENCY, ssl=_certificates())
    # A load balancer's affinity cookie would tie all requests to one replica.
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True)
    # It would send a GET again unasked, and the protocol, which counts attempts, would not know.
    session._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return session


def _certificates() -> ssl.SSLContext:
    path = ca_file() or certifi.where()
    is_folder = Path(path).is_dir()
    return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)


def proxy_of(url: str) -> str | None:
    """The proxy on the way to an address, as the environment says; where requests looks, so that both clients agree."""
    return select_proxy(url, get_environ_proxies(url))


def url_of(url: str) -> yarl.URL:
    """The address as it is: aiohttp would write what is encoded in it in a way of its own."""
    return yarl.URL(url, encoded=True)


def body_of(body: bytes) -> bytes | io.BytesIO | None:
    """What aiohttp takes as a body."""
    if not body:
        return None
    return body if len(body) <= LARGE else io.BytesIO(body)


def headers_of(headers: Mapping[str, str], token: Token | None) -> dict[str, str]:
    """The headers of a request that is about to leave, with its credential, which stands in no variable of ours."""
    return {**headers} if token is None else {**headers, "Authorization": token.header()}


def timeouts(*, connect: float) -> aiohttp.ClientTimeout:
    """Seconds for connecting; the whole exchange has a limit of its own."""
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


def forget_request(error: BaseException) -> None:
    """Take the key out of the exception that becomes the cause of ours, and out of the variables of its frames."""
    for inner in chain_of(error):
        traceback.clear_frames(inner.__traceback__)  # tools that report errors show those
        if isinstance(inner, aiohttp.ClientResponseError):
            inner.args = inner.args[2:]
            del inner.request_info


def kind_of_failure(error: BaseException) -> FailureKind:
    """What may have happened at the other end; certificates left out."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "connect_timeout"
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError | aiohttp.InvalidURL):
        return "connect"
    return "read_timeout" if isinstance(error, asyncio.TimeoutError) else "broken"
