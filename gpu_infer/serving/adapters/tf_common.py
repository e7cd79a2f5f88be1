"""What the TensorFlow adapters share."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib import import_module
from typing import Any, Callable, Dict, Generator, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..device import require_gpu
from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import RefusedInputError, checked_rows
from .options import AdapterOptions
from .switches import warn_of_unused

# By name: TensorFlow carries no types, and a type checker that follows it needs minutes and gigabytes.
tf: Any = import_module("tensorflow")

FRAMEWORK = "tensorflow"

LOAD_ERRORS = (ValueError, KeyError, TypeError, AttributeError, OSError, ImportError, RuntimeError, tf.errors.OpError)
"""What TensorFlow raises over a model that it cannot load; a GPU out of memory is let through, see ``prepare``."""

INVALID_INPUT = (RefusedInputError,)


@contextlib.contextmanager
def refusals() -> Generator[None, None, None]:
    """Turn TensorFlow's complaint about the values into one that says just what is wrong.

    Its text names the operation, tells of stack traces, and holds the reason in the line before the operation's mark.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        at = next((at for at, line in enumerate(lines) if line.startswith("[[{{node")), len(lines))
        raise RefusedInputError(lines[at - 1] if at else "invalid values") from error


def prepare(options: AdapterOptions) -> DeviceInfo:
    """Set up the process and say which device will do the work.

    Raises:
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            # Without this TensorFlow takes all memory of the GPU, and a second worker or model finds none.
            tf.config.experimental.set_memory_growth(gpu, enable=True)
        if options.threads:
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
            tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    except RuntimeError:
        # TensorFlow has started already (a preprocess file that uses it): its settings stay, which costs memory only.
        pass
    warn_of_unused(options, "a TensorFlow model.", "precision", "compile", "cuda_graphs")
    return require_gpu(FRAMEWORK, allow_cpu=options.allow_cpu)


def load_error(what: str, error: BaseException) -> ModelFormatError:
    """An error of TensorFlow's loader, in terms of the model; raise it ``from`` the original."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{what} could not be loaded by TensorFlow {tf.__version__}: {type(error).__name__}: {lines[0][:500]}"
    if "Op type not registered" in str(error):
        text += " The model uses an operation of another package (tensorflow-text, ...): import it in an entry script."
    return ModelFormatError(text)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is about the device, not about the model."""
    return isinstance(error, tf.errors.ResourceExhaustedError)


def spec_of(name: str, dtype: Any, shape: Any) -> TensorSpec:
    """The spec of a TensorFlow tensor; one that NumPy cannot hold is told as float32, which ``Compiled`` converts.

    Raises:
        ModelFormatError: a dtype that no request can carry (resources, variants, quantised integers).
    """
    if dtype == tf.string:
        kind = "bytes"
    elif dtype == tf.bfloat16:
        kind = "float32"
    elif dtype.is_numpy_compatible and dtype.name not in ("resource", "variant") and not dtype.is_quantized:
        kind = str(np.dtype(dtype.as_numpy_dtype).name)
    else:
        raise ModelFormatError(
            f"The tensor {name!r} is of the dtype {dtype.name}, which no request or answer can carry."
        )
    axes = tf.TensorShape(shape)
    return TensorSpec(name, kind, None if axes.rank is None else tuple(axes.as_list()))


class Compiled:
    """Runs a TensorFlow function as one compiled graph per set of outputs, with what is not asked for left out.

    Args:
        call: from the input tensor to the outputs by name.
        source: dtype and shape of the input (a ``tf.TensorSpec``).
    """

    invalid_input_errors = INVALID_INPUT

    def __init__(self, call: Callable[[Any], Mapping[str, Any]], source: Any) -> None:
        self._call = call
        self._source = source
        # A bfloat16 input arrives as float32: NumPy has no bfloat16.
        self._fed = tf.float32 if source.dtype == tf.bfloat16 else source.dtype
        self._functions: Dict[Tuple[str, ...], Any] = {}

    def __call__(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run ``batch``; the outputs ``wanted`` come back as arrays by name."""
        function = self._function(tuple(wanted))
        with refusals():
            results: Mapping[str, Any] = function(tf.constant(batch, dtype=self._fed))
        return checked_rows({name: np.asarray(value.numpy()) for name, value in results.items()}, batch)

    def _function(self, wanted: Tuple[str, ...]) -> Any:
        if wanted not in self._functions:
            signature = [tf.TensorSpec(self._source.shape, self._fed)]
            pick: Callable[[Any], Any] = partial(self._pick, wanted)
            # The one concrete function: tf.function would look at the arguments first, as long as a small model runs.
            self._functions[wanted] = tf.function(pick, input_signature=signature).get_concrete_function()
        return self._functions[wanted]

    def _pick(self, wanted: Tuple[str, ...], x: Any) -> Dict[str, Any]:
        outputs = self._call(tf.cast(x, self._source.dtype) if self._fed != self._source.dtype else x)
        return {name: _widened(outputs[name]) for name in wanted}


def _widened(value: Any) -> Any:
    return tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value


def pick_name(names: Sequence[str], wanted: Optional[str], default: str) -> Optional[str]:
    """The name asked for, else the default, else the only one; ``None`` where that does not decide."""
    if wanted is not None:
        return wanted if wanted in names else None
    if default in names:
        return default
    return names[0] if len(names) == 1 else None
