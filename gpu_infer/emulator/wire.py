"""Requests and answers as the emulator's services see them, and each service's own shape of an error.

Nothing here knows a socket: ``server.py`` turns bytes into a :class:`Request` and a :class:`Response` into bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

__all__ = ["Plane", "Refusal", "Request", "Response", "answer", "items", "mapping", "refuse"]

Plane = Literal["arm", "mms", "artifact", "blob", "aad", "scoring", "plain"]
"""Which of Azure's services answers: each writes its errors in its own way. ``plain`` has no shape of its own."""

_CODES = {
    400: ("BadRequest", "The request is invalid."),
    401: ("Unauthorized", "The access token is missing, invalid or expired."),
    403: ("AuthorizationFailed", "The client does not have authorization to perform this action."),
    404: ("ResourceNotFound", "The resource was not found."),
    408: ("RequestTimeout", "The request timed out."),
    409: ("Conflict", "The resource exists already, or another operation on it is in progress."),
    412: ("PreconditionFailed", "A condition of the request does not hold."),
    429: ("TooManyRequests", "Too many requests. Try again later."),
    500: ("InternalServerError", "An internal server error occurred."),
    502: ("BadGateway", "The upstream server gave an invalid answer."),
    503: ("ServiceUnavailable", "The service is unavailable now. Try again later."),
    504: ("GatewayTimeout", "The upstream server did not answer in time."),
}

_BLOB_CODES = {
    "Unauthorized": "NoAuthenticationInformation",
    "AuthorizationFailed": "AuthenticationFailed",
    "ResourceNotFound": "BlobNotFound",
    "Conflict": "BlobAlreadyExists",
    "InternalServerError": "InternalError",
    "ServiceUnavailable": "ServerBusy",
    "TooManyRequests": "ServerBusy",
    "RequestTimeout": "OperationTimedOut",
}
"""Blob storage's own words: the SDK chooses the exception by them."""


@dataclass(slots=True)
class Request:
    """One call, its body read already.

    Attributes:
        number: counts the emulator's requests.
        method: in capitals.
        path: decoded, slashes collapsed.
        target: path and query as they were sent.
        query: the last value of each name.
        headers: names in small letters.
        base: scheme and host that the client used: links in answers start with it.
        host: without the port.
        body: empty where it went to ``upload``.
        upload: the body as a file; a handler that keeps it moves it away.
        json: the body, parsed; ``None`` where it is no JSON.
        args: what the route's pattern took from the path.
        failing: the error with which the operation that this call starts shall end (a fault), else ``None``.
    """

    number: int
    method: str
    path: str
    target: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    base: str
    host: str
    body: bytes = b""
    upload: Path | None = None
    json: Any = None
    args: Mapping[str, str] = field(default_factory=dict[str, str])
    failing: Mapping[str, Any] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Refusal: 400, it is none.
        """
        body: object = self.json
        if not isinstance(body, dict):
            raise Refusal(400, "BadRequest", "The body of this request must be a JSON object.")
        return cast("dict[str, Any]", body)

    @property
    def real_names(self) -> bool:
        """Whether the client calls Azure by its real names, through the proxy."""
        return self.host not in ("127.0.0.1", "localhost")


@dataclass(slots=True)
class Response:
    """What goes back. ``path`` is a file to send instead of ``body``, or of it what ``span`` says: start and end."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    path: Path | None = None
    span: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """Bytes of the body."""
        if self.span:
            return self.span[1] - self.span[0]
        return self.path.stat().st_size if self.path else len(self.body)


class Refusal(Exception):  # noqa: N818 (an answer, not a failure of the emulator)
    """Raised by a handler to answer with an error; it becomes the plane's own shape."""

    def __init__(
        self, status: int, code: str = "", message: str = "", *, details: list[dict[str, str]] | None = None
    ) -> None:
        known = _CODES.get(status, ("Error", f"The service answered with status {status}."))
        self.status = status
        self.code: str = code or known[0]
        self.message: str = message or known[1]
        self.details: list[dict[str, str]] = details or []
        super().__init__(f"{status} {self.code}: {self.message}")


def mapping(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """A JSON array; an empty one for anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def answer(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    body = json.dumps(payload).encode()
    return Response(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


def refuse(plane: Plane, refusal: Refusal) -> Response:
    """An error as the services of a plane write it."""
    status, code, message, details = refusal.status, refusal.code, refusal.message, refusal.details
    if plane == "arm":
        error = {"code": code, "message": message}
        return answer({"error": {**error, "details": details} if details else error}, status)
    if plane == "mms":
        body = {"code": code, "statusCode": status, "message": message, "details": details}
        return answer({**body, "correlation": {"RequestId": "emulator"}}, status)
    if plane == "artifact":
        # str() of the SDK's exception fails on an answer without details.
        error = {"code": code, "message": message, "details": details}
        return answer({"error": error, "correlation": {"operation": "emulator"}, "environment": "emulator"}, status)
    if plane == "blob":
        code = _BLOB_CODES.get(code, code)
        xml = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        headers = {"Content-Type": "application/xml", "x-ms-error-code": code}
        return Response(status, f'<?xml version="1.0" encoding="utf-8"?>{xml}'.encode(), headers)
    if plane == "aad":
        return answer({"error": code, "error_description": message, "error_codes": []}, status)
    return Response(status, message.encode(), {"Content-Type": "text/plain; charset=utf-8"})
