"""Spans and metrics of OpenTelemetry, for processes that use it; see "Tracing, metrics, logs" in ``docs/client.md``.

Nothing is imported that the process has not imported itself: without OpenTelemetry a call costs one look into a dict.
What is told leaves out keys, queries and user names, and tracebacks, in which HTTP libraries repeat whole addresses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

from ..errors import ScoringError
from .answers import problem_of, without_secrets
from .decisions import Call
from .messages import Outcome, Response, ScoreResponse, Send

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, MeterProvider

    from .protocol import Conversation

__all__ = ["observed"]

SCOPE = "gpu_infer.client"

# What OpenTelemetry's conventions advise for the durations of HTTP requests, and two more for slow models. In seconds:
# the SDK's own buckets are made for milliseconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)

_Attributes: TypeAlias = dict[str, str | int | float]


def observed(conversation: Conversation, call: Call, *, operation: str, clock: Callable[[], float]) -> Conversation:
    """The conversation, with a span around it and its attempts counted, if the process has imported OpenTelemetry.

    Args:
        conversation: the call, not begun.
        call: what it sends.
        operation: what the call is, ``"score"`` or the name of a report.
        clock: seconds, monotonic.
    """
    if "opentelemetry.trace" not in sys.modules:
        return conversation
    return _observe(conversation, call, operation, clock)


def _observe(conversation: Conversation, call: Call, operation: str, clock: Callable[[], float]) -> Conversation:
    from opentelemetry.context import attach, detach

    record = _Record(call, operation, begun=clock())
    event: Outcome | None = None
    try:
        while True:
            order = conversation.send(event)
            if not isinstance(order, Send):
                record.waits(order.seconds)
                event = yield order
                continue
            began = clock()
            # Whatever the HTTP library is told to record belongs below this span.
            token = attach(record.context)
            try:
                event = yield record.sends(order)
            finally:
                detach(token)
            record.came(cast("Outcome", event), clock() - began)
    except StopIteration as stop:
        record.succeeded(stop.value)
        return stop.value
    except ScoringError as error:
        record.failed(error)
        raise
    finally:
        # A caller who leaves early, or cancels, closes the generator.
        conversation.close()
        record.end(clock())


class _Record:
    """The span of one call, and what is counted of it."""

    def __init__(self, call: Call, operation: str, *, begun: float) -> None:
        from opentelemetry.context import get_current
        from opentelemetry.metrics import get_meter_provider
        from opentelemetry.trace import SpanKind, get_tracer, set_span_in_context

        self._meters = _meters(get_meter_provider())
        self._begun = begun
        self._attempts = 0
        self._last: Outcome | None = None
        self._ended: _Attributes = {"error.type": "cancelled"}
        self._place = _place(call, operation)
        attributes: dict[str, Any] = {
            **self._place,
            "http.request.method": call.request.method,
            "http.request.body.size": len(call.request.body),
            "http.request.header.x-ms-client-request-id": [call.request_id],
            "url.full": without_secrets(call.request.url),
        }
        self._span = get_tracer(SCOPE).start_span(f"gpu_infer.{operation}", kind=SpanKind.CLIENT, attributes=attributes)
        # Without a provider the span is none; what came from the caller's own caller still goes on.
        exists = self._span.get_span_context().is_valid
        self.context = set_span_in_context(self._span) if exists else get_current()

    def sends(self, order: Send) -> Send:
        """The order, with what lets the service's spans join this one (W3C: ``traceparent``)."""
        from opentelemetry.propagate import inject

        last = None if self._last is None else problem_of(self._last)
        if last is not None:
            self._meters.retries.add(1, {**self._place, "gpu_infer.cause": last.cause})
        self._attempts += 1
        headers: dict[str, str] = {}
        inject(headers, context=self.context)
        return replace(order, request=replace(order.request, headers={**order.request.headers, **headers}))

    def came(self, outcome: Outcome, seconds: float) -> None:
        self._last = outcome
        result = _result_of(outcome)
        self._meters.attempts.add(1, {**self._place, **result})
        about: _Attributes = {"gpu_infer.attempt": self._attempts, "gpu_infer.seconds": seconds, **result}
        self._span.add_event("gpu_infer.attempt", about)

    def waits(self, seconds: float) -> None:
        self._span.add_event("gpu_infer.wait", {"gpu_infer.seconds": seconds})

    def succeeded(self, answer: ScoreResponse[Any]) -> None:
        self._ended = {}
        about = {"device": answer.device, "batch": answer.batch, "queue_ms": answer.queue_ms}
        self._span.set_attributes({f"gpu_infer.{name}": value for name, value in about.items() if value is not None})

    def failed(self, error: ScoringError) -> None:
        from opentelemetry.trace import Status, StatusCode

        kind = type(error).__name__
        self._ended = {"error.type": kind}
        # Not record_exception(): the causes in its traceback repeat addresses with their queries.
        self._span.add_event(
            "exception", {"exception.type": f"gpu_infer.errors.{kind}", "exception.message": str(error)}
        )
        self._span.set_status(Status(StatusCode.ERROR, str(error)))

    def end(self, now: float) -> None:
        if isinstance(self._last, Response):
            self._span.set_attribute("http.response.status_code", self._last.status)
        if self._attempts > 1:
            self._span.set_attribute("http.request.resend_count", self._attempts - 1)
        self._span.set_attributes(self._ended)
        self._meters.duration.record(now - self._begun, {**self._place, **self._ended}, context=self.context)
        self._span.end()


def _place(call: Call, operation: str) -> _Attributes:
    """What all that is told of a call has in common; few values, so that metrics stay small."""
    parts = urlsplit(call.request.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"gpu_infer.operation": operation, "server.address": parts.hostname or "", "server.port": port}


def _result_of(outcome: Outcome) -> _Attributes:
    if not isinstance(outcome, Response):
        return {"error.type": outcome.kind}
    about: _Attributes = {"http.response.status_code": outcome.status}
    problem = problem_of(outcome)
    return about if problem is None else {**about, "error.type": problem.cause}


class _Meters:
    """The instruments, of one provider."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(SCOPE)
        self.attempts: Counter = meter.create_counter(
            "gpu_infer.client.attempts", "{attempt}", "HTTP requests sent, by what came of them"
        )
        self.retries: Counter = meter.create_counter(
            "gpu_infer.client.retries", "{retry}", "attempts after the first of a call, by why they were needed"
        )
        name, about = "gpu_infer.client.duration", "calls from their begin to their end, retries and waits included"
        advice: Mapping[str, Any] = {"explicit_bucket_boundaries_advisory": BUCKETS}
        try:
            self.duration: Histogram = meter.create_histogram(name, "s", about, **advice)
        except TypeError:  # an API before 1.30 takes no advice
            self.duration = meter.create_histogram(name, "s", about)


@lru_cache(maxsize=4)
def _meters(provider: MeterProvider) -> _Meters:
    """Made once: the SDK warns of instruments that are made twice."""
    return _Meters(provider)
