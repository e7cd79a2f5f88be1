"""Callers of all kinds, good and bad, quick and slow, in a process of their own.

``python soak_load.py PORT SECONDS FOLDER`` prints JSON: how many answers of which kind, and what was not as it should
be. ``FOLDER`` has ``rows.npy`` float32 ``[n, 784]`` and ``logits.npy`` float32 ``[n, 10]``, the right answers.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HOST = "127.0.0.1"
TIMEOUT = 60.0
TOLERANCE = 1e-3
SIZES = (1, 1, 1, 2, 7, 32, 33, 150)
"""Items of a good request: most have one; the last ones take several batches."""

LONG = 500
"""Items of a request whose answer is read slowly: nearly as many as a service lets wait."""

NPY = "application/x-npy"
JSON = "application/json"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset instead of an end."""


class Callers:
    """Threads that call one service until their time is over.

    Args:
        port: of the service, on 127.0.0.1.
        folder: with the items and what must come out.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.rows: np.ndarray = np.load(folder / "rows.npy")
        self.logits: np.ndarray = np.load(folder / "logits.npy")
        self.outcomes: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Run all callers side by side."""
        kinds: list[Callable[[random.Random], None]] = [
            *[self.good_kept] * 4,
            *[self.good_new] * 2,
            *[self.bad] * 2,
            *[self.dribbled] * 2,
            self.read_slowly,
            *[self.aborted] * 2,
            self.reports,
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(kind, random.Random(number)))
            for number, kind in enumerate(kinds)
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self._stop.set()
        for thread in threads:
            thread.join(2 * TIMEOUT)
            if thread.is_alive():
                self._count("lost", f"a caller still waits {2 * TIMEOUT:g} s after the end")

    def _repeat(self, kind: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                kind(chance)
            except (OSError, http.client.HTTPException) as error:
                self._count("lost", f"{kind.__name__}: {type(error).__name__}: {error}")
                time.sleep(0.1)
            except Exception as error:  # noqa: BLE001 - a caller that ends would leave its kind out for the rest of the time
                self._count("failed", f"{kind.__name__}: {type(error).__name__}: {error}")
                time.sleep(0.1)

    def _count(self, outcome: str, detail: str = "") -> None:
        with self._lock:
            self.outcomes[outcome] += 1
            if detail and len(self.unexpected) < 20:
                self.unexpected.append(detail)

    # --- good ---------------------------------------------------------------------------------------------------------

    def good_kept(self, chance: random.Random) -> None:
        """Some requests over one connection."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            for _ in range(chance.randrange(1, 100)):
                self._ask(connection, chance, kind="kept")
                if self._stop.is_set():
                    return

    def good_new(self, chance: random.Random) -> None:
        """A connection for one request."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            self._ask(connection, chance, kind="new", extra={"Connection": "close"} if chance.random() < 0.5 else {})
        time.sleep(0.005)

    def _ask(
        self, connection: http.client.HTTPConnection, chance: random.Random, *, kind: str, extra: Any = None
    ) -> None:
        body, headers, right = self.question(chance, chance.choice(SIZES))
        connection.request("POST", "/score", body, {**headers, **(extra or {})})
        answer = connection.getresponse()
        self.judge(answer.status, answer.headers.get_content_type(), answer.read(), right, kind=kind)
        time.sleep(0.002)

    def question(self, chance: random.Random, count: int) -> tuple[bytes, dict[str, str], np.ndarray]:
        """Body and headers of a good request, and what must come out."""
        chosen = [chance.randrange(len(self.rows)) for _ in range(count)]
        rows = self.rows[chosen]
        headers = {"Accept": chance.choice((JSON, NPY)), "Content-Type": chance.choice((JSON, NPY))}
        if headers["Content-Type"] == NPY:
            stream = io.BytesIO()
            np.save(stream, rows)
            return stream.getvalue(), headers, self.logits[chosen]
        return json.dumps({"data": rows.tolist()}).encode(), headers, self.logits[chosen]

    def judge(self, status: int, content_type: str, body: bytes, right: np.ndarray, *, kind: str) -> None:
        """Count an answer to a good request."""
        if status == 503:
            self._count("turned away")  # legitimate now and then: the largest requests come close to the queue's length
            return
        if status != 200:
            self._count(f"{kind}: {status}", f"{kind}: {status} {body[:200]!r}")
            return
        found = np.load(io.BytesIO(body)) if content_type == NPY else np.asarray(json.loads(body))
        if found.shape != right.shape or np.abs(found - right).max() > TOLERANCE:
            self._count("wrong", f"{kind}: {found.shape} instead of {right.shape}, or other numbers")
        else:
            self._count(f"{kind}: right")

    # --- bad ----------------------------------------------------------------------------------------------------------

    def bad(self, chance: random.Random) -> None:
        """A request that must be refused, each for its own fault."""
        row = json.dumps(self.rows[:1].tolist())
        good = {"Content-Type": JSON}
        refused: list[tuple[str, bytes, dict[str, str], int]] = [
            ("/score", b'{"data": [[0.1, 0.2', good, 400),
            ("/score", b"", good, 400),
            ("/score", b'{"data": [["a", "b"]]}', good, 400),
            ("/score", b'{"data": [[1, 2, 3]]}', good, 400),
            ("/score", b'{"data": [[1], [2, 3]]}', good, 400),
            ("/score", b"\x93NUMPY\x01\x00", {"Content-Type": NPY}, 400),
            ("/score", row.encode(), {"Content-Type": "text/csv"}, 415),
            ("/score", row.encode(), {**good, "x-gpu-infer-timeout-ms": "never"}, 400),
            ("/score", b"x" * 100_000, {"Content-Type": "image/jpeg"}, 400),
            ("/nowhere", row.encode(), good, 404),
        ]
        if chance.random() < 0.1:
            self._too_large()
        else:
            path, body, headers, status = chance.choice(refused)
            connection = http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT)
            with contextlib.closing(connection):
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                said = answer.read()
            # A content type that the service does not know is read as what it looks like, or refused: both are known.
            if answer.status == status or (status in {400, 415} and answer.status in {400, 415}):
                self._count(f"bad: {answer.status}")
            else:
                self._count("bad: unexpected", f"bad: {answer.status} for {path} {body[:40]!r}: {said[:200]!r}")
        time.sleep(0.02)

    def _too_large(self) -> None:
        """A body of 200 MB is announced; the answer must come without it."""
        with self._connected() as sock:
            sock.sendall(self._head(200_000_000, {"Content-Type": JSON}) + b"[" * 1000)
            status, _, _ = read_answer(sock)
        self._count(*(["bad: 413"] if status == 413 else ["bad: unexpected", f"bad: {status} for 200 MB"]))

    # --- slow ---------------------------------------------------------------------------------------------------------

    def dribbled(self, chance: random.Random) -> None:
        """A good request whose body comes in drops."""
        body, headers, right = self.question(chance, 1)
        with self._connected() as sock:
            sock.sendall(self._head(len(body), headers))
            drops = chance.randrange(2, 12)
            size = len(body) // drops + 1
            for at in range(0, len(body), size):
                sock.sendall(body[at : at + size])
                time.sleep(chance.uniform(0.01, 0.3))
            status, content_type, answer = read_answer(sock)
        self.judge(status, content_type, answer, right, kind="dribbled")

    def read_slowly(self, chance: random.Random) -> None:
        """A good request whose answer, of a hundred kilobytes, is read in sips."""
        chosen = [chance.randrange(len(self.rows)) for _ in range(LONG)]
        stream = io.BytesIO()
        np.save(stream, self.rows[chosen])
        body = stream.getvalue()
        with self._connected(receive_buffer=8192) as sock:
            sock.sendall(self._head(len(body), {"Content-Type": NPY, "Accept": JSON}) + body)
            status, content_type, answer = read_answer(sock, sip=4096, pause=0.05)
        self.judge(status, content_type, answer, self.logits[chosen], kind="read slowly")
        time.sleep(0.5)

    # --- aborted ------------------------------------------------------------------------------------------------------

    def aborted(self, chance: random.Random) -> None:
        """A caller that hangs up: without a word, within the head or the body, or before the answer."""
        body, headers, _ = self.question(chance, chance.choice(SIZES))
        request = self._head(len(body), headers) + body
        head = len(request) - len(body)
        how, end = chance.choice(
            (
                ("at once", 0),
                ("in the head", head // 2),
                ("in the body", head + len(body) // 2),
                ("asked", len(request)),
            )
        )
        reset = chance.random() < 0.5
        with self._connected() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(request[:end])
            if chance.random() < 0.5:
                time.sleep(chance.uniform(0, 0.02))
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._count(f"aborted: {how}{', reset' if reset else ''}")
        time.sleep(0.01)

    # --- reports ------------------------------------------------------------------------------------------------------

    def reports(self, chance: random.Random) -> None:
        """What is asked beside scoring."""
        path = chance.choice(("/score?gpu_infer=stats", "/score?gpu_infer=describe", "/", "/swagger.json"))
        connection = http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            said = answer.read()
        if answer.status == 200 and said:
            self._count(f"report: {path}")
        else:
            self._count("report: unexpected", f"report: {answer.status} for {path}: {said[:200]!r}")
        time.sleep(0.1)

    # --- bytes --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connected(self, *, receive_buffer: int = 0) -> Any:
        with socket.socket() as sock:
            sock.settimeout(TIMEOUT)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect((HOST, self.port))
            yield sock

    def _head(self, length: int, headers: dict[str, str]) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /score HTTP/1.1\r\nHost: {HOST}\r\n{lines}Content-Length: {length}\r\n\r\n".encode()


def read_answer(sock: socket.socket, *, sip: int = 65536, pause: float = 0.0) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer.

    Raises:
        ConnectionResetError: it ended too early.
    """
    data, length, end = b"", 0, -1
    while end < 0 or len(data) < end + 4 + length:
        piece = sock.recv(sip)
        if not piece:
            raise ConnectionResetError(f"the answer ended after {len(data)} bytes")
        data += piece
        if end < 0 <= (end := data.find(b"\r\n\r\n")):
            length = int(_header(data[:end], b"content-length") or 0)
        time.sleep(pause)
    content_type = _header(data[:end], b"content-type").split(b";")[0].decode()
    return int(data[9:12]), content_type, data[end + 4 :]


def _header(head: bytes, name: bytes) -> bytes:
    lines = head.split(b"\r\n")[1:]
    return next((line.partition(b":")[2].strip() for line in lines if line.lower().startswith(name + b":")), b"")


def main() -> None:
    """Call for some seconds, then say what came of it."""
    port, seconds, folder = sys.argv[1:]
    callers = Callers(int(port), Path(folder))
    callers.run(float(seconds))
    print(json.dumps({"outcomes": dict(sorted(callers.outcomes.items())), "unexpected": callers.unexpected}))


if __name__ == "__main__":
    main()
