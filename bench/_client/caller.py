"""Calls a service in one way, in a process and an environment of its own; answers orders on its standard input.

Run by ``calls.py``. The argument is a JSON object: ``way``, ``form``, ``rows`` (a ``.npy`` file), ``expected``
(another) and what ``Target`` takes. Each line of input is an order, ``{"concurrency": 16, "seconds": 1.0}`` or
``{"items": 20000}``; each line of output is what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from typing import Any

import numpy as np
from ways import ASYNC, BULK, BULK_ASYNC, OPENS_PER_THREAD, SYNC, Target


def main() -> None:
    """Warm up, say so, and work until the input ends."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    output = sys.stdout
    # What the SDKs print must not come between the answers.
    with contextlib.redirect_stdout(sys.stderr):
        caller = Caller(told)
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            if "items" in order:
                found = caller.bulk(order["items"])
            else:
                found = caller.load(order["concurrency"], order["seconds"])
            output.write(json.dumps(found) + "\n")
            output.flush()


class Caller:
    """One way, and what it is measured with."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.way: str = told["way"]
        self.form: Any = told["form"]
        self.rows = np.load(told["rows"])
        self.expected = np.load(told["expected"])
        self.target = Target(told["uri"], told["key"], told["emulator"], told["name"])

    def bulk(self, items: int) -> dict[str, Any]:
        """All of so many rows, once."""
        rows = np.resize(self.rows, (items, self.rows.shape[1]))
        started = time.perf_counter()
        if self.way in BULK_ASYNC:
            results = asyncio.run(BULK_ASYNC[self.way](self.target, rows))
        else:
            results = BULK[self.way](self.target, rows)
        seconds = time.perf_counter() - started
        expected = np.resize(self.expected, (items, self.expected.shape[1]))
        return {"per_second": items / seconds, "wrong": int(items - _right(results, expected))}

    def load(self, concurrency: int, seconds: float) -> dict[str, Any]:
        """So many callers for so long, after two calls of each to warm up."""
        if self.way in ASYNC:
            found, spent = asyncio.run(self._tasks(concurrency, seconds))
        else:
            found, spent = self._threads(concurrency, seconds)
        times = sorted(elapsed for elapsed, good in found if good)
        wrong = sum(not good for _, good in found)
        return {
            "per_second": len(times) / spent,
            "p50_ms": _percentile(times, 50) * 1e3,
            "p99_ms": _percentile(times, 99) * 1e3,
            "wrong": wrong,
        }

    def _threads(self, concurrency: int, seconds: float) -> tuple[list[tuple[float, bool]], float]:
        found: list[list[tuple[float, bool]]] = [[] for _ in range(concurrency)]
        broken: list[Exception] = []
        gate = threading.Barrier(concurrency + 1)

        def work(number: int, call: Any) -> None:
            try:
                index = number
                for _ in range(2):
                    self._check(call, index)
                gate.wait(60)
                end = time.perf_counter() + seconds
                while time.perf_counter() < end:
                    index += concurrency
                    found[number].append(self._check(call, index))
            except Exception as error:  # noqa: BLE001 (raised again below, in the thread that waits)
                broken.append(error)
                gate.abort()

        with contextlib.ExitStack() as stack:
            opened = SYNC[self.way]
            own = self.way in OPENS_PER_THREAD
            shared = None if own else stack.enter_context(opened(self.target, self.form))
            threads = [
                threading.Thread(
                    target=work, args=(number, shared or stack.enter_context(opened(self.target, self.form)))
                )
                for number in range(concurrency)
            ]
            for thread in threads:
                thread.start()
            with contextlib.suppress(threading.BrokenBarrierError):
                gate.wait(60)
            started = time.perf_counter()
            for thread in threads:
                thread.join()
            spent = time.perf_counter() - started
        if broken:
            raise broken[0]
        return [one for part in found for one in part], spent

    async def _tasks(self, concurrency: int, seconds: float) -> tuple[list[tuple[float, bool]], float]:
        found: list[tuple[float, bool]] = []

        async with ASYNC[self.way](self.target, self.form) as call:

            async def work(index: int, end: float) -> None:
                while time.perf_counter() < end:
                    index += concurrency
                    found.append(await self._check_async(call, index))

            await asyncio.gather(*(self._check_async(call, number) for number in range(2 * concurrency)))
            started = time.perf_counter()
            await asyncio.gather(*(work(number, started + seconds) for number in range(concurrency)))
            return found, time.perf_counter() - started

    def _check(self, call: Any, index: int) -> tuple[float, bool]:
        number = index % len(self.rows)
        started = time.perf_counter()
        result = call(self.rows[number])
        return time.perf_counter() - started, self._is_right(result, number)

    async def _check_async(self, call: Any, index: int) -> tuple[float, bool]:
        number = index % len(self.rows)
        started = time.perf_counter()
        result = await call(self.rows[number])
        return time.perf_counter() - started, self._is_right(result, number)

    def _is_right(self, result: Any, number: int) -> bool:
        return bool(np.abs(np.asarray(result) - self.expected[number]).max() < 1e-3)


def _right(results: list[Any], expected: np.ndarray[Any, Any]) -> int:
    if len(results) != len(expected):
        return 0
    differences = np.abs(np.asarray(results) - expected).max(axis=1)
    return int((differences < 1e-3).sum())


def _percentile(values: list[float], percent: float) -> float:
    return values[min(len(values) - 1, int(percent / 100 * len(values)))] if values else float("nan")


if __name__ == "__main__":
    main()
