"""Whether packing requests pays: gzip, level 1, on what clients send, for a line of 100 Mbit/s.

Run: ``python bench/compression.py`` (or ``make bench``). Prints bytes, and the time of packing, line and unpacking
together; each time is the median of the rounds.
"""

from __future__ import annotations

import gzip
import io
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import orjson

ROUNDS = 5
ROWS = 1024
LINE = 100e6 / 8
"""Bytes per second."""


def main() -> None:
    """Measure and print a table."""
    die = np.random.default_rng(0)
    digits = np.where(die.random((ROWS, 784)) < 0.19, die.integers(1, 256, (ROWS, 784)) / 255, 0)  # as sparse as MNIST
    print(f"{platform.machine()}, Python {platform.python_version()}, {ROWS:,} rows of 784 float32")
    print(f"{'body':<22} {'plain MB':>9} {'packed MB':>10} {'plain ms':>9} {'packed ms':>10}")
    for name, rows in (("sparse, like digits", digits), ("random", die.random((ROWS, 784)))):
        array = rows.astype(np.float32)
        stream = io.BytesIO()
        np.save(stream, array)
        text = orjson.dumps({"data": array}, option=orjson.OPT_SERIALIZE_NUMPY)
        for form, body in (("JSON", text), (".npy", stream.getvalue())):
            packed = gzip.compress(body, 1)
            seconds = timed(lambda body=body: gzip.compress(body, 1)) + timed(
                lambda packed=packed: gzip.decompress(packed)
            )
            plain, wire = len(body) / LINE, len(packed) / LINE
            print(
                f"{name + ', ' + form:<22} {len(body) / 1e6:9.2f} {len(packed) / 1e6:10.2f} "
                f"{plain * 1e3:9.0f} {(wire + seconds) * 1e3:10.0f}"
            )


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call, the median of the rounds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    main()
