"""Clients in a process of their own that check that each answer belongs to its request.

``python clients.py PORT CLIENTS REQUESTS OFFSET`` prints JSON: how many answers of which kind. Each request carries a
number that no other has; the model doubles it.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter

import numpy as np

HEAD = (
    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nAccept: application/x-npy\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def npy(number: int) -> bytes:
    """``[number, number // 1000, 1, 2]`` as a ``.npy`` body."""
    import io

    stream = io.BytesIO()
    np.save(stream, np.array([number, number // 1000, 1, 2], np.float32))
    return stream.getvalue()


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionResetError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += sock.recv(65536)
    return int(head[9:12]), body


def client(port: int, numbers: range, outcomes: Counter[str]) -> None:
    """Send one request after the other."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    for number in numbers:
        body = npy(number)
        sock.sendall(HEAD % len(body) + body)
        status, result = answer(sock)
        if status == 200:
            values = np.frombuffer(result[-16:], np.float32)
            right = values.tolist() == [2.0 * number, 2.0 * (number // 1000), 2, 4]
            outcomes["right" if right else "wrong"] += 1
        else:
            outcomes[str(status)] += 1
    sock.close()


def main() -> None:
    """Run the clients side by side."""
    port, clients, requests, offset = map(int, sys.argv[1:])
    outcomes: Counter[str] = Counter()
    per_client = requests // clients
    threads = [
        threading.Thread(
            target=client,
            args=(port, range(offset + at * per_client, offset + (at + 1) * per_client), outcomes),
        )
        for at in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
