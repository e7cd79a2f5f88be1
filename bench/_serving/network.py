"""A network of its own for a server that listens on all addresses whatever it is told: nothing but a loopback in it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from .processes import NotAvailableError

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


@contextlib.contextmanager
def own_network() -> Iterator[int]:
    """A new network namespace (network_namespaces(7)); gives its file descriptor, for ``inside``.

    Raises:
        NotAvailableError: it cannot be made here: no Linux, or no permission.
    """
    if sys.platform != "linux":
        raise NotAvailableError("it listens on all addresses, and only Linux can give it a network of its own")
    with _open(Path("/proc/thread-self/ns/net")) as home:
        if _libc().unshare(CLONE_NEWNET):
            raise NotAvailableError("it listens on all addresses, and only root can give it a network of its own")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
            own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            _enter(home)
    try:
        yield own
    finally:
        os.close(own)


@contextlib.contextmanager
def inside(network: int | None) -> Iterator[None]:
    """What this thread, its new threads and new processes do in the block is in that network; ``None``: as ever."""
    if network is None:
        yield
        return
    with _open(Path("/proc/thread-self/ns/net")) as home:
        _enter(network)
        try:
            yield
        finally:
            _enter(home)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(network: int) -> None:
    if _libc().setns(network, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _libc() -> ctypes.CDLL:
    # os.setns and os.unshare came with Python 3.12.
    return ctypes.CDLL(None, use_errno=True)
