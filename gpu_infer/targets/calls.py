"""The one way into ``azureml-core``: with a deadline, without its prints, its failures told apart.

The SDK waits for ever where a server hangs (only its validation calls and operation polls have a time-out), prints to
standard output, and logs every exception it raises. Each call here runs in a thread of its own that is left behind
when its time is over.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

from gpu_infer.blotting import blotted
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import Finding, GpuInferError, MissingDependencyError, PreflightError

__all__ = ["NoAnswerError", "ask", "call", "call_timeout", "deadline", "is_absent", "is_conflict", "is_refusal", "sdk"]

TIMEOUT_VARIABLE = "GPU_INFER_AZURE_TIMEOUT"
DEFAULT_TIMEOUT = 300.0
"""Seconds for one call: the SDK's own retries of a 429 take 224."""

SETTLE_SECONDS = 20.0
"""How long an interrupted call may still take: what it creates can only be removed once it is there."""

T = TypeVar("T")

_EXTRA = "pip install 'gpu-infer[aks]'"


class NoAnswerError(TimeoutError):
    """A call of the SDK did not come back in time; whether its work was done is not known."""


def call_timeout() -> float:
    """Seconds that one call of the SDK may take: ``$GPU_INFER_AZURE_TIMEOUT``, 300 where that is not set.

    Raises:
        PreflightError: the variable holds no number above 0.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        message = f"{TIMEOUT_VARIABLE}={text!r} is no number of seconds."
        raise PreflightError([Finding("error", "settings", message, "Give one such as 300, or unset it.")])
    return seconds


def sdk(name: str) -> Any:
    """A class or function of the SDK by its full name, such as ``azureml.core.Model``; imported here only.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """
    import importlib

    module, _, attribute = name.rpartition(".")
    with _quiet():
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            message = f"AKS is reached through azureml-core, and {error.name or 'it'} is not installed."
            raise MissingDependencyError([Finding("error", "missing-extra", message, f"Run: {_EXTRA}")]) from error


def ask(function: Callable[..., T], /, *args: Any, timeout: float | None = None, **keywords: Any) -> T:
    """Call the SDK.

    Args:
        function: of the SDK.
        timeout: seconds, ``call_timeout()`` where ``None``.
        args: for the function.
        keywords: for the function.

    Raises:
        NoAnswerError: it did not come back in time.
        Exception: whatever the SDK raises.
    """
    seconds = call_timeout() if timeout is None else timeout
    outcome: list[tuple[bool, Any]] = []
    done = threading.Event()

    def work() -> None:
        try:
            with _quiet():
                outcome.append((True, function(*args, **keywords)))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that called
            outcome.append((False, error))
        finally:
            done.set()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), daemon=True, name="gpu-infer azureml").start()
    try:
        answered = done.wait(seconds)
    except BaseException:
        done.wait(SETTLE_SECONDS)
        raise
    if not answered:
        message = f"azureml-core got no answer within {seconds:g} s."
        raise NoAnswerError(message)
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value


def call(
    function: Callable[..., T],
    /,
    *args: Any,
    doing: str,
    default: type[GpuInferError],
    timeout: float | None = None,
    **keywords: Any,
) -> T:
    """``ask()``, with what the SDK raises turned into one typed error.

    Args:
        function: of the SDK.
        doing: what is being done, such as ``creating cluster 'aks-gpu'``.
        default: the error where nothing more special fits.
        timeout: seconds.
        args: for the function.
        keywords: for the function.
    """
    try:
        return ask(function, *args, timeout=timeout, **keywords)
    except GpuInferError:
        raise
    except Exception as error:
        raise azure_error(error, doing=doing, default=default) from error


def is_absent(error: BaseException) -> bool:
    """Whether the SDK says that what was asked for does not exist: the same class as any error, so the text decides."""
    return any(text in _text(error) for text in ("ComputeTargetNotFound", "WebserviceNotFound", "ModelNotFound"))


def is_refusal(error: BaseException) -> bool:
    """Whether Azure has refused a request outright, so that nothing of it was done.

    Not 408, 409 and 429: the SDK sends a request again whose answer was lost, and the second one may be answered so.
    """
    text = _text(error)
    return any(f"Response Code: {status}" in text for status in (400, 401, 403, 404, 422))


def is_conflict(error: BaseException | None) -> bool:
    """Whether Azure refuses because it is still working on the thing."""
    return error is not None and "Response Code: 409" in _text(error)


def _text(error: BaseException) -> str:
    try:
        return f"{getattr(error, 'message', '')} {error}"
    except TypeError:  # ServiceException without details cannot be printed
        return str(getattr(error, "message", ""))


# --- silence ----------------------------------------------------------------------------------------------------------


class _Muffler:
    """Standard output without what the SDK's threads print."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() in _silent else self.original.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


class _Blotter(logging.Filter):
    """Takes addresses with a signature, and tokens, out of what is logged of a request where somebody logs at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = blotted(text)
        if clean != text:
            record.msg, record.args = clean, ()
        return True


_TALKATIVE = ("urllib3.connectionpool", "msrest.http_logger")
"""Loggers that write whole requests. Filtered while a call of ours runs: they are not ours."""

_blotter = _Blotter()
_silent: set[int] = set()
_lock = threading.Lock()
_muffler: list[_Muffler] = []


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep what this thread prints through the SDK, and what the SDK logs and warns of, off the user's screen."""
    for name in ("azureml", "msrest", "azure"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # or logging's last resort writes to standard error
    # Model.deploy() warns of its deprecation in the name of who calls it, which is this module.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"gpu_infer\.targets\.aks\.sdk")
    me = threading.get_ident()
    with _lock:
        nested = me in _silent
        if not _silent:
            _muffler.append(_Muffler(sys.stdout))
            sys.stdout = cast("Any", _muffler[0])
            for name in _TALKATIVE:
                logging.getLogger(name).addFilter(_blotter)
        _silent.add(me)
    try:
        yield
    finally:
        if not nested:
            with _lock:
                _silent.discard(me)
                if not _silent:
                    for name in _TALKATIVE:
                        logging.getLogger(name).removeFilter(_blotter)
                    muffler = _muffler.pop()
                    if cast("Any", sys.stdout) is muffler:  # else somebody has put another in its place meanwhile
                        sys.stdout = muffler.original


def deadline(seconds: float) -> Callable[[], float]:
    """A countdown: gives the seconds that are left, 0 when it is over."""
    end = time.monotonic() + seconds
    return lambda: max(0.0, end - time.monotonic())
