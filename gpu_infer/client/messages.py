"""What travels between the clients and the protocol: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

__all__ = [
    "Codec",
    "Failure",
    "FailureKind",
    "Outcome",
    "Pause",
    "Payload",
    "Request",
    "Response",
    "ScoreResponse",
    "Send",
]

Codec: TypeAlias = Literal["json", "npy", "bytes", "kserve"]
"""How inputs are written: ``None`` in its place means "by the type of the input", which only our services read."""


@dataclass(frozen=True, slots=True)
class Payload:
    """An input, encoded.

    Attributes:
        content_type: what ``body`` is.
        body: the bytes to send.
        items: ``"one"`` or ``"many"`` where the service must not decide by rank, else ``None``.
    """

    content_type: str
    body: bytes = field(repr=False)
    items: Literal["one", "many"] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without the credential: that is added where the bytes are sent, and nowhere kept.

    Attributes:
        method: ``"POST"`` or ``"GET"``.
        url: the whole address.
        headers: names as they are sent, values without the key.
        body: the bytes to send, empty for ``GET``.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer, read to its end and unpacked.

    Attributes:
        status: the HTTP status.
        headers: names in lower case.
        body: the bytes after ``Content-Encoding`` was undone.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)  # a service may echo what it was sent
    body: bytes = field(default=b"", repr=False)


FailureKind: TypeAlias = Literal[
    "connect", "connect_timeout", "tls", "read_timeout", "broken", "too_large", "credential"
]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no whole answer came.

    ``kind`` says what may have happened at the other end:

    - ``"connect"``, ``"connect_timeout"``: no connection, so nothing was sent.
    - ``"tls"``: the certificate was not accepted, so nothing was sent, and trying again will not help.
    - ``"read_timeout"``: sent, and no answer in time.
    - ``"broken"``: the connection was lost after the request may have arrived.
    - ``"too_large"``: the answer is larger than the client takes.
    - ``"credential"``: the credential provider failed; nothing was sent.
    """

    kind: FailureKind
    message: str
    cause: BaseException | None = field(default=None, repr=False, compare=False)


Outcome: TypeAlias = Response | Failure
"""What came of one attempt."""


@dataclass(frozen=True, slots=True)
class Send:
    """An order to the client: send this and report the :data:`Outcome`.

    Attributes:
        request: what to send.
        timeout: seconds for this attempt.
        remaining: seconds until the call's deadline, ``timeout`` or more; a credential may take as long to fetch.
        renew: the credential of the attempt before was refused: fetch another one first.
    """

    request: Request
    timeout: float
    remaining: float
    renew: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """An order to the client: wait this many seconds."""

    seconds: float


Value_co = TypeVar("Value_co", covariant=True)
"""What a result is read as."""


@dataclass(frozen=True, slots=True)
class ScoreResponse(Generic[Value_co]):
    """A result with what the service said about it.

    Attributes:
        value: the result, as :meth:`ScoringClient.score` returns it.
        device: the device that did the work, as ``"cpu"`` or ``"cuda:0 NVIDIA H200"``; ``None`` from other services.
        batch: how many items the largest batch of this request held; ``None`` from other services.
        queue_ms: the longest wait of an item for the device, in milliseconds; ``None`` from other services.
        request_id: the id the request carried as ``x-ms-client-request-id``; the service's log has it too.
        elapsed: seconds from the call to the result, retries included.
    """

    value: Value_co
    device: str | None
    batch: int | None
    queue_ms: float | None
    request_id: str
    elapsed: float
