"""What a service takes and gives, as it tells itself: :class:`Signature`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["Signature", "Tensor"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model.

    Attributes:
        name: in the model.
        dtype: as NumPy names it, or ``"bytes"`` for a tensor of strings.
        shape: the batch axis first; ``None`` for an axis of any length, and for all where they are not known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def item_shape(self) -> tuple[int | None, ...] | None:
        """The shape without the batch axis, ``None`` where it is not known."""
        return None if self.shape is None else self.shape[1:]

    def __str__(self) -> str:
        axes = "?" if self.shape is None else ", ".join("N" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name}: {self.dtype} [{axes}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs, outputs, hooks and labels of a service, read from what ``describe()`` returns.

    Attributes:
        inputs: of the model, behind ``preprocess``.
        outputs: of the model, before ``postprocess``.
        preprocess: the hook in front of the model, empty without.
        postprocess: the hook behind it, empty without.
        labels: names of the classes, ``None`` where the service has none.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    preprocess: str = ""
    postprocess: str = ""
    labels: tuple[str, ...] | None = None

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Signature:
        """Read what ``describe()`` returned.

        Raises:
            ValueError: it is not what services of ours say.
        """
        try:
            labels = cast("Sequence[Any]", description.get("labels") or ())
            return cls(
                inputs=(_tensor(description["input"]),),
                outputs=tuple(_tensor(output) for output in description["outputs"]),
                preprocess=str(description.get("preprocess") or ""),
                postprocess=str(description.get("postprocess") or ""),
                labels=tuple(map(str, labels)) or None,
            )
        except (LookupError, TypeError, AttributeError) as error:
            msg = f"the description of the service cannot be read: {type(error).__name__}: {error}"
            raise ValueError(msg) from error

    @property
    def input(self) -> Tensor:
        """The one input that requests are for."""
        return self.inputs[0]

    @property
    def item_shape(self) -> tuple[int | None, ...] | None:
        """The shape of an array that is one item of a request; ``None`` where a hook decides, or nobody knows."""
        return None if self.preprocess else self.input.item_shape

    @property
    def dtype(self) -> str | None:
        """The dtype that the model computes on, or ``"bytes"``; ``None`` where a hook stands before it."""
        return None if self.preprocess else self.input.dtype

    @property
    def takes_batches(self) -> bool:
        """Whether items of one shape can be stacked along a new first axis and sent as one array."""
        return self.item_shape is not None and self.dtype != "bytes"


def _tensor(found: Mapping[str, Any]) -> Tensor:
    shape = found["shape"]
    axes = None if shape is None else tuple(None if axis is None else int(axis) for axis in shape)
    return Tensor(str(found["name"]), str(found["dtype"]), axes)
