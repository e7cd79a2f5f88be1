"""What ``score()`` costs beyond a bare ``post`` of ``requests``: one caller, and a server that answers at once."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests

import gpu_infer

from .ways import Target, headers, requests_session, write

_CALLS = 200
"""Of each kind in a row, before the next has its turn."""


@contextlib.contextmanager
def instant_server() -> Iterator[str]:
    """Its scoring address, for the length of a ``with`` block."""
    script = Path(__file__).parent / "instant.py"
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/score"
        finally:
            process.stdin.close()


def measure(*, rounds: int) -> dict[str, Any]:
    """Microseconds per call, medians over all calls.

    Returns:
        ``bare``: a body that was written once, on a session, the answer's bytes looked at by nobody. ``direct``: the
        same without looking for proxies in the environment, which ours does not do for this machine either.
        ``by_hand``: as ``bare``, with encoding and decoding. ``score``: ours. ``overhead``: the part by which
        ``score`` takes longer than ``bare``.
    """
    row = np.random.default_rng(0).random(784, dtype=np.float32)
    with instant_server() as uri, contextlib.ExitStack() as stack:
        target = Target(uri)
        session = stack.enter_context(requests.Session())
        direct = stack.enter_context(requests.Session())
        direct.trust_env = False
        client = stack.enter_context(gpu_infer.ScoringClient(uri, codec="npy"))
        by_hand = stack.enter_context(requests_session(target, "npy"))
        body, sent = write(row, "npy"), headers(target, "npy")
        kinds: dict[str, Callable[[], Any]] = {
            "bare": lambda: session.post(uri, data=body, headers=sent, timeout=30).content,
            "direct": lambda: direct.post(uri, data=body, headers=sent, timeout=30).content,
            "by_hand": lambda: by_hand(row),
            "score": lambda: client.score(row),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(rounds + 1):
            for name, call in kinds.items():
                found = [_timed(call) for _ in range(_CALLS)]
                times[name] += found if number else []  # the first round is to warm up
    medians = {name: statistics.median(values) * 1e6 for name, values in times.items()}
    medians["overhead"] = medians["score"] / medians["bare"] - 1
    return {name: round(value, 3) for name, value in medians.items()}


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
