"""What to do after an attempt: take the answer, try again after a while, or give up. No socket, clock or sleep.

The table of all cases is in ``docs/client.md``; ``tests/client/test_decisions.py`` reads it and goes through it line by
line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from .answers import Cause, Problem, is_ours, joined, problem_of
from .messages import Codec, Failure, Outcome, Request, Response
from .retry import CONNECT_RETRIES, MIN_ATTEMPT, UNANSWERED_RETRIES, RetryPolicy, wait_before_retry

__all__ = ["Again", "Call", "Done", "GiveUp", "decide", "explain"]


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
        patient: the call is one of many in a job that nobody waits for. Where the client's retry budget is used up, it
            waits for it to fill instead of giving up; and what can be tried again is, as often as the policy allows.
        renewable: another credential can be fetched when one is refused.
        keys: how many there are to choose from; each may be refused once before others are fetched.
        keyless: the request goes out without a credential.
        hide: blots the credential out of text that a server sent.
    """

    request: Request
    request_id: str
    codec: Codec | None
    timeout: float
    policy: RetryPolicy
    pure: bool = False
    patient: bool = False
    renewable: bool = False
    keys: Callable[[], int] = lambda: 1
    keyless: bool = True
    hide: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Done:
    """The call has its answer."""

    response: Response


@dataclass(frozen=True, slots=True)
class Again:
    """Try again, because of ``problem``, after ``wait`` seconds; with another credential if ``renew``."""

    wait: float
    problem: Problem
    renew: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The call has no result."""

    problem: Problem


_UNANSWERED: tuple[Cause, ...] = ("broken", "gateway", "timeout", "deadline")
"""The request may have been carried out."""


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
        if causes.count("unauthorized") < call.keys() + call.renewable and remaining > 0:
            return Again(0.0, problem, renew=True)
        return GiveUp(explain(problem, _why_refused(call)))
    if remaining < MIN_ATTEMPT and (_is_connect_timeout(last) or problem.cause in ("timeout", "deadline")):
        # It was the caller's deadline that ended the attempt, and who sets one waits for a TimeoutError.
        return GiveUp(replace(problem, cause="timeout"))
    retries = len(causes) - 1 - causes[:-1].count("unauthorized")
    alike = _UNANSWERED if problem.cause in _UNANSWERED else (problem.cause,)
    if sum(map(causes.count, alike)) > _retries_allowed(problem.cause, call, outcomes) or retries >= _limit(
        problem, call
    ):
        return GiveUp(problem)
    return _wait_for_retry(problem, call, retries=retries, remaining=remaining, random=random)


def explain(problem: Problem, sentence: str) -> Problem:
    """The problem with one more sentence: why it was not tried again, or what to do."""
    return replace(problem, message=joined(problem.message, sentence))


def _is_connect_timeout(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and outcome.kind == "connect_timeout"


def _wait_for_retry(problem: Problem, call: Call, *, retries: int, remaining: float, random: float) -> Again | GiveUp:
    asked = problem.retry_after
    if asked is not None and asked > call.policy.retry_after_cap:
        cap = call.policy.retry_after_cap
        return GiveUp(explain(problem, f"It asks to wait {asked:,.4g} s; up to {cap:,.4g} s are waited here."))
    wait = wait_before_retry(call.policy, retry=retries, asked=asked, remaining=remaining, random=random)
    if wait is not None and retries >= call.policy.limit:
        # Only those go on beyond the limit who were told to come back later; not at once, however the die falls.
        wait = max(wait, MIN_ATTEMPT) if remaining >= 2 * MIN_ATTEMPT else None
    if wait is not None:
        return Again(wait, problem)
    asks = f"It asks to wait {asked:,.4g} s, but" if asked else "There is no time for a retry:"
    left = f"{max(remaining, 0.0):.1f} s of the time-out of {call.timeout:g} s are left."
    return GiveUp(explain(problem, f"{asks} {left}"))


def _limit(problem: Problem, call: Call) -> float:
    """Retries of any kind. A job of many items that is told to come back later does, as long as there is time."""
    waits = call.patient and problem.cause == "overloaded" and call.policy.limit > 0
    return math.inf if waits else call.policy.limit


def _retries_allowed(cause: Cause, call: Call, outcomes: Sequence[Outcome]) -> float:
    """How often this cause is worth a retry.

    A request that was turned away or never left did nothing. One that had no answer may have been carried out: it is
    repeated only where that does no harm.
    """
    if cause == "overloaded":
        return math.inf
    if cause == "unreachable":
        return math.inf if call.patient else CONNECT_RETRIES
    if cause not in _UNANSWERED:
        return 0
    ours = call.pure or any(isinstance(outcome, Response) and is_ours(outcome) for outcome in outcomes)
    if cause == "deadline":
        # The container stopped at its own limit, which the next attempt would run into as well. With a limit for each
        # attempt it was most likely that one: the request carries it, and a service of ours answers before it ends.
        safe = ours and call.policy.attempt_timeout is not None
    elif cause == "gateway":
        # Where the script raises, AKS and Kubernetes answer 502 as well. A service of ours says so in a header.
        safe = ours
    else:
        safe = ours or call.policy.idempotent
    if not safe:
        return 0
    # Of a million requests some meet a bad moment three times in a row, and one of them must not end the whole job.
    return math.inf if call.patient else UNANSWERED_RETRIES


def _why_refused(call: Call) -> str:
    if call.keyless:
        return "The request carried no key: pass credential=... to the client."
    if call.renewable:
        return "The credential was fetched again and is still refused."
    if call.keys() > 1:
        return "Both keys may have been regenerated; a callable as credential is asked again by itself."
    return "The key may have been regenerated, or the token expired; a callable as credential is asked again by itself."
