"""The answer to a request, and its line in the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from .codecs.encode import to_json
from .receiving import header
from .stages import say


@dataclass(frozen=True)
class Answer:
    """What ``score.py`` sends back."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def error_answer(
    status: int,
    message: str,
    *,
    kind: str = "",
    item: Optional[int] = None,
    extra: Optional[Mapping[str, str]] = None,
) -> Answer:
    """The answer to a request that gets no result; see ``docs/serving.md`` for what it says."""
    body: Dict[str, Any] = {"message": message}
    headers = {"Content-Type": "application/json", **(extra or {})}
    if kind:
        body["error"] = headers["x-gpu-infer-error"] = kind
    if item is not None:
        body["item"] = item
    return Answer(status, to_json(body), headers)


def log_request(request: Any, answer: Answer, milliseconds: float) -> None:
    """A line about one request; the stock server's own, one for each, are switched off."""
    asked = header(request, "x-ms-client-request-id") or header(request, "x-request-id")
    reason = "" if answer.status < 400 else answer.body[:300].decode("utf-8", "replace")
    line = f"{request.method} {request.path} {answer.status} {milliseconds:.1f}ms {asked[:100]} {reason}"
    say(" ".join(f"GPU_INFER_REQUEST {line}".split()))
