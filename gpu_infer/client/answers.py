"""What an answer or a failure means: a result, or which error, and whose fault it was. See ``docs/serving.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

from ..errors import (
    AuthenticationError,
    BadInputError,
    ModelError,
    OverloadedError,
    ScoringConnectionError,
    ScoringError,
    ScoringTimeoutError,
)
from .codecs import JSON, NPY, decode_npy
from .json_text import decode_json
from .kserve import HEAD_LENGTH, decode_tensors
from .messages import Codec, Failure, Outcome, Response
from .retry import parse_retry_after

__all__ = ["Cause", "Problem", "is_ours", "joined", "problem_of", "read_value", "shorten", "without_secrets"]

SHOWN_BODY = 300
"""Characters of an answer that a message repeats."""

Cause: TypeAlias = Literal[
    "bad_input",
    "model",
    "overloaded",
    "timeout",
    "deadline",
    "unauthorized",
    "forbidden",
    "unreachable",
    "broken",
    "gateway",
    "tls",
    "other",
]
"""Whose fault it was. ``"timeout"`` is that of a front end or of an attempt, ``"deadline"`` one that the container says
of itself; ``"gateway"`` is a 502: no proper answer from behind the front end, or, on AKS, a script that raised."""

_OURS: Mapping[str, Cause] = {
    "bad_input": "bad_input",
    "model_error": "model",
    "overloaded": "overloaded",
    "deadline": "deadline",
    "internal": "other",
}
"""``x-gpu-infer-error`` to cause; it outranks the status, which front ends rewrite (AKS makes 502 of 500)."""

_BY_STATUS: Mapping[int, Cause] = {
    400: "bad_input",
    401: "unauthorized",
    403: "forbidden",
    408: "timeout",
    413: "bad_input",
    415: "bad_input",
    422: "bad_input",
    429: "overloaded",
    502: "gateway",
    503: "overloaded",
    504: "timeout",
}
"""What the front ends of AKS, managed and Kubernetes endpoints mean by a status of their own."""

_FROM_CONTAINER: Mapping[str, Cause] = {
    "400": "bad_input",
    "408": "deadline",
    "413": "bad_input",
    "415": "bad_input",
    "422": "bad_input",
    "429": "overloaded",
    "503": "overloaded",
    "504": "deadline",
}
"""The status inside a 424; any other is the model's fault, 401 included: the container knows nothing of our keys."""

_LOGS = "If it stays so, it may have crashed: service.logs(), or gpu-infer logs, has what it wrote."

_LIMIT = (
    "The limit of the front end was over: request_timeout_ms of an online deployment (5 s unless set; at most 180 s, "
    "on Kubernetes 300 s), scoring_timeout_ms on AKS (60 s; at most 300 s)."
)

_ADVICE: Mapping[int, str] = {
    403: "The key or token is known, but may not score here; a Microsoft Entra identity needs the role action "
    "onlineEndpoints/score/action.",
    404: "There is nothing at this address. Check that it is the whole scoring URI (ours end in /score), that the "
    "service still exists, and that a deployment of the endpoint gets traffic.",
    405: "This address does not take this kind of request. Is it the scoring URI, and a gpu_infer service?",
    502: "The container behind the front end crashed, or, on AKS, its entry script raised: the front end makes 502 of "
    "500. service.logs(), or gpu-infer logs, says which.",
    413: "Send fewer items per request. A service of ours takes what GPU_INFER_MAX_BODY_MB says, the router of AKS "
    "100 MB at most.",
    408: _LIMIT,
    429: "An online endpoint takes so many requests per second, and at once twice max_concurrent_requests_per_instance "
    "for each instance: send fewer, or add instances.",
    503: _LOGS,
    504: _LIMIT,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an attempt has no result.

    Attributes:
        cause: whose fault it was, which decides whether a retry can help.
        message: what happened and why, in sentences; without anything secret.
        status: the HTTP status, ``None`` when no answer came.
        item: index of the item at fault, ``None`` where that is not known.
        retry_after: seconds that the service asks to wait, ``None`` where it does not say.
        error: the exception of the layer below.
    """

    cause: Cause
    message: str
    status: int | None = None
    item: int | None = None
    retry_after: float | None = None
    error: BaseException | None = None

    def to_error(self, *, request_id: str, attempts: int, elapsed: float) -> ScoringError:
        """The exception for this problem; its message ends with what is needed to find the request in a log."""
        make: Callable[..., ScoringError] = _ERRORS.get(self.cause, ScoringError)
        tail = f"{attempts} attempt{'s' * (attempts != 1)}, {elapsed:.1f} s, request {request_id}"
        if self.status is not None:
            tail = f"status {self.status}, {tail}"
        if self.item is not None:
            tail = f"item {self.item}, {tail}"
        error = make(
            f"{self.message} ({tail})",
            status=self.status,
            request_id=request_id,
            attempts=attempts,
            elapsed=elapsed,
        )
        if isinstance(error, BadInputError | ModelError):
            error.item = self.item
        if isinstance(error, OverloadedError):
            error.retry_after = self.retry_after
        error.__cause__ = self.error
        return error


_ERRORS: Mapping[Cause, Callable[..., ScoringError]] = {
    "bad_input": BadInputError,
    "model": ModelError,
    "overloaded": OverloadedError,
    "timeout": ScoringTimeoutError,
    "deadline": ScoringTimeoutError,
    "unauthorized": AuthenticationError,
    "forbidden": AuthenticationError,
    "unreachable": ScoringConnectionError,
    "broken": ScoringConnectionError,
    "tls": ScoringConnectionError,
}

_FAILURES: Mapping[str, Cause] = {
    "connect": "unreachable",
    "connect_timeout": "unreachable",
    "tls": "tls",
    "read_timeout": "timeout",
    "broken": "broken",
    "too_large": "other",
    "credential": "forbidden",
}


def is_ours(response: Response) -> bool:
    """Whether the answer is of a service that ``gpu_infer`` built: scoring there has no side effects."""
    return "x-gpu-infer-device" in response.headers


def problem_of(outcome: Outcome, now: datetime | None = None) -> Problem | None:
    """Why this attempt has no result, ``None`` when it has one (which may still be unreadable).

    Args:
        outcome: what came.
        now: the time, for a ``Retry-After`` that is a date in an answer without one.
    """
    if isinstance(outcome, Failure):
        return Problem(_FAILURES[outcome.kind], outcome.message, error=outcome.cause)
    if 200 <= outcome.status < 300:
        return None
    if 300 <= outcome.status < 400:
        return Problem("other", _redirect(outcome), outcome.status)
    details = _error_body(outcome)
    cause = _cause_of(outcome, details)
    said = _said(outcome, details)
    message = f"{_HAPPENED.get(cause) or _what_happened(outcome.status)}{': ' + said if said else '.'}"
    # A service of ours says itself what is wrong; the advice is for those who leave the caller guessing.
    advice = _ADVICE.get(outcome.status, "") if "x-gpu-infer-error" not in outcome.headers else ""
    item = details.get("item")
    return Problem(
        cause,
        joined(message, advice),
        outcome.status,
        item if isinstance(item, int) and not isinstance(item, bool) else None,
        parse_retry_after(outcome.headers, now) if cause in ("overloaded", "timeout") else None,
    )


_HAPPENED: Mapping[Cause, str] = {
    "bad_input": "The service refused the input",
    "model": "The model failed on this input",
    "overloaded": "The service has no room for the request",
    "timeout": "The service gave no result in time",
    "deadline": "The service gave no result in time",
    "unauthorized": "The service refused the credential",
    "forbidden": "The service refused access",
}


def _what_happened(status: int) -> str:
    return f"The service {'failed' if status >= 500 else 'refused the request'} with status {status}"


def _cause_of(response: Response, details: Mapping[str, Any]) -> Cause:
    """Whose fault it was.

    Managed online endpoints wrap whatever the container answers in a 424 and name the inner status in a header. Where
    the stock server says that the user's function failed, 500 and the front ends' 502 and 503 all mean the model, and
    504 that ``run()`` took longer than the container allows.
    """
    headers, status = response.headers, response.status
    kind = headers.get("x-gpu-infer-error") or details.get("error")
    if status >= 400 and isinstance(kind, str) and kind in _OURS:
        return _OURS[kind]
    if status in (500, 502, 503, 504) and headers.get("x-ms-run-function-failed", "").strip().lower() == "true":
        return "deadline" if status == 504 else "model"
    if status == 424:
        return _FROM_CONTAINER.get(headers.get("ms-azureml-model-error-statuscode", "").strip(), "model")
    return _BY_STATUS.get(status, "other")


def _error_body(response: Response) -> Mapping[str, Any]:
    try:
        body = decode_json(response.body)
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}


def _said(response: Response, details: Mapping[str, Any]) -> str:
    """What the service said, shortened to a line."""
    nested = details.get("error")
    message = details.get("message") or (cast("Any", nested).get("message") if isinstance(nested, dict) else nested)
    if isinstance(message, str):
        return shorten(message)
    reason = response.headers.get("ms-azureml-model-error-reason")
    return shorten(reason or _text(response.body))


def _redirect(response: Response) -> str:
    location = response.headers.get("location", "")
    # A query or a user name may carry a secret; what is left is enough to see where it wants us to go.
    target = shorten(without_secrets(location)) or "an address that it does not name"
    return (
        f"The service redirects to {target}. Redirects are not followed, since the key would travel along; make the "
        "client for that address if it is the right one."
    )


def joined(said: str, sentence: str) -> str:
    """What a service said, and a sentence of ours behind it; services tend to end without a full stop."""
    said = said.rstrip()
    stop = "." if said and sentence and not said.endswith((".", "!", "?", "...", ":")) else ""
    return f"{said}{stop} {sentence}".strip()


def without_secrets(url: str) -> str:
    """The address without user name, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _text(body: bytes) -> str:
    return body[: 4 * SHOWN_BODY].decode("utf-8", "replace")


def shorten(text: str) -> str:
    """One line of at most :data:`SHOWN_BODY` characters."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= SHOWN_BODY else line[:SHOWN_BODY] + "..."


def read_value(response: Response, codec: Codec | None) -> Any:
    """The result in a successful answer.

    Returns:
        ``np.ndarray`` (an array without axes as the NumPy scalar it holds) from ``application/x-npy``, the parsed value
        from JSON, and with ``codec="bytes"`` the body from anything else; with ``codec="kserve"`` the output, or a dict
        of outputs where there are several.

    Raises:
        ValueError: an empty answer, one that is cut short, or of a type that is not known; the text says which.
    """
    if codec == "kserve":
        return _read_tensors(response)
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == NPY:
        try:
            array = decode_npy(response.body)
        except ValueError as error:
            raise ValueError(f"the array in the answer cannot be read: {error}") from error
        return array[()] if array.ndim == 0 else array
    is_json = content_type in (JSON, "text/json") or content_type.endswith("+json")
    # Score scripts that answer with AMLResponse(text, 200) send their JSON as text/html.
    if is_json or (codec != "bytes" and (not content_type or content_type.startswith("text/"))):
        return _read_json(response, content_type, is_json=is_json)
    if codec == "bytes":
        return response.body
    raise ValueError(
        f"the answer is {content_type or 'of no stated type'}, not JSON or .npy"
        f"{_beginning(response)}. For services that answer raw bytes use codec='bytes'"
    )


def _read_tensors(response: Response) -> Any:
    """The output of an answer in KServe's protocol, or all of them by name where there are several."""
    try:
        outputs = decode_tensors(response.body, response.headers.get(HEAD_LENGTH.lower()))
    except ValueError as error:
        raise ValueError(f"the tensors in the answer cannot be read: {error}") from error
    values = {name: array[()] if array.ndim == 0 else array for name, array in outputs.items()}
    return values if len(values) > 1 else next(iter(values.values()))


def _read_json(response: Response, content_type: str, *, is_json: bool) -> Any:
    if not response.body:
        raise ValueError("the answer is empty")
    try:
        value = decode_json(response.body)
    except ValueError as error:
        if not is_json:
            raise ValueError(
                f"the answer is {content_type or 'of no stated type'}, not JSON or .npy{_beginning(response)}"
            ) from error
        raise ValueError(f"the JSON in the answer cannot be read: {error}{_beginning(response)}") from error
    # The stock server encodes a string that run() encoded already. A text that merely looks like a number stays text:
    # its type must not depend on what it says.
    if isinstance(value, str) and not is_ours(response) and value.lstrip()[:1] in ("[", "{"):
        try:
            return decode_json(value)
        except ValueError:
            return value
    return value


def _beginning(response: Response) -> str:
    return f"; it begins with {shorten(_text(response.body))!r}" if response.body else ""
