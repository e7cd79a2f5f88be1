"""Waiting for Azure: pauses that grow, failures that pass, and things that have to be seen to be gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gpu_infer.errors import GpuInferError, TeardownError
from gpu_infer.targets.calls import call_timeout, deadline

__all__ = ["Pauses", "remove"]

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.2, 10.0, 1.5
"""Seconds: short at first, since what takes no time should not wait, and long when Azure works for minutes."""

TRIES = 3
"""How often a poll may fail in a row, and a deletion be asked for. The SDK has tried each several times already."""


class Pauses:
    """The pauses of one polling loop."""

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE
        self._failures = 0

    def sleep(self, left: Callable[[], float], *, what: str, error: type[GpuInferError]) -> None:
        """Pause before the next look.

        Args:
            left: gives the seconds that are left.
            what: to say when there are none.
            error: to say it with.
        """
        if not left():
            message = f"Time is over, and {what}. Look at it in the portal; call again to wait longer."
            raise error(message)
        time.sleep(min(self._seconds, left()))
        self._seconds = min(self._seconds * GROWTH, LONGEST_PAUSE)

    def succeeded(self) -> None:
        """A look has succeeded."""
        self._failures = 0

    def failed(self) -> bool:
        """A look has failed; whether that was one too many."""
        self._failures += 1
        return self._failures >= TRIES


def remove(
    what: str,
    *,
    look: Callable[[], Any | None],
    delete: Callable[[Any], None],
    is_going: Callable[[Any], bool],
    is_conflict: Callable[[BaseException | None], bool],
    timeout: float,
) -> None:
    """Delete something and see that it is gone. What is gone already is fine.

    The SDK's own deletion returns as if it had succeeded where the operation behind it has failed, and fails where
    only the answer was lost: so what counts is what is seen afterwards.

    Args:
        what: it is, in words.
        look: gives it, ``None`` where it is absent.
        delete: asks for its deletion.
        is_going: whether it is being deleted.
        is_conflict: whether what the SDK has raised says that Azure is still working on it.
        timeout: seconds.

    Raises:
        TeardownError: it is still there, or that cannot be seen.
    """
    left = deadline(timeout)
    pauses = Pauses()
    conflicts = deadline(call_timeout())
    tries = 0
    failure: GpuInferError | None = None
    while True:
        try:
            found = look()
            pauses.succeeded()
        except GpuInferError as error:
            if pauses.failed():
                message = f"Whether {what} is gone cannot be seen, so it may still be billed: {error}"
                raise TeardownError(message, left=[what]) from error
            pauses.sleep(left, what=f"{what} may still be there", error=TeardownError)
            continue
        if found is None:
            return
        if is_going(found):
            _pause(pauses, left, what)
            continue
        if tries >= TRIES:
            reason = f" {failure}" if failure else " Azure says that the deletion ended, and it is still there."
            message = f"{what[0].upper()}{what[1:]} could not be deleted and is still billed.{reason}"
            raise TeardownError(message, left=[what]) from failure
        try:
            delete(found)
            tries += 1
        except GpuInferError as error:
            failure = error
            # Azure refuses to delete what it is still working on: that passes.
            tries += 0 if is_conflict(error.__cause__) and conflicts() else 1
            _pause(pauses, left, what)


def _pause(pauses: Pauses, left: Callable[[], float], what: str) -> None:
    try:
        pauses.sleep(left, what=f"{what} is still there", error=TeardownError)
    except TeardownError as error:
        error.left.append(what)
        raise
