"""One request that is sent over and over, for measuring: encoded once, its answers read and not decoded.

A connection speaks HTTP/1.1 by itself: so a request costs this process 15 µs, where ``http.client`` takes 75 and
``ScoringClient`` 500 (``docs/decisions.md``), and who measures must not be the one who is measured.
"""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from io import BufferedReader
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from .base import CONNECT_TIMEOUT, READ_SIZE, ca_file, credential_failure, reason_of
from .credentials import CredentialError, ThreadVault, Token
from .messages import Failure, Outcome, Request, Response

__all__ = ["Line", "Repeated"]

_MAX_LINE = 1 << 16
_MAX_HEADERS = 200
_NO_BODY = (204, 304)


class Repeated:
    """An input, encoded, and where it goes. ``ScoringClient.repeated()`` makes it; threads may share it.

    Args:
        request: what to send, without the credential.
        vault: has the credential.
        timeout: seconds for each sending.
        direct: take no proxy of the environment.
    """

    def __init__(self, request: Request, vault: ThreadVault, *, timeout: float, direct: bool) -> None:
        self.timeout: float = timeout
        self._vault = vault
        self._address = urlsplit(request.url)
        self._proxy = None if direct else _proxy_for(self._address)
        # Made once: to read the certificates takes longer than a request.
        self._context = _trusting() if self._address.scheme == "https" else None
        headers = {**request.headers, "x-gpu-infer-timeout-ms": str(max(1, int(timeout * 1000)))}
        self._head = self._opening(request, headers)
        self._body = request.body

    def line(self) -> Line:
        """A connection for one thread, opened with its first sending."""
        return Line(self._connect, self._message, self._vault, timeout=self.timeout)

    def _opening(self, request: Request, headers: dict[str, str]) -> bytes:
        path = f"{self._address.path or '/'}{'?' + self._address.query if self._address.query else ''}"
        if self._proxy is not None and self._context is None:
            # Nothing is encrypted, so the proxy is not tunnelled through: it is asked for the whole address.
            path = f"http://{self._address.netloc}{path}"
            headers = {**headers, **_proxy_headers(self._proxy)}
        lines = [f"{request.method} {path} HTTP/1.1", f"Host: {self._address.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "".join(f"{line}\r\n" for line in [*lines, f"Content-Length: {len(request.body)}"]).encode("latin-1")

    def _message(self, token: Token | None) -> bytes:
        """All bytes of one sending; the key goes in here and is nowhere kept."""
        if token is None:
            return self._head + b"\r\n" + self._body
        return b"".join((self._head, b"Authorization: ", token.header().encode("ascii"), b"\r\n\r\n", self._body))

    def _connect(self, timeout: float) -> socket.socket:
        """Connect, through the environment's proxy where there is one.

        Raises:
            OSError, HTTPException: no connection.
        """
        at = self._proxy or self._address
        host = at.hostname or ""
        if self._context is None:
            connection = HTTPConnection(host, at.port or 80, timeout=timeout)
        else:
            connection = HTTPSConnection(host, at.port or 443, timeout=timeout, context=self._context)
            if self._proxy is not None:
                port = self._address.port or 443
                connection.set_tunnel(self._address.hostname or "", port, headers=_proxy_headers(self._proxy))
        connection.connect()
        return connection.sock


class Line:
    """One kept connection, for one thread. Only ``abort()`` may be called from another."""

    def __init__(
        self,
        connect: Callable[[float], socket.socket],
        message: Callable[[Token | None], bytes],
        vault: ThreadVault,
        *,
        timeout: float,
    ) -> None:
        self._connect, self._message, self._vault = connect, message, vault
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._file: BufferedReader | None = None
        self._aborted = False

    def send(self) -> Outcome:
        """Send once, and read the answer to its end.

        A credential that is refused is fetched again once, as the client does. Nothing else is tried again, but for a
        kept connection that the service has closed in the meantime.

        Returns:
            the answer with an empty body, or why none came.
        """
        try:
            token = self._vault.get(refused=None, wait=self._timeout)
            outcome, refusals = self._exchange(token), 1
            while _is_refusal(outcome) and refusals < self._vault.keys + self._vault.renewable:
                token, refusals = self._vault.get(refused=token, wait=self._timeout), refusals + 1
                outcome = self._exchange(token)
        except CredentialError as problem:
            return credential_failure(problem)
        return outcome

    def close(self) -> None:
        """Close the connection; the next sending opens another."""
        for end in (self._file, self._socket):
            if end is not None:
                with suppress(OSError):
                    end.close()
        self._file = self._socket = None

    def abort(self) -> None:
        """End what is under way, from any thread; what ``send()`` returns then is of no meaning."""
        self._aborted = True
        if (open_one := self._socket) is not None:
            with suppress(OSError):
                # Not SSLSocket's own, which would take the encryption away below the thread that reads.
                socket.socket.shutdown(open_one, socket.SHUT_RDWR)

    def _exchange(self, token: Token | None) -> Outcome:
        deadline = time.monotonic() + self._timeout
        kept = self._socket is not None
        if not kept and (failure := self._open(deadline)) is not None:
            return failure
        try:
            return self._ask(token, deadline)
        except TimeoutError as error:
            self.close()
            return Failure("read_timeout", f"No whole answer within {self._timeout:.3g} s.", error)
        except _ClosedError as error:
            self.close()
            # An answer that the service never began on a kept connection: it closed it while nothing was under way.
            return Failure("broken", str(error), error) if self._aborted or not kept else self._exchange(token)
        except (OSError, ValueError) as error:
            self.close()
            return Failure("broken", str(error) if isinstance(error, ValueError) else reason_of(error), error)

    def _open(self, deadline: float) -> Failure | None:
        try:
            self._socket = self._connect(min(CONNECT_TIMEOUT, max(0.001, deadline - time.monotonic())))
            self._socket.settimeout(self._timeout)
            self._file = self._socket.makefile("rb")
            if self._aborted:  # while there was no socket yet to shut down
                self.close()
        except ssl.SSLCertVerificationError as error:
            return Failure("tls", reason_of(error), error)
        except TimeoutError as error:
            return Failure("connect_timeout", "It did not take the connection in time.", error)
        except (OSError, HTTPException) as error:
            return Failure("connect", reason_of(error), error)
        return None

    def _ask(self, token: Token | None, deadline: float) -> Response:
        connection, file = self._socket, self._file
        if connection is None or file is None:
            raise ValueError("the connection is closed")
        try:
            connection.sendall(self._message(token))
            opening = file.readline(_MAX_LINE)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise _ClosedError(reason_of(error)) from error
        if not opening:
            raise _ClosedError("it was closed before an answer began")
        version, status, headers = _read_head(file, opening, deadline)
        until_closed = not _skip_body(file, status, headers, deadline)
        option = headers.get("connection", "").lower()
        if until_closed or "close" in option or (version == b"HTTP/1.0" and "keep-alive" not in option):
            self.close()
        return Response(status, headers)


def _is_refusal(outcome: Outcome) -> bool:
    return isinstance(outcome, Response) and outcome.status == HTTPStatus.UNAUTHORIZED


class _ClosedError(Exception):
    """The service closed the connection before it began to answer."""


def _read_head(file: BufferedReader, opening: bytes, deadline: float) -> tuple[bytes, int, dict[str, str]]:
    while True:
        version, status = [*opening.split(maxsplit=2), b"", b""][:2]
        if not version.startswith(b"HTTP/1.") or not status.isdigit():
            raise ValueError("the answer is no HTTP")
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADERS):
            line = file.readline(_MAX_LINE)
            if line in (b"\r\n", b"\n"):
                break
            name, colon, value = line.partition(b":")
            if not colon or not line.endswith(b"\n"):
                raise ValueError("the answer ended in its headers")
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
            _check(deadline)
        else:
            raise ValueError("the answer has too many headers")
        if not 100 <= int(status) < 200:
            return version, int(status), headers
        opening = file.readline(_MAX_LINE)  # 1xx announces the answer that follows


def _skip_body(file: BufferedReader, status: int, headers: dict[str, str], deadline: float) -> bool:
    """Read the body and drop it; false where it ends with the connection."""
    if status in _NO_BODY:
        return True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := int(file.readline(_MAX_LINE).partition(b";")[0], 16):
            _skip(file, size + 2, deadline)
        while (line := file.readline(_MAX_LINE)) not in (b"\r\n", b"\n"):  # trailers
            if not line:
                raise ValueError("the answer was cut short")
            _check(deadline)
        return True
    if (length := headers.get("content-length", "")).isdigit():
        _skip(file, int(length), deadline)
        return True
    while file.read1(READ_SIZE):
        _check(deadline)
    return False


def _skip(file: BufferedReader, size: int, deadline: float) -> None:
    while size > 0:
        chunk = file.read1(min(size, READ_SIZE))
        if not chunk:
            raise ValueError("the answer was cut short")
        size -= len(chunk)
        _check(deadline)


def _check(deadline: float) -> None:
    # The socket's time-out begins anew with each byte; this one does not.
    if time.monotonic() > deadline:
        raise TimeoutError


def _trusting() -> ssl.SSLContext:
    """What ``ScoringClient`` trusts: what the environment names, else certifi's."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    path = ca_file() or DEFAULT_CA_BUNDLE_PATH
    is_folder = Path(path).is_dir()
    return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)


def _proxy_for(address: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for an address.

    Raises:
        ValueError: it is one of a kind that is not spoken here.
    """
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(address.hostname or ""):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http":
        raise ValueError(
            f"The proxy of the environment is {parts.scheme}://, and load is sent through http:// proxies only: set "
            f"NO_PROXY={address.hostname} to reach the service without it."
        )
    return parts


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode('ascii')}"}
