"""Which requests are let in: decoding one that will be refused later is work that those let in have to wait for."""

from __future__ import annotations

import math
import threading
import time

from .failures import Overloaded

SHARE = 0.5
"""The part of a request's time that it may be foretold to take: it has waited in the socket before, unseen."""

_NEWEST = 0.1
"""The weight of the latest answer in what a request takes."""


class Admission:
    """Counts requests in and out of a worker, and foretells from that how long another would take.

    A request that finds n under way and is answered after t seconds has seen t / n per request, whatever the work is:
    decoding, the queue, the device, with as many side by side and in a batch as there are. One that came nearly alone
    is taken to have shared its batch with all that could have: it does not tell, and a burst may well be done in one.

    Args:
        most: requests at once.
        at_least: so many at once are let in whatever they may take: as many as may share a batch, since requests that
            came alone do not tell how long those take.
        longest_wait: seconds; one that would take longer is refused, as is one that might miss its own deadline.
    """

    def __init__(self, *, most: int, at_least: int, longest_wait: float) -> None:
        self._most = most
        self._at_least = at_least
        self._longest_wait = longest_wait
        self._lock = threading.Lock()
        self._under_way = 0
        self._seconds = 0.0

    def enter(self, deadline: float) -> int:
        """Count a request in.

        Args:
            deadline: on the clock of ``time.monotonic``.

        Returns:
            how many are under way with it; ``leave`` wants to know.

        Raises:
            Overloaded: it would be one too many.
        """
        with self._lock:
            under_way = self._under_way
            wait = under_way * self._seconds
            if under_way >= self._most:
                raise Overloaded(f"{under_way} requests are under way already. Send fewer at once.", retry_after=1)
            longest = min(self._longest_wait, SHARE * (deadline - time.monotonic()))
            if under_way >= self._at_least and wait > longest:
                raise Overloaded(
                    f"{under_way} requests are under way, and another would take {wait:.1f} s. Send less, or later.",
                    retry_after=max(1, math.ceil(wait / 2)),
                )
            self._under_way += 1
            return under_way + 1

    def leave(self, entered: int, seconds: float) -> None:
        """Count a request out.

        Args:
            entered: what ``enter`` said.
            seconds: how long it took; 0 where that says nothing about others, as after a failure.
        """
        with self._lock:
            self._under_way -= 1
            if seconds:
                each = seconds / max(entered, self._at_least)
                self._seconds = self._seconds + _NEWEST * (each - self._seconds) if self._seconds else each
