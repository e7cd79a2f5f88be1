"""What an adapter is: one model format, loaded and runnable.

Readable by Python 3.9, since the container may run an older Python than the library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Mapping, Optional, Protocol, Sequence, Tuple, Type

if TYPE_CHECKING:  # the model finder, which imports this, does without NumPy
    import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Args:
        name: the name in the model's signature.
        dtype: a NumPy dtype name (``"float32"``), or ``"bytes"`` for a string tensor.
        shape: with the batch axis first; ``None`` for an axis of any length. ``None`` instead of a tuple
            where the format does not say (TorchScript).
    """

    name: str
    dtype: str
    shape: Optional[Tuple[Optional[int], ...]]

    @property
    def item_shape(self) -> Optional[Tuple[Optional[int], ...]]:
        """The shape without the batch axis, ``None`` where it is not known."""
        return None if self.shape is None else self.shape[1:]

    @property
    def fixed_batch(self) -> Optional[int]:
        """The batch size that the model insists on, ``None`` where any will do."""
        return self.shape[0] if self.shape else None

    def __str__(self) -> str:
        axes = "?" if self.shape is None else ", ".join("N" if n is None else str(n) for n in self.shape)
        return f"{self.name}: {self.dtype} [{axes}]"


@dataclass(frozen=True)
class DeviceInfo:
    """The device that runs the model.

    Args:
        kind: ``"cuda"`` or ``"cpu"``.
        name: as in ``"NVIDIA H200"``; empty for a CPU.
        index: the GPU's number, 0 for a CPU.
        details: versions and memory as the framework tells them (for the device report).
    """

    kind: str
    name: str = ""
    index: int = 0
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index} {self.name}".rstrip()


class ModelFormatError(Exception):
    """The model cannot be served as it is; the message says why and what to do."""


class Adapter(Protocol):
    """A loaded model. ``predict`` may be called by several threads at once."""

    framework: str
    """``tensorflow``, ``torch`` or ``onnxruntime``."""

    input: TensorSpec
    outputs: Tuple[TensorSpec, ...]
    device: DeviceInfo
    invalid_input_errors: Tuple[Type[BaseException], ...]
    """What ``predict`` raises when the values, not the model, are at fault."""

    def use_threads(self, threads: int) -> None:
        """Take so many CPU threads for each run from now on; called while nothing runs.

        Args:
            threads: 0 for the framework's own choice.

        Does nothing where the framework has one pool of threads for all runs.
        """
        ...

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch.

        Args:
            batch: ``[N, ...]`` of ``input.dtype``, C-contiguous; for ``"bytes"`` an object array of ``bytes``.
            wanted: names of the outputs to compute.

        Returns:
            the wanted outputs by name, each ``[N, ...]``; string tensors as object arrays of ``bytes``.
        """
        ...
