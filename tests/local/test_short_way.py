"""The short way of plain requests, beside the stock server's: nobody can tell one from the other but by the time."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import gpu_infer
from gpu_infer.service import Service

STOCK = "TE: trailers"
"""A header that changes nothing, and which no plain request has."""

CHUNKED = (
    b'POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n{"data": [[1, 2, 3, 4]]}\r\n0\r\n\r\n'
)

CHANGING = re.compile(r"^(date|x-ms-run-fn-exec-ms|x-gpu-infer-queue-ms): .*$", re.MULTILINE | re.IGNORECASE)
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def service(tiny_model: Path) -> Iterator[Service]:
    with gpu_infer.deploy(tiny_model, environment_variables={"GPU_INFER_MAX_BODY_MB": "1"}) as service:
        yield service


def connect(service: Service) -> socket.socket:
    address = urlsplit(service.scoring_uri)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=20)


def request(*headers: str, body: bytes = b'{"data": [[1, 2, 3, 4]]}', line: str = "POST /score HTTP/1.1") -> bytes:
    head = "\r\n".join([line, "Host: x", f"Content-Length: {len(body)}", *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def read_answer(file: io.BufferedReader) -> tuple[str, bytes]:
    """Head and body of the next answer, empty where there is none."""
    head = b"".join(iter(file.readline, b"\r\n")) if file.peek(1) else b""
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return head.decode("latin-1"), file.read(int(length[1])) if length else b""


def ask(service: Service, *requests: bytes) -> list[tuple[str, bytes]]:
    """Send everything at once over one connection; the answers to it."""
    with closing(connect(service)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"".join(requests))
        return [read_answer(file) for _ in requests]


def same(head: str) -> str:
    return IDS.sub("ID", CHANGING.sub(r"\1: ...", head))


@pytest.fixture
def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones((2, 4), np.float32))
    return stream.getvalue()


def test_the_answers_are_the_same_to_the_header(service: Service, npy: bytes) -> None:
    json = "Content-Type: application/json"
    requests: list[tuple[list[str], bytes]] = [
        ([json], b'{"data": [[1, 2, 3, 4]]}'),
        ([json], b'{"data": [[1, 2, 3]]}'),
        ([json], b'{"data": '),
        ([json, "x-gpu-infer-timeout-ms: soon"], b'{"data": [[1, 2, 3, 4]]}'),
        ([json, "x-gpu-infer-timeout-ms: 0.000001"], b'{"data": [[1, 2, 3, 4]]}'),
        (["Content-Type: application/x-npy", "Accept: application/x-npy"], npy),
        (["Content-Type: application/x-npy"], npy),
        (["Content-Type: text/html"], b"<p>"),
        ([], b""),
        (["x-request-id: mine", "x-ms-client-request-id: yours"], b'{"data": [[1, 2, 3, 4]]}'),
        (["X-REQUEST-ID:mine \t", "x-ms-request-id: older", "TraceId: trace"], b'{"data": [[1, 2, 3, 4]]}'),
        (["x-ms-request-id: older", "x-ms-client-request-id: newer", "Empty:"], b'{"data": [[1, 2, 3, 4]]}'),
        (["x-request-id: " + "a" * 101], b'{"data": [[1, 2, 3, 4]]}'),
        ([json, "Connection: close"], b'{"data": [[1, 2, 3, 4]]}'),
        ([json, "Connection: Keep-Alive"], b'{"data": [[1, 2, 3, 4]]}'),
    ]
    for headers, body in requests:
        ((head, answer),) = ask(service, request(*headers, body=body))
        ((stock_head, stock_answer),) = ask(service, request(*headers, STOCK, body=body))
        assert head.startswith("HTTP/1.1 ")
        assert (same(head), answer) == (same(stock_head), stock_answer), headers


def test_both_ways_share_a_connection(service: Service, npy: bytes) -> None:
    requests = [
        request(),
        request(STOCK, body=npy),
        request(body=npy),
        request(line="GET / HTTP/1.1", body=b""),
        request(line="GET /score?gpu_infer=describe HTTP/1.1", body=b"nobody reads this"),
        CHUNKED,
        request(line="POST /nowhere HTTP/1.1"),
        request(),
    ]
    answers = ask(service, *requests)
    assert [head.split()[1] for head, _ in answers] == ["200", "200", "200", "200", "200", "200", "404", "200"]
    right = b"[[2.0,4.0,6.0,8.0]]"
    assert [answers[at][1] for at in (0, 5, 7)] == [right] * 3
    assert answers[1][1] == answers[2][1] == b"[[2.0,2.0,2.0,2.0],[2.0,2.0,2.0,2.0]]"
    assert answers[3][1] == b"Healthy"


def test_requests_that_come_in_pieces(service: Service) -> None:
    whole = request() + request(STOCK) + request()
    with closing(connect(service)) as sock, sock.makefile("rb") as file:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(whole), 7):
            sock.sendall(whole[at : at + 7])
            time.sleep(0.001)
        assert [read_answer(file)[1] for _ in range(3)] == [b"[[2.0,4.0,6.0,8.0]]"] * 3


def test_what_is_not_plain_is_refused_by_gunicorn(service: Service) -> None:
    """Where servers differ on where a request ends, a proxy in front can be deceived."""
    line = b"POST /score HTTP/1.1\r\nHost: x\r\n"
    for sent in (
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n[1,2]",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: +5\r\n\r\n[1,2]",
        b"Content-Length: -5\r\n\r\n",
        b"Content-Length : 5\r\n\r\n[1,2]",
        b"A: b\r\n c\r\nContent-Length: 5\r\n\r\n[1,2]",
        b"A: b\nContent-Length: 5\r\n\r\n[1,2]",
        b"A: b\0\r\nContent-Length: 5\r\n\r\n[1,2]",
        b"A\r\nContent-Length: 5\r\n\r\n[1,2]",
    ):
        with closing(connect(service)) as sock:
            sock.sendall(line + sent + request())
            answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 "), f"refused, and the connection ends: {sent!r}"
        assert answer.count(b"HTTP/1.1") == 1, f"what follows is not taken for a request: {sent!r}"


def test_a_head_without_an_end_is_refused(service: Service) -> None:
    with closing(connect(service)) as sock:
        sock.sendall(b"POST /score HTTP/1.1\r\nA: " + b"a" * (1 << 17))
        assert sock.recv(12) == b"HTTP/1.1 431"


def test_what_is_not_http_is_refused_at_once(service: Service) -> None:
    with closing(connect(service)) as sock:
        sock.settimeout(5)
        sock.sendall(b"GET / HTTP/1.1\nHost: x\n\n")
        assert sock.recv(12) == b"HTTP/1.1 400"


def test_more_headers_than_gunicorn_takes(service: Service) -> None:
    many = request(*[f"h{number}: x" for number in range(150)])
    for sent in (many, request("long: " + "a" * 9000)):
        ((head, _),) = ask(service, sent)
        assert head.split()[1] in ("400", "431"), "as the stock server says it"


def test_too_long_a_body_is_refused_before_it_comes(service: Service) -> None:
    with closing(connect(service)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
        head, body = read_answer(file)
    assert head.startswith("HTTP/1.1 413 ")
    assert b"larger than 1 MiB" in body


def test_who_hangs_up_in_the_middle_of_a_body_is_told_if_still_listening(service: Service) -> None:
    with closing(connect(service)) as sock:
        sock.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[1,2")
        sock.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"The body ends after 4 of 100 bytes." in answer


@pytest.mark.slow
def test_a_silent_connection_is_ended(tiny_model: Path) -> None:
    arguments = "--worker-class gpu_infer_serving._gunicorn_worker.Worker --keep-alive 1"
    with gpu_infer.deploy(tiny_model, environment_variables={"GUNICORN_CMD_ARGS": arguments}) as service:
        with closing(connect(service)) as silent, closing(connect(service)) as halting:
            halting.sendall(b"POST /score HTTP/1.1\r\nHo")
            assert silent.recv(1) == b""
            assert halting.recv(1) == b""
        with closing(connect(service)) as refused:
            refused.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n{")
            assert b"".join(iter(lambda: refused.recv(65536), b"")).startswith(b"HTTP/1.1 413 ")
        with closing(connect(service)) as stopping:
            stopping.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            assert stopping.recv(1) == b""
        with closing(connect(service)) as sock, sock.makefile("rb") as file:
            for _ in range(4):  # one that asks now and then stays
                sock.sendall(request())
                assert read_answer(file)[0].startswith("HTTP/1.1 200")
                time.sleep(0.5)


def test_a_worker_ends_after_as_many_requests_as_gunicorn_was_told(tiny_model: Path) -> None:
    arguments = "--worker-class gpu_infer_serving._gunicorn_worker.Worker --keep-alive 75 --max-requests 20"
    with gpu_infer.deploy(tiny_model, environment_variables={"GUNICORN_CMD_ARGS": arguments}) as service:
        heads = [head for head, _ in ask(service, *[request()] * 30) if head]
        assert 10 < len(heads) <= 20, "probes count, too"
        assert ["Connection: close" in head for head in heads] == [False] * (len(heads) - 1) + [True]
        assert service.score(np.ones(4)).tolist() == [2, 2, 2, 2], "another worker has taken its place"


def test_idle_connections_keep_nobody_out(tiny_model: Path) -> None:
    arguments = "--worker-class gpu_infer_serving._gunicorn_worker.Worker --keep-alive 75 --worker-connections 20"
    with (
        gpu_infer.deploy(tiny_model, environment_variables={"GUNICORN_CMD_ARGS": arguments}) as service,
        ExitStack() as stack,
    ):
        for _ in range(60):
            sock = stack.enter_context(closing(connect(service)))
            file = stack.enter_context(sock.makefile("rb"))
            sock.sendall(request())
            assert read_answer(file)[0].startswith("HTTP/1.1 200"), "and no one hangs up"


def test_where_the_stock_server_does_more_all_requests_go_there(tiny_model: Path) -> None:
    with gpu_infer.deploy(tiny_model, environment_variables={"AML_CORS_ORIGINS": "https://example.org"}) as service:
        ((head, _),) = ask(service, request("Origin: https://example.org"))
        assert "Access-Control-Allow-Origin: https://example.org" in head
    with gpu_infer.deploy(tiny_model, environment_variables={"GPU_INFER_ACCESS_LOG": "1"}) as service:
        ask(service, request())
        assert "azmlinfsrv - POST /score 200" in service.logs()


def test_without_gevent_requests_are_threads(tiny_model: Path, tmp_path: Path, npy: bytes) -> None:
    (tmp_path / "gevent.py").write_text("raise ImportError('not installed')\n")
    with gpu_infer.deploy(tiny_model, environment_variables={"PYTHONPATH": str(tmp_path)}) as service:
        assert "gevent is not installed" in service.logs()
        answers = ask(service, request(), request(body=npy), request(line="GET / HTTP/1.1", body=b""))
        assert [body for _, body in answers][::2] == [b"[[2.0,4.0,6.0,8.0]]", b"Healthy"]
