"""Whether two services give the same answers to the same requests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gpu_infer.client import ScoringClient
from gpu_infer.targets.base import Deployment

__all__ = ["Comparison", "Difference", "asking", "compare", "difference"]

ANSWER_SECONDS = 300.0
"""For one request, its retries included."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the answers to one request are apart.

    Args:
        size: the largest absolute difference of two numbers; infinite where the answers are not of one form.
        what: differs, in words; empty where nothing does.
    """

    size: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of two services to the same requests.

    Args:
        requests: how many were compared.
        largest: the largest difference of two numbers; infinite where answers are not of one form.
        at: index of the request whose answers are farthest apart.
        what: of those answers differs, in words.
        tolerance: that was asked for.
    """

    requests: int
    largest: float
    at: int
    what: str
    tolerance: float

    @property
    def agree(self) -> bool:
        """Whether no difference is above the tolerance."""
        return self.largest <= self.tolerance

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON; an infinite difference is ``None``."""
        largest = self.largest if math.isfinite(self.largest) else None
        return {"requests": self.requests, "largest": largest, "at": self.at, "what": self.what, "agree": self.agree}

    def __str__(self) -> str:
        apart = f"at most {self.largest:.3g}" if math.isfinite(self.largest) else "in form"
        count = f"{self.requests} answer{'' if self.requests == 1 else 's'}"
        return f"{count} compared, differing {apart}" + (f" ({self.what})" if self.what else "")


@contextmanager
def asking(deployment: Deployment) -> Generator[Callable[[Any], Any]]:
    """A function that sends one golden item to a service and gives its answer.

    A service of ours gets every item as ``score()`` takes it. To a script of the user's the bytes of a file go as they
    are, a ``.json`` file as JSON, and anything else as ``{"data": ...}``.
    """
    with ExitStack() as stack:
        clients: dict[str | None, ScoringClient] = {}

        def client(codec: Any) -> ScoringClient:
            if codec not in clients:
                made = ScoringClient(
                    deployment.scoring_uri,
                    deployment.credential,
                    timeout=max(ANSWER_SECONDS, deployment.timeout),
                    codec=codec,
                    ours=not deployment.own_script,
                )
                clients[codec] = stack.enter_context(made)
            return clients[codec]

        def ask(item: Any) -> Any:
            if not deployment.own_script:
                return client(None).score(item)
            if isinstance(item, str | Path) and Path(item).suffix.lower() == ".json":
                item = json.loads(Path(item).read_bytes())
            raw = isinstance(item, bytes | bytearray | str | Path)
            return client("bytes" if raw else "json").score(item)

        yield ask


def compare(before: Sequence[Any], after: Sequence[Any], *, tolerance: float) -> Comparison:
    """Compare answers pair by pair."""
    found = [difference(left, right) for left, right in zip(before, after, strict=True)]
    at = max(range(len(found)), key=lambda index: found[index].size)
    return Comparison(len(found), found[at].size, at, found[at].what, tolerance)


def difference(before: Any, after: Any) -> Difference:
    """How far two answers are apart: arrays and numbers by value, all else by form and equality.

    NaN is the same as NaN; JSON in bytes is read.
    """
    first, second = _read(before), _read(after)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return _of_mappings(cast("Mapping[str, Any]", first), cast("Mapping[str, Any]", second))
    left, right = _numbers(first), _numbers(second)
    if left is not None and right is not None:
        if left.shape != right.shape:
            return Difference(math.inf, f"shapes {list(left.shape)} and {list(right.shape)}")
        return _of_numbers(left, right)
    if isinstance(first, list) and isinstance(second, list):
        return _of_lists(cast("list[Any]", first), cast("list[Any]", second))
    if isinstance(first, str | bytes) or first is None:
        same = first == second
        return Difference(0.0) if same else Difference(math.inf, f"{_short(first)} and {_short(second)}")
    return Difference(math.inf, f"{type(before).__name__} and {type(after).__name__}")


# --- inside -----------------------------------------------------------------------------------------------------------


def _read(answer: Any) -> Any:
    """An answer as values: a script may send JSON as plain text."""
    if isinstance(answer, bytes):
        try:
            return json.loads(answer)
        except ValueError:
            return answer
    return answer


def _numbers(value: Any) -> Any:
    """An array of the numbers in a value, ``None`` where it is no rectangle of numbers."""
    import numpy as np

    if isinstance(value, str | bytes | Mapping) or value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return None
    if array.size == 0 and isinstance(value, list):
        return None
    return array if array.dtype.kind in "biuf" else None


def _of_numbers(left: Any, right: Any) -> Difference:
    import numpy as np

    if left.size == 0:
        return Difference(0.0)
    first, second = left.astype(np.float64), right.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(first - second))
    apart = np.where(np.isnan(apart), math.inf, apart)
    where = np.unravel_index(int(apart.argmax()), apart.shape) if apart.ndim else ()
    size = float(apart.max())
    return Difference(size, f"{first[where]:.7g} and {second[where]:.7g}" if size else "")


def _of_mappings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    if set(before) != set(after):
        return Difference(math.inf, f"keys {sorted(before)} and {sorted(after)}")
    each = [(key, difference(before[key], after[key])) for key in before]
    key, worst = max(each, key=lambda pair: pair[1].size, default=("", Difference(0.0)))
    return Difference(worst.size, f"{key}: {worst.what}" if worst.what else "")


def _of_lists(before: list[Any], after: list[Any]) -> Difference:
    if len(before) != len(after):
        return Difference(math.inf, f"{len(before)} and {len(after)} values")
    each = [difference(left, right) for left, right in zip(before, after, strict=True)]
    return max(each, key=lambda one: one.size, default=Difference(0.0))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
