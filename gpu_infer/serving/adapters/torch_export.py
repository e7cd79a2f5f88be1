"""``torch.export`` programs (``.pt2``)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import ENTRY_SCRIPT, chosen_outputs, only_input
from .options import AdapterOptions
from .torch_common import (
    FRAMEWORK,
    INVALID_INPUT,
    OwnThreads,
    as_tensor,
    collect,
    dtype_name,
    load_error,
    named_tensors,
    prepare,
    run_module,
    torch,
    torch_device,
)

passes: Any = import_module("torch.export.passes")
pytree: Any = import_module("torch.utils._pytree")

_NO_LIMIT = 1 << 31
"""A bound above this is torch's way to say that there is none."""


@dataclass(frozen=True)
class _BatchRange:
    """The batch sizes for which a program was exported.

    Args:
        least, most: ``most`` is ``None`` without a bound.
    """

    least: int
    most: Optional[int]


class ExportedAdapter(OwnThreads):
    """An exported program, called through the module that it unpacks to.

    Args:
        program: the ``ExportedProgram``, moved to its device.
        device: where it runs.
        options: of the user.
    """

    framework = FRAMEWORK
    invalid_input_errors = INVALID_INPUT

    def __init__(self, program: Any, device: DeviceInfo, options: AdapterOptions) -> None:
        inputs = _user_inputs(program)
        self.input: TensorSpec = only_input([_spec(name, value) for name, value in inputs])
        specs = [_spec(name, value) for name, value in named_tensors(_user_outputs(program)).items()]
        self.outputs: Tuple[TensorSpec, ...] = chosen_outputs(specs, options)
        self.device = device
        self._dtype = inputs[0][1].dtype
        self._range = _batch_range(program, inputs[0][1])
        # An exported program is in the mode in which it was exported, and refuses eval().
        self._module = program.module()
        self._in_spec = program.call_spec.in_spec
        self._device = torch_device(device)

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``; in several runs where it is larger than the program allows."""
        self.say_threads()
        step = self._range.most or len(batch)
        parts = [self._run(batch[at : at + step], wanted) for at in range(0, len(batch), step)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in wanted}

    def _run(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        rows = len(batch)
        if rows < self._range.least:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self._range.least - rows, axis=0)])
        # The structure of the call is part of the program: positional, by keyword, or inside a list or dict.
        args, kwargs = pytree.tree_unflatten([as_tensor(batch, self._dtype, self._device)], self._in_spec)
        results = collect(run_module(self._module, *args, **kwargs), wanted, batch)
        return {name: values[:rows] for name, values in results.items()}


def load(path: Path, options: AdapterOptions) -> ExportedAdapter:
    """Load a ``.pt2`` file onto the device.

    Raises:
        ModelFormatError: it cannot be loaded, or takes more than one tensor.
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    device = prepare(options)
    try:
        program: Any = torch.export.load(str(path))
        program = _move(program, torch_device(device))
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, OSError) as error:
        raise load_error(f"The exported program {path.name}", error) from error
    return ExportedAdapter(program, device, options)


def _move(program: Any, device: Any) -> Any:
    """The program on another device: tensors made inside it (``arange``, masks) name the one it was exported on."""
    return passes.move_to_device_pass(program, device)


def _user_inputs(program: Any) -> List[Tuple[str, Any]]:
    """Names and example values of the arguments.

    Raises:
        ModelFormatError: one of them is no tensor.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    pairs = [(str(name), values.get(name)) for name in program.graph_signature.user_inputs]
    for name, value in pairs:
        if not isinstance(value, torch.Tensor):
            raise ModelFormatError(
                f"The exported program takes {name}, which is no tensor ({type(value).__name__}), and a batch is one "
                f"tensor. {ENTRY_SCRIPT}"
            )
    return pairs


def _user_outputs(program: Any) -> Any:
    """Example values of the outputs, in the structure that the module returns."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    leaves = [values.get(name) if isinstance(name, str) else name for name in program.graph_signature.user_outputs]
    return pytree.tree_unflatten(leaves, program.call_spec.out_spec)


def _spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape)
    return TensorSpec(name, dtype_name(value.dtype), shape)


def _batch_range(program: Any, value: Any) -> _BatchRange:
    """The sizes of the first axis that the program takes."""
    axis = value.shape[0] if value.ndim else 0
    bounds = None if isinstance(axis, int) else program.range_constraints.get(axis.node.expr)
    if bounds is None:
        return _BatchRange(1, None)
    most = None if bounds.upper > _NO_LIMIT else int(bounds.upper)
    return _BatchRange(max(1, int(bounds.lower)), most)
