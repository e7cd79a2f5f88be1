"""Switches that make a model faster: each is compared with the plain form before it is used.

A switch may change results a little: another order of additions, numbers of fewer bits. How much is measured on a
sample, and a switch that changes more than it may is taken back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..failures import first_line
from ..stages import say
from .options import AdapterOptions

TOLERANCE: Dict[str, float] = {"fp32": 2e-3, "bf16": 5e-2, "fp16": 1e-2}
"""How far results may be off, as a share of the largest number of the output, by what a switch computes with.

``fp32`` is for switches that keep the numbers and change the order of the work; it leaves room for GPUs, which multiply
in TF32. bfloat16 has 8 bits and float16 has 11, and the errors of some dozens of layers add up.
"""

PARTS_TOLERANCE = 4.0
"""How often the tolerance a part of an output may be off, as a share of its own largest number.

The largest number of a part is nearer to the usual ones than that of the whole, by which errors go.
"""

_MOST_PARTS = 1024
_NUMBERS_OF_A_PART = 16
"""With fewer, all of a part may be near zero by chance: one class of a thousand, in two rows."""
_NOTHING = 1e-6
"""A part that is smaller than this share of the whole is what rounding has left."""

_SEED = 20


@dataclass(frozen=True)
class Switch:
    """One way to make a model faster.

    Args:
        name: as in the log.
        tolerance: the largest ``Difference.relative`` that it may have.
        turn_on: brings the fast form about; may raise.
        turn_off: takes it back, also after a ``turn_on`` that raised.
        asked: whether the user has set it: then it is a warning when it is not used.
    """

    name: str
    tolerance: float
    turn_on: Callable[[], None]
    turn_off: Callable[[], None]
    asked: bool = False


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two forms are apart.

    Args:
        absolute: the largest difference of two numbers.
        relative: the same as a share of the largest number of its output, the largest of all outputs; infinite where
            one form gives NaN or infinity and the other does not.
        of_parts: the same for each index of axis 1 and of the last axis, as a share of the largest number there: scores
            up to 1 beside boxes up to 640 may be all wrong, and ``relative`` is small.
    """

    absolute: float
    relative: float
    of_parts: float = 0.0

    def __str__(self) -> str:
        return f"max abs {self.absolute:.2g}, rel {self.relative:.2g}"

    def excess(self, tolerance: float) -> str:
        """What is more than it may be, nothing where all is near enough."""
        if not self.relative <= tolerance:
            return f"its results differ by {self}, and rel {tolerance:g} is allowed"
        allowed = PARTS_TOLERANCE * tolerance
        if not self.of_parts <= allowed:
            return f"a part of its results differs by rel {self.of_parts:.2g} (all: {self}), and {allowed:g} is allowed"
        return ""


def difference(plain: Mapping[str, np.ndarray], fast: Mapping[str, np.ndarray]) -> Difference:
    """Compare the outputs of two forms on the same batch.

    Outputs of whole numbers (a class, a ranking) are left out where there are others: they jump where two scores are
    all but equal. Where there are no others, they must be equal.
    """
    floats = [name for name, values in plain.items() if values.dtype.kind == "f"]
    if not floats:
        same = all(np.array_equal(values, fast[name]) for name, values in plain.items())
        return Difference(0.0, 0.0) if same else Difference(np.inf, np.inf)
    each = [_difference(plain[name], fast[name]) for name in floats]
    largest = [max(values) for values in zip(*((one.absolute, one.relative, one.of_parts) for one in each))]
    return Difference(*largest)


def _difference(plain: np.ndarray, fast: np.ndarray) -> Difference:
    if plain.shape != fast.shape:
        return Difference(np.inf, np.inf)
    ours, theirs = plain.astype(np.float64), fast.astype(np.float64)
    usual = np.isfinite(ours)
    if not np.array_equal(ours[~usual], theirs[~usual], equal_nan=True) or not np.isfinite(theirs[usual]).all():
        return Difference(np.inf, np.inf)
    ours, theirs = np.where(usual, ours, 0.0), np.where(usual, theirs, 0.0)
    apart, sizes = np.abs(ours - theirs), np.abs(ours)
    absolute, largest = float(apart.max(initial=0.0)), float(sizes.max(initial=0.0))
    relative = absolute / largest if largest else (np.inf if absolute else 0.0)
    return Difference(absolute, relative, _of_parts(apart, sizes))


def _of_parts(apart: np.ndarray, sizes: np.ndarray) -> float:
    """The largest share by which a part is off: an index of axis 1, or of the last axis, over all other axes."""
    worst = 0.0
    for axis in {1, sizes.ndim - 1} if sizes.ndim > 1 else ():
        count = sizes.shape[axis]
        if not 1 < count <= _MOST_PARTS or sizes.size < count * _NUMBERS_OF_A_PART:
            continue
        others = tuple(other for other in range(sizes.ndim) if other != axis)
        most, scale = apart.max(axis=others), sizes.max(axis=others)
        counts = scale > _NOTHING * scale.max()
        worst = max(worst, float((most[counts] / scale[counts]).max(initial=0.0)))
    return worst


def noisy(batch: np.ndarray, count: int) -> Optional[np.ndarray]:
    """A batch to compare with: what came, with noise as large as its values, since a sample of zeros hides differences.

    Args:
        batch: ``[N, ...]``.
        count: of the rows to make.

    Returns:
        ``[count, ...]`` of the same dtype; uint8 are any, as those of pictures are. ``None`` for other dtypes that are
        not of floats: of an index or a mask nobody knows which values it may have.
    """
    random = np.random.default_rng(_SEED)
    if batch.dtype == np.uint8:
        return random.integers(0, 256, (count, *batch.shape[1:]), dtype=np.uint8)
    if batch.dtype.kind != "f":
        return None
    rows = np.repeat(batch[:1], count, axis=0)
    scale = max(1.0, float(np.abs(batch, dtype=np.float32).max(initial=0.0)))
    return (rows + scale * random.standard_normal(rows.shape)).astype(batch.dtype)


def finite_share(outputs: Mapping[str, np.ndarray]) -> float:
    """How many numbers of the outputs are neither NaN nor infinite, from 0 to 1; whole numbers and none at all give 1.

    Forms that agree on NaN have not been compared.
    """
    usual = [np.isfinite(values).ravel() for values in outputs.values() if values.dtype.kind == "f"]
    flat = np.concatenate(usual) if usual else np.empty(0)
    return float(flat.mean()) if flat.size else 1.0


def settle(switches: Sequence[Switch], run: Callable[[], Mapping[str, np.ndarray]]) -> List[str]:
    """Turn the switches on, one on top of the other, and keep those whose results are near enough to the plain ones.

    Args:
        switches: all off.
        run: the model on a sample, in the form that is switched on.

    Returns:
        those that stay on, each with its difference.

    A line ``GPU_INFER_SPEED`` says the same. It is no stage of ``init()``: it falls into another one, the warm-up, and
    whoever reads the log takes the last stage for the one in which a service died.
    What the plain form raises is the caller's. What a switch raises is logged, and the switch is left off.
    """
    started = time.perf_counter()
    kept: List[str] = []
    plain = run()
    comparable = finite_share(plain) > 0
    found: Optional[Difference]
    for switch in switches:
        try:
            switch.turn_on()
            found = difference(plain, run())
            refusal = (
                found.excess(switch.tolerance) if comparable else "NaN or infinity is all there is to compare with"
            )
        except Exception as error:
            found, refusal = None, f"{type(error).__name__}: {first_line(error)}"
        if not refusal:
            kept.append(f"{switch.name} ({found})")
        else:
            switch.turn_off()
            word = "GPU_INFER_WARNING" if switch.asked else "GPU_INFER_NOTE"
            say(f"{word} {switch.name} is not used, the model runs without it: {refusal}.")
    seconds = time.perf_counter() - started
    say(f"GPU_INFER_SPEED ok {seconds:.1f}s compared with the plain form: {'; '.join(kept) or 'none used'}")
    return kept


def warn_of_unused(options: AdapterOptions, what: str, *names: str) -> None:
    """Say which of the switches that the user has set mean nothing here.

    Args:
        options: of the user.
        what: the model, as in ``"an ONNX model"``, and after a colon what to do instead.
        names: the switches that mean nothing, of ``precision``, ``compile`` and ``cuda_graphs``.
    """
    plain = AdapterOptions()
    for name in names:
        if getattr(options, name) != getattr(plain, name):
            say(f"GPU_INFER_WARNING GPU_INFER_{name.upper()} does nothing for {what}")
