"""What the PyTorch adapters share."""

from __future__ import annotations

import os
import re
import threading
from importlib import import_module
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Type, cast

import numpy as np

from ..device import require_gpu
from .base import DeviceInfo, ModelFormatError
from .common import RefusedInputError
from .options import AdapterOptions

# Else the threads of a run spin while they wait for each other, on cores that read and answer requests: where others
# used both cores, a run of two threads took 25 to 4,500 ms instead of 12 to 60 once warm. It counts when PyTorch is
# imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# By name: its types are partial, the adapters call what they load, and checking all of it takes minutes.
torch: Any = import_module("torch")

FRAMEWORK = "torch"
INVALID_INPUT: Tuple[Type[BaseException], ...] = (IndexError, RefusedInputError)

# PyTorch has one RuntimeError for everything; these are its words for an input that does not fit.
_REFUSED = re.compile(
    r"shapes cannot be multiplied|Expected \d+-?D|Expected \d+-dimensional|Given groups=|Given normalized_shape=|"
    r"expected input|size of tensor a|is invalid for input of size|Guard failed|out of range|greater than actual input",
    re.IGNORECASE,
)


def prepare(options: AdapterOptions) -> DeviceInfo:
    """Set up the process and say which device will do the work.

    Raises:
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    device = require_gpu(FRAMEWORK, allow_cpu=options.allow_cpu)
    if options.threads:
        torch.set_num_threads(options.threads)
    return device


class OwnThreads:
    """For adapters of PyTorch, where each thread that runs a model says how many threads its runs take."""

    _DEFAULT = int(torch.get_num_threads())
    _wanted = 0
    _said = threading.local()

    def use_threads(self, threads: int) -> None:
        """See ``Adapter.use_threads``."""
        self._wanted = threads or self._DEFAULT

    def say_threads(self) -> None:
        """Tell PyTorch, in a thread that is about to run the model."""
        if self._wanted and getattr(self._said, "threads", 0) != self._wanted:
            torch.set_num_threads(self._wanted)
            self._said.threads = self._wanted


def torch_device(device: DeviceInfo) -> Any:
    """PyTorch's name of a device."""
    return torch.device("cpu") if device.kind == "cpu" else torch.device("cuda", device.index)


def load_error(what: str, error: BaseException) -> ModelFormatError:
    """An error of PyTorch's loader, in terms of the model; raise it ``from`` the original."""
    lines = str(error).strip().splitlines() or [""]
    return ModelFormatError(
        f"{what} could not be loaded by PyTorch {torch.__version__}: {type(error).__name__}: {lines[0][:500]} Serve it "
        "with the PyTorch version that exported it, or export it again; operators of other packages (torchvision::nms) "
        "need an entry script that imports them."
    )


def as_tensor(batch: np.ndarray, dtype: Any, device: Any, layout: Any = torch.preserve_format) -> Any:
    """A copy of the batch on the device, in the dtype that the model computes in.

    Never the batch itself: modules write to their input (``x.div_(255)``, some of them for some values only), and its
    rows are used again where a batch has failed.

    Args:
        batch: ``[N, ...]``.
        dtype: of PyTorch; ``None`` for the batch's own.
        device: of PyTorch.
        layout: a memory format, made in the same copy.
    """
    # PyTorch does not take read-only memory, which a request's body is.
    source = batch if batch.flags.writeable and batch.flags.c_contiguous else np.array(batch)
    tensor = torch.from_numpy(source)
    return tensor.to(device=device, dtype=dtype or tensor.dtype, copy=source is batch, memory_format=layout)


def run_module(call: Callable[..., Any], *args: Any) -> Any:
    """Call a module, or what calls one, without recording gradients.

    Raises:
        RefusedInputError: it said that the input does not fit.
    """
    with torch.inference_mode():
        try:
            return call(*args)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            said = next((line for line in reversed(lines) if _REFUSED.search(line)), None)
            if said is None:
                raise
            raise RefusedInputError(said.strip()) from error


def as_array(tensor: Any) -> np.ndarray:
    """A tensor as an array; dtypes that NumPy has not (bfloat16, float8) become float32."""
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: np.ndarray = tensor.detach().cpu().resolve_conj().resolve_neg().numpy()
    return array


def dtype_name(dtype: Any) -> str:
    """NumPy's name of a torch dtype, as ``as_array`` will give it."""
    array: np.ndarray = as_array(torch.empty(0, dtype=dtype))
    return array.dtype.name


def named_tensors(value: Any) -> Dict[str, Any]:
    """Outputs by name: one is ``output``, several are ``output_0``, ...; dicts and named tuples bring their names."""
    parts = _sequence(value)
    if parts is not None and len(parts) == 1:
        value = parts[0]
    if isinstance(value, torch.Tensor):
        return {"output": value}
    return {name: part for name, part in _leaves(value, "") if isinstance(part, torch.Tensor)}


def _sequence(value: Any) -> Optional[Sequence[Any]]:
    """A list or tuple whose parts have no names, ``None`` for anything else."""
    named = hasattr(value, "_fields")
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) and not named else None


def _leaves(value: Any, prefix: str) -> Iterator[Tuple[str, Any]]:
    """The parts of a nested output, each under its joined name."""
    parts = _sequence(value)
    if parts is not None:
        for index, part in enumerate(parts):
            yield from _leaves(part, f"{prefix or 'output'}_{index}")
    elif isinstance(value, Mapping) or hasattr(value, "_fields"):
        named = cast("Mapping[Any, Any]", value) if isinstance(value, Mapping) else value._asdict()
        for key, part in named.items():
            yield from _leaves(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
