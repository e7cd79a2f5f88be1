"""What all adapters share: checks of names and of results, in the same words."""

from __future__ import annotations

from typing import Mapping, Optional, Sequence, Tuple

import numpy as np

from .base import ModelFormatError, TensorSpec
from .options import AdapterOptions

ENTRY_SCRIPT = 'Serve such a model with an entry script of your own: deploy(..., entry_script="score.py").'


class OnePool:
    """For adapters of a framework that has one pool of threads for all runs, set up when the model is loaded."""

    def use_threads(self, threads: int) -> None:
        """See ``Adapter.use_threads``."""


class RefusedInputError(ValueError):
    """The model said that the values are at fault; for frameworks that have no exception of their own for that."""


def only_input(specs: Sequence[TensorSpec]) -> TensorSpec:
    """The one input of a model.

    Raises:
        ModelFormatError: there are several or none, or it has no batch axis.
    """
    if len(specs) != 1:
        count = len(specs) or "no"
        listing = "; ".join(str(spec) for spec in specs) or "none"
        raise ModelFormatError(
            f"The model has {count} inputs ({listing}), and a request carries items for one. {ENTRY_SCRIPT}"
        )
    spec = specs[0]
    if spec.shape == ():
        raise ModelFormatError(
            f"The input {spec} is a single value without a batch axis. Export the model with a first axis for the "
            f"batch. {ENTRY_SCRIPT}"
        )
    return spec


def chosen_outputs(specs: Sequence[TensorSpec], options: AdapterOptions) -> Tuple[TensorSpec, ...]:
    """All outputs, or the ones that the options name.

    Raises:
        ModelFormatError: no output, or none of that name.
    """
    if not specs:
        raise ModelFormatError("The model has no output that is a tensor.")
    names = [spec.name for spec in specs]
    unknown = [name for name in options.output_names or () if name not in names]
    if unknown:
        raise ModelFormatError(f"The model has no output {', '.join(unknown)}. It has: {', '.join(names)}.")
    return tuple(spec for spec in specs if options.output_names is None or spec.name in options.output_names)


def checked_rows(outputs: Mapping[str, np.ndarray], batch: np.ndarray) -> Mapping[str, np.ndarray]:
    """The outputs, when each has one row per item of the batch.

    Raises:
        ModelFormatError: one that has not cannot be given back item by item.
    """
    for name, values in outputs.items():
        if values.ndim == 0 or values.shape[0] != len(batch):
            others = [other for other in outputs if other != name]
            hint = f" Or ask for another output with output= (there is {', '.join(others)})." if others else ""
            raise ModelFormatError(
                f"The output {name!r} has the shape {list(values.shape)} for a batch of {len(batch)}: its first axis "
                "is not the batch, so it cannot be split into one result per item. Export the model so that every "
                f"output has one row per item.{hint}"
            )
    return outputs


def spec_of_item(name: str, dtype: str, item_shape: Optional[Tuple[int, ...]]) -> TensorSpec:
    """The spec of a tensor whose format does not say its shape."""
    return TensorSpec(name, dtype, None if item_shape is None else (None, *item_shape))
