"""Scores ``0 .. ITEMS`` against a port and prints each result as it is handed on, for tests that kill it.

``python many_client.py PORT ITEMS CHECKPOINT``.
"""

from __future__ import annotations

import sys

import numpy as np

from gpu_infer.client import RetryPolicy, ScoringClient

if __name__ == "__main__":
    port, count, checkpoint = sys.argv[1:]
    policy = RetryPolicy(base=0.01, cap=0.1, attempt_timeout=0.2, idempotent=True)
    with ScoringClient(f"http://127.0.0.1:{port}/score", retries=policy) as client:
        items = (np.array([float(number)]) for number in range(int(count)))
        for index, result in client.score_many(items, items_per_request=4, checkpoint=checkpoint).with_index():
            print(index, int(result[0]))
    print("end", flush=True)
