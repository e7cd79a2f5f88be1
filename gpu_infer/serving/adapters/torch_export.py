"""``torch.export`` programs (``.pt2``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import ENTRY_SCRIPT, chosen_outputs, only_input
from .options import AdapterOptions
from .switches import TOLERANCE, Switch
from .torch_common import (
    FRAMEWORK,
    INVALID_INPUT,
    OwnThreads,
    dtype_name,
    load_error,
    named_tensors,
    prepare,
    torch,
    torch_device,
)
from .torch_run import DTYPES, Runner

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
        self._range = _batch_range(program, inputs[0][1])
        self._in_spec = program.call_spec.in_spec
        # An exported program is in the mode in which it was exported, and refuses eval().
        self._runner = Runner(
            program.module(),
            device,
            inputs[0][1].dtype,
            options,
            call=self._call,
            own=partial(_switches, options, self.input.fixed_batch),
        )
        self.device: DeviceInfo = replace(device, details=self._runner.details)

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
        results = self._runner(batch, wanted)
        return {name: values[:rows] for name, values in results.items()}

    def _call(self, module: Any, x: Any) -> Any:
        # The structure of the call is part of the program: positional, by keyword, or inside a list or dict.
        args, kwargs = pytree.tree_unflatten([x], self._in_spec)
        return module(*args, **kwargs)


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


def _switches(options: AdapterOptions, fixed_batch: Optional[int], runner: Runner) -> List[Switch]:
    """Numbers of fewer bits, by autocast: a program names its dtypes and cannot be converted. And the compiler."""

    def cast() -> None:
        runner.autocast = DTYPES[options.precision]

    def cast_no_more() -> None:
        runner.autocast = None

    def compile_it() -> None:
        # One compilation for all batch sizes. The code is made at the first run, which needs a C++ compiler or Triton.
        runner.compiled = torch.compile(runner.module, dynamic=fixed_batch is None)

    def compile_no_more() -> None:
        runner.compiled = None

    switches: List[Switch] = []
    tolerance = TOLERANCE[options.precision]
    if options.precision in DTYPES:
        switches.append(Switch(options.precision, tolerance, cast, cast_no_more, asked=True))
    if options.compile:
        switches.append(Switch("compile", tolerance, compile_it, compile_no_more, asked=True))
    return switches


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
