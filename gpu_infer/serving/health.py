"""Whether this worker can answer now; asked by gunicorn's worker class before the stock server is."""

from __future__ import annotations

from typing import Callable, List

UNHEALTHY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 9\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
    b"Unhealthy"
)
"""The answer to the probe of a service that has lost its model."""

_checks: List[Callable[[], bool]] = []


def watch_health(check: Callable[[], bool]) -> None:
    """Ask ``check`` from now on."""
    _checks.append(check)


def is_healthy() -> bool:
    """Whether all checks say so."""
    return all(check() for check in _checks)
