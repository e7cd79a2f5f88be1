"""ONNX models, on ONNX Runtime."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type

import numpy as np

from ..cores import usable_cores
from ..device import NoGpuError, no_gpu_message, require_gpu
from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import checked_rows, chosen_outputs, only_input
from .options import AdapterOptions
from .switches import warn_of_unused

ort: Any = import_module("onnxruntime")  # by name: it carries no types

FRAMEWORK = "onnxruntime"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

MOST_SHAPES = 16
"""Shapes of a batch for which memory of the device is kept; batches on a GPU have six sizes by default."""

_errors: Any = ort.capi.onnxruntime_pybind11_state
LOAD_ERRORS = (
    _errors.Fail,
    _errors.InvalidArgument,
    _errors.InvalidGraph,
    _errors.InvalidProtobuf,
    _errors.NoSuchFile,
    _errors.NotImplemented,
    _errors.RuntimeException,
)

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "bytes",
}


class OnnxAdapter:
    """An ONNX Runtime session.

    Args:
        session: with the providers that really loaded.
        device: where it runs.
        options: of the user.
        path: of the model.
    """

    framework = FRAMEWORK
    invalid_input_errors: Tuple[Type[BaseException], ...] = (
        _errors.InvalidArgument,
        UnicodeDecodeError,
    )

    def __init__(self, session: Any, device: DeviceInfo, options: AdapterOptions, path: Path) -> None:
        self._session = session
        self._path = path
        self.device = device
        self.input: TensorSpec = only_input([_input_spec(node) for node in session.get_inputs()])
        self.outputs: Tuple[TensorSpec, ...] = chosen_outputs(_output_specs(session.get_outputs(), options), options)
        # On a CPU there is nothing to copy, and a binding is no quicker than run() (784-300-100-10: 14 us each).
        self._binds = device.kind == "cuda" and self.input.dtype != "bytes"
        self._thread = threading.local()

    def use_threads(self, threads: int) -> None:
        """See ``Adapter.use_threads``: a session keeps the number it was made with, so this makes another."""
        self._session = _session(self._path, threads, _providers(self.device))
        self._thread = threading.local()

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``."""
        if self.input.dtype == "bytes":
            batch = _as_text(batch)
        values: List[Any] = (
            self._bound()(batch, wanted) if self._binds else self._session.run(list(wanted), {self.input.name: batch})
        )
        return checked_rows({name: _plain(value) for name, value in zip(wanted, values)}, batch)

    def _bound(self) -> BoundRun:
        bound: Optional[BoundRun] = getattr(self._thread, "bound", None)
        if bound is None:
            bound = self._thread.bound = BoundRun(self._session, self.input.name, ("cuda", self.device.index))
        return bound


class BoundRun:
    """Runs a session through an IO binding: the input goes into memory of the device that is kept, one piece per shape.

    For one thread.

    Args:
        session: any.
        name: of its input.
        device: ONNX Runtime's name of the input's device and its number.
    """

    def __init__(self, session: Any, name: str, device: Tuple[str, int]) -> None:
        self._session = session
        self._name = name
        self._device = device
        self._binding = session.io_binding()
        self._inputs: Dict[Tuple[int, ...], Any] = {}

    def __call__(self, batch: np.ndarray, wanted: Sequence[str]) -> List[Any]:
        """The outputs ``wanted`` for a batch, as arrays of their own."""
        value = self._inputs.get(batch.shape)
        if value is None:
            if len(self._inputs) >= MOST_SHAPES:
                self._inputs.clear()
            value = ort.OrtValue.ortvalue_from_shape_and_type(batch.shape, batch.dtype.type, *self._device)
            self._inputs[batch.shape] = value
        value.update_inplace(np.ascontiguousarray(batch))
        self._binding.bind_ortvalue_input(self._name, value)
        # Bound anew each time: the outputs of the last run would be written over, or be of the wrong shape.
        self._binding.clear_binding_outputs()
        for name in wanted:
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        values: List[Any] = self._binding.copy_outputs_to_cpu()
        return values


def load(path: Path, options: AdapterOptions) -> OnnxAdapter:
    """Load an ONNX file; weights in files beside it are found by their relative path.

    Raises:
        ModelFormatError: it cannot be loaded, or has several inputs.
        NoGpuError: no GPU, or one that the session could not use, and the CPU is not allowed.
    """
    device = require_gpu(FRAMEWORK, allow_cpu=options.allow_cpu)
    what = "an ONNX model: convert it before it is registered (onnxruntime.transformers.float16, quantization)."
    warn_of_unused(options, what, "precision", "compile", "cuda_graphs")
    if device.kind == "cuda":
        _load_cuda_libraries()
    try:
        session = _session(path, options.threads or 0, _providers(device))
    except LOAD_ERRORS as error:
        raise ModelFormatError(
            f"The ONNX file {path.name} could not be loaded by ONNX Runtime {ort.__version__}: "
            f"{str(error).strip().splitlines()[0][:500]} A newer opset needs a newer onnxruntime; weights kept "
            "outside the file (*.onnx.data) must lie beside it; custom operators need an entry script."
        ) from error
    return OnnxAdapter(session, _used_device(session, device, options), options, path)


def _providers(device: DeviceInfo) -> List[Any]:
    if device.kind == "cpu":
        return [CPU]
    # Memory grows by what is needed; by default it doubles, and a second process on the GPU finds none.
    return [(CUDA, {"device_id": device.index, "arena_extend_strategy": "kSameAsRequested"}), CPU]


def _session(path: Path, threads: int, providers: Sequence[Any]) -> Any:
    """A session with so many threads for a run, 0 for as many as this process has cores."""
    settings: Any = ort.SessionOptions()
    settings.intra_op_num_threads = threads or usable_cores()
    # Its threads would spin between runs, on cores that read and answer requests.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), sess_options=settings, providers=list(providers))


def _load_cuda_libraries() -> None:
    """Let ONNX Runtime find the CUDA libraries that pip installed; without, it only looks at the system's."""
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is not None:
        with contextlib.suppress(OSError):  # the session's own providers tell below whether CUDA works
            preload()


def _used_device(session: Any, device: DeviceInfo, options: AdapterOptions) -> DeviceInfo:
    """The device that the session got: where CUDA does not load, ONNX Runtime falls back to the CPU with a log line."""
    used: List[str] = list(session.get_providers())
    details = {**device.details, "providers": used}
    if device.kind != "cuda" or CUDA in used:
        return replace(device, details=details)
    if options.allow_cpu:
        return DeviceInfo("cpu", details=details)
    looked = (f"the session's providers are {', '.join(used)} although {CUDA} was asked for",)
    fix = "ONNX Runtime could not load its CUDA provider: its log names the library (libcudnn, libcublas) that is "
    fix += "missing or of another version; pip install 'onnxruntime-gpu[cuda,cudnn]' brings them."
    raise NoGpuError(no_gpu_message(FRAMEWORK, looked, fix))


def _dtype(kind: str) -> Optional[str]:
    """NumPy's name of an ONNX Runtime type such as ``tensor(float)``; ``None`` for what is no tensor NumPy can hold."""
    inner = kind[len("tensor(") : -1] if kind.startswith("tensor(") else ""
    return _DTYPES.get(inner)


def _shape(node: Any) -> Optional[Tuple[Optional[int], ...]]:
    """The shape of an input or output; an empty one may as well be unknown: ONNX Runtime says both in the same way."""
    return tuple(axis if isinstance(axis, int) and axis >= 0 else None for axis in node.shape) if node.shape else None


def _input_spec(node: Any) -> TensorSpec:
    kind = _dtype(node.type)
    if kind is None:
        raise ModelFormatError(
            f"The input {node.name} of the ONNX model is {node.type}, which no request can carry. Export the model "
            "with an input of float32 or another dtype of NumPy."
        )
    return TensorSpec(node.name, kind, _shape(node))


def _output_specs(nodes: Sequence[Any], options: AdapterOptions) -> List[TensorSpec]:
    """The outputs that are tensors; the others (sequences, maps) only matter where the user asks for one."""
    odd = [f"{node.name}: {node.type}" for node in nodes if _dtype(node.type) is None]
    asked = [node.name for node in nodes if _dtype(node.type) is None and node.name in (options.output_names or ())]
    if asked or len(odd) == len(nodes):
        raise ModelFormatError(
            f"The ONNX model answers with {'; '.join(odd)}, which is no array of a dtype of NumPy. Export it with "
            "tensors of float32 (scikit-learn models: options={'zipmap': False})."
        )
    return [TensorSpec(node.name, _dtype(node.type) or "", _shape(node)) for node in nodes if _dtype(node.type)]


def _as_text(batch: np.ndarray) -> np.ndarray:
    """ONNX strings are text: bytes in, text to the session."""
    text = np.empty(batch.shape, dtype=object)
    text[:] = [item.decode("utf-8") if isinstance(item, bytes) else item for item in batch]
    return text


def _plain(value: Any) -> np.ndarray:
    """Strings come back as text objects, and go on as bytes."""
    array = np.asarray(value)
    if array.dtype.kind not in "OU":
        return array
    flat = [item if isinstance(item, bytes) else str(item).encode("utf-8") for item in array.ravel()]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(array.shape)
