"""What to do after each attempt, case by case: no sockets, no clock, no sleep."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gpu_infer.client.decisions import Again, Call, Done, GiveUp, decide
from gpu_infer.client.messages import Failure, Request, Response
from gpu_infer.client.retry import CONNECT_RETRIES, DEFAULT_RETRIES, UNANSWERED_RETRIES, RetryPolicy

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
SLOW = Failure("read_timeout", "slow")
LATE = response(504, {**OURS, "x-gpu-infer-error": "deadline"})
IDEMPOTENT = RetryPolicy(idempotent=True)
SHORT = RetryPolicy(attempt_timeout=5)


@pytest.mark.parametrize(
    ("outcomes", "changes", "expected"),
    [
        ([OK], {}, "done"),
        ([response(299)], {}, "done"),
        ([response(301)], {}, "other"),
        ([BUSY], {}, "again"),
        ([response(429)], {}, "again"),
        ([response(503, {"x-gpu-infer-error": "overloaded", "x-ms-run-function-failed": "True"})], {}, "again"),
        ([response(502, {"x-gpu-infer-error": "overloaded"})], {}, "again"),
        ([response(424, {"ms-azureml-model-error-statuscode": "503"})], {}, "again"),
        ([response(424, {"ms-azureml-model-error-statuscode": "401"})], {"renewable": True}, "model"),
        ([response(424)], {}, "model"),
        ([response(503, {"x-ms-run-function-failed": "True"})], {}, "model"),
        ([response(503, body=b'{"error": "model_error"}')], {}, "model"),
        ([response(500)], {}, "other"),
        ([response(504)], {}, "timeout"),
        ([response(504)], {"pure": True}, "again"),
        ([response(408)], {"policy": IDEMPOTENT}, "again"),
        ([response(424, {"ms-azureml-model-error-statuscode": "504"})], {"policy": IDEMPOTENT}, "again"),
        ([response(504)] * (UNANSWERED_RETRIES + 1), {"pure": True}, "timeout"),
        ([LATE], {"pure": True}, "deadline"),
        ([LATE], {"pure": True, "policy": SHORT}, "again"),
        ([response(503, body=b'{"error": "deadline"}')], {"pure": True}, "deadline"),
        ([response(504, {"retry-after": "61"})], {"pure": True, "timeout": 1000.0}, "timeout"),
        ([BUSY] * (DEFAULT_RETRIES + 1), {}, "overloaded"),
        ([BUSY], {"policy": RetryPolicy(limit=0)}, "overloaded"),
        ([BUSY], {"timeout": 0.01}, "overloaded"),
        ([response(503, {"retry-after": "59"})], {}, "again"),
        ([response(503, {"retry-after": "61"})], {"timeout": 1000.0}, "overloaded"),
        ([response(503, {"retry-after": "10"})], {"timeout": 10.0}, "overloaded"),
        ([REFUSED], {}, "again"),
        ([REFUSED] * CONNECT_RETRIES, {}, "again"),
        ([REFUSED] * (CONNECT_RETRIES + 1), {}, "unreachable"),
        ([REFUSED] * CONNECT_RETRIES + [BUSY], {}, "again"),
        ([Failure("connect_timeout", "")], {}, "again"),
        ([Failure("connect_timeout", "")], {"timeout": 0.0}, "timeout"),
        ([BROKEN], {}, "broken"),
        ([BROKEN], {"pure": True}, "again"),
        ([response(503, OURS), BROKEN], {}, "again"),
        ([BROKEN] * (UNANSWERED_RETRIES + 1), {"pure": True}, "broken"),
        ([BROKEN], {"policy": IDEMPOTENT}, "again"),
        ([SLOW], {}, "timeout"),
        ([SLOW], {"pure": True}, "again"),
        ([SLOW], {"policy": IDEMPOTENT}, "again"),
        ([response(503, OURS), SLOW], {}, "again"),
        ([SLOW], {"pure": True, "timeout": 0.01}, "timeout"),
        ([BROKEN, SLOW, response(504)], {"pure": True}, "timeout"),
        ([Failure("tls", "")], {"pure": True}, "tls"),
        ([Failure("too_large", "")], {"pure": True}, "other"),
        ([Failure("credential", "")], {"renewable": True}, "forbidden"),
        ([response(401)], {}, "unauthorized"),
        ([response(401)], {"renewable": True}, "renew"),
        ([response(401)], {"renewable": True, "policy": RetryPolicy(limit=0)}, "renew"),
        ([BUSY, response(401)], {"renewable": True}, "renew"),
        ([response(401), response(401)], {"renewable": True}, "unauthorized"),
        ([response(401), BUSY, response(401)], {"renewable": True}, "unauthorized"),
        ([response(401), BUSY], {"renewable": True, "policy": RetryPolicy(limit=1)}, "again"),
        ([response(403)], {"renewable": True}, "forbidden"),
    ],
)
def test_the_decision_table(outcomes, changes, expected):
    verdict = decide(outcomes, replace(CALL, **changes), elapsed=0.0, random=0.0, now=NOW)
    match verdict:
        case Done(found):
            assert (expected, found) == ("done", outcomes[-1])
        case Again(_, _, renew):
            assert expected == ("renew" if renew else "again")
        case GiveUp(problem):
            assert expected == problem.cause
