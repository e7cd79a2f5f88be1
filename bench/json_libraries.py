"""Which JSON library the container should use: json, ujson or orjson, on what a scoring service reads and writes.

Run: ``python bench/json_libraries.py`` (or ``make bench``). Prints times per call and ratios, measured side by side in
one process, the contenders taking turns; each figure is the median of the rounds.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import ujson

ROUNDS = 15


def main() -> None:
    """Measure and print a table."""
    rows = np.random.default_rng(0).random((16, 784), dtype=np.float32)
    body = json.dumps({"data": rows.tolist()}).encode()
    scores = np.random.default_rng(1).random((16, 1000), dtype=np.float32)
    works: dict[str, dict[str, Callable[[], Any]]] = {
        "read 16 x 784 numbers": {
            "json": lambda: np.array(json.loads(body)["data"]),
            "ujson": lambda: np.array(ujson.loads(body)["data"]),
            "orjson": lambda: np.array(orjson.loads(body)["data"]),
        },
        "write 16 x 1000 numbers of an array": {
            "json": lambda: json.dumps(scores.tolist()),
            "ujson": lambda: ujson.dumps(scores.tolist()),
            "orjson": lambda: orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY),
        },
    }
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    for work, contenders in works.items():
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, call in contenders.items():
                times[name].append(timed(call))
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(work)
        for name, seconds in medians.items():
            print(f"  {name:<7} {seconds * 1e3:7.3f} ms   {medians['ujson'] / seconds:5.2f} times ujson")


def timed(call: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds per call, the mean of a few calls in a row."""
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


if __name__ == "__main__":
    main()
