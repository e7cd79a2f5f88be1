"""Retries, deadlines and the budget, over a real socket, sync and async alike; time is scripted."""

from __future__ import annotations

import gzip
import threading
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import RetryPolicy
from gpu_infer.client import retry as numbers


def test_overload_is_retried_as_the_service_asks(make, server, steps):
    server.plays(
        steps.answer(503, {"error": "overloaded"}, {"Retry-After": "2"}),
        steps.answer(429, b"", {"Retry-After": "0.5"}),
        steps.answer(503, b"", {"retry-after-ms": "1500"}),
        steps.answer(503, b"", {"Retry-After": "Mon, 23 Nov 2026 12:00:03 GMT"}),
        steps.answer(200, [1]),
    )
    face = make()
    assert face.score(b"x") == [1]
    jitter = [face.outside.die * numbers.BACKOFF_BASE * 2**n for n in range(4)]
    assert face.outside.sleeps == pytest.approx([2 + jitter[0], 0.5 + jitter[1], 1.5 + jitter[2], 3 + jitter[3]])
    sent = [int(seen.headers["x-gpu-infer-timeout-ms"]) for seen in server.seen]
    assert sent == sorted(sent, reverse=True), "each attempt tells the service how much time is left"
    assert len({seen.headers["x-ms-client-request-id"] for seen in server.seen}) == 1


def test_overload_without_end_is_an_error_after_the_last_retry(make, server, steps):
    server.default = steps.answer(503, {"message": "The queue is full", "error": "overloaded"})
    face = make(retries=3)
    with pytest.raises(errors.OverloadedError, match="no room for the request: The queue is full") as caught:
        face.score(b"x")
    assert "The queue is full. If it stays so, it may have crashed: service.logs()" in str(caught.value)
    assert caught.value.attempts == len(server.seen) == 4
    assert len(face.outside.sleeps) == 3
    assert caught.value.elapsed == pytest.approx(sum(face.outside.sleeps))
    assert caught.value.retry_after is None


def test_without_retries_there_is_one_attempt(make, server, steps):
    server.plays(steps.answer(503, b"", {"Retry-After": "1"}))
    with pytest.raises(errors.OverloadedError) as caught:
        make(retries=0).score(b"x")
    assert caught.value.retry_after == 1


def test_a_wait_beyond_the_cap_is_the_callers_to_decide(make, server, steps):
    server.plays(steps.answer(429, b"", {"Retry-After": "3600"}))
    face = make(timeout=7200)
    with pytest.raises(errors.OverloadedError, match="asks to wait 3,600 s; up to 60 s are waited here") as caught:
        face.score(b"x")
    assert caught.value.retry_after == 3600
    assert face.outside.sleeps == []


def test_a_wait_beyond_the_deadline_is_not_begun(make, server, steps):
    server.plays(steps.answer(429, b"", {"Retry-After": "30"}))
    face = make(timeout=5)
    with pytest.raises(errors.OverloadedError, match="asks to wait 30 s, but 5.0 s of the time-out of 5 s are left"):
        face.score(b"x")
    assert face.outside.sleeps == []


def test_the_deadline_covers_all_attempts(make, server, steps):
    server.default = steps.answer(503, b"")
    face = make(timeout=3, retries=RetryPolicy(limit=1000, base=0.5, cap=0.5))
    face.outside.die = 0.999
    with pytest.raises(errors.OverloadedError, match="no time for a retry"):
        face.score(b"x")
    assert sum(face.outside.sleeps) <= 3
    assert len(server.seen) >= 6


def test_a_timeout_of_one_call_overrides_the_clients(make, server, steps):
    server.plays(steps.answer(200, [1]))
    make(timeout=60).score(b"x", timeout=1.5)
    assert server.seen[0].headers["x-gpu-infer-timeout-ms"] == "1500"


def test_a_refused_connection_is_retried_a_little(make, server, steps):
    closed = steps.server()
    closed.close()
    face = make(uri=closed.uri)
    with pytest.raises(
        errors.ScoringConnectionError, match="could not be reached: Connection refused. Is it"
    ) as caught:
        face.score(b"x")
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.attempts == 1 + numbers.CONNECT_RETRIES
    assert caught.value.status is None
    assert len(face.outside.sleeps) == numbers.CONNECT_RETRIES
    assert caught.value.__cause__ is not None


def test_a_name_that_does_not_exist_is_a_connection_error(make):
    with pytest.raises(errors.ScoringConnectionError, match=r"http://no-such-host\.invalid could not be reached"):
        make(uri="http://no-such-host.invalid/score").score(b"x")


@pytest.mark.parametrize("where", ["before", "headers", "body", "chunk"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_answer_is_repeated_only_for_our_own(make, server, steps, where, reset):
    broken = steps.raw(
        {
            "before": b"",
            "headers": b"HTTP/1.1 200 OK\r\nContent-Ty",
            "body": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n[1",
            "chunk": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1",
        }[where],
        reset=reset,
    )
    server.plays(broken, steps.answer(200, [1], steps.ours), broken, steps.answer(200, [2], steps.ours))
    face = make()
    with pytest.raises(
        errors.ScoringConnectionError, match=r"broke before the whole answer|may have been carried out"
    ) as caught:
        face.score(b"x")
    assert caught.value.attempts == 1
    assert face.score(b"x") == [1], "from here on the service is known to be ours, and scoring there is pure"
    assert face.score(b"x") == [2]
    assert len(face.outside.sleeps) == 1


def test_a_request_that_kills_workers_does_not_kill_them_all(make, server, steps):
    server.plays(steps.answer(200, [1], steps.ours))
    server.default = steps.raw(b"")
    face = make()
    face.score(b"x")
    with pytest.raises(errors.ScoringConnectionError) as caught:
        face.score(b"x")
    assert caught.value.attempts == 1 + numbers.UNANSWERED_RETRIES


def test_a_report_may_always_be_asked_again(make, server, steps):
    server.plays(steps.raw(b""), steps.answer(200, {"requests": 1}, steps.ours))
    assert make().stats() == {"requests": 1}


def test_a_script_of_the_users_own_has_no_report(make, server, steps):
    """Such a script answers a GET, too, with whatever it likes."""
    server.plays(steps.answer(200, {"requests": 1}))
    with pytest.raises(errors.ScoringError, match="does not report about itself"):
        make().stats()


def test_a_slow_answer_ends_at_the_deadline(make, server, steps):
    done = threading.Event()
    server.plays(steps.wait_for(done, steps.raw(b"")))
    face = make()
    face.real_time()
    with pytest.raises(errors.ScoringTimeoutError, match="No whole answer from http://127.0.0.1") as caught:
        face.score(b"x", timeout=0.15)
    done.set()
    assert caught.value.attempts == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_that_drips_ends_at_the_deadline(make, server, steps, packed):
    piece = gzip.compress(b"[", mtime=0)[:1] if packed else b" "
    server.plays(steps.drip(piece, pause=0.02, stop=server.closing))
    face = make()
    face.real_time()
    with pytest.raises(errors.ScoringTimeoutError):  # the server would go on for ever
        face.score(b"x", timeout=0.2)


@pytest.mark.parametrize("header", [b"X-Long: ", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_headers_and_lengths_that_drip_end_at_the_deadline(make, server, header):
    def drip(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + header)
        while not server.closing.wait(0.02):
            connection.sendall(b"0")
        return False

    server.plays(drip)
    face = make()
    face.real_time()
    with pytest.raises(errors.ScoringTimeoutError):  # the server would go on for ever
        face.score(b"x", timeout=0.2)


@pytest.mark.parametrize("known_by", ["its answers", "the caller's word", "nothing"])
def test_an_attempt_that_hangs_is_given_up_and_repeated_where_that_is_safe(make, server, steps, known_by):
    done = threading.Event()
    hang = steps.wait_for(done, steps.raw(b""))
    # Long enough for a busy machine to answer in.
    face = make(retries=RetryPolicy(attempt_timeout=1.0, base=0, idempotent=known_by == "the caller's word"))
    face.real_time()
    if known_by == "its answers":
        server.plays(steps.answer(200, [0], steps.ours))
        face.score(b"x")
    server.plays(hang)
    if known_by == "nothing":
        with pytest.raises(errors.ScoringTimeoutError, match=r"within the 1 s that this attempt had") as caught:
            face.score(b"x")
        assert caught.value.attempts == 1, "it may have been carried out, and nobody said that this does no harm"
    else:
        server.plays(steps.answer(200, [1]))
        assert face.score(b"x") == [1]
    done.set()
    assert {seen.headers["x-gpu-infer-timeout-ms"] for seen in server.seen} == {"1000"}


def test_a_request_that_hangs_everywhere_is_repeated_a_little(make, server, steps):
    done = threading.Event()
    server.default = steps.wait_for(done, steps.raw(b""))
    face = make(retries=RetryPolicy(attempt_timeout=0.1, base=0, idempotent=True))
    face.real_time()
    with pytest.raises(errors.ScoringTimeoutError) as caught:
        face.score(b"x")
    done.set()
    assert caught.value.attempts == 1 + numbers.UNANSWERED_RETRIES


def test_a_gateways_time_out_is_repeated_only_where_that_is_safe(make, server, steps):
    server.plays(steps.answer(504), steps.answer(504), steps.answer(200, [1]))
    with pytest.raises(errors.ScoringTimeoutError) as caught:
        make().score(b"x")
    assert caught.value.attempts == 1
    assert make(retries=RetryPolicy(idempotent=True)).score(b"x") == [1]


def test_what_a_client_may_retry_is_a_share_of_what_it_gets_done(make, server, steps):
    server.default = steps.answer(503)
    face = make(retries=RetryPolicy(budget=0.5))
    face.outside.die = 0.0  # no waits, so no trickle
    for attempts in (9, 3, 1, 1):
        with pytest.raises(errors.OverloadedError) as caught:
            face.score(b"x")
        assert caught.value.attempts == attempts
        assert ("retry budget is used up" in str(caught.value)) == (attempts < 9)
    server.default = steps.answer(200, [1])
    for _ in range(10):
        face.score(b"x")
    server.default = steps.answer(503)
    with pytest.raises(errors.OverloadedError) as caught:
        face.score(b"x")
    assert caught.value.attempts == 6, "ten successes pay for five retries"
    unlimited = make(retries=RetryPolicy(budget=None, limit=50))
    unlimited.outside.die = 0.0
    with pytest.raises(errors.OverloadedError) as caught:
        unlimited.score(b"x")
    assert caught.value.attempts == 51


def test_who_watches_a_patient_call_sees_every_attempt(make, server, steps):
    """So ``score_many`` knows what the service bears, and waits for the budget instead of giving up."""
    server.plays(steps.answer(429), steps.raw(b""), steps.answer(200, [1]))
    face = make(retries=RetryPolicy(idempotent=True, base=0))
    while face.client._budget.take(face.outside.time):
        pass
    seen: list[Any] = []
    conversation = face.client._score_conversation(
        face.client._encode(b"x", one=False),
        None,
        patient=True,
        watch=lambda *attempt: seen.append(attempt),
    )
    assert face._call("_run", conversation).value == [1]
    assert [getattr(outcome, "status", None) or outcome.kind for outcome, _ in seen] == [429, "broken", 200]
    assert [took for _, took in seen] == [0, 0, 0], "on this clock only waiting takes time"
    assert face.outside.sleeps == [1.5, 0.75], "for the budget: a token each second, waits spread up to twofold"
