"""Requests at a given rate, whatever becomes of those before: each is sent when its time has come.

A caller who waits for an answer before asking again slows down with the server, and never sees what overload does. Here
requests arrive at random, as from many callers who know nothing of each other. One thread does it all without waiting
for anything but the system: the bytes are made beforehand, and an answer that has been found right once is known.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import random
import re
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .processes import HOST
from .questions import Question

ANSWER_SECONDS = 30.0
"""How long an answer is waited for after the last request has been sent; what has not come by then is lost."""

_CHUNK = 1 << 16
_STATUS = slice(9, 12)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_RETRY = re.compile(rb"\r\nretry-after: *(\d+)\r", re.IGNORECASE)
_ID = re.compile(rb"\r\nx-ms-client-request-id: *(\d+)\r", re.IGNORECASE)


@dataclass(slots=True)
class Offered:
    """What became of the requests of one level of load.

    Args:
        rate: requests per second that were to be sent.
        seconds: for how long.
        counts: requests by outcome: ``good`` (right and in time), ``late`` (right), ``shed`` (503 that says when to
            come back), ``expired`` (504), ``wrong``, ``lost`` (no answer), ``unsent`` (no connection was free), and any
            other status by its number.
        latencies_ms: of the right answers, from the time at which the request was due; in ascending order.
        shed_ms: of those that were shed, the same.
        lag_ms: by how much a request was sent too late at most, for which the sender is to blame.
        cores: processor time of this process while it sent, as a part of one core.
        service_cores: of the service's processes, the same; filled in by who can see them.
        spent: seconds from the first request, warm-up included, to the last answer.
        connections: how many were open at most.
        problem: what was wrong with the first wrong answer.
    """

    rate: float
    seconds: float
    counts: Counter[str] = field(default_factory=Counter[str])
    latencies_ms: list[float] = field(default_factory=list[float])
    shed_ms: list[float] = field(default_factory=list[float])
    lag_ms: float = 0.0
    cores: float = 0.0
    service_cores: float = 0.0
    spent: float = 0.0
    connections: int = 0
    problem: str = ""

    @property
    def goodput(self) -> float:
        """Right answers in time, per second."""
        return self.counts["good"] / self.seconds

    @property
    def sent(self) -> int:
        """Requests that were due while it counted."""
        return self.counts.total()


class _Connection:
    """A connection and the request that is under way on it."""

    __slots__ = ("counted", "due", "held", "identity", "number", "out", "poll_out", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = b""
        self.out: memoryview[int] | None = None
        self.poll_out = False
        self.number = 0
        self.identity = 0
        self.due = 0.0
        self.counted = False


class OpenLoop:
    """Sends the bodies of a question at a rate.

    Args:
        port: on 127.0.0.1.
        question: what is sent, and how an answer is judged.
        deadline: seconds from when a request is due until its answer is worth nothing.
        connections: the most that are open at once.
        patient: whether a caller who is turned away rests for as long as the answer asks, and keeps its connection.
        seed: of the times at which requests are due.
    """

    def __init__(
        self,
        port: int,
        question: Question,
        *,
        deadline: float,
        connections: int = 900,
        patient: bool = False,
        seed: int = 1,
    ) -> None:
        self._port = port
        self._wrong: Callable[[int, bytes], str] = question.wrong
        self._right: list[set[bytes]] = [set() for _ in question.bodies]
        self._deadline = deadline
        self._most = connections
        self._patient = patient
        self._random = random.Random(seed)
        self._pieces: list[tuple[bytes, bytes]] = []
        headers = {"x-gpu-infer-timeout-ms": str(round(deadline * 1e3)), **question.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        for body in question.bodies:
            before = f"POST {question.path} HTTP/1.1\r\nHost: {HOST}\r\n{lines}Content-Length: {len(body)}\r\n"
            self._pieces.append((f"{before}x-ms-client-request-id: ".encode(), b"\r\n\r\n" + body))
        self._identity = 1_000_000_000
        self._idle: deque[_Connection] = deque()
        self._resting: list[tuple[float, int, _Connection]] = []
        self._open: dict[int, _Connection] = {}
        self._busy = 0
        self._result = Offered(0, 0)
        self._poll = select.epoll()

    def offer(self, rate: float, *, seconds: float, warm_up: float = 1.0) -> Offered:
        """Send ``rate`` requests per second, and wait for the answers.

        Args:
            rate: requests per second; the time between two is random, as between callers who do not know each other.
            seconds: that count.
            warm_up: seconds before that count nowhere, but for requests that are lost or answered wrongly.
        """
        with self._measuring(Offered(rate, seconds)) as result:
            processor, began = time.process_time(), time.perf_counter()
            self._send_all(rate, began + warm_up, began + warm_up + seconds)
            result.cores = (time.process_time() - processor) / (time.perf_counter() - began)
            self._await_answers()
            result.spent = time.perf_counter() - began
        return result

    def saturate(self, connections: int, *, seconds: float) -> float:
        """Ask again as soon as there is an answer, on so many connections; returns right answers per second."""
        with self._measuring(Offered(0, seconds)) as result:
            end = time.perf_counter() + seconds
            for _ in range(connections):
                self._ask(time.perf_counter(), self._connect())
            while (now := time.perf_counter()) < end:
                self._listen(end - now)
                while self._idle:
                    self._ask(time.perf_counter(), self._idle.popleft())
            self._await_answers()
        return (result.counts["good"] + result.counts["late"]) / seconds

    @contextlib.contextmanager
    def _measuring(self, result: Offered) -> Iterator[Offered]:
        self._result = result
        self._poll = select.epoll()
        gc.collect()
        gc.disable()  # a pause would look like one of the server
        try:
            yield result
        finally:
            gc.enable()
            for connection in self._open.values():
                connection.sock.close()
            self._open.clear()
            self._idle.clear()
            self._resting.clear()
            self._busy = 0
            self._poll.close()
        result.latencies_ms.sort()
        result.shed_ms.sort()

    def _send_all(self, rate: float, counts_from: float, end: float) -> None:
        due = time.perf_counter()
        while True:
            now = time.perf_counter()
            self._rise(now)
            while due <= now and due < end:
                counts = due >= counts_from
                if self._idle or len(self._open) < self._most:
                    self._ask(due, self._idle.popleft() if self._idle else self._connect(), counts=counts)
                    if counts:
                        self._result.lag_ms = max(self._result.lag_ms, (time.perf_counter() - due) * 1e3)
                elif counts:
                    self._result.counts["unsent"] += 1  # a queue here would be ours, not the service's
                due += self._random.expovariate(rate)
            if due >= end:
                return
            self._listen(max(0.0, due - time.perf_counter()))

    def _rise(self, now: float) -> None:
        """Have those go on who have rested long enough."""
        while self._resting and self._resting[0][0] <= now:
            connection = heapq.heappop(self._resting)[2]
            if self._open.get(connection.sock.fileno()) is connection:  # the service may have ended it meanwhile
                self._idle.append(connection)

    def _await_answers(self) -> None:
        end = time.perf_counter() + ANSWER_SECONDS
        while self._busy and time.perf_counter() < end:
            self._listen(0.1)
        self._result.counts["lost"] += self._busy

    def _ask(self, due: float, connection: _Connection, *, counts: bool = True) -> None:
        self._busy += 1
        self._identity += 1
        number = self._identity % len(self._pieces)
        connection.number, connection.identity, connection.due = number, self._identity, due
        connection.counted = counts
        before, after = self._pieces[number]
        self._write(connection, memoryview(b"%b%d%b" % (before, self._identity, after)))

    def _connect(self) -> _Connection:
        sock = socket.socket()
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex((HOST, self._port))  # done or refused: the first write finds out
        connection = self._open[sock.fileno()] = _Connection(sock)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self._result.connections = max(self._result.connections, len(self._open))
        return connection

    def _write(self, connection: _Connection, data: memoryview[int]) -> None:
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(connection)
            return
        connection.out = data[sent:] if sent < len(data) else None
        if (connection.out is not None) != connection.poll_out:
            connection.poll_out = not connection.poll_out
            extra = select.EPOLLOUT if connection.poll_out else 0
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | extra)

    def _listen(self, seconds: float) -> None:
        for descriptor, event in self._poll.poll(seconds):
            connection = self._open.get(descriptor)
            if connection is None:
                continue
            if event & select.EPOLLOUT and connection.out is not None:
                self._write(connection, connection.out)
            if event & ~select.EPOLLOUT and descriptor in self._open:
                self._read(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(connection)
            return
        held = connection.held + data if connection.held else data
        end = held.find(b"\r\n\r\n")
        length = _LENGTH.search(held, 0, end + 2) if end >= 0 else None
        if length is None or len(held) < end + 4 + int(length[1]):
            connection.held = held
            return
        connection.held = b""
        self._judge(connection, held[: end + 2], held[end + 4 :])
        self._busy -= 1
        rest = _RETRY.search(held, 0, end + 2) if self._patient else None
        if _CLOSES.search(held, 0, end + 2):
            self._drop(connection)
            return
        connection.number = -1
        if rest is None:
            self._idle.append(connection)
        else:
            heapq.heappush(self._resting, (time.perf_counter() + int(rest[1]), connection.identity, connection))

    def _judge(self, connection: _Connection, head: bytes, body: bytes) -> None:
        milliseconds = (time.perf_counter() - connection.due) * 1e3
        status, result = head[_STATUS], self._result
        returned = _ID.search(head)
        outcome, problem = status.decode("latin-1"), ""
        if status == b"200":
            problem = self._problem(connection.number, body)
            outcome = "good" if milliseconds <= self._deadline * 1e3 else "late"
        elif status == b"503" and _RETRY.search(head):
            outcome = "shed"
        elif status == b"504":
            outcome = "expired"
        if returned is not None and int(returned[1]) != connection.identity:
            problem = f"the answer to request {int(returned[1])} came for request {connection.identity}"
        if problem:
            outcome, result.problem = "wrong", result.problem or problem
        if connection.counted or problem:
            result.counts[outcome] += 1
        if connection.counted:
            if outcome in {"good", "late"}:
                result.latencies_ms.append(milliseconds)
            elif outcome == "shed":
                result.shed_ms.append(milliseconds)

    def _problem(self, number: int, body: bytes) -> str:
        """What is wrong with an answer; the same bytes are looked at once."""
        right = self._right[number]
        if body in right:
            return ""
        try:
            problem = self._wrong(number, body)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return f"{type(error).__name__}: {error}"
        if not problem and len(right) < 1000:
            right.add(body)
        return problem

    def _lose(self, connection: _Connection) -> None:
        """The connection has ended; one that nothing was under way on is no loss."""
        if connection.number >= 0:
            self._result.counts["lost"] += 1
            self._busy -= 1
        elif connection in self._idle:
            self._idle.remove(connection)
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        descriptor = connection.sock.fileno()
        self._poll.unregister(descriptor)
        del self._open[descriptor]
        connection.sock.close()
