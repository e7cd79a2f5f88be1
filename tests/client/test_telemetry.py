"""What the clients tell OpenTelemetry and the log; the SDK's own exporters in memory look at it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import RetryPolicy, ScoringClient

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

KEY = "sesame-0123456789abcdef"


class Told:
    """Spans and metrics of one test."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self._reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    @property
    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each instrument."""
        data: Any = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def counted(self, name: str, *by: str) -> dict[tuple[Any, ...], int]:
        return {tuple(point.attributes.get(key) for key in by): point.value for point in self.metrics[name]}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """Providers for one test: the API lets a process set them only once."""
    told = Told()
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", told.tracers)
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", told.meters)
    yield told
    told.meters.shutdown()
    told.tracers.shutdown()


def test_a_call_is_one_span_of_http(make, server, steps, told):
    server.plays(steps.answer(200, [1], steps.ours))
    make(KEY, uri=server.uri + "?code=hush").score(b"12345")
    (span,) = told.spans
    request_id = server.seen[0].headers["x-ms-client-request-id"]
    assert (span.name, span.kind, span.status.status_code) == (
        "gpu_infer.score", trace.SpanKind.CLIENT, trace.StatusCode.UNSET,
    )  # fmt: skip
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.request.body.size": 5,
        "http.request.header.x-ms-client-request-id": (request_id,),
        "http.response.status_code": 200,
        "url.full": server.uri,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "gpu_infer.operation": "score",
        "gpu_infer.device": "cpu",
        "gpu_infer.batch": 1,
        "gpu_infer.queue_ms": 0.5,
    }
    assert [event.name for event in span.events] == ["gpu_infer.attempt"]
    assert "hush" not in span.to_json()
    assert KEY not in span.to_json()


def test_the_service_is_told_which_span_it_works_for(make, server, steps, told):
    server.plays(steps.answer(503), steps.answer(200, [1]))
    tracer = told.tracers.get_tracer("the caller's")
    token = context.attach(baggage.set_baggage("tenant", "lynx"))
    try:
        with tracer.start_as_current_span("the caller's own"):
            make().score(b"x")
    finally:
        context.detach(token)
    ours, callers = told.spans
    assert ours.parent.span_id == callers.context.span_id
    sent = f"00-{ours.context.trace_id:032x}-{ours.context.span_id:016x}-01"
    assert [seen.headers["traceparent"] for seen in server.seen] == [sent, sent]
    assert server.seen[0].headers["baggage"] == "tenant=lynx"
    assert trace.get_current_span() is trace.INVALID_SPAN, "nothing is left behind"


def test_retries_are_events_of_the_span_and_counted_by_cause(make, server, steps, told):
    server.plays(steps.answer(503), steps.answer(429), steps.raw(b""), steps.answer(200, [1]))
    face = make(retries=RetryPolicy(idempotent=True))
    face.score(b"x")
    (span,) = told.spans
    seen = [(event.name.removeprefix("gpu_infer."), dict(event.attributes)) for event in span.events]
    wait = [name for name, _ in seen]
    assert wait == ["attempt", "wait", "attempt", "wait", "attempt", "wait", "attempt"]
    attempts = [about for name, about in seen if name == "attempt"]
    assert [about["gpu_infer.attempt"] for about in attempts] == [1, 2, 3, 4]
    assert [about.get("error.type") for about in attempts] == ["overloaded", "overloaded", "broken", None]
    assert [about.get("http.response.status_code") for about in attempts] == [503, 429, None, 200]
    assert [about["gpu_infer.seconds"] for name, about in seen if name == "wait"] == face.outside.sleeps
    assert span.attributes["http.request.resend_count"] == 3
    assert told.counted("gpu_infer.client.retries", "gpu_infer.cause") == {("overloaded",): 2, ("broken",): 1}
    assert told.counted("gpu_infer.client.attempts", "http.response.status_code", "error.type") == {
        (503, "overloaded"): 1, (429, "overloaded"): 1, (None, "broken"): 1, (200, None): 1,
    }  # fmt: skip
    (duration,) = told.metrics["gpu_infer.client.duration"]
    assert (duration.count, duration.sum) == (1, pytest.approx(sum(face.outside.sleeps)))
    assert duration.explicit_bounds[0] == 0.005, "seconds, not the SDK's own milliseconds"
    assert set(duration.attributes) == {"gpu_infer.operation", "server.address", "server.port"}


def test_an_error_is_in_the_span_without_anything_secret(make, server, steps, told):
    closed = steps.server()
    closed.close()
    server.plays(steps.answer(400, {"message": f"who are you, Bearer {KEY}?"}))
    with pytest.raises(errors.BadInputError) as refused:
        make(KEY).score(b"x")
    with pytest.raises(errors.ScoringConnectionError) as unreachable:
        make(KEY, uri=f"{closed.uri}?code=hush", retries=0).score(b"x")
    for span, error, status in zip(told.spans, (refused.value, unreachable.value), (400, None), strict=True):
        assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, str(error))
        assert span.attributes["error.type"] == type(error).__name__
        assert span.attributes.get("http.response.status_code") == status
        exception = span.events[-1]
        assert exception.name == "exception"
        assert dict(exception.attributes) == {
            "exception.type": f"gpu_infer.errors.{type(error).__name__}",
            "exception.message": str(error),
        }
        assert KEY not in span.to_json()
        assert "hush" not in span.to_json()
    kinds = {point.attributes["error.type"] for point in told.metrics["gpu_infer.client.duration"]}
    assert kinds == {"BadInputError", "ScoringConnectionError"}


def test_a_call_that_is_left_ends_its_span(make, server, steps, told):
    face = make()
    conversation = face.client._score_conversation(face.client._encode(b"x", one=False), None)
    next(conversation)
    conversation.close()
    (span,) = told.spans
    assert (span.attributes["error.type"], span.status.status_code) == ("cancelled", trace.StatusCode.UNSET)


def test_reports_have_spans_of_their_own_name(make, server, steps, told):
    server.plays(steps.answer(200, {"requests": 1}, steps.ours))
    make().stats()
    assert [(span.name, span.attributes["url.full"]) for span in told.spans] == [("gpu_infer.stats", server.uri)]


def test_many_calls_at_once_keep_their_spans_apart(make, server, steps, told):
    server.default = steps.answer(200, [1])
    assert make().at_once(16, b"x") == [[1]] * 16
    sent = {seen.headers["traceparent"].split("-")[2] for seen in server.seen}
    assert sent == {f"{span.context.span_id:016x}" for span in told.spans}
    assert len(sent) == 16


def test_an_api_that_takes_no_advice_on_buckets_does(make, server, steps, told, monkeypatch):
    meter = type(told.meters.get_meter("x"))
    create = meter.create_histogram

    def without_advice(self: Any, name: str, unit: str = "", description: str = "") -> Any:
        return create(self, name, unit, description)

    monkeypatch.setattr(meter, "create_histogram", without_advice)
    server.plays(steps.answer(200, [1]))
    make().score(b"x")
    assert told.metrics["gpu_infer.client.duration"][0].count == 1


def run(code: str, uri: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_without_opentelemetry_does_not_load_it(server, steps):
    server.plays(steps.answer(200, [1]))
    run(
        "import sys, gpu_infer\n"
        "with gpu_infer.ScoringClient(sys.argv[1]) as client: client.score(b'x')\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n",
        server.uri,
    )
    assert "traceparent" not in server.seen[0].headers


def test_with_the_api_alone_nothing_is_recorded_and_a_trace_goes_through(server, steps):
    """A process may pass the traces of its callers on without having set anything up."""
    server.plays(steps.answer(200, [1]))
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    run(
        "import sys, gpu_infer\n"
        "from opentelemetry import context, propagate, trace\n"
        f"context.attach(propagate.extract({{'traceparent': '{parent}'}}))\n"
        "with gpu_infer.ScoringClient(sys.argv[1]) as client: client.score(b'x')\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n",
        server.uri,
    )
    assert server.seen[0].headers["traceparent"] == parent


def test_the_log_names_the_request_in_text_and_as_a_field(make, server, steps, caplog):
    server.plays(steps.answer(503), steps.answer(200, [1]), steps.answer(400, {"message": "no"}))
    face = make()
    with caplog.at_level(logging.DEBUG, "gpu_infer.client"):
        face.score(b"x")
        with pytest.raises(errors.BadInputError):
            face.score(b"x")
    ids = [seen.headers["x-ms-client-request-id"] for seen in server.seen]
    lines = [record.getMessage() for record in caplog.records if record.name == "gpu_infer.client"]
    assert re.fullmatch(rf"503 after attempt 1, next in 0\.\d\d s \({ids[0]}\)", lines[0])
    assert re.fullmatch(rf"200 after attempt 2, 0\.\d\d\d s in all \({ids[0]}\)", lines[1])
    assert lines[2] == f"400 after attempt 1, no result: BadInputError ({ids[2]})"
    assert [record.request_id for record in caplog.records if record.name == "gpu_infer.client"] == ids


def test_the_calls_of_score_many_belong_to_the_trace_of_their_caller(server, steps, told):
    """Those of the blocking client are made by other threads; tasks take their context along by themselves."""
    server.default = steps.answer(200, [1], steps.ours)
    with told.tracers.get_tracer("job").start_as_current_span("job") as job, ScoringClient(server.uri) as client:
        assert len(list(client.score_many([b"a", b"b", b"c"], items_per_request=1))) == 3
    parents = [span.parent.span_id for span in told.spans if span.name == "gpu_infer.score"]
    assert parents == [job.get_span_context().span_id] * 3
