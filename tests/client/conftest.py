"""A scripted HTTP server on 127.0.0.1, and both clients behind one face, so that one suite runs against both."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpu_infer.client import AsyncScoringClient, ScoringClient
from gpu_infer.client.base import Timing

OURS = {"x-gpu-infer-device": "cpu", "x-gpu-infer-batch": "1", "x-gpu-infer-queue-ms": "0.5"}
"""What every answer of a service of ours carries."""

GIVE_UP = 5.0
"""Seconds after which the server stops waiting for whatever a broken test does not do."""


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Step = Callable[[socket.socket, Seen], bool]
"""Answers one request; returns whether the connection stays open."""


def answer(
    status: int = 200, body: object = b"", headers: dict[str, str] | None = None, content_type: str = "application/json"
) -> Step:
    """A whole answer; anything but bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": content_type, "Content-Length": str(len(data)), **(headers or {})}
    head = (
        f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value) + "\r\n"
    )

    def step(connection: socket.socket, _: Seen) -> bool:
        connection.sendall(head.encode() + data)
        return True

    return step


def raw(data: bytes, *, reset: bool = False) -> Step:
    """Bytes as they are, then the end: a close, or a reset."""

    def step(connection: socket.socket, _: Seen) -> bool:
        connection.sendall(data)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return step


def wait_for(event: threading.Event, then: Step) -> Step:
    """An answer that comes when the test says so."""

    def step(connection: socket.socket, seen: Seen) -> bool:
        event.wait(GIVE_UP)
        return then(connection, seen)

    return step


def drip(piece: bytes, *, pause: float, stop: threading.Event) -> Step:
    """A body that comes byte by byte and never ends by itself."""

    def step(connection: socket.socket, _: Seen) -> bool:
        connection.sendall(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
        while not stop.wait(pause):
            connection.sendall(piece)
        return False

    return step


class ScriptedServer:
    """Answers the requests with the steps of its script, in order; then with ``default``, or 500 without one.

    What clients ask by themselves about a service of ours stands apart: ``describes`` answers it, ``asked`` has it, and
    neither the script nor ``seen`` knows of it. ``None`` in its place leaves those questions to the script.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.script: deque[Step] = deque()
        self.default: Step | None = None
        self.describes: Step | None = answer(404, {"message": "nothing is described here"})
        self.asked: list[Seen] = []
        self.seen: list[Seen] = []
        self.connections = 0
        self.closing = threading.Event()
        self._context = context
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def uri(self) -> str:
        scheme = "https" if self._context else "http"
        return f"{scheme}://127.0.0.1:{self.port}/score"

    def plays(self, *steps: Step) -> None:
        self.script.extend(steps)

    def close(self) -> None:
        self.closing.set()
        # Closing the listener would not wake the thread in accept(); a visitor does.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._threads[0].join(GIVE_UP)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join(GIVE_UP)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.closing.is_set():
                connection.close()
                return
            with self._lock:
                self._open.append(connection)
                self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.append(connection)
            with connection, connection.makefile("rb") as stream:
                while (seen := self._read(stream)) is not None and self._next(seen)(connection, seen):
                    pass
        except OSError:
            connection.close()

    def _next(self, seen: Seen) -> Step:
        with self._lock:
            if self.describes is not None and seen.method == "GET" and seen.path.endswith("gpu_infer=describe"):
                self.asked.append(seen)
                return self.describes
            self.seen.append(seen)
            if self.script:
                return self.script.popleft()
        return self.default or answer(500, {"message": "the script has no more answers"})

    @staticmethod
    def _read(stream: Any) -> Seen | None:
        first = stream.readline()
        if not first:
            return None
        method, path, _ = first.decode().split()
        headers: dict[str, str] = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = stream.read(length)
        # A client that left in the middle of its request.
        return Seen(method, path, headers, body) if len(body) == length else None


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    running = ScriptedServer()
    yield running
    running.close()
    assert not running.script, f"{len(running.script)} scripted answers were not asked for"


@dataclass
class Outside:
    """A clock that only moves when somebody sleeps, and a die that always shows the same."""

    time: float = 1000.0
    die: float = 0.5
    wall: float = 0.0
    """Seconds since noon. Apart from the clock, which is no time of day: tests move it by hand."""
    sleeps: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.time

    def random(self) -> float:
        return self.die

    def now(self) -> datetime:
        return datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC) + timedelta(seconds=self.wall)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Face:
    """Either client, called the same way; waits for what the async one returns."""

    def __init__(self, kind: str, uri: str, credential: Any = None, **options: Any) -> None:
        self.kind = kind
        self.outside = Outside()
        self._runner = asyncio.Runner() if kind == "async" else None
        self.client: Any = (AsyncScoringClient if self._runner else ScoringClient)(uri, credential, **options)
        self.client._timing = Timing(self.outside.clock, self.outside.random, self.outside.now)
        self.client._sleep = self.outside.async_sleep if self._runner else self.outside.sleep

    def real_time(self) -> None:
        self.client._timing = Timing()

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        result = getattr(self.client, name)(*arguments, **options)
        return result if self._runner is None else self._runner.run(result)

    def score(self, x: Any, **options: Any) -> Any:
        return self._call("score", x, **options)

    def score_response(self, x: Any, **options: Any) -> Any:
        return self._call("score_response", x, **options)

    def describe(self) -> Any:
        return self._call("describe")

    def stats(self) -> Any:
        return self._call("stats")

    def gpu_report(self) -> Any:
        return self._call("gpu_report")

    def close(self) -> None:
        self._call("close")

    def score_many(self, items: Any, *, method: str = "", argument: Any = None, **options: Any) -> Any:
        """An iterator over the results, or what the method of them gives."""
        results = self.client.score_many(items, **options)
        if not method:
            return self._each(results)
        arguments = () if argument is None else (argument,)
        made = getattr(results, method)(*arguments)
        if self._runner is None or not hasattr(made, "__aiter__"):
            return made if self._runner is None else self._runner.run(made)
        return self._each(made)

    def _each(self, results: Any) -> Iterator[Any]:
        if self._runner is None:
            try:
                yield from results
            finally:
                results.close()
            return
        try:
            while True:
                try:
                    yield self._runner.run(_next_of(results))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(results.aclose())

    def at_once(self, count: int, x: Any) -> list[Any]:
        """The same call ``count`` times, all at the same time; errors in the place of results."""
        if self._runner is not None:

            async def all_of_them() -> list[Any]:
                return await asyncio.gather(*(self.client.score(x) for _ in range(count)), return_exceptions=True)

            return self._runner.run(all_of_them())
        results: list[Any] = [None] * count

        def one(index: int) -> None:
            try:
                results[index] = self.client.score(x)
            except Exception as error:  # noqa: BLE001  (whatever it is, the test looks at it)
                results[index] = error

        threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def finish(self) -> None:
        self.close()
        if self._runner is not None:
            self._runner.close()


async def _next_of(results: Any) -> Any:
    return await anext(results)


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(kind: str, server: ScriptedServer) -> Iterator[Callable[..., Face]]:
    """Makes clients for the scripted server, with a fake clock and fake sleep."""
    faces: list[Face] = []

    def new(credential: Any = None, *, uri: str | None = None, **options: Any) -> Face:
        face = Face(kind, uri or server.uri, credential, **options)
        faces.append(face)
        return face

    yield new
    for face in faces:
        face.finish()


@pytest.fixture
def steps() -> Any:
    """The steps a script is made of: with this import mode tests cannot import from each other."""

    class Steps:
        answer = staticmethod(answer)
        raw = staticmethod(raw)
        wait_for = staticmethod(wait_for)
        drip = staticmethod(drip)
        ours = OURS
        server = ScriptedServer
        face = Face

    return Steps
