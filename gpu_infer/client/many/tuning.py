"""Three dials of a running ``score_many``, turned by what was measured. No clock, no lock: one thread turns them."""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["GROUP_BYTES", "GROUP_MOST", "GroupSize", "Hedges", "Window"]

GROUP_MOST = 1024
"""Items in one request."""

GROUP_BYTES = 1 << 20
"""Bytes of items in one request: beyond a megabyte the overhead of a request is lost in its transfer."""

GROUP_SECONDS = 1.0
"""Seconds: a request that takes longer is not made larger. Front ends give up after 60 and more, and all its items are
sent again when it is lost."""

GROWTH = 4
"""Each step tries so many times as many items; worth it when an item gets cheaper by :data:`WORTH`."""

WORTH = 0.8
SAMPLES = 5
"""Answers that a step is judged by: their median. A single one says nothing on a machine that does other work."""

PATIENCE = 2.0
"""Requests at once are not increased while answers take longer than so many times the shortest."""

CUT = 0.5

HEDGE_AFTER = 20
"""Answers that must be known before one can be called late."""

HEDGE_QUANTILE = 0.95
HEDGE_SAVED = 4.0
"""Second requests that may be saved up: a pause of the service makes all in flight late at once."""


class GroupSize:
    """How many items go out in one request.

    Begins with one, and takes four times as many as long as that makes an item cheaper by a fifth. An item of a small
    model costs the service microseconds and its request half a millisecond; a photograph costs milliseconds either way.

    Args:
        fixed: a number that the caller wants, ``None`` to find one out.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.size: int = fixed or 1
        self.fixed: bool = fixed is not None
        self._most = self.size
        self._settled = self.fixed
        self._samples: list[float] = []
        self._before: tuple[int, float] | None = None

    def allow(self, most: int) -> None:
        """The service takes several items in a request."""
        if not self._settled:
            self._most = most

    def at_most(self, size: int) -> None:
        """Never more than this from now on: the service could not take more, or its answers differ."""
        self.size, self._most, self._settled = max(1, min(self.size, size)), size, True

    def answered(self, items: int, seconds: float) -> None:
        """A request of so many items took so long, its retries left out."""
        if self._settled or items != self.size or self.size == self._most:
            return
        self._samples.append(seconds)
        if len(self._samples) < SAMPLES:
            return
        took, self._samples = median(self._samples), []
        each = took / self.size
        if self._before is not None and each > WORTH * self._before[1]:
            self.size, self._settled = self._before[0], True
        elif GROWTH * took > GROUP_SECONDS:
            self._settled = True
        else:
            self._before = self.size, each
            self.size = min(GROWTH * self.size, self._most)


class Window:
    """How many requests are under way at once: one more for each round that went well, half of them after a refusal.

    Args:
        start: requests at once in the beginning.
        most: requests at once at most.
    """

    def __init__(self, *, start: int, most: int) -> None:
        self.size: int = min(start, most)
        self._most = most
        self._items = 0
        self._shortest = 0.0
        self._credit = 0
        self._since_cut = 0

    def answered(self, items: int, seconds: float) -> None:
        """A request of so many items had its answer after so long."""
        self._since_cut += 1
        if items != self._items:  # requests of another size take another time
            self._items, self._shortest = items, seconds
        self._shortest = min(self._shortest, seconds)
        if seconds > PATIENCE * self._shortest:
            return
        self._credit += 1
        if self._credit >= self.size:
            self._credit = 0
            self.size = min(self.size + 1, self._most)

    def refused(self) -> None:
        """The service had no room (429, 503)."""
        # Those that were under way when it was halved may still be refused; they say nothing about what goes out now.
        self._since_cut += 1
        if self._since_cut > 0:
            self._credit, self._since_cut = 0, -self.size
            self.size = max(1, int(self.size * CUT))


class Hedges:
    """Which requests are worth a second one: those later than nearly all, within a share of all requests.

    Args:
        share: of the requests, 0 for none.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = 0.0
        self._items = 0
        self._times: deque[float] = deque(maxlen=100)

    def sent(self) -> None:
        """A request has gone out for the first time."""
        self._saved = min(self._saved + self._share, HEDGE_SAVED)

    def answered(self, items: int, seconds: float) -> None:
        """A request of so many items had its answer after so long."""
        if items != self._items:
            self._items = items
            self._times.clear()
        self._times.append(seconds)

    @property
    def late_after(self) -> float | None:
        """Seconds after which a request is late; ``None`` while that is not known, or no second one may go out."""
        if self._saved < 1.0 or len(self._times) < HEDGE_AFTER:
            return None
        return sorted(self._times)[int(HEDGE_QUANTILE * len(self._times))]

    def take(self) -> None:
        """A second request goes out."""
        self._saved -= 1.0
