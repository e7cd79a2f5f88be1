"""Answers that are no result, over a real socket, sync and async alike; time is scripted."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
import pytest

from gpu_infer import errors

KEY = "sesame-0123456789abcdef"


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


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
