"""One call from its input to its result, without a socket, a clock or a sleep.

:func:`converse` is a generator that gives orders (:class:`Send`, :class:`Pause`) and takes what came of them. The
clients carry the orders out, and know nothing else; so sync and async cannot differ in what they do.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

from ..errors import ScoringError, ScoringTimeoutError
from .answers import Cause, Problem, is_ours, joined, problem_of, read_value
from .codecs import JSON, NPY
from .messages import Codec, Failure, Outcome, Pause, Payload, Request, Response, ScoreResponse, Send
from .retry import BROKEN_RETRIES, CONNECT_RETRIES, MIN_ATTEMPT, RetryPolicy, wait_before_retry

__all__ = [
    "Again",
    "Call",
    "Conversation",
    "Done",
    "GiveUp",
    "Report",
    "check_uri",
    "converse",
    "decide",
    "finite_number",
    "new_request_id",
    "report_request",
    "score_request",
]

_log = logging.getLogger("gpu_infer.client")

Report: TypeAlias = Literal["describe", "stats", "gpu"]

ACCEPT_BINARY = f"{NPY}, {JSON};q=0.9"
USER_AGENT = "gpu-infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What does not change from the first attempt of a call to its last.

    Attributes:
        request: what to send.
        request_id: the id that all attempts carry.
        codec: how the answer is read.
        timeout: seconds for all attempts together.
        policy: how often to try again.
        pure: repeating the request does no harm: it reads only, or the service is one of ours.
        renewable: another credential can be fetched when one is refused.
        keyless: the request goes out without a credential.
        hide: blots the credential out of text that a server sent.
    """

    request: Request
    request_id: str
    codec: Codec | None
    timeout: float
    policy: RetryPolicy
    pure: bool = False
    renewable: bool = False
    keyless: bool = True
    hide: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Done:
    """The call has its answer."""

    response: Response


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after ``wait`` seconds; with another credential if ``renew``."""

    wait: float
    renew: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The call has no result."""

    problem: Problem


Conversation: TypeAlias = Generator[Send | Pause, Outcome | None, ScoreResponse]


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
    accept = {None: ACCEPT_BINARY, "npy": ACCEPT_BINARY, "json": JSON, "bytes": "*/*"}[codec]
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
) -> Conversation:
    """Carry one call through: yields what to do next, is sent what came of it, returns the result.

    Args:
        call: what to send and how patiently.
        clock: seconds, monotonic.
        random: a number in [0, 1).
        now: the time of day, for a ``Retry-After`` that is a date.

    Raises:
        ScoringError: no result; which class says whose fault it was.
    """
    started = clock()
    outcomes: list[Outcome] = []
    renew = False
    while True:
        remaining = call.timeout - (clock() - started)
        if remaining <= 0:
            raise _out_of_time(call, attempts=len(outcomes), elapsed=clock() - started)
        # Only a Pause is answered with nothing.
        outcome = cast("Outcome", (yield Send(_stamped(call.request, remaining), remaining, renew)))
        outcomes.append(outcome)
        elapsed = clock() - started
        verdict = decide(outcomes, call, elapsed=elapsed, random=random(), now=now())
        match verdict:
            case Done(response):
                return _result(call, response, attempts=len(outcomes), elapsed=elapsed)
            case GiveUp(problem):
                hidden = replace(problem, message=call.hide(problem.message))
                raise hidden.to_error(request_id=call.request_id, attempts=len(outcomes), elapsed=elapsed)
            case Again(wait, renew):
                shown = outcome.status if isinstance(outcome, Response) else outcome.kind
                _log.debug("%s after attempt %d, next in %.2f s (%s)", shown, len(outcomes), wait, call.request_id)
                if wait > 0:
                    yield Pause(wait)


def decide(
    outcomes: Sequence[Outcome],
    call: Call,
    *,
    elapsed: float,
    random: float,
    now: datetime | None = None,
) -> Done | Again | GiveUp:
    """What to do after the attempts so far.

    Args:
        outcomes: what came of each attempt, at least one, oldest first.
        call: the call they belong to.
        elapsed: seconds since the first attempt began.
        random: a number in [0, 1), for the jitter.
        now: the time of day, for a ``Retry-After`` that is a date.
    """
    last = outcomes[-1]
    problem = problem_of(last, now)
    if problem is None:
        return Done(cast("Response", last))
    causes = [found.cause for found in map(problem_of, outcomes) if found is not None]
    remaining = call.timeout - elapsed
    if problem.cause == "unauthorized":
        if call.renewable and causes.count("unauthorized") == 1 and remaining > 0:
            return Again(0.0, renew=True)
        return GiveUp(_explain(problem, _why_refused(call)))
    if isinstance(last, Failure) and last.kind == "connect_timeout" and remaining < MIN_ATTEMPT:
        # It was the caller's deadline that ended the attempt, and who sets one waits for a TimeoutError.
        return GiveUp(replace(problem, cause="timeout"))
    retries = len(causes) - 1 - causes[:-1].count("unauthorized")
    if retries >= call.policy.limit or causes.count(problem.cause) > _retries_allowed(problem.cause, call, outcomes):
        return GiveUp(problem)
    return _wait_for_retry(problem, call, retries=retries, remaining=remaining, random=random)


def _wait_for_retry(problem: Problem, call: Call, *, retries: int, remaining: float, random: float) -> Again | GiveUp:
    asked = problem.retry_after
    if asked is not None and asked > call.policy.retry_after_cap:
        cap = call.policy.retry_after_cap
        return GiveUp(_explain(problem, f"It asks to wait {asked:,.4g} s; up to {cap:,.4g} s are waited here."))
    wait = wait_before_retry(call.policy, retry=retries, asked=asked, remaining=remaining, random=random)
    if wait is not None:
        return Again(wait)
    asks = f"It asks to wait {asked:,.4g} s, but" if asked else "There is no time for a retry:"
    left = f"{max(remaining, 0.0):.1f} s of the time-out of {call.timeout:g} s are left."
    return GiveUp(_explain(problem, f"{asks} {left}"))


def _retries_allowed(cause: Cause, call: Call, outcomes: Sequence[Outcome]) -> float:
    """How often this cause is worth a retry.

    A request that was turned away or never left did nothing. One whose connection broke may have been carried out: it
    is repeated only where that does no harm.
    """
    if cause == "overloaded":
        return math.inf
    if cause == "unreachable":
        return CONNECT_RETRIES
    if cause == "broken":
        ours = any(isinstance(outcome, Response) and is_ours(outcome) for outcome in outcomes)
        return BROKEN_RETRIES if call.pure or ours else 0
    return 0


def _explain(problem: Problem, sentence: str) -> Problem:
    return replace(problem, message=joined(problem.message, sentence))


def _why_refused(call: Call) -> str:
    if call.keyless:
        return "The request carried no key: pass credential=... to the client."
    if call.renewable:
        return "The credential was fetched again and is still refused."
    return "The key may have been regenerated, or the token expired; a callable as credential is asked again by itself."


def _stamped(request: Request, remaining: float) -> Request:
    """The request with the time that is left, so that the service stops working for a caller who has gone."""
    milliseconds = max(1, math.floor(remaining * 1000))
    return replace(request, headers={**request.headers, "x-gpu-infer-timeout-ms": str(milliseconds)})


def _out_of_time(call: Call, *, attempts: int, elapsed: float) -> ScoringError:
    return ScoringTimeoutError(
        f"The time-out of {call.timeout:g} s was over before the request could be sent again "
        f"({attempts} attempts, request {call.request_id}).",
        request_id=call.request_id,
        attempts=attempts,
        elapsed=elapsed,
    )


def _result(call: Call, response: Response, *, attempts: int, elapsed: float) -> ScoreResponse:
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
