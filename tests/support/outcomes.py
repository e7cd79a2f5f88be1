"""A call and what may come of it, for tests of the protocol without a socket."""

from __future__ import annotations

from datetime import UTC, datetime

from gpu_infer.client.decisions import Call
from gpu_infer.client.messages import Failure, Request, Response
from gpu_infer.client.retry import RetryPolicy

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
CALL = Call(
    request=Request("POST", "http://127.0.0.1/score", {}, b"x"),
    request_id="abc",
    codec=None,
    timeout=60.0,
    policy=RetryPolicy(),
)


def response(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Response:
    return Response(status, headers or {}, body)


OK = response(200, {"content-type": "application/json"}, b"1")
BUSY = response(503)
OURS = {"x-gpu-infer-device": "cpu"}
REFUSED = Failure("connect", "refused")
BROKEN = Failure("broken", "broken")
