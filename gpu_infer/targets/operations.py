"""What the SDKs on ``azure-core`` have in common: how their failures are told apart, and their long operations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from gpu_infer.diagnose import azure_error
from gpu_infer.errors import GpuInferError, WorkspaceError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.targets import records
from gpu_infer.targets.calls import NoAnswerError, ask, deadline
from gpu_infer.targets.silence import quiet_operation

__all__ = [
    "begin",
    "finish",
    "is_absent",
    "is_conflict",
    "is_refusal",
    "operate",
    "seen",
    "settle_failure",
    "status_of",
]

LOOK_SECONDS = 1.0
"""How often a long operation is asked whether it has ended; how often Azure is asked, the SDK decides."""

_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an exception of the SDK carries; 200 where a long operation has failed."""
    status: Any = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def is_absent(error: BaseException) -> bool:
    """Whether the SDK says that what was asked for does not exist."""
    return status_of(error) == HTTPStatus.NOT_FOUND


def is_refusal(error: BaseException) -> bool:
    """Whether nothing of a request was done: Azure has refused it outright, or the SDK did not even send it.

    Not 408, 409 and 429: the SDK sends a request again whose answer was lost, and the second one may be answered so.
    The SDK's own checks raise exceptions without a status, before anything that is billed is asked for.
    """
    own_checks = {"MlException", "ValidationException"} & {kind.__name__ for kind in type(error).__mro__}
    return status_of(error) in _REFUSALS or bool(own_checks)


def is_conflict(error: BaseException | None) -> bool:
    """Whether Azure refuses because it is still working on the thing."""
    return status_of(error) == HTTPStatus.CONFLICT


def seen(get: Callable[[], Any], *, doing: str, otherwise: Callable[[], Any | None] | None) -> Any | None:
    """What Azure has under a name, ``None`` where there is none.

    Args:
        get: asks for it by its name.
        doing: what is done, for the message of an error.
        otherwise: looks for it in the list of all: believe that there is none only where that has none either.

    Raises:
        WorkspaceError: Azure refused or did not answer.
    """
    try:
        return ask(get)
    except Exception as error:
        if not is_absent(error):
            raise azure_error(error, doing=doing, default=WorkspaceError) from error
    return otherwise() if otherwise is not None else None


def settle_failure(entry: Entry, error: Exception, typed: GpuInferError, *, look: Callable[[], Any | None]) -> None:
    """Look what a request has done whose answer is an error, and note it: nothing is raised where it was done.

    Args:
        entry: of what was asked for; its run tells whether what is there now is ours.
        error: of the SDK.
        typed: the same in our words, which is raised.
        look: gives what is there, ``None`` where there is nothing.

    Raises:
        GpuInferError: it was not done, or that cannot be seen, and then the entry stays.
    """
    try:
        found = look()
    except WorkspaceError:
        raise typed from error  # it may exist
    if found is not None and records.read_tags(found.tags).get("run") == entry.details["run"]:
        return  # our request was done, and its answer lost
    if found is not None or is_refusal(error):
        records.forget(entry)  # refused, or somebody else was quicker with the name
    else:
        records.settle(entry, state="failed")
    raise typed from error


def begin(function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
    """Begin a long operation: ``ask()``, with the thread that looks after it silenced until it has ended.

    Args:
        function: of the SDK, such as ``client.online_endpoints.begin_delete``.
        args: for it.
        keywords: for it.

    Returns:
        the poller, for ``finish()``.

    Raises:
        NoAnswerError: the request did not come back in time.
        Exception: whatever the SDK raises.
    """

    def begun() -> Any:
        # In the thread of the call: where the caller is interrupted meanwhile, the operation begins all the same, and
        # its thread prints on.
        with contextlib.ExitStack() as silence:
            silence.enter_context(quiet_operation())
            poller: Any = function(*args, **keywords)
            lasting = silence.pop_all()

            def ended(_: Any) -> None:
                lasting.close()

            poller.add_done_callback(ended)
            return poller

    return ask(begun)


def operate(
    function: Callable[..., Any],
    /,
    *args: Any,
    name: str,
    what: str,
    doing: str,
    seconds: float,
    error: type[GpuInferError],
    **keywords: Any,
) -> Any:
    """``begin()`` a long operation and ``finish()`` it.

    Args:
        function: of the SDK.
        args: for it.
        name: of the service, for progress.
        what: is worked on, for progress.
        doing: what is done, such as ``creating endpoint 'gpu-rn'``.
        seconds: that it may take.
        error: what is raised where it fails and nothing more special fits, or does not end in time.
        keywords: for the function.

    Returns:
        what the operation gives.

    Raises:
        GpuInferError: as said.
    """
    try:
        poller = begin(function, *args, **keywords)
    except Exception as problem:
        raise azure_error(problem, doing=doing, default=error) from problem
    return finish(poller, name, what=what, doing=doing, left=deadline(seconds), default=error)


def finish(
    poller: Any,
    name: str,
    *,
    what: str,
    doing: str,
    left: Callable[[], float],
    default: type[GpuInferError],
    late: type[GpuInferError] | None = None,
    logs: Callable[[], str] = str,
) -> Any:
    """Wait until a long operation has ended.

    Not by ``result(timeout=)``, which gives what is half made when the time is over.

    Args:
        poller: of azure-core.
        name: of the service, for progress.
        what: is worked on, for progress.
        doing: what is done, such as ``creating endpoint 'gpu-rn'``.
        left: gives the seconds that are left.
        default: the error where it fails and nothing more special fits.
        late: the error where it does not end in time, ``default`` where ``None``.
        logs: gives what the containers have written, for the error.

    Returns:
        what the operation gives.

    Raises:
        GpuInferError: as said.
    """
    began = time.monotonic()
    while True:
        try:
            poller.wait(min(LOOK_SECONDS, left()))
            if poller.done():
                return poller.result()
        except Exception as error:
            raise azure_error(error, doing=doing, default=default, logs=logs()) from error
        if not left():
            raise _too_late(doing, time.monotonic() - began, late or default, logs())
        emit(Event(name, what, "start", f"{poller.status()}, {time.monotonic() - began:.0f} s"))


def _too_late(doing: str, seconds: float, late: type[GpuInferError], logs: str) -> GpuInferError:
    error = NoAnswerError(f"The operation is still running after {seconds:.0f} s.")
    return azure_error(error, doing=f"{doing} within {seconds:.0f} s", default=late, logs=logs)
