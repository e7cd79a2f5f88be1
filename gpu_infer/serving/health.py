"""Whether this worker can answer now; asked by gunicorn's worker class before the stock server is."""

from __future__ import annotations

from typing import Callable, List

_checks: List[Callable[[], bool]] = []


def watch_health(check: Callable[[], bool]) -> None:
    """Ask ``check`` from now on."""
    _checks.append(check)


def is_healthy() -> bool:
    """Whether all checks say so."""
    return all(check() for check in _checks)
