"""TorchScript archives, from ``torch.jit.script`` or ``torch.jit.trace``."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import ENTRY_SCRIPT, chosen_outputs, only_input, spec_of_item
from .options import AdapterOptions
from .switches import TOLERANCE, Switch, warn_of_unused
from .torch_common import (
    FRAMEWORK,
    INVALID_INPUT,
    OwnThreads,
    as_tensor,
    dtype_name,
    load_error,
    named_tensors,
    prepare,
    run_module,
    torch,
    torch_device,
)
from .torch_run import DTYPES, Runner

_TAKES_INTEGERS = {"aten::embedding": 1, "aten::embedding_bag": 1, "aten::one_hot": 0}
"""Operations that take integers, with the place of the argument."""


class TorchScriptAdapter(OwnThreads):
    """A TorchScript module in inference mode.

    Args:
        module: on its device.
        device: where it runs.
        options: of the user.
        reload: loads the module anew, as it was saved.
    """

    framework = FRAMEWORK
    invalid_input_errors = INVALID_INPUT

    def __init__(self, module: Any, device: DeviceInfo, options: AdapterOptions, *, reload: Callable[[], Any]) -> None:
        self._device = torch_device(device)
        self._dtype = _input_dtype(module)
        # NumPy has no bfloat16: such a batch arrives as float32.
        fed = dtype_name(self._dtype)
        self.input: TensorSpec = only_input(
            [spec_of_item(name, fed, options.item_shape) for name in _input_names(module)]
        )
        specs = [TensorSpec(name, kind, None) for name, kind in self._output_kinds(module, options).items()]
        self.outputs: Tuple[TensorSpec, ...] = chosen_outputs(specs, options)
        own = partial(_switches, options, reload)
        self._runner = Runner(module, device, self._dtype, options, call=_call, own=own)
        self.device: DeviceInfo = replace(device, details=self._runner.details)

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``."""
        self.say_threads()
        return self._runner(batch, wanted)

    def _output_kinds(self, module: Any, options: AdapterOptions) -> Dict[str, str]:
        """Names and dtypes of the outputs; TorchScript declares neither, so one run on zeros tells them.

        Without an item's shape there is nothing to run on: then the declared type tells how many there are.
        """
        if options.item_shape is not None:
            zeros = np.zeros((1, *options.item_shape), dtype=self.input.dtype)
            value = run_module(module, as_tensor(zeros, self._dtype, self._device))
            return {name: dtype_name(tensor.dtype) for name, tensor in named_tensors(value).items()}
        names = _declared_outputs(module)
        if names is None:
            names = list(options.output_names or ())
        if not names:
            raise ModelFormatError(
                "The TorchScript model returns a dict or a list, whose parts are only known after a run. Set "
                "GPU_INFER_ITEM_SHAPE to the shape of one item (as 3,224,224), or name the output with output=."
            )
        floats = dtype_name(self._dtype) if self._dtype.is_floating_point else "float32"
        return dict.fromkeys(names, floats)


def load(path: Path, options: AdapterOptions) -> TorchScriptAdapter:
    """Load a TorchScript file onto the device.

    Raises:
        ModelFormatError: it cannot be loaded, or takes more than one tensor.
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    device = prepare(options)
    what = "a TorchScript model, which torch.compile does not take: export it with torch.export instead."
    warn_of_unused(options, what, "compile")
    reload = partial(_load, path, torch_device(device))
    return TorchScriptAdapter(reload(), device, options, reload=reload)


def _load(path: Path, device: Any) -> Any:
    try:
        with warnings.catch_warnings():
            # The format is on its way out, and still the one that most registered PyTorch models have.
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
            module = torch.jit.load(str(path), map_location=device)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise load_error(f"The TorchScript file {path.name}", error) from error
    module.eval()
    return module


def _call(module: Any, x: Any) -> Any:
    return module(x)


def _switches(options: AdapterOptions, reload: Callable[[], Any], runner: Runner) -> List[Switch]:
    """Numbers of fewer bits, then weights and branches made constants, so that PyTorch folds and fuses what it can.

    The weights are converted: under autocast TorchScript inserts casts of its own, on a CPU always to bfloat16.
    """
    plain, module = runner.dtype, runner.module

    def convert() -> None:
        dtype = DTYPES[options.precision]
        runner.module.to(dtype)
        runner.dtype = dtype if plain.is_floating_point else plain

    def load_again() -> None:
        runner.module, runner.dtype = reload(), plain
        runner.lay_out()

    def freeze() -> None:
        nonlocal module
        module = runner.module
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
            runner.module = torch.jit.freeze(module)

    def thaw() -> None:
        runner.module = module

    switches: List[Switch] = []
    tolerance = TOLERANCE[options.precision]
    if options.precision in DTYPES:
        switches.append(Switch(options.precision, tolerance, convert, load_again, asked=True))
    if options.optimize:
        switches.append(Switch("frozen", tolerance, freeze, thaw))
    return switches


def _input_names(module: Any) -> List[str]:
    """Names of the arguments that must be given.

    Raises:
        ModelFormatError: one of them is no tensor.
    """
    arguments = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
    for argument in arguments:
        if str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            raise ModelFormatError(
                f"The TorchScript model takes {argument.name}: {argument.type}, and a batch is one tensor. "
                f"{ENTRY_SCRIPT}"
            )
    return [str(argument.name) for argument in arguments]


def _input_dtype(module: Any) -> Any:
    """The dtype of the input, which TorchScript does not declare: integers for an embedding, else as the weights."""
    graph = module.inlined_graph
    value = list(graph.inputs())[1:2]
    for use in value[0].uses() if value else ():
        if _TAKES_INTEGERS.get(use.user.kind()) == use.offset:
            return torch.int64
    floats = [tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()]
    return floats[0] if floats else torch.float32


def _declared_outputs(module: Any) -> Optional[List[str]]:
    """Names of the outputs after the declared type, ``None`` where it leaves them open."""
    kind = module.forward.schema.returns[0].type
    if kind.kind() == "TensorType":
        return ["output"]
    if kind.kind() != "TupleType":
        return None
    parts = kind.elements()
    # A named tuple keeps its names to itself until it is returned.
    if not kind.annotation_str.startswith("Tuple[") or any(part.kind() != "TensorType" for part in parts):
        return None
    return ["output"] if len(parts) == 1 else [f"output_{i}" for i in range(len(parts))]
