"""The one way into the Azure SDKs: with a deadline, and without their prints.

They wait for ever where a server hangs, print to standard output and error, and log every exception they raise. Each
call here runs in a thread of its own that is left behind when its time is over.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from gpu_infer.diagnose import azure_error
from gpu_infer.errors import Finding, GpuInferError, MissingDependencyError, PreflightError
from gpu_infer.targets.silence import quiet

__all__ = ["NoAnswerError", "ask", "call", "call_timeout", "deadline", "load"]

TIMEOUT_VARIABLE = "GPU_INFER_AZURE_TIMEOUT"
DEFAULT_TIMEOUT = 300.0
"""Seconds for one call: the SDK's own retries of a 429 take 224."""

SETTLE_SECONDS = 20.0
"""How long an interrupted call may still take: what it creates can only be removed once it is there."""

T = TypeVar("T")


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


def load(name: str, *, extra: str, reached: str) -> Any:
    """A class or function of an SDK by its full name, such as ``azureml.core.Model``; imported when it is needed.

    Args:
        name: module and attribute.
        extra: of this package that installs the SDK.
        reached: what is reached through which SDK, for the message: ``"AKS is reached through azureml-core"``.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """
    import importlib

    module, _, attribute = name.rpartition(".")
    # azure-ai-ml warns at import of what it does itself with marshmallow: some turn warnings into errors.
    with quiet(), warnings.catch_warnings(action="ignore"):
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            message = f"{reached}, and {error.name or 'it'} is not installed."
            fix = f"Run: pip install 'gpu-infer[{extra}]'"
            raise MissingDependencyError([Finding("error", "missing-extra", message, fix)]) from error


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
            with quiet():
                outcome.append((True, function(*args, **keywords)))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that called
            outcome.append((False, error))
        finally:
            done.set()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), daemon=True, name="gpu-infer azure").start()
    try:
        answered = done.wait(seconds)
    except BaseException:
        done.wait(SETTLE_SECONDS)
        raise
    if not answered:
        message = f"Azure gave no answer within {seconds:g} s."
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


def deadline(seconds: float) -> Callable[[], float]:
    """A countdown: gives the seconds that are left, 0 when it is over."""
    end = time.monotonic() + seconds
    return lambda: max(0.0, end - time.monotonic())
