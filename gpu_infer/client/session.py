"""How requests is used: one session for one address, the credential added at the last moment and taken out again."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from .base import READ_SIZE, ca_file
from .credentials import Token
from .failures import chain_of
from .many.options import MAX_CONCURRENCY
from .messages import FailureKind

__all__ = ["Bearer", "chunks_of", "forget_request", "kind_of_failure", "new_session"]


def chunks_of(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives, unpacked; urllib3 1 has no ``read1`` and gives it in whole pieces."""
    read = getattr(raw, "read1", raw.read)
    while chunk := read(READ_SIZE, decode_content=True):
        yield chunk


def new_session() -> requests.Session:
    """Connections for one address, and nothing of what requests does unasked."""
    session = requests.Session()
    session.headers.clear()
    session.verify = ca_file() or True
    # A load balancer's affinity cookie would tie all requests to one replica.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=MAX_CONCURRENCY, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


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
