"""One call from its input to its result, without a socket, a clock or a sleep.

:func:`converse` is a generator that gives orders (:class:`Send`, :class:`Pause`) and takes what came of them. The
clients carry the orders out, and know nothing else; so sync and async cannot differ in what they do.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

from ..errors import ScoringError, ScoringTimeoutError
from .answers import Problem, read_value
from .budget import RetryBudget
from .codecs import JSON, NPY
from .decisions import Again, Call, Done, GiveUp, decide, explain
from .messages import Codec, Outcome, Pause, Payload, Request, Response, ScoreResponse, Send
from .retry import MIN_ATTEMPT

__all__ = [
    "Call",
    "Conversation",
    "Report",
    "Watch",
    "check_deployment",
    "check_uri",
    "converse",
    "finite_number",
    "new_request_id",
    "report_request",
    "score_request",
]

_DEPLOYMENT = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")

_log = logging.getLogger("gpu_infer.client")

Report: TypeAlias = Literal["describe", "stats", "gpu"]

Watch: TypeAlias = Callable[[Outcome, float], None]
"""Is told what came of an attempt and how many seconds it took, the fetching of a credential included."""

ACCEPT_BINARY = f"{NPY}, {JSON};q=0.9"
USER_AGENT = "gpu-infer"

BUDGET_PAUSE = 0.1
"""Seconds: the shortest wait for the retry budget to fill."""

BUDGET_SPENT = (
    "It was not tried again: the client's retry budget is used up, since too many of its latest requests had no answer "
    "or were turned away. Send less at a time or add replicas; score_many() waits instead, and "
    "RetryPolicy(budget=None) switches the budget off."
)


Conversation: TypeAlias = Generator[Send | Pause, Outcome | None, ScoreResponse[Any]]


def check_deployment(name: str | None) -> str | None:
    """The name of a deployment, which travels in a header.

    Raises:
        ValueError: no name that Azure ML gives to one.
    """
    if name is not None and not _DEPLOYMENT.fullmatch(name):
        raise ValueError(f"deployment is the name of one, of letters, digits and dashes, not {name!r}.")
    return name


def check_uri(uri: str) -> str:
    """The address, without fragment.

    Raises:
        ValueError: no http or https address, or one with a user name or password.
    """
    text = uri.strip()
    try:
        parts = urlsplit(text)
        host, port_is_valid = parts.hostname, parts.port != 0
    except ValueError:
        host, parts, port_is_valid = None, urlsplit(""), False
    if parts.scheme not in ("http", "https") or not host or not port_is_valid or not text.isprintable() or " " in text:
        raise ValueError("uri must be the whole scoring address, as http://127.0.0.1:5001/score.")
    if "@" in parts.netloc:
        raise ValueError("uri must not hold a user name or password, which would show in logs; pass credential=...")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))


def new_request_id() -> str:
    """An id for ``x-ms-client-request-id``: 32 hex digits; Azure takes up to 40 of ``[A-Za-z0-9_-]``."""
    return uuid.uuid4().hex


def score_request(uri: str, payload: Payload, *, codec: Codec | None, request_id: str) -> Request:
    """The request that scores an input."""
    accept = {None: ACCEPT_BINARY, "npy": ACCEPT_BINARY, "json": JSON, "bytes": "*/*", "kserve": "*/*"}[codec]
    headers = {**_common_headers(accept, request_id), "Content-Type": payload.content_type}
    if payload.items is not None:
        headers["x-gpu-infer-items"] = payload.items
    return Request("POST", uri, headers, payload.body)


def report_request(uri: str, report: Report, *, request_id: str) -> Request:
    """The request for one of the reports that our services give about themselves."""
    parts = urlsplit(uri)
    query = f"{parts.query}&gpu_infer={report}" if parts.query else f"gpu_infer={report}"
    return Request("GET", urlunsplit(parts._replace(query=query)), _common_headers(JSON, request_id))


def _common_headers(accept: str, request_id: str) -> dict[str, str]:
    return {
        "Accept": accept,
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": USER_AGENT,
        "x-ms-client-request-id": request_id,
    }


def converse(
    call: Call,
    *,
    clock: Callable[[], float],
    random: Callable[[], float],
    now: Callable[[], datetime],
    budget: RetryBudget,
    watch: Watch | None = None,
) -> Conversation:
    """Carry one call through: yields what to do next, is sent what came of it, returns the result.

    Args:
        call: what to send and how patiently.
        clock: seconds, monotonic.
        random: a number in [0, 1).
        now: the time of day, for a ``Retry-After`` that is a date.
        budget: the retries that the calls of a client share.
        watch: is told of each attempt.

    Raises:
        ScoringError: no result; which class says whose fault it was.
    """
    started = clock()
    outcomes: list[Outcome] = []
    renew = False
    while True:
        begun = clock()
        remaining = call.timeout - (begun - started)
        if remaining <= 0:
            raise _out_of_time(call, attempts=len(outcomes), elapsed=begun - started)
        # Only a Pause is answered with nothing.
        outcome = cast("Outcome", (yield _order(call, remaining, renew=renew)))
        outcomes.append(outcome)
        ended = clock()
        elapsed, attempts = ended - started, len(outcomes)
        if watch is not None:
            watch(outcome, ended - begun)
        verdict = _hidden(decide(outcomes, call, elapsed=elapsed, random=random(), now=now()), call)
        match verdict:
            case Done(response):
                budget.succeed(ended)
                _tell(call, outcome, attempts, "%.3f s in all", elapsed)
                return _result(call, response, attempts=attempts, elapsed=elapsed)
            case GiveUp(problem):
                error = _no_result(call, problem, attempts=attempts, elapsed=elapsed)
                _tell(call, outcome, attempts, "no result: %s", type(error).__name__)
                raise error
            case Again(wait, _, renew):
                _tell(call, outcome, attempts, "next in %.2f s", wait)
                # The one renewal of a credential is free: it puts no load on a service that has just answered.
                if not renew:
                    yield from _wait(call, verdict, budget, attempts=attempts, started=started, clock=clock, die=random)


def _tell(call: Call, outcome: Outcome, attempts: int, what: str, value: object) -> None:
    """A line for the log; the id also as a field, for those who keep logs as JSON."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    shown = outcome.status if isinstance(outcome, Response) else outcome.kind
    fields = {"request_id": call.request_id}
    _log.debug(f"%s after attempt %d, {what} (%s)", shown, attempts, value, call.request_id, extra=fields)


def _wait(
    call: Call,
    again: Again,
    budget: RetryBudget,
    *,
    attempts: int,
    started: float,
    clock: Callable[[], float],
    die: Callable[[], float],
) -> Generator[Pause, object, None]:
    """What lies between two attempts: the wait, and the token of the budget, for which a patient call waits as well.

    Raises:
        ScoringError: there is no token, or will be none before the deadline.
    """
    paid = not call.patient and budget.take(clock())
    if not paid and not call.patient:
        problem = explain(again.problem, BUDGET_SPENT)
        raise _no_result(call, problem, attempts=attempts, elapsed=clock() - started)
    if again.wait > 0:
        yield Pause(again.wait)
    while not paid and not budget.take(now := clock()):
        seconds = budget.seconds_until_token(now)
        # Up to twice as long, so that those who wait do not all come at the same moment.
        pause = math.inf if seconds is None else max(seconds, BUDGET_PAUSE) * (1 + die())
        if now - started + pause + MIN_ATTEMPT > call.timeout:
            problem = explain(again.problem, BUDGET_SPENT)
            raise _no_result(call, problem, attempts=attempts, elapsed=now - started)
        yield Pause(pause)


def _order(call: Call, remaining: float, *, renew: bool) -> Send:
    """The next attempt, stamped with its time, so that the service stops working for a caller who has gone."""
    seconds = min(remaining, call.policy.attempt_timeout or remaining)
    stamp = {"x-gpu-infer-timeout-ms": str(max(1, math.floor(seconds * 1000)))}
    request = replace(call.request, headers={**call.request.headers, **stamp})
    return Send(request, seconds, remaining, renew)


def _hidden(verdict: Done | Again | GiveUp, call: Call) -> Done | Again | GiveUp:
    """The verdict without keys that a service has echoed: no variable of those who raise may hold them."""
    if isinstance(verdict, Done):
        return verdict
    return replace(verdict, problem=replace(verdict.problem, message=call.hide(verdict.problem.message)))


def _no_result(call: Call, problem: Problem, *, attempts: int, elapsed: float) -> ScoringError:
    return problem.to_error(request_id=call.request_id, attempts=attempts, elapsed=elapsed)


def _out_of_time(call: Call, *, attempts: int, elapsed: float) -> ScoringError:
    return ScoringTimeoutError(
        f"The time-out of {call.timeout:g} s was over before the request could be sent again "
        f"({attempts} attempts, request {call.request_id}).",
        request_id=call.request_id,
        attempts=attempts,
        elapsed=elapsed,
    )


def _result(call: Call, response: Response, *, attempts: int, elapsed: float) -> ScoreResponse[Any]:
    headers = response.headers
    value, trouble = None, ""
    try:
        value = read_value(response, call.codec)
    except ValueError as error:
        trouble = str(error)
    if trouble:
        # Raised out here, without the parsers' exceptions: those hold the body, which may echo the key.
        problem = Problem("other", call.hide(f"The service answered, but {trouble}."), response.status)
        raise problem.to_error(request_id=call.request_id, attempts=attempts, elapsed=elapsed)
    queue_ms, batch = (
        finite_number(headers.get("x-gpu-infer-queue-ms")),
        finite_number(headers.get("x-gpu-infer-batch")),
    )
    return ScoreResponse(
        value=value,
        device=headers.get("x-gpu-infer-device"),
        batch=None if batch is None else int(batch),
        queue_ms=queue_ms,
        request_id=call.request_id,
        elapsed=elapsed,
    )


def finite_number(text: str | None) -> float | None:
    """A number out of a header; ``None`` where there is none, or one that is not finite."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
