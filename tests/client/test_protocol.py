"""The protocol by itself: no sockets, no clock, no sleep."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
from dataclasses import replace
from datetime import timedelta
from email.message import Message
from email.utils import format_datetime
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from outcomes import BUSY, CALL, NOW, response

from gpu_infer import errors
from gpu_infer.client.answers import problem_of, read_value, shorten, without_secrets
from gpu_infer.client.budget import BUDGET_TRICKLE, RetryBudget
from gpu_infer.client.codecs import (
    MAX_NPY_HEADER,
    decode_npy,
    encode_npy,
    image_type,
    multipart,
    npy_dtype,
)
from gpu_infer.client.credentials import Token
from gpu_infer.client.json_text import decode_json, encode_json
from gpu_infer.client.messages import Failure, Pause, Payload, Request, Response, ScoreResponse
from gpu_infer.client.protocol import (
    converse,
    new_request_id,
    report_request,
    score_request,
)
from gpu_infer.client.retry import (
    MIN_ATTEMPT,
    RETRY_AFTER_CAP,
    RetryPolicy,
    parse_retry_after,
    wait_before_retry,
)

# --- one call ---------------------------------------------------------------------------------------------------------

POLICIES = st.builds(
    RetryPolicy,
    limit=st.integers(0, 100),
    base=st.floats(0, 10),
    cap=st.floats(0, 100),
    retry_after_cap=st.floats(0, 1e4),
    attempt_timeout=st.none() | st.floats(0.01, 100),
    idempotent=st.booleans(),
    budget=st.none() | st.floats(0, 2),
)
OUTCOMES = st.one_of(
    st.builds(
        response,
        st.sampled_from([200, 301, 400, 401, 403, 404, 408, 424, 429, 500, 502, 503, 504, 599]),
        st.dictionaries(
            st.sampled_from(
                ["retry-after", "date", "x-gpu-infer-error", "x-ms-run-function-failed", "x-gpu-infer-device",
                 "retry-after-ms", "ms-azureml-model-error-statuscode", "location", "content-type"]
            ),
            st.one_of(
                st.text(max_size=20),
                st.sampled_from(["1", "0.5", "1e9", "True", "overloaded", "model_error", "503", "http://[", "true"]),
            ),
        ),
        st.binary(max_size=20),
    ),
    st.builds(
        Failure,
        st.sampled_from(["connect", "connect_timeout", "tls", "read_timeout", "broken", "too_large"]),
        st.just("why"),
    ),
)  # fmt: skip


@given(
    st.lists(OUTCOMES, max_size=30),
    st.floats(0.1, 300),
    st.floats(0, 20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    POLICIES,
    st.integers(0, 12),
)
def test_whatever_comes_a_call_ends_within_its_deadline_and_its_retries(
    script, timeout, slow, pure, renewable, patient, policy, tokens
):
    """Any sequence of outcomes ends in a result or a ScoringError; waits and attempts stay within what was allowed."""
    call = replace(CALL, timeout=timeout, pure=pure, renewable=renewable, patient=patient, policy=policy)
    budget = RetryBudget(policy.budget, reserve=tokens)
    time, sent, renewals = 0.0, 0, 0
    die = random.Random(0)
    watched: list[Any] = []
    expected: list[Any] = []
    talk = converse(
        call,
        clock=lambda: time,
        random=die.random,
        now=lambda: NOW,
        budget=budget,
        watch=lambda *attempt: watched.append(attempt),
    )
    todo = iter(script)
    event: Any = None
    ended: Any = None
    while ended is None:
        try:
            order = talk.send(event)
        except StopIteration as stop:
            ended = stop.value
        except errors.ScoringError as error:
            ended = error
        else:
            if isinstance(order, Pause):
                assert order.seconds > 0
                assert time + order.seconds + MIN_ATTEMPT <= timeout + 1e-6
                time, event = time + order.seconds, None
            else:
                assert 0 < order.timeout <= (policy.attempt_timeout or timeout)
                assert order.timeout <= order.remaining == timeout - time
                assert int(order.request.headers["x-gpu-infer-timeout-ms"]) == max(1, int(order.timeout * 1000))
                sent, renewals = sent + 1, renewals + order.renew
                took = min(slow, order.timeout)
                event = next(todo, BUSY)
                time += took
                expected.append((event, pytest.approx(took)))
    assert (ended.request_id, ended.elapsed) == ("abc", time)
    assert isinstance(ended, ScoreResponse) or ended.attempts == sent
    assert watched == expected
    assert patient or sent <= 1 + policy.limit + renewals, "a patient call goes on while there is time"
    if policy.budget is not None:
        assert sent - 1 - renewals <= tokens + BUDGET_TRICKLE * time + 1e-6
    assert renewals <= (1 if renewable else 0)
    assert time <= timeout + 1e-6


def test_a_call_whose_credential_took_all_the_time_is_a_time_out():
    clock = iter([0.0, 0.0, 59.9, 60.1, 60.1]).__next__
    talk = converse(
        replace(CALL, renewable=True), clock=clock, random=lambda: 0.5, now=lambda: NOW, budget=RetryBudget(None)
    )
    next(talk)
    with pytest.raises(errors.ScoringTimeoutError, match="time-out of 60 s") as caught:
        talk.send(response(401))
    assert caught.value.attempts == 1


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": ".5"}, 0.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Monday, 23-Nov-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT", "date": "Mon, 23 Nov 2026 12:00:20 GMT"}, 10.0),
        ({"retry-after": "Mon, 99 Nov 2026 12:00:30 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "20"}, 0.02),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ],
)
def test_retry_after_in_all_its_forms(headers, expected):
    assert parse_retry_after(headers, NOW) == expected


def test_a_date_needs_a_clock():
    assert parse_retry_after({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}) is None


NEARLY_RETRY_AFTER = st.one_of(
    st.text(max_size=60),
    st.text("0123456789.eE+-:, GMTMonNov", max_size=40),
    st.from_regex(
        r"(Mon|Tue), [0-9]{1,3} (Nov|Feb|Xyz) -?[0-9]{1,6} [0-9]{2}:[0-9]{2}(:[0-9]{2})? ?(GMT|[+-][0-9]{4,9})?"
    ),
    st.sampled_from(["9" * 400, "0x10", "1_000", "\u0663", "\uff11", "1e308", "-0", "Infinity", "\x00", "1 2"]),
)


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "date", "retry-after-ms", "x-ms-retry-after-ms"]), NEARLY_RETRY_AFTER
    ),
    st.none() | st.just(NOW),
)
def test_no_header_breaks_the_parser(headers, now):
    found = parse_retry_after(headers, now)
    assert found is None or (found >= 0 and math.isfinite(found))


@given(st.floats(0, 1e9, allow_nan=False))
def test_seconds_are_read_as_they_are_written(seconds):
    text = f"{seconds:.6f}"
    assert parse_retry_after({"retry-after": text}) == float(text)


@given(st.integers(0, 10**12), st.sampled_from(["retry-after-ms", "x-ms-retry-after-ms"]))
def test_milliseconds_are_read_as_they_are_written(milliseconds, name):
    assert parse_retry_after({name: str(milliseconds), "retry-after": "5"}) == milliseconds / 1000


@given(
    st.integers(0, 10**9),
    st.sampled_from(["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]),
)
def test_dates_are_read_in_all_three_forms_of_http(seconds, form):
    """RFC 9110, 5.6.7: the form of today, that of RFC 850, whose year has two digits, and that of asctime()."""
    until = NOW + timedelta(seconds=seconds)
    assert parse_retry_after({"retry-after": until.strftime(form)}, NOW) == seconds


@given(st.integers(-(10**6), 10**6))
def test_dates_are_measured_against_the_services_own_clock(seconds):
    until = NOW + timedelta(seconds=seconds)
    headers = {"retry-after": format_datetime(until, usegmt=True), "date": format_datetime(NOW, usegmt=True)}
    assert parse_retry_after(headers, NOW + timedelta(days=400)) == max(0, seconds)


# --- waits ------------------------------------------------------------------------------------------------------------

DICE = st.floats(0, 1, exclude_max=True)


@given(POLICIES, st.integers(0, 10_000), st.none() | st.floats(0, 1e6), st.floats(-10, 1e6), DICE)
def test_a_wait_honours_the_service_the_cap_and_the_deadline(policy, retry, asked, remaining, die):
    wait = wait_before_retry(policy, retry=retry, asked=asked, remaining=remaining, random=die)
    if wait is None:
        assert (asked or 0) + MIN_ATTEMPT > remaining - 1e-9
        return
    assert wait >= (asked or 0)
    assert wait - (asked or 0) <= policy.cap + 1e-6
    assert wait + MIN_ATTEMPT <= remaining + 1e-6
    assert wait - (asked or 0) <= policy.base * 2 ** min(retry, 60) + 1e-6


@given(POLICIES, st.integers(0, 100), DICE, DICE)
def test_jitter_is_full(policy, retry, low, high):
    assume(low <= high)
    waits = [wait_before_retry(policy, retry=retry, asked=None, remaining=1e6, random=die) for die in (0.0, low, high)]
    assert waits[0] == 0
    assert waits[1] is not None
    assert waits[2] is not None
    assert waits[1] <= waits[2]


@pytest.mark.parametrize("field", ["limit", "base", "cap", "retry_after_cap", "attempt_timeout", "budget"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_a_policy_that_cannot_be_is_refused(field, value):
    with pytest.raises(ValueError, match=f"RetryPolicy.{field} must be a finite number"):
        RetryPolicy(**{field: value})


def test_the_numbers_fit_each_other():
    policy = RetryPolicy()
    assert policy.retry_after_cap == RETRY_AFTER_CAP
    average = sum(min(policy.cap, policy.base * 2**n) / 2 for n in range(policy.limit))
    assert 10 < average < 30


# --- requests ---------------------------------------------------------------------------------------------------------


def test_ids_fit_into_azures_header():
    ids = {new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(found) <= 40 and found.isalnum() for found in ids)


@pytest.mark.parametrize(
    ("codec", "accept"),
    [
        (None, "application/x-npy, application/json;q=0.9"),
        ("npy", "application/x-npy, application/json;q=0.9"),
        ("json", "application/json"),
        ("bytes", "*/*"),
    ],
)
def test_what_a_codec_accepts(codec, accept):
    request = score_request("http://h/score", Payload("a/b", b"x", "many"), codec=codec, request_id="id")
    assert (request.method, request.url, request.body) == ("POST", "http://h/score", b"x")
    assert request.headers["Accept"] == accept
    assert request.headers["Content-Type"] == "a/b"
    assert request.headers["x-gpu-infer-items"] == "many"
    assert request.headers["x-ms-client-request-id"] == "id"


def test_without_a_count_the_rank_decides():
    request = score_request("http://h/score", Payload("a/b", b"x"), codec=None, request_id="id")
    assert "x-gpu-infer-items" not in request.headers


def test_reports_keep_the_query_of_the_address():
    assert report_request("http://h/score", "gpu", request_id="i").url == "http://h/score?gpu_infer=gpu"
    assert report_request("http://h/s?a=1", "stats", request_id="i").url == "http://h/s?a=1&gpu_infer=stats"


def test_values_do_not_show_their_bodies():
    assert "secret" not in repr(Request("POST", "u", {}, b"secret"))
    assert "secret" not in repr(Response(200, {}, b"secret"))
    assert "secret" not in repr(Payload("a/b", b"secret"))
    assert "secret" not in repr(Token("secret", 1))


# --- answers ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from(["application/x-npy", "application/json", "text/html", "x/y", ""]))
def test_no_answer_breaks_the_reader(body, content_type):
    with contextlib.suppress(ValueError):
        read_value(response(200, {"content-type": content_type}, body), None)


@given(OUTCOMES)
def test_every_outcome_has_a_verdict(outcome):
    problem = problem_of(outcome, NOW)
    if problem is not None:
        error = problem.to_error(request_id="abc", attempts=2, elapsed=1.25)
        assert "2 attempts, 1.2 s, request abc" in str(error)


@given(st.text())
def test_shortened_text_is_one_printable_line(text):
    line = shorten(text)
    assert line.isprintable()
    assert len(line) <= 303


def test_addresses_lose_what_may_be_secret():
    assert without_secrets("https://me:pw@host:8/score?sig=1#x") == "https://host:8/score"
    assert without_secrets("/relative?x") == "/relative"
    assert without_secrets("http://[::1") == ""


# --- npy --------------------------------------------------------------------------------------------------------------

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    arrays.complex_number_dtypes(endianness="?"),
    arrays.datetime64_dtypes(endianness="?"),
    arrays.timedelta64_dtypes(endianness="?"),
    arrays.byte_string_dtypes(endianness="?", max_len=5),
    arrays.unicode_string_dtypes(endianness="?", max_len=5),
    st.just(np.dtype(np.longdouble)),
    st.just(np.dtype([("x", "<f4"), ("y", ">i2", (2,))])),
)


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    """Equal in shape, dtype, byte order and every bit that counts: NaN equals NaN."""
    return (left.shape, left.dtype) == (right.shape, right.dtype) and left.tobytes() == right.tobytes()


@given(st.data(), DTYPES, SHAPES, st.sampled_from(["C", "F", "strided", "transposed"]))
def test_every_array_comes_back_as_it_was(data, dtype, shape, layout):
    array = data.draw(arrays.arrays(dtype, shape))
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "strided" and array.ndim:
        array = array[::-1]
    elif layout == "transposed":
        array = array.T
    back = decode_npy(encode_npy(array))
    assert same(np.asarray(array), back)
    assert back.flags.writeable
    assert back.flags.owndata or back.base is not None


def test_numpy_reads_what_we_write_and_we_read_what_numpy_writes():
    for array in (np.arange(6.0).reshape(2, 3), np.array(1), np.zeros((0, 3), ">i4"), np.array([math.nan, math.inf])):
        np.testing.assert_array_equal(np.load(io.BytesIO(encode_npy(array)), allow_pickle=False), array)
        for version in ((1, 0), (2, 0), (3, 0)):
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array, version=version)
            np.testing.assert_array_equal(decode_npy(stream.getvalue()), array)


@pytest.mark.parametrize(
    ("name", "wider"),
    [("bfloat16", "float32"), ("float8_e4m3fn", "float32"), ("int4", "int8"), ("uint4", "uint8")],
)
def test_dtypes_that_numpy_does_not_know_are_widened(name, wider):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    back = decode_npy(encode_npy(np.array([1, 2, 3]).astype(getattr(ml_dtypes, name))))
    assert back.dtype == wider
    assert back.tolist() == [1, 2, 3]


@pytest.mark.parametrize("array", [np.array([{}]), np.array([(1, {})], dtype=[("a", "i4"), ("b", "O")])])
def test_objects_are_never_written(array):
    with pytest.raises(ValueError, match="cannot be written without pickling"):
        encode_npy(array)


def npy_with_header(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin-1")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not begin"),
        (b"\x93NUMPY\x01", "does not begin"),
        (b"\x93NUMPY\x09\x00\x00\x00\x00", "version 9"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", f"header claims 4,294,967,295 bytes; {MAX_NPY_HEADER:,}"),
        (b"\x93NUMPY\x01\x00\xff\x00{}", "cut short inside its header"),
        (npy_with_header("{}"), "header cannot be read: KeyError"),
        (npy_with_header("import os"), "header cannot be read: SyntaxError"),
        (npy_with_header("(" * 9000), "header cannot be read"),
        (npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "claims the shape"),
        (npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,)}"), "header cannot be read"),
        (npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,)}"), "is cut short"),
        (npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"x", "pickled Python objects"),
        (npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}") + b"12345", "bytes behind its end"),
    ],
)  # fmt: skip
def test_npy_that_is_none_says_why(body, message):
    with pytest.raises(ValueError, match=message):
        decode_npy(body)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_npy_reader(noise):
    good = encode_npy(np.arange(4, dtype=np.float32))
    for body in (noise, b"\x93NUMPY\x01\x00" + noise, good[: len(noise)] + noise, good[:-16] + noise):
        try:
            array = decode_npy(body)
        except ValueError:
            continue
        assert isinstance(array, np.ndarray)
        assert npy_dtype(body) == array.dtype


# --- JSON -------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_every_json_value_comes_back_as_it_was(value):
    assert decode_json(encode_json(value)) == value


@given(arrays.arrays(arrays.floating_dtypes(sizes=(16, 32, 64)), SHAPES, elements={"allow_infinity": False}))
def test_arrays_are_lists_and_nan_is_null(array):
    text = encode_json({"data": array})
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    back = np.array(decode_json(text)["data"], dtype=object).reshape(array.shape)
    assert [value is None for value in back.ravel()] == np.isnan(array).ravel().tolist()
    np.testing.assert_array_equal(back.astype(np.float64).astype(array.dtype), array)


def test_numpys_own_values_have_a_json_form():
    value = {
        "a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.array(["x"]), "e": b"\x00\xff",
        "f": np.array([b"ab"]), "g": np.float64("nan"), "h": (1, np.array(2)), "i": np.longdouble(1.5),
    }  # fmt: skip
    assert json.loads(encode_json(value)) == {
        "a": 0.5, "b": 3, "c": True, "d": ["x"], "e": {"b64": "AP8="},
        "f": [{"b64": "YWI="}], "g": None, "h": [1, 2], "i": 1.5,
    }  # fmt: skip


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.inf, "infinity is not JSON; send an array as .npy"),
        ({"a": np.array([1, -np.inf])}, "infinity is not JSON"),
        (np.array([1j]), "JSON has no form for it: arrays of dtype complex128"),
        ({1, 2}, "objects of type set"),
        ({(1, 2): 3}, "keys must be str"),
        (LOOP, "contains itself"),
    ],
)
def test_what_json_cannot_say(value, message):
    with pytest.raises(ValueError, match=message):
        encode_json(value)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_multipart_is_what_the_standard_library_reads():
    from email.parser import BytesParser

    parts = [Payload("image/jpeg", b"\xff\xd8\r\n--b\r\n"), Payload("application/x-npy", encode_npy(np.zeros(2)))]
    payload = multipart(parts, "boundary")
    message = BytesParser().parsebytes(b"Content-Type: " + payload.content_type.encode() + b"\r\n\r\n" + payload.body)
    found = message.get_payload()
    assert isinstance(found, list)
    for index, (part, expected) in enumerate(zip(cast("list[Message]", found), parts, strict=True)):
        assert part.get_content_type() == expected.content_type
        assert part.get_filename() == str(index)
        assert part.get_param("name", header="content-disposition") == "item"
    assert payload.body.count(parts[1].body) == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8", "image/webp"),
        (b"II*\x00", "image/tiff"),
        (b"BM\x46\x00\x00\x00\x00\x00\x00\x00", "image/bmp"),
        (b"BMW is a car", None),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"", None),
    ],
)
def test_images_are_known_by_their_first_bytes(data, expected):
    assert image_type(data) == expected
