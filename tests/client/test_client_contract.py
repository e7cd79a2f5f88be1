"""Every behaviour of the clients over a real socket, sync and async alike. Nothing here sleeps; time is scripted."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import pickle
import re
import ssl
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_infer import errors
from gpu_infer.client import AsyncScoringClient, RetryPolicy, ScoreResponse, ScoringClient
from gpu_infer.client import retry as numbers
from gpu_infer.client.base import MAX_CONCURRENCY

KEY = "sesame-0123456789abcdef"
OTHER_KEY = "sesame-fedcba9876543210"


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# --- requests and results ---------------------------------------------------------------------------------------------


def test_a_request_says_what_it_carries_and_wants(make, server, steps):
    server.plays(steps.answer(200, [0.5], steps.ours))
    assert make().score(b"\xff\xd8\xff photo") == [0.5]
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/score", b"\xff\xd8\xff photo")
    assert seen.headers["content-type"] == "image/jpeg"
    assert seen.headers["accept"] == "application/x-npy, application/json;q=0.9"
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", seen.headers["x-ms-client-request-id"])
    assert seen.headers["x-gpu-infer-timeout-ms"] == "60000"
    assert "authorization" not in seen.headers
    assert "cookie" not in seen.headers


def test_an_array_travels_as_npy_both_ways(make, server, steps):
    result = np.arange(6, dtype=np.float32).reshape(2, 3)
    server.plays(steps.answer(200, npy(result), steps.ours, "application/x-npy"))
    value = make().score(np.zeros((2, 4), np.float16))
    np.testing.assert_array_equal(value, result)
    assert value.dtype == np.float32
    assert value.flags.writeable
    np.testing.assert_array_equal(np.load(io.BytesIO(server.seen[0].body)), np.zeros((2, 4), np.float16))


def test_an_array_without_axes_comes_back_as_a_scalar(make, server, steps):
    server.plays(steps.answer(200, npy(np.array(7, np.int64)), steps.ours, "application/x-npy"))
    value: Any = make().score(b"x")
    assert value.dtype == np.int64
    assert not isinstance(value, np.ndarray)
    assert value == 7


def test_the_response_carries_what_the_service_says_about_the_work(make, server, steps):
    headers = {"x-gpu-infer-device": "cuda:0 NVIDIA H200", "x-gpu-infer-batch": "16", "x-gpu-infer-queue-ms": "2.5"}
    server.plays(
        steps.answer(503, {"error": "overloaded"}, {"Retry-After": "2", **headers}), steps.answer(200, 1, headers)
    )
    face = make()
    response = face.score_response(b"x")
    assert response == ScoreResponse(
        1, "cuda:0 NVIDIA H200", 16, 2.5, server.seen[0].headers["x-ms-client-request-id"], face.outside.sleeps[0]
    )


def test_a_foreign_service_says_nothing_about_the_work(make, server, steps):
    server.plays(
        steps.answer(200, [1]), steps.answer(200, [1], {"x-gpu-infer-batch": "many", "x-gpu-infer-queue-ms": "nan"})
    )
    face = make()
    for _ in range(2):
        response = face.score_response(b"x")
        assert (response.device, response.batch, response.queue_ms) == (None, None, None)


def test_the_json_codec_speaks_to_foreign_services(make, server, steps):
    server.plays(steps.answer(200, json.dumps([3, 1]).encode()))
    assert make(codec="json").score(np.array([[1.5, np.nan]])) == [3, 1]
    assert server.seen[0].body == b'{"data":[[1.5,null]]}'
    assert server.seen[0].headers["content-type"] == "application/json"
    assert server.seen[0].headers["accept"] == "application/json"


def test_json_inside_a_json_string_is_decoded_once(make, server, steps):
    server.plays(
        steps.answer(200, json.dumps([1, 2])),
        steps.answer(200, "7"),
        steps.answer(200, json.dumps([json.dumps([1])])),
        steps.answer(200, "[not json"),
        steps.answer(200, "[1]", steps.ours),
    )
    face = make(codec="json")
    assert face.score([[1.0]]) == [1, 2]
    assert face.score([[1.0]]) == "7", "a text stays text, whatever it says"
    assert face.score([[1.0]]) == ["[1]"], "once"
    assert face.score([[1.0]]) == "[not json"
    assert face.score([[1.0]]) == "[1]", "our services mean their strings"


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain", "", "application/problem+json"])
def test_json_of_another_name_is_still_json(make, server, steps, content_type):
    server.plays(steps.answer(200, [0.25], content_type=content_type))
    assert make().score(b"x") == [0.25]


def test_the_bytes_codec_returns_what_it_cannot_parse(make, server, steps):
    server.plays(
        steps.answer(200, b"\x00\x01", content_type="application/octet-stream"),
        steps.answer(200, b"<p>", content_type="text/html"),
        steps.answer(200, [1]),
    )
    face = make(codec="bytes")
    assert face.score(b"\x93NUMPY or not") == b"\x00\x01"
    assert face.score(b"x") == b"<p>"
    assert face.score(b"x") == [1]
    assert server.seen[0].headers["content-type"] == "application/octet-stream"
    assert server.seen[0].headers["accept"] == "*/*"


def test_a_packed_answer_is_unpacked(make, server, steps):
    server.plays(steps.answer(200, gzip.compress(b"[1, 2]"), {"Content-Encoding": "gzip"}))
    assert make().score(b"x") == [1, 2]
    assert server.seen[0].headers["accept-encoding"] == "gzip, deflate"


def test_connections_are_used_again(make, server, steps):
    server.default = steps.answer(200, [1], steps.ours)
    face = make()
    for _ in range(5):
        face.score(b"x")
    assert server.connections == 1


def test_a_list_of_photos_is_one_multipart_request(make, server, steps):
    server.plays(steps.answer(200, [[1], [2]], steps.ours))
    assert make().score([b"\xff\xd8\xff one", b"\x89PNG\r\n\x1a\n two"]) == [[1], [2]]
    seen = server.seen[0]
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="item"; filename="1"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n two\r\n' in seen.body


def test_the_reports_are_asked_for_by_name(make, server, steps):
    server.plays(*[steps.answer(200, {"what": name}, steps.ours) for name in ("describe", "stats", "gpu")])
    face = make(uri=server.uri + "?v=1")
    assert [face.describe(), face.stats(), face.gpu_report()] == [{"what": n} for n in ("describe", "stats", "gpu")]
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("GET", f"/score?v=1&gpu_infer={name}") for name in ("describe", "stats", "gpu")
    ]


def test_a_foreign_service_has_no_reports(make, server, steps):
    server.plays(steps.answer(405, b"GET is not supported", content_type="text/plain"), steps.answer(200, "Healthy"))
    face = make()
    with pytest.raises(errors.ScoringError, match=r"405: GET is not supported\. .* a gpu_infer service"):
        face.describe()
    with pytest.raises(errors.ScoringError, match="only services built by gpu_infer do"):
        face.gpu_report()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind_of_error", "message"),
    [
        (400, {"x-gpu-infer-error": "bad_input"}, {"message": "wrong shape", "error": "bad_input", "item": 3},
         errors.BadInputError, r"The service refused the input: wrong shape \(item 3, status 400, 1 attempt"),
        (413, {"x-gpu-infer-error": "bad_input"}, {"message": "over 100 MiB"}, errors.BadInputError, "over 100 MiB"),
        (415, {}, {"message": "not this type"}, errors.BadInputError, "not this type"),
        (422, {}, {"detail": 1}, errors.BadInputError, r'\{"detail": 1\}'),
        (500, {"x-gpu-infer-error": "model_error", "x-ms-run-function-failed": "True"},
         {"message": "1 / 0", "item": 0}, errors.ModelError, "The model failed on this input: 1 / 0"),
        (500, {"x-ms-run-function-failed": "True"}, {"message": "see the log"}, errors.ModelError, "see the log"),
        (502, {"x-ms-run-function-failed": "true"}, b"", errors.ModelError, "502 of 500"),
        (503, {"x-ms-run-function-failed": "True"}, b"", errors.ModelError, "The model failed on this input."),
        (424, {"ms-azureml-model-error-statuscode": "500", "ms-azureml-model-error-reason": "boom"}, b"",
         errors.ModelError, "The model failed on this input: boom"),
        (424, {"ms-azureml-model-error-statuscode": "400"}, {"message": "bad row"}, errors.BadInputError, "bad row"),
        (500, {"x-gpu-infer-error": "internal"}, {"message": "bug"}, errors.ScoringError, "with status 500: bug"),
        (500, {"x-ms-run-function-failed": "False"}, b"oops", errors.ScoringError, "failed with status 500: oops"),
        (502, {}, b"", errors.ScoringError, "crashed, or, on AKS, its entry script raised"),
        (403, {}, b"", errors.AuthenticationError, "onlineEndpoints/score/action"),
        (404, {}, b"", errors.ScoringError, r"nothing at this address.*/score"),
        (405, {}, b"", errors.ScoringError, "Is it the scoring URI"),
        (409, {}, b"", errors.ScoringError, "refused the request with status 409"),
        (408, {}, b"", errors.ScoringTimeoutError, "gave no result in time"),
        (504, {"x-gpu-infer-error": "deadline", "x-ms-run-function-failed": "True"}, {"message": "60000 ms"},
         errors.ScoringTimeoutError, "gave no result in time: 60000 ms"),
        (401, {}, b"key_auth_access_denied", errors.AuthenticationError,
         r"credential: key_auth_access_denied\. The request carried no key: pass credential="),
        (413, {}, b"<html>Too large</html>", errors.BadInputError, "Send fewer items.*GPU_INFER_MAX_BODY_MB.*100 MB"),
        (502, {}, b"Bad gateway", errors.ScoringError, r"502: Bad gateway\. .*logs\(\), or gpu-infer logs, says"),
    ],
)  # fmt: skip
def test_each_status_is_one_error_and_these_are_not_retried(
    make, server, steps, status, headers, body, kind_of_error, message
):
    server.plays(steps.answer(status, body, headers))
    face = make()
    with pytest.raises(errors.ScoringError, match=message) as caught:
        face.score(b"x")
    error = caught.value
    assert type(error) is kind_of_error
    assert error.status == status
    assert error.attempts == 1
    assert error.request_id == server.seen[0].headers["x-ms-client-request-id"]
    assert f"status {status}, 1 attempt, 0.0 s, request {error.request_id})" in str(error)
    if isinstance(error, errors.BadInputError | errors.ModelError):
        assert error.item == (body.get("item") if isinstance(body, dict) else None)
    assert face.outside.sleeps == []


def test_time_outs_and_bad_values_are_pythons_own_kinds_too(make, server, steps):
    server.plays(steps.answer(504, b""), steps.answer(400, b""))
    face = make()
    with pytest.raises(TimeoutError):
        face.score(b"x")
    with pytest.raises(ValueError, match="refused the input"):
        face.score(b"x")


def test_what_the_service_says_is_cut_and_kept_on_one_line(make, server, steps):
    server.plays(steps.answer(500, b"line\r\none\x1b[31m " + b"y" * 10_000, content_type="text/plain"))
    with pytest.raises(errors.ScoringError) as caught:
        make().score(b"x")
    assert "line one?[31m y" in str(caught.value)
    assert len(str(caught.value)) < 450


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (
            "text/html",
            b"<title>Sign in</title>",
            r"the answer is text/html, not JSON or \.npy; it begins with '<title>",
        ),
        ("image/png", b"\x89PNG", r"the answer is image/png, not JSON.*codec='bytes'"),
        ("application/json", b"", "the answer is empty"),
        ("application/json", b'{"a": ', "JSON in the answer cannot be read: .*begins with"),
        ("application/json", b"\xff\xfe\x00", "JSON in the answer cannot be read"),
        ("application/json", b"[" * 100_000, "nested too deeply"),
        ("application/x-npy", b"", "does not begin as .npy data does"),
        ("application/x-npy", npy(np.zeros(100))[:-1], "is cut short: float64 .100. takes 800 bytes, 799 are there"),
        ("application/x-npy", npy(np.zeros(2)) + b"!", "has bytes behind its end"),
        (
            "application/x-npy",
            npy(np.array([{"a": 1}], dtype=object)),
            "pickled Python objects, which are never loaded",
        ),
        ("application/x-npy", npy(np.zeros(2)).replace(b"(2,)", b"(9999999999999,)"), "cannot be read|cut short"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error(make, server, steps, content_type, body, message):
    server.plays(steps.answer(200, body, content_type=content_type))
    face = make()
    with pytest.raises(errors.ScoringError, match=message) as caught:
        face.score(b"x")
    assert caught.value.status == 200
    assert str(caught.value).startswith("The service answered, but ")


def test_redirects_are_named_and_not_followed(make, server, steps):
    server.plays(
        steps.answer(307, b"", {"Location": "http://user:pw@elsewhere.example/score?sig=abc"}), steps.answer(302)
    )
    face = make(KEY)
    with pytest.raises(
        errors.ScoringError, match="redirects to http://elsewhere.example/score. .*not followed"
    ) as caught:
        face.score(b"x")
    assert "sig=abc" not in str(caught.value)
    assert "pw@" not in str(caught.value)
    with pytest.raises(errors.ScoringError, match="redirects to an address that it does not name"):
        face.score(b"x")


def test_an_answer_beyond_the_limit_is_not_read(make, server, steps):
    packed = gzip.compress(b"[" + b"1," * 5000 + b"1]")
    server.plays(
        steps.answer(200, b"x" * 2000),
        steps.raw(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"),
        steps.answer(200, packed, {"Content-Encoding": "gzip"}),
        steps.answer(200, [1]),
    )
    face = make()
    face.client._max_answer = 1000
    for _ in range(3):
        with pytest.raises(errors.ScoringError, match="larger than 1,000 bytes; score fewer items"):
            face.score(b"x")
    assert face.score(b"x") == [1], "the client goes on working"


# --- retries ----------------------------------------------------------------------------------------------------------


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
    face = make(KEY, uri=closed.uri)
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


# --- time -------------------------------------------------------------------------------------------------------------


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


# --- credentials ------------------------------------------------------------------------------------------------------


class Provider:
    """Gives the keys in order, the last for ever, and counts."""

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.calls = 0
        self.slow = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        key = self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]
        if isinstance(key, Exception):
            raise key
        return key


def lock_for(server: Any, steps: Any, key: str) -> None:
    """The server takes this key and no other."""

    def step(connection: Any, seen: Any) -> bool:
        fits = seen.headers.get("authorization") == f"Bearer {key}"
        return (steps.answer(200, [1]) if fits else steps.answer(401, b"denied"))(connection, seen)

    server.default = step


def test_a_key_is_sent_as_bearer(make, server, steps):
    lock_for(server, steps, KEY)
    assert make(KEY + "\n").score(b"x") == [1]


def test_a_fixed_key_that_is_refused_is_not_tried_again(make, server, steps):
    lock_for(server, steps, OTHER_KEY)
    with pytest.raises(errors.AuthenticationError, match="denied.*regenerated.*callable as credential") as caught:
        make(KEY).score(b"x")
    assert caught.value.attempts == 1


def test_a_provider_is_asked_once_and_again_when_refused(make, server, steps):
    provider = Provider(KEY, OTHER_KEY)
    lock_for(server, steps, KEY)
    face = make(provider)
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert provider.calls == 1
    lock_for(server, steps, OTHER_KEY)
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert provider.calls == 2
    assert face.outside.sleeps == []


def test_a_provider_that_only_has_bad_keys_is_asked_twice(make, server, steps):
    provider = Provider(KEY)
    server.default = steps.answer(401, b"")
    with pytest.raises(errors.AuthenticationError, match="fetched again and is still refused") as caught:
        make(provider, retries=0).score(b"x")
    assert provider.calls == caught.value.attempts == 2


def test_a_renewal_does_not_use_up_retries(make, server, steps):
    server.plays(steps.answer(503), steps.answer(401), steps.answer(503), steps.answer(200, [1]))
    assert make(Provider(KEY), retries=2).score(b"x") == [1]


def test_a_rotated_key_is_fetched_once_for_all(make, server, steps):
    gate = threading.Barrier(16)
    provider = Provider(KEY, OTHER_KEY)

    def step(connection: Any, seen: Any) -> bool:
        if seen.headers["authorization"] == f"Bearer {KEY}":
            gate.wait(5)  # all sixteen hold the old key when the first of them is refused
            return steps.answer(401)(connection, seen)
        return steps.answer(200, [1])(connection, seen)

    server.default = step
    face = make(provider)
    assert face.at_once(16, b"x") == [[1]] * 16
    assert provider.calls == 2


def test_a_provider_that_fails_is_asked_once_by_those_who_wait_for_it(make, server, steps):
    calls: list[int] = []

    def provider() -> str:
        calls.append(1)
        time.sleep(0.1)  # long enough for the others to queue up
        raise OSError("the vault is sealed")

    face = make(provider)
    results = face.at_once(8, b"x")
    assert len(calls) < 8
    for error in results:
        assert isinstance(error, errors.AuthenticationError)
        assert "The credential provider raised OSError." in str(error)
        assert isinstance(error.__cause__, OSError)
    assert server.seen == []


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (None, "gave NoneType, not a str"),
        ("", "The credential is empty"),
        ("two\r\nlines", "characters that cannot stand in an HTTP header"),
        ("schlüssel", "characters that cannot stand in an HTTP header"),
    ],
)
def test_a_provider_that_gives_no_key_is_an_authentication_error(make, server, steps, gives, message):
    with pytest.raises(errors.AuthenticationError, match=message):
        make(Provider(gives)).score(b"x")
    assert server.seen == []


def test_a_failed_provider_may_succeed_the_next_time(make, server, steps):
    lock_for(server, steps, KEY)
    face = make(Provider(OSError("sealed"), KEY))
    with pytest.raises(errors.AuthenticationError):
        face.score(b"x")
    assert face.score(b"x") == [1]


# --- secrets ----------------------------------------------------------------------------------------------------------


def hands_out() -> str:
    return KEY


def told(error: BaseException) -> str:
    """All that an exception shows: text, repr, traceback with its causes, and what hangs on them."""
    shown = [repr(error), "".join(traceback.format_exception(error))]
    current: BaseException | None = error
    while current is not None:
        shown += [repr(vars(current)), repr(current.args)]
        request = getattr(current, "request", None)
        shown.append(repr(dict(request.headers)) if request is not None else "")
        current = current.__cause__ or current.__context__
    return "\n".join(shown)


@pytest.mark.parametrize("credential", [KEY, hands_out])
def test_a_key_is_never_shown(make, server, steps, credential, caplog):
    closed = steps.server()
    closed.close()
    echo = {"message": f"who are you, Bearer {KEY}?"}
    server.plays(
        steps.answer(503, echo),
        steps.answer(400, echo),
        steps.answer(302, f"to {KEY}"),
        steps.answer(200, KEY.encode(), content_type="text/plain"),
        steps.raw(b""),
    )
    with caplog.at_level(logging.DEBUG):
        face, unreachable = make(credential), make(credential, uri=closed.uri)
        for client in (face, face, face, face, unreachable):
            with pytest.raises(errors.ScoringError) as caught:
                client.score(b"x")
            assert KEY not in told(caught.value)
            assert KEY not in pickle.dumps(caught.value).decode("latin-1")
        assert KEY not in repr(face.client)
        assert KEY not in repr(vars(face.client))
    assert KEY not in caplog.text
    assert "gpu_infer.client" in caplog.text, "retries are told to the log"


def test_a_client_with_a_fixed_key_cannot_be_pickled(make):
    with pytest.raises(TypeError, match="fixed key cannot be pickled.*Give it a provider") as caught:
        pickle.dumps(make(KEY).client)
    assert KEY not in told(caught.value)


def test_a_client_with_a_provider_travels_without_the_key(make, server, steps, kind):
    lock_for(server, steps, KEY)
    face = make(hands_out, timeout=7, retries=RetryPolicy(limit=1), codec="json")
    face.score([1.0])
    copied = pickle.dumps(face.client)
    assert KEY not in copied.decode("latin-1")
    other = make(hands_out)
    other.client = pickle.loads(copied)
    assert (other.client.uri, other.client.timeout) == (server.uri, 7)
    assert other.client._policy == RetryPolicy(limit=1)
    assert other.score([1.0]) == [1]


def test_errors_keep_everything_when_pickled(make, server, steps):
    server.plays(steps.answer(400, {"message": "no", "item": 4}), steps.answer(429, b"", {"Retry-After": "99"}))
    face = make()
    for name, value in (("item", 4), ("retry_after", 99)):
        with pytest.raises(errors.ScoringError) as caught:
            face.score(b"x")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), str(copy), copy.status) == (type(caught.value), str(caught.value), caught.value.status)
        assert (copy.request_id, copy.attempts, getattr(copy, name)) == (caught.value.request_id, 1, value)


def test_netrc_cookies_and_proxies_stay_out_of_it(make, server, steps, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.plays(steps.answer(200, [1], {"Set-Cookie": "affinity=replica-1; Path=/"}), steps.answer(200, [1]))
    face = make()
    face.score(b"x")
    face.score(b"x")
    assert [set(seen.headers) & {"authorization", "cookie"} for seen in server.seen] == [set(), set()]


# --- many -------------------------------------------------------------------------------------------------------------


def doubling(server: Any, steps: Any) -> None:
    """The server answers each number with its double, and each negative one with 400."""

    def step(connection: Any, seen: Any) -> bool:
        assert seen.headers["x-gpu-infer-items"] == "one"
        number = int(np.load(io.BytesIO(seen.body)))
        if number < 0:
            return steps.answer(400, {"message": "negative", "item": 0})(connection, seen)
        return steps.answer(200, 2 * number, steps.ours)(connection, seen)

    server.default = step


def test_many_come_back_in_order(make, server, steps):
    doubling(server, steps)
    assert list(make().score_many(range(100), concurrency=4)) == list(range(0, 200, 2))
    assert 1 < server.connections <= 4


def test_many_may_come_as_they_are_ready(make, server, steps):
    release = threading.Event()

    def step(connection: Any, seen: Any) -> bool:
        number = int(np.load(io.BytesIO(seen.body)))
        if number == 0:
            release.wait(5)
        return steps.answer(200, number)(connection, seen)

    server.default = step
    results = make().score_many(range(8), concurrency=2, ordered=False)
    first = [next(results) for _ in range(3)]
    assert 0 not in first
    release.set()
    assert sorted(first + list(results)) == list(range(8))


def test_of_many_only_a_window_is_read_ahead(make, server, steps):
    doubling(server, steps)
    taken: list[int] = []

    def source() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    results = make().score_many(source(), concurrency=3)
    assert taken == []
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(taken) <= 5 + 2 * 3
    results.close()


def test_of_many_the_first_error_is_raised_and_says_which(make, server, steps):
    doubling(server, steps)
    results = make().score_many([1, 2, -3, 4], concurrency=2)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(errors.BadInputError, match="negative") as caught:
        next(results)
    assert caught.value.__notes__ == ["This was item 2 of score_many()."]
    assert list(results) == []


def test_of_many_errors_may_take_the_place_of_results(make, server, steps):
    doubling(server, steps)
    results = list(make().score_many([1, -2, [[1], [2, 3]], 4], on_error="return"))
    assert (results[0], results[3]) == (2, 8)
    assert isinstance(results[1], errors.BadInputError)
    assert "ragged" in str(results[2]), "what cannot be sent is reported like what is refused"


def test_of_many_the_results_before_a_broken_source_come_first(make, server, steps):
    doubling(server, steps)

    def source() -> Any:
        yield from (1, 2, 3)
        raise OSError("the disk is gone")

    results = make().score_many(source())
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_many_rows_of_an_array_or_a_table_are_items(make, server, steps):
    class Table:
        columns = ("a", "b")

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([[1, 2], [3, 4]])

        def __iter__(self) -> Any:
            return iter(self.columns)

    server.default = steps.answer(200, [1])
    face = make()
    assert len(list(face.score_many(np.zeros((3, 2))))) == 3
    assert len(list(face.score_many(Table(), concurrency=1))) == 2
    assert np.load(io.BytesIO(server.seen[-1].body)).tolist() == [3, 4]


@pytest.mark.parametrize("items", ["photos", b"bytes", {"data": [1]}])
def test_many_are_not_one(make, items):
    with pytest.raises(TypeError, match="takes an iterable of items, not one .*; that is for score"):
        list(make().score_many(items))


def test_a_list_is_no_item_of_many(make, server):
    with pytest.raises(errors.BadInputError, match="One item is expected here, this is a list of items"):
        list(make().score_many([[b"a", b"b"]]))


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"concurrency": MAX_CONCURRENCY + 1}, {"on_error": "skip"}, {"timeout": 0}]
)
def test_bad_options_of_many_are_refused_at_once(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make().client.score_many([1], **options)


def test_leaving_many_early_leaves_nothing_running(make, server, steps):
    doubling(server, steps)
    for _ in make().score_many(range(1000), concurrency=4):
        break
    seen = len(server.seen)
    assert seen <= 2 * 4 + 4
    for _ in range(200):
        if not any(thread.name.startswith("gpu-infer-score") for thread in threading.enumerate()):
            break
        time.sleep(0.01)
    assert not any(thread.name.startswith("gpu-infer-score") for thread in threading.enumerate())


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_one_client_serves_many_callers_at_once(make, server, steps):
    doubling(server, steps)

    def step(connection: Any, seen: Any) -> bool:
        return steps.answer(200, len(seen.body), steps.ours)(connection, seen)

    server.default = step
    assert make().at_once(32, b"12345") == [5] * 32


def test_a_closed_client_says_so(make, server):
    face = make()
    face.close()
    face.close()
    with pytest.raises(RuntimeError, match="client is closed"):
        face.score(b"x")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("127.0.0.1:5001/score", "whole scoring address"),
        ("ftp://host/score", "whole scoring address"),
        ("http:///score", "whole scoring address"),
        ("http://host:99999/score", "whole scoring address"),
        ("http://host/a b", "whole scoring address"),
        ("http://[::1/score", "whole scoring address"),
        ("https://me:secret@host/score", "user name or password"),
    ],
)
def test_an_address_that_cannot_be_is_refused(kind, uri, message):
    client = ScoringClient if kind == "sync" else AsyncScoringClient
    with pytest.raises(ValueError, match=message) as caught:
        client(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"codec": "pickle"}, "codec must be one of json, npy, bytes, kserve or None"),
        ({"retries": -1}, "limit must be"),
        ({"credential": "two\nlines"}, "cannot stand in an HTTP header"),
        ({"credential": ""}, "credential is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, options, message):
    client = ScoringClient if kind == "sync" else AsyncScoringClient
    with pytest.raises(ValueError, match=message):
        client("http://127.0.0.1/score", **options)


def test_a_credential_of_another_type_is_refused_without_showing_it(kind):
    client: Any = ScoringClient if kind == "sync" else AsyncScoringClient
    with pytest.raises(TypeError, match="must be a key, a token or a callable, not bytes") as caught:
        client("http://127.0.0.1/score", KEY.encode())
    assert KEY not in str(caught.value)


def test_what_a_client_shows_of_itself(make, kind):
    name = "ScoringClient" if kind == "sync" else "AsyncScoringClient"
    for credential, shown in ((None, "None"), (KEY, "***"), (hands_out, "provider")):
        face = make(credential, uri="http://127.0.0.1:1/score?code=hush")
        expected = f"{name}('http://127.0.0.1:1/score', credential={shown}, timeout=60, codec=None)"
        assert repr(face.client) == expected


def test_bad_input_never_leaves(make, server):
    face = make()
    with pytest.raises(errors.BadInputError, match="There is no file 'lynx.jpg'") as caught:
        face.score("lynx.jpg")
    assert (caught.value.attempts, caught.value.status) == (0, None)
    assert server.seen == []


def test_files_are_read(make, server, steps, tmp_path):
    path = Path(tmp_path / "photo.jpg")
    path.write_bytes(b"\xff\xd8\xff photo")
    server.default = steps.answer(200, [1])
    face = make()
    with path.open("rb") as file:
        for x in (path, str(path), file):
            face.score(x)
    assert [seen.body for seen in server.seen] == [b"\xff\xd8\xff photo"] * 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate that nobody signed but itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from datetime import UTC, datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    built = built.add_extension(here, critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    built = built.serial_number(1).not_valid_before(now - timedelta(days=2)).not_valid_after(now + timedelta(days=1))
    plain = serialization.NoEncryption()
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_nobody_vouches_for_stops_the_request(make, steps, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tls = steps.server(context)
    face = make(KEY, uri=tls.uri)
    with pytest.raises(
        errors.ScoringConnectionError, match="certificate of https://127.0.0.1.*Nothing was sent"
    ) as caught:
        face.score(b"x")
    tls.close()
    assert caught.value.attempts == 1
    assert tls.seen == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_that_the_environment_vouches_for_is_taken(make, steps, certificate, monkeypatch, name):
    for other in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tls = steps.server(context)
    tls.plays(steps.answer(200, [1]))
    assert make(KEY, uri=tls.uri).score(b"x") == [1]
    tls.close()


# --- what only one of them has ----------------------------------------------------------------------------------------


def test_closing_wakes_those_who_wait_for_a_retry(server, steps):
    server.plays(steps.answer(503, b"", {"Retry-After": "30"}))
    client = ScoringClient(server.uri)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.score(b"x")
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not server.seen:
        time.sleep(0.005)
    client.close()
    thread.join(5)
    assert [str(error) for error in caught] == ["The client is closed."]


def test_the_sync_client_is_a_context_manager(server, steps):
    server.plays(steps.answer(200, [1]))
    with ScoringClient(server.uri) as client:
        assert client.score(b"x") == [1]
    with pytest.raises(RuntimeError, match="closed"):
        client.score(b"x")


def test_the_async_client_is_a_context_manager_and_takes_async_sources(server, steps):
    server.default = steps.answer(200, [1])

    async def source() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield b"x"

    async def token() -> str:
        await asyncio.sleep(0)
        return KEY

    async def main() -> list[Any]:
        async with AsyncScoringClient(server.uri, token) as client:
            return [result async for result in client.score_many(source())]

    assert asyncio.run(main()) == [[1]] * 3
    assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {KEY}"}


def test_an_async_provider_that_hangs_ends_at_the_deadline(server):
    async def hangs() -> str:
        await asyncio.sleep(60)
        return KEY

    async def main() -> None:
        async with AsyncScoringClient(server.uri, hangs, timeout=0.05) as client:
            await client.score(b"x")

    with pytest.raises(errors.AuthenticationError, match="gave nothing before the deadline"):
        asyncio.run(main())


def test_a_cancelled_call_is_cancelled(server, steps):
    arrived = threading.Event()

    def hang(*_: Any) -> bool:
        arrived.set()
        return not server.closing.wait(5)

    server.plays(hang)

    async def main() -> None:
        async with AsyncScoringClient(server.uri) as client:
            task = asyncio.create_task(client.score(b"x"))
            await asyncio.to_thread(arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_an_async_client_serves_one_event_loop_after_the_other(server, steps):
    server.default = steps.answer(200, [1])
    client = AsyncScoringClient(server.uri, hands_out)

    async def call() -> Any:
        result = await client.score(b"x")
        assert client._http is not None
        await client._http.aclose()  # what is left open, asyncio complains about
        return result

    assert [asyncio.run(call()) for _ in range(2)] == [[1], [1]]
    asyncio.run(client.close())

    async def elsewhere() -> None:
        async with AsyncScoringClient(server.uri) as shared:
            await shared.score(b"x")
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                await asyncio.to_thread(asyncio.run, shared.score(b"x"))

    asyncio.run(elsewhere())


def test_without_httpx_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'gpu-infer\[async\]'"):
        AsyncScoringClient("http://127.0.0.1/score")
    ScoringClient("http://127.0.0.1/score").close()


def test_the_package_loads_no_http_library_before_it_is_used():
    import subprocess

    code = (
        "import sys, gpu_infer.client as c\n"
        "assert not {'requests', 'httpx', 'numpy'} & set(sys.modules)\n"
        "c.ScoringClient\n"
        "assert 'requests' in sys.modules and 'httpx' not in sys.modules\n"
        "c.AsyncScoringClient\n"
        "assert 'httpx' not in sys.modules\n"
        "assert set(dir(c)) >= set(c.__all__)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
