"""What the processes of services use while time goes on: samples of them, and whether they stay the same."""

from __future__ import annotations

import contextlib
import csv
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import psutil
from processes import alive

MB = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process used at one moment.

    Args:
        seconds: since the watching began.
        service: which it belongs to.
        role: ``supervisor``, ``master``, ``worker`` or ``model``.
        pid: its number.
        rss_mb: memory that it has in use, also what others share, in MB.
        pss_mb: the same, with its part of what is shared; equal to ``rss_mb`` where the system does not tell.
        threads, descriptors: how many.
    """

    seconds: float
    service: str
    role: str
    pid: int
    rss_mb: float
    pss_mb: float
    threads: int
    descriptors: int


@dataclass(slots=True)
class Watch:
    """Samples all processes of some services every few seconds, in a thread.

    Args:
        roots: service to the process that all others of it descend from.
        every: seconds between two samples.
    """

    roots: dict[str, psutil.Process]
    every: float
    samples: list[Sample] = field(default_factory=list[Sample])
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _began: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def now(self) -> float:
        """Seconds since the watching began."""
        return time.monotonic() - self._began

    def look(self) -> list[Sample]:
        """One sample of each process that is there now."""
        found: list[Sample] = []
        for service, root in self.roots.items():
            below = root.children(recursive=True)
            for process in [root, *below]:
                with contextlib.suppress(psutil.Error):  # it may end while it is looked at
                    if alive(process):
                        found.append(self._sample(service, root, process))
        return found

    def _sample(self, service: str, root: psutil.Process, process: psutil.Process) -> Sample:
        memory = process.memory_full_info()
        return Sample(
            seconds=round(self.now, 2),
            service=service,
            role=_role(root, process),
            pid=process.pid,
            rss_mb=round(memory.rss / MB, 3),
            pss_mb=round(getattr(memory, "pss", memory.rss) / MB, 3),
            threads=process.num_threads(),
            descriptors=process.num_fds(),
        )

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.samples += self.look()


def _role(root: psutil.Process, process: psutil.Process) -> str:
    if process.pid == root.pid:
        return "supervisor"
    if "gpu_infer_serving.model_process" in process.cmdline():
        return "model"
    return "master" if process.ppid() == root.pid else "worker"


def write_csv(path: Path, samples: Sequence[Sample]) -> None:
    """One line per sample."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Sample.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)


# --- series -----------------------------------------------------------------------------------------------------------

Series = list[tuple[float, float]]
"""Seconds and a value."""


def totals(samples: Sequence[Sample], service: str, value: Callable[[Sample], float]) -> Series:
    """The sum over the processes of a service, one for each time that they were looked at."""
    sums: dict[int, tuple[float, float]] = {}
    number = -1
    for sample in samples:
        if sample.service == service:
            if sample.role == "supervisor":  # the first of each look
                number += 1
            at, total = sums.get(number, (sample.seconds, 0.0))
            sums[number] = (at, total + value(sample))
    assert sums, f"no samples of {service}"
    return list(sums.values())


def of_process(samples: Sequence[Sample], pid: int, value: Callable[[Sample], float]) -> Series:
    """The values of one process."""
    return [(sample.seconds, value(sample)) for sample in samples if sample.pid == pid]


def growth(series: Series) -> float:
    """By how much the median of the last quarter is above that of the first."""
    quarter = max(1, len(series) // 4)
    first, last = ([value for _, value in part] for part in (series[:quarter], series[-quarter:]))
    return statistics.median(last) - statistics.median(first)


def trend(series: Series) -> float:
    """By how much it rises from beginning to end, by the median of the slopes between its values (Theil and Sen)."""
    step = max(1, len(series) // 200)
    few = series[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for at, earlier in enumerate(few)
        for later in few[at + 1 :]
        if later[0] > earlier[0]
    ]
    return statistics.median(slopes) * (series[-1][0] - series[0][0]) if slopes else 0.0
