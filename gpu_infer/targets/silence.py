"""Keeps what the Azure SDKs print, log and warn of off the user's screen, and secrets out of what they log.

``azureml-core`` prints to standard output. ``azure-ai-ml`` prints a dot for each look at a long operation, from a
thread of its own, writes to standard error with each upload, and hangs handlers of its own on its loggers.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Generator
from typing import Any, TextIO, cast

from gpu_infer.blotting import blotted

__all__ = ["quiet", "quiet_operation"]

_TALKATIVE = (
    "urllib3.connectionpool",
    "msrest.http_logger",
    "azure.core.pipeline.policies.http_logging_policy",
    "azureml._file_utils.file_utils",
)
"""Loggers that write addresses of requests. Filtered while a call of ours runs: they are not ours."""

_POLLER = "LROPoller("
"""What azure-core calls the thread that looks after a long operation."""

_FAMILIES = ("azureml", "msrest", "azure")

_OPERATION = 0
"""Stands among the silent threads for those of long operations; no thread has this number."""


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Silence the SDK in this thread."""
    for name in _FAMILIES:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # or logging's last resort writes to standard error
    # Model.deploy() warns of its deprecation in the name of who calls it, which is the module of our calls.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"gpu_infer\.targets\.calls")
    with _silenced(threading.get_ident()):
        yield


@contextlib.contextmanager
def quiet_operation() -> Generator[None]:
    """Silence the threads that look after long operations; this one may speak."""
    with _silenced(_OPERATION):
        yield


# --- inside -----------------------------------------------------------------------------------------------------------


class _Muffler:
    """A stream without what silent threads print."""

    def __init__(self, original: TextIO) -> None:
        self.original = original

    def write(self, text: str) -> int:
        thread = threading.current_thread()
        return len(text) if _is_silent(thread.ident, thread.name) else self.original.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


class _Blotter(logging.Filter):
    """Takes addresses with a signature, and tokens, out of what is logged of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = blotted(text)
        if clean != text:
            record.msg, record.args = clean, ()
        return True


class _Hush(logging.Filter):
    """Drops what silent threads log, for the SDK's own handlers, and its log of each call that has failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_silent(record.thread, record.threadName)


_blotter, _hush = _Blotter(), _Hush()
_silent: dict[int, int] = {}
_lock = threading.Lock()
_hushed: list[logging.Filterer] = []


def _is_silent(thread: int | None, name: str | None) -> bool:
    return thread in _silent or (_OPERATION in _silent and (name or "").startswith(_POLLER))


@contextlib.contextmanager
def _silenced(who: int) -> Generator[None]:
    with _lock:
        _begin()  # each time: a call that was given up may hang on for minutes, and meanwhile the streams be others
        _silent[who] = _silent.get(who, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _silent[who] -= 1
            if not _silent[who]:
                del _silent[who]
            if not _silent:
                _end()


def _begin() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Muffler):
            setattr(sys, name, cast("TextIO", _Muffler(stream)))
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_blotter)
    for noisy in _noisy():
        noisy.addFilter(_hush)
        _hushed.append(noisy)


def _end() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Muffler):  # else somebody has put another in its place meanwhile
            setattr(sys, name, stream.original)
    for name in _TALKATIVE:
        logging.getLogger(name).removeFilter(_blotter)
    while _hushed:
        _hushed.pop().removeFilter(_hush)


def _noisy() -> list[logging.Filterer]:
    """What ``azure-ai-ml`` writes to the screen by: handlers of its own, and loggers of every call as an activity."""
    names = logging.root.manager.loggerDict.items()
    loggers = [one for name, one in names if name.startswith("azure.ai.ml") and isinstance(one, logging.Logger)]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    activities = [logger for logger in loggers if logger.name.startswith("azure.ai.ml._telemetry")]
    return [*(one for one in handlers if type(one) is logging.StreamHandler), *activities]
