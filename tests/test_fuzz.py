"""Thousands of hostile requests against the stock server and a real model: no 5xx of ours, no hang, right after."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import gpu_infer

EXAMPLES = 2_000
"""In `make test`; `make test-all` sends five times as many."""

CONTENT_TYPES = [
    "image/jpeg",
    "image/png",
    "image/x-unknown",
    "application/octet-stream",
    "application/x-npy",
    "application/json",
    "application/ld+json; charset=utf-16",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "text/plain",
    "",
    "/",
    ";;",
]
HEADERS = {
    "Accept": st.sampled_from(["*/*", "application/x-npy", "application/x-npy;q=0", "text/html", ",;=", "\xff"]),
    "x-gpu-infer-items": st.sampled_from(["one", "many", "few", "", "\xe9"]),
    "x-gpu-infer-timeout-ms": st.sampled_from(["60000", "1e9", "-1", "nan", "inf", "x", "0"]),
    "x-ms-client-request-id": st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=120),
    "Content-Encoding": st.sampled_from(["gzip", "identity", "br"]),
    "Transfer-Encoding-Not": st.just("chunked"),
}


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def json_bodies() -> st.SearchStrategy[bytes]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=8)
        | st.fixed_dictionaries({"b64": st.sampled_from(["", "AAAA", "!", "/9j/", 3])})
    )
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner)
    )
    return st.builds(lambda value, wrap: json.dumps({"data": value} if wrap else value).encode(), values, st.booleans())


def parts(bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    def join(pieces: list[tuple[str, bytes]]) -> bytes:
        head = b'--b\r\nContent-Disposition: form-data; name="x"; filename="f"\r\nContent-Type: '
        return (
            b"".join(head + kind.encode("latin1") + b"\r\n\r\n" + body + b"\r\n" for kind, body in pieces)
            + b"--b--\r\n"
        )

    return st.lists(st.tuples(st.sampled_from(CONTENT_TYPES), bodies), max_size=3).map(join)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """A real body with a few bytes changed, cut short, or with something in front or behind."""
    body = bytearray(original)
    for _ in range(draw(st.integers(0, 4))):
        body[draw(st.integers(0, min(len(body), 700) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(body)))
    return draw(st.sampled_from([b"", b"x"])) + bytes(body[: end if draw(st.booleans()) else len(body)])


@pytest.fixture(scope="module")
def service(shared_models: Path) -> Iterator[gpu_infer.Service]:
    with gpu_infer.deploy(shared_models / "efficientnet_lite0_jpg_savedmodel", output="probabilities") as deployed:
        yield deployed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(5 * EXAMPLES, marks=pytest.mark.slow)])
def test_hostile_requests(service: gpu_infer.Service, snowleopard: Path, examples: int) -> None:
    address = urlsplit(service.scoring_uri)
    picture = snowleopard.read_bytes()
    array = npy(np.zeros((2, 3), np.float32))
    bodies = st.binary(max_size=200) | json_bodies() | mutated(array) | mutated(picture)
    seen: Counter[int | str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
    @given(
        st.sampled_from(["POST"] * 12 + ["GET", "PUT", "OPTIONS", "HEAD"]),
        st.sampled_from(["/score"] * 6 + ["/score?gpu_infer=stats", "/score?gpu_infer=%00&x", "/score?a=[1", "/"]),
        st.sampled_from(CONTENT_TYPES),
        st.fixed_dictionaries({}, optional=HEADERS),
        bodies | parts(bodies),
    )
    def send(method: str, path: str, content_type: str, headers: dict[str, str], body: bytes) -> None:
        all_headers = {**headers, "Content-Type": content_type, "Connection": "close"}
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        with contextlib.closing(connection):
            try:
                connection.request(
                    method, path, body, {key: value.encode("latin1") for key, value in all_headers.items()}
                )
                answer = connection.getresponse()
                text = answer.read()
            except ConnectionError:  # refused by its headers alone, before the body was read
                seen["hung up"] += 1
                return
        seen[answer.status] += 1
        fine = answer.status < 500 or answer.getheader("x-gpu-infer-error") == "model_error"
        assert fine, (answer.status, text[:500])

    send()
    assert seen["hung up"] < examples / 20, seen
    assert seen[200] > examples / 100, seen
    probabilities = service.score(snowleopard)
    assert probabilities.argmax() == 289
    assert probabilities[289] == pytest.approx(0.837, abs=0.01)
    print("answers by status:", dict(seen.most_common()))


def test_callers_that_hang_up(service: gpu_infer.Service, snowleopard: Path) -> None:
    """Headers without a body, half a body, a body longer than it says: the server drops them and answers the next."""
    address = urlsplit(service.scoring_uri)
    picture = snowleopard.read_bytes()
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    for sent in (
        head % len(picture),
        head % len(picture) + picture[:1000],
        head % 10 + picture,
        b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\r\n" * 50,
    ):
        for _ in range(5):
            place = (address.hostname or "", address.port or 0)
            # The server may hang up first, over what it cannot read.
            with contextlib.suppress(OSError), socket.create_connection(place, timeout=10) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
    assert service.score(snowleopard).argmax() == 289
