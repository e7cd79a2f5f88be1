"""Why a request gets no result. Each becomes one HTTP answer, see ``docs/serving.md``."""

from __future__ import annotations

import sys
import traceback
from typing import Dict, Optional, Type


class RequestFailure(Exception):  # noqa: N818 - its kinds are outcomes with names of their own
    """A request that gets an error instead of a result.

    Args:
        message: for the caller: what is wrong and what to do.
        item: index of the item at fault, ``None`` where the whole request is.
    """

    status = 500
    kind = "internal"

    def __init__(self, message: str, *, item: Optional[int] = None) -> None:
        super().__init__(message)
        self.message = message
        self.item = item


class BadInput(RequestFailure):
    """The body or its values are wrong."""

    status = 400
    kind = "bad_input"


class BodyTooLarge(BadInput):
    """The body is larger than the service takes."""

    status = 413


class UnsupportedContentType(BadInput):
    """The content type is none that this model can take."""

    status = 415


class ModelFailure(RequestFailure):
    """The model or a hook raised."""

    kind = "model_error"

    def report(self) -> None:
        """Write the traceback of what was raised to the log."""
        cause = self.__cause__
        if cause is not None:
            traceback.print_exception(type(cause), cause, cause.__traceback__, file=sys.stderr)


class Overloaded(RequestFailure):
    """The queue is full.

    Args:
        retry_after: seconds after which there should be room.
    """

    status = 503
    kind = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(RequestFailure):
    """No result within the time-out."""

    status = 504
    kind = "deadline"


KINDS: Dict[str, Type[RequestFailure]] = {
    kind.__name__: kind
    for kind in (
        RequestFailure,
        BadInput,
        BodyTooLarge,
        UnsupportedContentType,
        ModelFailure,
        Overloaded,
        DeadlineExceeded,
    )
}
"""By name, for a failure that comes from another process."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, short enough for an answer; the log has the rest."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
