"""What a long job is doing right now: events that a terminal line, the CLI or a test listens to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "emit", "listening"]

logger: logging.Logger = logging.getLogger("gpu_infer")

_WIDTH = 100
"""Columns that a line is filled up to, so that nothing is left of a longer one before it."""

Listener = Callable[["Event"], None]


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a job.

    Args:
        service: the name of the service.
        stage: what happens, such as ``load_model`` or ``healthy``.
        state: ``start``, ``ok``, ``failed`` or ``warning``.
        text: seconds, note or warning, as shown to people; a warning is a sentence that needs no stage.
    """

    service: str
    stage: str
    state: Literal["start", "ok", "failed", "warning"]
    text: str = ""


_listener: ContextVar[Listener | None] = ContextVar("gpu_infer_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Send the events of this context to ``listener`` instead of the terminal or the log."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def emit(event: Event) -> None:
    """Tell whoever listens; without a listener, the log, and a terminal or notebook in one line that changes."""
    listener = _listener.get()
    if listener is not None:
        listener(event)
        return
    if event.state == "warning":
        # Which Python shows on standard error where nothing else is set up.
        logger.warning("Warning: %s: %s", event.service, event.text)
        return
    line = (
        f"{event.service}: {event.stage.replace('_', ' ')} {'...' if event.state == 'start' else event.text}".rstrip()
    )
    logger.info(line)
    # A notebook is no terminal, but shows a line that is written over just as well.
    if sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules):  # a daemon may have none
        done = event.stage == "healthy" or event.state == "failed"
        sys.stderr.write(f"\r{line:<{_WIDTH}}" + ("\n" if done else ""))
        sys.stderr.flush()
