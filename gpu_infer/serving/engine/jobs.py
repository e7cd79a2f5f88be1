"""What waits for the model, and what becomes of it."""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from ..failures import ModelFailure, RequestFailure, first_line

Outputs = Dict[str, np.ndarray]
Done = Callable[[Any], None]
Rows = Union[np.ndarray, Callable[[], np.ndarray]]


@dataclass(frozen=True)
class BlockResult:
    """What became of a block of items.

    Args:
        outputs: by output name, ``[k, ...]``: one row per item. Empty where an item failed: then the request fails.
        failures: by index in the block, why an item has no output.
        batch: how many items the largest batch held that this block was part of, padding not counted.
        queue_ms: the longest time an item waited for the device.
        compute_ms: the longest time that one of its batches took.
    """

    outputs: Outputs
    failures: Dict[int, RequestFailure]
    batch: int
    queue_ms: float
    compute_ms: float


class Job:
    """Some items of one request, at most a batch of them, waiting for the device.

    Args:
        rows: ``[k, ...]``; or what makes ``[1, ...]`` of one item, always of the same shape and dtype. It is called in
            the thread that runs the item; what it raises becomes the result.
        deadline, queued: on the clock of ``time.monotonic``.
        done: called once, with what became of it.
    """

    __slots__ = ("abandoned", "count", "deadline", "done", "key", "queued", "rows")

    def __init__(self, rows: Rows, deadline: float, queued: float, done: Done) -> None:
        self.rows: Rows = rows
        self.count: int = count_of(rows)
        self.deadline: float = deadline
        self.queued: float = queued
        self.done: Done = done
        self.abandoned: bool = False
        # Jobs of one key can run in one batch; what makes items makes all of one shape.
        self.key: Tuple[Any, ...] = () if callable(rows) else (rows.dtype, rows.shape[1:])

    def make(self) -> Optional[np.ndarray]:
        """The rows; ``None`` where they cannot be made, which is handed over."""
        try:
            return self.rows() if callable(self.rows) else self.rows
        except RequestFailure as failure:
            self.finish(failure)
        except BaseException as error:  # no memory: this request fails, the next may not
            failure = ModelFailure(f"The item could not be made: {type(error).__name__}: {first_line(error)}")
            failure.__cause__ = error
            self.finish(failure)
        return None

    def finish(self, result: Any) -> None:
        """Hand over what became of it; whatever goes wrong there must not end the thread that others wait for."""
        try:
            self.done(result)
        except Exception:
            traceback.print_exc()


def count_of(rows: Rows) -> int:
    """How many items there are."""
    return 1 if callable(rows) else len(rows)


def batch_sizes(max_batch: int, *, fixed: Optional[int], padded: bool) -> List[int]:
    """The batch sizes that the model will see.

    Args:
        max_batch: the largest.
        fixed: the only size that the model takes, where it insists on one.
        padded: whether sizes are rounded up to powers of two, so that a GPU framework plans each shape once.

    Returns:
        ascending sizes; without padding just the smallest and the largest, since any size between them runs as it is.
    """
    if fixed is not None:
        return [fixed]
    if not padded:
        return sorted({1, max_batch})
    return powers_of_two(max_batch)


def powers_of_two(most: int) -> List[int]:
    """1, 2, 4, ... and ``most`` itself."""
    return sorted({*(1 << power for power in range(most.bit_length())), most})


class Gather:
    """Puts the results of a request's blocks together again, and hands them over when the last is there."""

    def __init__(self, count: int, size: int, done: Done) -> None:
        self._parts: List[Any] = [None] * count
        self._left = count
        self._size = size
        self._lock = threading.Lock()
        self._done = done

    def place(self, index: int) -> Done:
        """Where one block's result goes."""

        def put(part: Any) -> None:
            with self._lock:
                self._parts[index] = part
                self._left -= 1
                complete = self._left == 0
            if complete:
                self._done(_joined(self._parts, self._size))

        return put


def _joined(parts: Sequence[Any], size: int) -> Union[BlockResult, RequestFailure]:
    try:
        return _join(parts, size)
    except Exception as error:  # outputs whose shape differs from run to run, or no memory
        failure = ModelFailure(f"The results of a request of several batches do not fit together: {first_line(error)}")
        failure.__cause__ = error
        return failure


def _join(parts: Sequence[Any], size: int) -> Union[BlockResult, RequestFailure]:
    refused = next((part for part in parts if isinstance(part, RequestFailure)), None)
    if refused is not None:
        return refused
    failures = {
        block * size + index: failure for block, part in enumerate(parts) for index, failure in part.failures.items()
    }
    return BlockResult(
        {} if failures else stacked([part.outputs for part in parts]),
        failures,
        max(part.batch for part in parts),
        max(part.queue_ms for part in parts),
        max(part.compute_ms for part in parts),
    )


def stacked(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of several blocks as those of one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
