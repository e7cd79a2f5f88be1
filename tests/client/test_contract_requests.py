"""What a request carries and how its answer is read, over a real socket, sync and async alike; time is scripted."""

from __future__ import annotations

import gzip
import io
import json
import re
from typing import Any

import numpy as np
import pytest

from gpu_infer import errors
from gpu_infer.client import ScoreResponse


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


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
    server.describes = None
    server.plays(*[steps.answer(200, {"what": name}, steps.ours) for name in ("describe", "stats", "gpu")])
    face = make(uri=server.uri + "?v=1")
    assert [face.describe(), face.stats(), face.gpu_report()] == [{"what": n} for n in ("describe", "stats", "gpu")]
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("GET", f"/score?v=1&gpu_infer={name}") for name in ("describe", "stats", "gpu")
    ]


def test_a_foreign_service_has_no_reports(make, server, steps):
    server.describes = None
    server.plays(steps.answer(405, b"GET is not supported", content_type="text/plain"), steps.answer(200, "Healthy"))
    face = make()
    with pytest.raises(errors.ScoringError, match=r"405: GET is not supported\. .* a gpu_infer service"):
        face.describe()
    with pytest.raises(errors.ScoringError, match="only services built by gpu_infer do"):
        face.gpu_report()
