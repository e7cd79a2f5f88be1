"""Load on a deployed service: how many requests per second it answers, how quickly, and how many replicas that takes.

::

    report     the figures, and what follows from them
    senders    threads that keep a number of requests under way
    measuring  levels of load, one after the other, on a service
"""

from __future__ import annotations

from gpu_infer.load.measuring import CONCURRENCY, MAX_CONCURRENCY, SECONDS, item_for, measure, replicas_of
from gpu_infer.load.report import HEADROOM, QUICK_MS, TAIL, Level, LoadReport, percentile, replicas_for

__all__ = [
    "CONCURRENCY",
    "HEADROOM",
    "MAX_CONCURRENCY",
    "QUICK_MS",
    "SECONDS",
    "TAIL",
    "Level",
    "LoadReport",
    "item_for",
    "measure",
    "percentile",
    "replicas_for",
    "replicas_of",
]
