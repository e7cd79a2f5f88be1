"""A service that doubles numbers, and answers a share of its requests with 429, 503, a reset, or nothing at all.

``python faulty_server.py SHARE`` prints its port, and at the end of its standard input what it has counted, as JSON. In
a process of its own, so that it takes no time from the client's threads.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import struct
import sys
import zlib
from collections import Counter
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import numpy as np

OURS = "x-gpu-infer-device: cpu\r\nx-gpu-infer-batch: 1\r\nx-gpu-infer-queue-ms: 0.1\r\n"
DESCRIPTION = {"input": {"name": "x", "dtype": "float64", "shape": [None, 1], "item_ndim": 1}, "outputs": []}


FATES = (("429", "503", "reset", "torn", "hang"), (3, 3, 2, 1, 1))
"""What becomes of a request instead of an answer, and how often. A hang costs a client the most time."""


class Service:
    """Counts what it was asked and how it answered."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.requests: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self.bodies: set[int] = set()
        self._die = random.Random(20261125)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.requests["left"] += 1
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if head.startswith("GET"):
            _answer(writer, 200, json.dumps(DESCRIPTION).encode(), "application/json")
            return True
        fate = self._die.choices(*FATES)[0] if self._die.random() < self.share else "good"
        self.requests[fate] += 1
        self.bodies.add(zlib.crc32(body))
        if fate in ("429", "503"):
            _answer(writer, int(fate), b'{"error": "overloaded"}', "application/json", "retry-after-ms: 2\r\n")
            return True
        if fate == "hang":  # until the client has enough
            await reader.read(1)
            return False
        if fate == "reset":
            _reset(writer)
            return False
        rows = np.load(io.BytesIO(body))
        numbers = rows.reshape(-1)
        if fate == "torn":
            _answer(writer, 200, _npy(2 * rows)[:-3], "application/x-npy", length=3)
            await writer.drain()
            _reset(writer)
            return False
        self.answered.update(int(number) for number in numbers)
        _answer(writer, 200, _npy(2 * rows), "application/x-npy")
        return True


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _answer(
    writer: asyncio.StreamWriter, status: int, body: bytes, content_type: str, extra: str = "", length: int = 0
) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body) + length}\r\n"
    writer.write(f"{head}{OURS}{extra}\r\n".encode() + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main() -> None:
    """Serve until standard input ends."""
    service = Service(float(sys.argv[1]))
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    report = {
        "requests": service.requests,
        "different": len(service.bodies),
        "answered": sum(service.answered.values()),
        "items": len(service.answered),
        "most": max(service.answered.values(), default=0),
    }
    print(json.dumps(report), flush=True)
    os._exit(0)  # connections are open, and asyncio would complain of each


if __name__ == "__main__":
    asyncio.run(main())
