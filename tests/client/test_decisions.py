"""What to do after each attempt, case by case: no sockets, no clock, no sleep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from outcomes import BROKEN, BUSY, CALL, NOW, OK, OURS, REFUSED, response

from gpu_infer.client.answers import Problem
from gpu_infer.client.decisions import Again, Call, Done, GiveUp, decide
from gpu_infer.client.messages import Failure, Outcome
from gpu_infer.client.retry import CONNECT_RETRIES, DEFAULT_RETRIES, UNANSWERED_RETRIES, RetryPolicy

SLOW = Failure("read_timeout", "slow")
LATE = response(504, {**OURS, "x-gpu-infer-error": "deadline"})
IDEMPOTENT = RetryPolicy(idempotent=True)
SHORT = RetryPolicy(attempt_timeout=5)


DOCS = Path(__file__).parents[2] / "docs" / "client.md"
RUN_FAILED = {"x-ms-run-function-failed": "True"}


def inside_424(*statuses: int) -> list[Outcome]:
    return [response(424, {"ms-azureml-model-error-statuscode": str(status)}) for status in statuses]


def by_service_of_ours(kind: str, *statuses: int) -> list[Outcome]:
    """As the service sends it, rewritten by AKS, and through a front end that keeps only the body."""
    return [
        *(response(status, {**OURS, **RUN_FAILED, "x-gpu-infer-error": kind}) for status in statuses),
        response(424, {"ms-azureml-model-error-statuscode": "500"}, b'{"error": "%s"}' % kind.encode()),
    ]


# What each line of the table in docs/client.md means, by its first two columns.
LINES: dict[tuple[str, str], list[Outcome]] = {
    ("any service", "400, 413, 415, 422"): [response(status) for status in (400, 413, 415, 422)],
    ("any service", "401"): [response(401), response(401, {**OURS, "x-ms-run-function-failed": "False"})],
    ("any service", "403"): [response(403)],
    ("any service", "404, 405, a redirect, other statuses"): [
        response(status) for status in (300, 301, 302, 307, 308, 402, 404, 405, 406, 409, 410, 411, 423, 499, 501, 505)
    ],
    ("ours", "`x-gpu-infer-error: bad_input`"): by_service_of_ours("bad_input", 400, 413),
    ("ours", "`x-gpu-infer-error: model_error`"): by_service_of_ours("model_error", 500, 502),
    ("ours", "`x-gpu-infer-error: overloaded`"): by_service_of_ours("overloaded", 503, 502),
    ("ours", "`x-gpu-infer-error: deadline`"): by_service_of_ours("deadline", 504, 502),
    ("ours", "`x-gpu-infer-error: internal`"): by_service_of_ours("internal", 500, 502),
    ("the stock server", "500, 503 with `x-ms-run-function-failed`: `run()` raised, or answered so"): [
        response(500, RUN_FAILED),
        response(503, {**RUN_FAILED, "retry-after": "1"}),
        response(500, {"x-ms-run-function-failed": " true "}),
    ],
    ("the stock server", "504 with `x-ms-run-function-failed`: `run()` took too long"): [response(504, RUN_FAILED)],
    ("AKS", "502 with `x-ms-run-function-failed`: `run()` raised"): [response(502, RUN_FAILED)],
    ("AKS, Kubernetes", "502: `run()` raised, or the container crashed"): [
        response(502),
        response(502, {"x-ms-run-function-failed": "False"}, b"<html>Bad gateway</html>"),
    ],
    ("AKS, Kubernetes", "503: the queue is full"): [
        response(503, {"x-ms-run-function-failed": "False"}, b"Too many requests for service gpu-rn (overloaded)"),
        response(503, {"retry-after": "0.5"}),
    ],
    ("AKS, Kubernetes", "504: `scoring_timeout_ms`, `request_timeout_ms`"): [
        response(504),
        response(504, {"retry-after": "1"}),
    ],
    ("managed", "408: `request_timeout_ms`"): [response(408)],
    ("managed", "429: too many per second, or waiting"): [
        response(429, {"retry-after": "1"}),
        response(429, {"x-ms-retry-after-ms": "20"}, b'{"error": {"code": "TooManyRequests", "message": "Rate"}}'),
    ],
    ("managed", "424, inside it 429, 503: the container has no room"): inside_424(429, 503),
    ("managed", "424, inside it 400, 413, 415, 422"): inside_424(400, 413, 415, 422),
    ("managed", "424, inside it 408, 504"): inside_424(408, 504),
    ("managed", "424, inside it any other status, or none"): [*inside_424(401, 403, 404, 500, 502, 599), response(424)],
    ("managed", "500: the infrastructure"): [response(500), response(500, {"x-ms-run-function-failed": "False"})],
    ("the network", "no connection"): [REFUSED, Failure("connect_timeout", "swallowed")],
    ("the network", "the connection broke"): [BROKEN],
    ("the network", "no answer within `attempt_timeout=`"): [SLOW],
    ("the network", "no answer within `timeout=`"): [SLOW, Failure("connect_timeout", "swallowed")],
    ("the network", "a certificate that is not accepted, or no TLS at all"): [Failure("tls", "expired")],
    ("the client", "the function for the credential failed"): [Failure("credential", "sealed")],
    ("the client", "an answer over 1 GiB"): [Failure("too_large", "huge")],
}  # fmt: skip

# How often: by a client that knows nothing of the service, one with idempotent=True, and one whose service is ours.
RETRIES = {
    "no": (0, 0, 0),
    "once, with another credential from the function": (1, 1, 1),
    "up to 2 times, if safe": (0, UNANSWERED_RETRIES, UNANSWERED_RETRIES),
    "up to 2 times, if the service is ours": (0, 0, UNANSWERED_RETRIES),
    "only with `attempt_timeout=`, up to 2 times": (0, 0, 0),
    "up to 3 times": (CONNECT_RETRIES,) * 3,
    "up to 8 times": (DEFAULT_RETRIES,) * 3,
}


def documented() -> list[tuple[str, ...]]:
    """The lines of the table: from, what came, error, tried again."""
    table = DOCS.read_text("utf-8").partition("| from | what came | error | tried again |\n|---|---|---|---|\n")[2]
    lines = table.partition("\n\n")[0].splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def retries_of(outcome: Outcome, call: Call, *, elapsed: float) -> tuple[int, Problem]:
    """How often a call is tried again whose every attempt ends so, and the problem in the end."""
    outcomes = [outcome]
    while isinstance(verdict := decide(outcomes, call, elapsed=elapsed, random=0.0, now=NOW), Again):
        outcomes.append(outcome)
    assert isinstance(verdict, GiveUp)
    return len(outcomes) - 1, verdict.problem


@pytest.mark.parametrize("line", documented(), ids=lambda line: f"{line[0]}: {line[1]}")
def test_each_line_of_the_documented_table_is_so(line):
    source, came, error, again = line
    elapsed = CALL.timeout if came == "no answer within `timeout=`" else 0.0
    for outcome in LINES[source, came]:
        found: list[int] = []
        for changes in ({}, {"policy": IDEMPOTENT}, {"pure": True}):
            retries, problem = retries_of(outcome, replace(CALL, renewable=True, **changes), elapsed=elapsed)
            assert type(problem.to_error(request_id="abc", attempts=1, elapsed=0.0)).__name__ == error.strip("`"), (
                outcome
            )
            found.append(retries)
        assert tuple(found) == RETRIES[again], outcome
        if again.startswith("only with"):
            short = replace(CALL, pure=True, policy=SHORT)
            assert retries_of(outcome, short, elapsed=0.0)[0] == UNANSWERED_RETRIES


def test_the_documented_table_has_every_case():
    assert sorted(line[:2] for line in documented()) == sorted(LINES)


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
        ([response(424, {"ms-azureml-model-error-statuscode": "504"})], {"policy": IDEMPOTENT}, "deadline"),
        ([response(502)], {}, "gateway"),
        ([response(200, OURS), response(502)], {}, "again"),
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
