"""What a service has counted, added up over its workers."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Dict, Mapping, Sequence

from .engine.latencies import merged, percentiles


def summed(workers: Sequence[Mapping[str, Any]], engine: Mapping[str, Any]) -> Dict[str, Any]:
    """What ``stats()`` of a service says.

    Args:
        workers: what each worker has counted, see ``Runtime.counts``.
        engine: what the engine that all of them share has counted, see ``Engine.stats``.
    """
    requests: Counter[str] = Counter()
    for worker in workers:
        requests.update(worker["requests"])
    shown = {name: value for name, value in engine.items() if name != "latencies"}
    latencies = merged([*(worker["latencies"] for worker in workers), engine.get("latencies", {})])
    uptime = time.time() - min(worker["started"] for worker in workers)
    return {
        "uptime_seconds": round(uptime, 3),
        "workers": len(workers),
        "requests": dict(sorted(requests.items())),
        **shown,
        "device_busy": round(min(1.0, shown.get("device_seconds", 0.0) / max(uptime, 1e-9)), 4),
        "milliseconds": {name: percentiles(counts) for name, counts in latencies.items()},
    }
