"""One request sent over and over: what it reads, what it tries again, and what it never shows."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpu_infer.client import ScoringClient
from gpu_infer.client.messages import Failure, Response
from gpu_infer.client.repeated import Line, Repeated

KEY = "a-key-nobody-may-see"


@pytest.fixture
def line(server) -> Iterator[Callable[..., Line]]:
    """Makes connections to the scripted server."""
    made: list[tuple[Line, ScoringClient]] = []

    def new(credential: Any = None, *, uri: str | None = None, timeout: float = 5, **options: Any) -> Line:
        client = ScoringClient(uri or server.uri, credential, **options)
        made.append((client.repeated(b"abc", timeout=timeout).line(), client))
        return made[-1][0]

    yield new
    for one, client in made:
        one.close()
        client.close()


def test_one_connection_one_encoding_many_sendings(server, steps, line):
    server.default = steps.answer(200, [1], steps.ours)
    one = line()
    for _ in range(3):
        assert one.send() == Response(
            200, {"content-type": "application/json", "content-length": "3", **steps.ours}, b""
        )
    assert server.connections == 1
    assert [seen.body for seen in server.seen] == [b"abc"] * 3
    headers = server.seen[0].headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-gpu-infer-timeout-ms"] == "5000"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("data", "stays"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
            True,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", False),
    ],
)
def test_answers_are_read_to_their_end(server, steps, line, data: bytes, stays: bool):
    def whole(connection: Any, _: Any) -> bool:
        connection.sendall(data)
        return stays

    server.plays(whole, steps.answer(200, []))
    one = line()
    outcomes = [one.send(), one.send()]
    assert all(isinstance(outcome, Response) and outcome.status in (200, 204) for outcome in outcomes)
    assert server.connections == (1 if stays else 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 ok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    ],
)
def test_what_is_no_whole_answer_is_a_broken_connection(server, steps, line, data: bytes):
    server.plays(steps.raw(data))
    outcome = line().send()
    assert isinstance(outcome, Failure)
    assert outcome.kind == "broken"


def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again(server, steps, line):
    def then_close(connection: Any, _: Any) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return False

    server.default = then_close
    one = line()
    assert all(isinstance(one.send(), Response) for _ in range(5))
    assert server.connections == 5


def test_an_answer_that_does_not_come_ends_with_the_time_out(server, steps, line):
    server.plays(steps.wait_for(server.closing, steps.raw(b"")))
    outcome = line(timeout=0.1).send()
    assert isinstance(outcome, Failure)
    assert outcome.kind == "read_timeout"


def test_an_answer_that_drips_ends_with_the_time_out(server, steps, line):
    server.plays(steps.drip(b"x", pause=0.02, stop=server.closing))
    outcome = line(timeout=0.2).send()
    assert isinstance(outcome, Failure)
    assert outcome.kind == "read_timeout"


def test_nobody_there(line):
    outcome = line(uri="http://127.0.0.1:9/score").send()
    assert isinstance(outcome, Failure)
    assert outcome.kind == "connect"


def test_abort_ends_what_is_under_way(server, steps, line):
    arrived = threading.Event()

    def hang(connection: Any, seen: Any) -> bool:
        arrived.set()
        return steps.wait_for(server.closing, steps.raw(b""))(connection, seen)

    server.plays(hang)
    one = line(timeout=30)
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(one.send()))
    thread.start()
    assert arrived.wait(5)
    one.abort()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(outcomes[0], Failure)


def test_a_refused_key_is_fetched_again_once(server, steps, line):
    keys = iter(["old-key", "new-key", "never"])
    server.plays(steps.answer(401), steps.answer(200, []), steps.answer(200, []), steps.answer(401), steps.answer(401))
    one = line(lambda: next(keys))
    assert [one.send().status for _ in range(3)] == [200, 200, 401]
    sent = [seen.headers["authorization"] for seen in server.seen]
    assert sent == ["Bearer old-key", "Bearer new-key", "Bearer new-key", "Bearer new-key", "Bearer never"]


def test_a_key_that_cannot_be_had_is_told(line):
    def fails() -> str:
        raise RuntimeError(KEY)

    outcome = line(fails).send()
    assert isinstance(outcome, Failure)
    assert outcome.kind == "credential"
    assert KEY not in outcome.message


def test_the_key_stands_nowhere(server, steps, line):
    server.default = steps.answer(500)
    one = line(KEY)
    assert one.send() == Response(500, {"content-type": "application/json", "content-length": "0"}, b"")
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    for each in (one, one._message.__self__):  # type: ignore[attr-defined]
        assert KEY not in repr(vars(each))


def test_proxies_of_the_environment_are_taken_but_not_to_this_machine(server, steps, line, monkeypatch):
    server.default = steps.answer(200, [])
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{server.port}")
    assert isinstance(line(uri="http://scoring.example:8080/score?a=b").send(), Response)
    assert server.seen[0].path == "http://scoring.example:8080/score?a=b"
    assert server.seen[0].headers["host"] == "scoring.example:8080"
    assert server.seen[0].headers["proxy-authorization"] == "Basic bWU6cEBzcw=="
    assert isinstance(line().send(), Response)
    assert server.seen[1].path == "/score"
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ValueError, match="NO_PROXY=scoring.example"):
        line(uri="http://scoring.example/score")
    monkeypatch.setenv("no_proxy", "scoring.example")
    line(uri="http://scoring.example/score")


def test_encrypted(tmp_path, steps, line, monkeypatch):
    pem = tmp_path / "server.pem"
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    order = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*order.split(), "-keyout", pem, "-out", tmp_path / "cert.pem"], check=True, capture_output=True, timeout=60
    )
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    tls = steps.server(context)
    try:
        tls.default = steps.answer(200, [])
        outcome = line(KEY, uri=tls.uri).send()
        assert isinstance(outcome, Failure)
        assert outcome.kind == "tls"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
        one = line(KEY, uri=tls.uri)
        assert [one.send().status for _ in range(2)] == [200, 200]
        assert len(tls.seen) == 2
    finally:
        tls.close()


def test_it_is_made_by_the_client(server):
    with ScoringClient(server.uri) as client:
        assert isinstance(client.repeated([1.0, 2.0]), Repeated)
        with pytest.raises(ValueError, match="cannot be sent|list is empty"):
            client.repeated([])
