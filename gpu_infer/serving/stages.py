"""One machine-readable line per stage of ``init()``, so that a deployment can show where it is and where it died."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Generator

PREFIX = "GPU_INFER_STAGE"


def say(line: str) -> None:
    """Write a line to standard error, flushed: a crash right after it must not lose it.

    Standard error, since the stock server replaces ``print`` to standard output by its logger, which adds a prefix.
    """
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Stage:
    """A running stage; ``note`` is added to its closing line."""

    def __init__(self) -> None:
        self.note = ""


@contextlib.contextmanager
def stage(name: str) -> Generator[Stage, None, None]:
    """Announce a stage: a ``start`` line before, ``ok 1.2s`` or ``failed 1.2s`` after."""
    current = Stage()
    say(f"{PREFIX} {name} start")
    started = time.perf_counter()
    try:
        yield current
    except BaseException as error:
        say(f"{PREFIX} {name} failed {time.perf_counter() - started:.1f}s {type(error).__name__}")
        raise
    say(f"{PREFIX} {name} ok {time.perf_counter() - started:.1f}s {current.note}".rstrip())
