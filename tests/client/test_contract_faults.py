"""What may go wrong between sending and the end of an answer, over a real socket, sync and async alike."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import RetryPolicy

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "broke before the whole answer"),
        (b"HTTP/1.1", "broke before the whole answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "broke before the whole answer"),
        (b"\x00\xff\xfe" * 100, "broke before the whole answer"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "broke before the whole answer"),
        (HEAD + b"Content-Length: 10\r\n\r\n[1", "broke before the whole answer"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n[1", "broke before the whole answer"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[1]\r\n0\r\n\r\n", "broke before the whole answer"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n[1]", "here: it cannot be unpacked"),
        (HEAD + b"X-Long: " + b"x" * 200_000 + b"\r\n\r\n", "broke before the whole answer"),
    ],
    ids=[
        "nothing", "half a line", "not HTTP", "noise", "no status", "short body", "short chunk", "no chunk", "not gzip",
        "long headers",
    ],
)  # fmt: skip
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_what_is_no_whole_answer_is_a_connection_that_broke(make, server, steps, answer, message, reset):
    server.plays(*[steps.raw(answer, reset=reset)] * 2, steps.answer(200, [1]))
    face = make()
    with pytest.raises(errors.ScoringConnectionError, match=message) as caught:
        face.score(b"x")
    assert (caught.value.attempts, caught.value.status) == (1, None)
    assert make(retries=RetryPolicy(idempotent=True)).score(b"x") == [1], "where repeating does no harm, it is repeated"


def test_a_packed_answer_that_is_cut_short_is_an_error_whatever_layer_sees_it(make, server, steps):
    packed = gzip.compress(b"[" + b"1," * 5000 + b"1]")
    server.plays(steps.answer(200, packed[:-20], {"Content-Encoding": "gzip"}))
    with pytest.raises(errors.ScoringError):
        make().score(b"x")


def test_an_answer_without_a_length_ends_with_the_connection(make, server, steps):
    server.plays(steps.raw(HEAD + b"\r\n[1, 2]"))
    assert make().score(b"x") == [1, 2]


def test_a_word_to_go_on_is_not_yet_the_answer(make, server, steps):
    whole = HEAD + b"Content-Length: 3\r\n\r\n[1]"
    server.plays(steps.raw(b"HTTP/1.1 100 Continue\r\n\r\n" + whole))
    assert make().score(b"x") == [1]


@pytest.mark.parametrize("status", [204, 205, 206])
def test_an_answer_without_content_is_no_result(make, server, steps, status):
    server.plays(steps.raw(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()))
    with pytest.raises(errors.ScoringError, match="The service answered, but the answer is empty") as caught:
        make().score(b"x")
    assert caught.value.status == status


def test_a_refusal_that_comes_before_the_body_is_read_is_heard(make, server, steps):
    """As routers do with bodies that are too large: they answer, and read no further."""
    server.plays(steps.answer(413, {"message": "over 100 MB"}, {"Connection": "close"}))
    with pytest.raises(errors.BadInputError, match="over 100 MB"):
        make().score(b"x" * 1_000_000)


def test_a_kept_connection_that_was_closed_in_the_meantime_is_an_attempt_that_broke(make, server, steps):
    closes = threading.Event()

    def answer_and_close(connection: socket.socket, seen: Any) -> bool:
        steps.answer(200, [1], steps.ours)(connection, seen)
        closes.set()
        return False

    server.plays(answer_and_close, steps.answer(200, [2], steps.ours))
    face = make()
    assert face.score(b"x") == [1]
    assert closes.wait(5)
    assert face.score(b"x") == [2]


@pytest.mark.parametrize("part", ["before", "status line", "headers", "body"])
def test_an_attempt_that_stops_anywhere_is_given_up_and_repeated(make, server, steps, part):
    begin = {
        "before": b"",
        "status line": b"HTTP/1.1 2",
        "headers": HEAD,
        "body": HEAD + b"Content-Length: 100\r\n\r\n[1,",
    }[part]

    def stall(connection: socket.socket, seen: Any) -> bool:
        connection.sendall(begin)
        server.closing.wait(5)
        return False

    server.plays(stall, steps.answer(200, [1]))
    face = make(retries=RetryPolicy(attempt_timeout=1.0, base=0, idempotent=True))
    face.real_time()
    assert face.score(b"x") == [1]
    assert len(server.seen) == 2


def test_an_attempt_whose_answer_drips_is_given_up_and_repeated(make, server, steps):
    """The socket's own limit would begin anew with each byte."""
    server.plays(steps.drip(b" ", pause=0.05, stop=server.closing), steps.answer(200, [1]))
    face = make(retries=RetryPolicy(attempt_timeout=1.0, base=0, idempotent=True))
    face.real_time()
    assert face.score(b"x") == [1]


_FORKING = """
import os, sys
from gpu_infer.client import ScoringClient
client = ScoringClient(sys.argv[1])
assert client.score(b"parent") == 6
child = os.fork()
if child == 0:
    os._exit(0 if client.score(b"child") == 5 else 1)
assert os.waitpid(child, 0)[1] == 0
assert client.score(b"parent again") == 12
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork() on Windows")
def test_a_forked_process_does_not_share_connections_with_its_parent(server, steps):
    server.default = lambda connection, seen: steps.answer(200, len(seen.body))(connection, seen)
    subprocess.run([sys.executable, "-c", _FORKING, server.uri], check=True, timeout=60)
    assert server.connections == 2
