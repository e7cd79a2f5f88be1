"""A server that answers at once, whatever it is asked: what is left of a call is the client's own time.

Prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys

import numpy as np

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def answer() -> bytes:
    """Ten scores as ``.npy``, with the headers that our services send."""
    file = io.BytesIO()
    np.save(file, np.zeros(10, np.float32))
    body = file.getvalue()
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-npy\r\nx-gpu-infer-device: cpu\r\nx-gpu-infer-batch: 1\r\n"
        f"x-gpu-infer-queue-ms: 0.0\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.buffer = b""
        self.answer = answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is there to its end."""
        self.buffer += data
        while True:
            head, gap, rest = self.buffer.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if not gap or len(rest) < length:
                return
            self.buffer = rest[length:]
            self.transport.write(self.answer)


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Instant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
