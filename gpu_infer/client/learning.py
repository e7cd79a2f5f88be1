"""What a client knows of its service, when to ask for it, and whether an input fits: the same for sync and async."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from ..errors import ScoringError
from .arrays import bad_input
from .codecs import BYTES, NPY, npy_form
from .messages import Payload
from .retry import MIN_ATTEMPT
from .signature import Signature, array_misfit, bytes_misfit

__all__ = ["Learner", "TaskLearner", "ThreadLearner", "seconds_left"]

Clock: TypeAlias = Callable[[], float]

_log = logging.getLogger("gpu_infer.client")

ASKING_TIMEOUT = 5.0
"""Seconds for the question; of a call that has less than twice as much, half its time."""

TRIES = 3
"""How often a service is asked that does not tell."""

SURE = 10.0
"""Seconds for which what a service has told is reason enough to refuse an input. Afterwards it is asked again first: it
may serve another model by now."""


def seconds_left(seconds: float, passed: float) -> float:
    """Seconds that a call still has after the question; never so few that nothing can be sent."""
    return max(seconds - passed, min(seconds, MIN_ATTEMPT))


class Learner:
    """What is known of a service.

    Args:
        ours: whether ``gpu_infer`` built the service; ``None``: its answers tell.

    Attributes:
        signature: what the service has told, ``None`` as long as it has not.
        ours: as given.
    """

    def __init__(self, *, ours: bool | None) -> None:
        self.signature: Signature | None = None
        self.ours = ours
        self._due = bool(ours)
        self._failed = 0
        self._told_at = -math.inf

    @property
    def due(self) -> bool:
        """Whether the service is to be asked before the next input is sent."""
        return self._due

    def met(self) -> None:
        """Note that an answer was of a service of ours, so that asking makes sense."""
        if self.signature is None and self._failed < TRIES:
            self._due = self.ours is not False

    def take(self, description: Mapping[str, Any], now: float) -> None:
        """Take what ``describe()`` returned."""
        try:
            self.signature = Signature.from_description(description)
        except ValueError as error:
            self.fail(error)
            return
        self._due, self._told_at, self._failed = False, now, 0

    def fail(self, error: Exception) -> None:
        """Note that there was no description: nothing is checked until the service has answered something else."""
        _log.debug("no checks of inputs, the service does not tell what it takes: %s", error)
        self._due, self._failed = False, self._failed + 1

    def doubts(self, payload: object, now: float) -> bool:
        """Whether an input does not fit what was told too long ago; it is forgotten then, and due again."""
        if now - self._told_at < SURE or not self._misfit(payload):
            return False
        self.signature, self._due = None, True
        return True

    def check(self, payload: object) -> None:
        """Hold an input against the signature, if it is known.

        Raises:
            BadInputError: the service would refuse it; nothing was sent.
        """
        if problem := self._misfit(payload):
            bad_input(problem)

    def _misfit(self, payload: object) -> str:
        signature = self.signature
        # A hook takes what it likes; tensors by name go to services that are none of ours.
        if signature is None or signature.preprocess or not isinstance(payload, Payload):
            return ""
        if payload.content_type == NPY:
            form = npy_form(payload.body)
            return "" if form is None else array_misfit(*form, signature.input, items=payload.items)
        if payload.content_type == BYTES or payload.content_type.startswith("image/"):
            return bytes_misfit(payload.content_type, signature.input)
        return ""


class ThreadLearner(Learner):
    """Asks from threads, one for all."""

    def __init__(self, *, ours: bool | None) -> None:
        super().__init__(ours=ours)
        self._lock = threading.Lock()

    def admit(self, payload: object, seconds: float, *, ask: Callable[[float], dict[str, Any]], clock: Clock) -> float:
        """Ask the service what it takes where that is due, and hold an input against it.

        Args:
            payload: the input.
            seconds: that the call has.
            ask: gets ``describe()`` within so many seconds.
            clock: seconds, monotonic.

        Returns:
            seconds that are left.

        Raises:
            BadInputError: the service would refuse the input; it was not sent.
        """
        seconds = self.learn(seconds, ask=ask, clock=clock)
        if self.doubts(payload, clock()):
            seconds = self.learn(seconds, ask=ask, clock=clock)
        self.check(payload)
        return seconds

    def learn(self, seconds: float, *, ask: Callable[[float], dict[str, Any]], clock: Clock) -> float:
        """Ask where that is due; the seconds that are left. A service that does not tell is no error."""
        if not self.due:
            return seconds
        begun, limit = clock(), _limit(seconds)
        if self._lock.acquire(timeout=limit):
            try:
                if self.due:
                    self.take(ask(limit), clock())
            except ScoringError as error:
                self.fail(error)
            finally:
                self._lock.release()
        return seconds_left(seconds, clock() - begun)


class TaskLearner(Learner):
    """Asks from tasks, one for all."""

    def __init__(self, *, ours: bool | None) -> None:
        super().__init__(ours=ours)
        self.new_loop()

    def new_loop(self) -> None:
        """Forget what belongs to the loop before."""
        self._lock = asyncio.Lock()

    async def admit(
        self, payload: object, seconds: float, *, ask: Callable[[float], Awaitable[dict[str, Any]]], clock: Clock
    ) -> float:
        """As :meth:`ThreadLearner.admit`."""
        seconds = await self.learn(seconds, ask=ask, clock=clock)
        if self.doubts(payload, clock()):
            seconds = await self.learn(seconds, ask=ask, clock=clock)
        self.check(payload)
        return seconds

    async def learn(self, seconds: float, *, ask: Callable[[float], Awaitable[dict[str, Any]]], clock: Clock) -> float:
        """As :meth:`ThreadLearner.learn`."""
        if not self.due:
            return seconds
        begun, limit = clock(), _limit(seconds)
        try:
            await asyncio.wait_for(self._lock.acquire(), limit)
        except TimeoutError:
            return seconds_left(seconds, clock() - begun)
        try:
            if self.due:
                self.take(await ask(limit), clock())
        except ScoringError as error:
            self.fail(error)
        finally:
            self._lock.release()
        return seconds_left(seconds, clock() - begun)


def _limit(seconds: float) -> float:
    """Seconds for the question, of those that a call has."""
    return max(min(ASKING_TIMEOUT, seconds / 2), MIN_ATTEMPT)
