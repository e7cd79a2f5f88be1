"""Runs a PyTorch module as fast as it goes: memory layout, fewer bits, a compiler, recorded runs, pinned memory."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..failures import first_line
from ..stages import say
from .base import DeviceInfo, ModelFormatError
from .common import checked_rows
from .options import AdapterOptions
from .switches import TOLERANCE, Switch, finite_share, noisy, settle
from .torch_common import as_array, as_tensor, named_tensors, run_module, torch, torch_device

DTYPES: Dict[str, Any] = {"bf16": torch.bfloat16, "fp16": torch.float16}

MOST_GRAPHS = 16
"""Shapes of a batch that are recorded, each with memory of its own. Batches on a GPU have six sizes by default."""

_RUNS_BEFORE_RECORDING = 3
"""Libraries choose their algorithms in the first runs, which cannot be recorded."""


class Runner:
    """A module and the form in which it runs. The first batch, which the warm-up sends, turns the switches on.

    Args:
        module: on its device.
        device: where it is.
        dtype: of the input tensor.
        options: of the user.
        call: calls a module with the input tensor.
        own: gives the switches of the model's format; those of all formats are added here.
    """

    def __init__(
        self,
        module: Any,
        device: DeviceInfo,
        dtype: Any,
        options: AdapterOptions,
        *,
        call: Callable[[Any, Any], Any],
        own: Callable[[Runner], Sequence[Switch]],
    ) -> None:
        self.module = module
        self.dtype = dtype
        self.autocast: Optional[Any] = None
        self.compiled: Optional[Any] = None
        self.details: Dict[str, Any] = dict(device.details)
        """Of the device; the switches that are on join them as ``speed``."""
        self._device = torch_device(device)
        self._cuda = device.kind == "cuda"
        self._options = options
        self._call = call
        self._own = own
        self._channels_last = False
        self._graphs: Optional[Graphs] = None
        self._plain_dtypes: Dict[str, Any] = {}
        self._settled = False
        self._lock = threading.RLock()
        self._thread = threading.local()

    def __call__(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``."""
        if not self._settled:
            with self._lock:
                if not self._settled:
                    self._settle(batch, wanted)
        return self._run(batch, wanted)

    def forward(self, x: Any) -> Any:
        """The module's outputs for a tensor on its device."""
        if self._channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.autocast is None:
            return self._forward(x)
        # Without its cache, which keeps nothing from one run to the next, and must not be recorded.
        with torch.autocast(self._device.type, dtype=self.autocast, cache_enabled=False):
            return self._forward(x)

    def _forward(self, x: Any) -> Any:
        if self.compiled is None:
            return run_module(self._call, self.module, x)
        try:
            return run_module(self._call, self.compiled, x)
        except Exception as error:
            if not self._settled or isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            # Input that does not fit makes the compiler complain in words of its own: the plain form says it better.
            value = run_module(self._call, self.module, x)
            self.compiled = None
            _warn("the compiled form", error)
            return value

    # --- one batch ----------------------------------------------------------------------------------------------------

    def _run(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        if not self._cuda:
            return checked_rows(self._arrays(self.forward(self._tensor(batch)), wanted), batch)
        # Recorded runs share their memory, so the results of one must be out before the next begins.
        with contextlib.nullcontext() if self._graphs is None else self._lock, torch.cuda.stream(self._stream()):
            value = self._on_gpu(self._to_gpu(batch))
            return checked_rows(self._arrays(value, wanted), batch)

    def _tensor(self, batch: np.ndarray) -> Any:
        layout = torch.channels_last if self._channels_last and batch.ndim == 4 else torch.preserve_format
        return as_tensor(batch, self.dtype, self._device, layout)

    def _on_gpu(self, x: Any) -> Any:
        if self._graphs is None:
            return self.forward(x)
        try:
            return self._graphs(x)
        except RuntimeError as error:
            if not self._settled:
                raise
            value = self.forward(
                x
            )  # raises where the values are at fault: then the next batch is recorded all the same
            self._graphs = None
            _warn("the recorded form (CUDA graphs)", error)
            return value

    def _arrays(self, value: Any, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The wanted outputs, in the dtypes of the plain form.

        Raises:
            ModelFormatError: one is not there.
        """
        found = named_tensors(value)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ModelFormatError(f"The model gave no output {', '.join(missing)}, but {', '.join(found) or 'none'}.")
        tensors = {name: found[name] for name in wanted}
        if self._plain_dtypes:
            tensors = {name: tensor.to(self._plain_dtypes[name]) for name, tensor in tensors.items()}
        if self._cuda:
            tensors = {name: _to_pinned(tensor) for name, tensor in tensors.items()}
            torch.cuda.current_stream().synchronize()
        return {name: as_array(tensor) for name, tensor in tensors.items()}

    def _stream(self) -> Any:
        """A stream per thread: the copies of one run go on while another run computes."""
        stream = getattr(self._thread, "stream", None)
        if stream is None:
            self._wait_for_weights()
            stream = self._thread.stream = torch.cuda.Stream(self._device)
        return stream

    def _to_gpu(self, batch: np.ndarray) -> Any:
        """The batch through pinned memory, which PyTorch keeps for the next: the copy needs no core to wait for it."""
        kind = torch.from_numpy(np.empty(0, batch.dtype)).dtype
        pinned = torch.empty(batch.shape, dtype=kind, pin_memory=True)
        np.copyto(pinned.numpy(), batch)
        return pinned.to(self._device, non_blocking=True).to(self.dtype)

    # --- switches -----------------------------------------------------------------------------------------------------

    def _settle(self, batch: np.ndarray, wanted: Sequence[str]) -> None:
        """Turn on what makes the model faster without changing its results, as seen on this batch or one like it."""
        switches = self._switches(batch)
        if switches:
            self.details["speed"] = settle(switches, self._trial(batch, wanted))
        self._wait_for_weights()
        self._settled = True

    def _trial(self, batch: np.ndarray, wanted: Sequence[str]) -> Callable[[], Mapping[str, np.ndarray]]:
        """Runs what the forms are compared on."""
        value = self.forward(self._tensor(batch))
        if self._options.precision in DTYPES:
            self._plain_dtypes = {name: tensor.dtype for name, tensor in named_tensors(value).items()}
        trial = self._noise(batch, wanted)

        def run() -> Mapping[str, np.ndarray]:
            self._wait_for_weights()
            return self._run(trial, wanted)

        return run

    def _noise(self, batch: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
        """Noise like the batch where the plain form takes it and answers with numbers, else the batch itself."""
        why = f"the model takes {batch.dtype}, of which any value may be wrong"
        for count in dict.fromkeys((max(2, len(batch)), len(batch))):  # a model may take one row only
            trial = noisy(batch, count)
            if trial is None:
                break
            try:
                share = finite_share(self._run(trial, wanted))
            except Exception as error:
                why = f"the model takes no noise: {first_line(error)}"
                continue
            if share > 0.5:
                return trial
            why = "the model answers noise with NaN or infinity"
            break
        say(f"GPU_INFER_NOTE only the sample is compared, {why}.")
        return batch

    def _wait_for_weights(self) -> None:
        """A switch converts them on the default stream, and each thread runs the model on another."""
        if self._cuda:
            torch.cuda.synchronize(self._device)

    def _switches(self, batch: np.ndarray) -> List[Switch]:
        tolerance = TOLERANCE.get(self._options.precision, TOLERANCE["fp32"])
        switches = list(self._own(self))
        ranks = {tensor.ndim for tensor in self.module.parameters()}
        # Rank 5 (convolutions of volumes) has a layout of its own.
        if self._options.optimize and batch.ndim == 4 and 4 in ranks and 5 not in ranks:
            switches.insert(0, Switch("channels-last", TOLERANCE["fp32"], self._to_channels_last, self._to_contiguous))
        if self._options.cuda_graphs:
            switches.append(Switch("cuda-graphs", tolerance, self._record, self._forget_records, asked=True))
        return switches

    def lay_out(self) -> None:
        """Give weights that were loaded anew the memory layout of this form."""
        if self._channels_last:
            self.module.to(memory_format=torch.channels_last)

    def _to_channels_last(self) -> None:
        self._channels_last = True
        self.module.to(memory_format=torch.channels_last)

    def _to_contiguous(self) -> None:
        self._channels_last = False
        self.module.to(memory_format=torch.contiguous_format)

    def _record(self) -> None:
        if not self._cuda:
            raise ModelFormatError("CUDA graphs need a GPU")
        self._graphs = Graphs(self.forward)

    def _forget_records(self) -> None:
        self._graphs = None


class Graphs:
    """Runs recorded once per shape of the batch, and replayed: one call for all kernels of a model.

    Not for several threads at once: the outputs of a run are overwritten by the next.

    Args:
        call: from an input tensor to the outputs; its work must not depend on the values, and not wait for the GPU.
    """

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: Dict[Tuple[int, ...], Tuple[Any, Any, Any]] = {}

    def __call__(self, x: Any) -> Any:
        """The outputs for ``x``, valid until the next call.

        Raises:
            RuntimeError: the run cannot be recorded.
        """
        shape = tuple(x.shape)
        if shape not in self._recorded:
            if len(self._recorded) >= MOST_GRAPHS:
                return self._call(x.clone())  # the caller runs a batch that fails again, and modules write to theirs
            self._recorded[shape] = self._record(x)
        graph, source, value = self._recorded[shape]
        source.copy_(x)
        graph.replay()
        return value

    def _record(self, x: Any) -> Tuple[Any, Any, Any]:
        source = x.clone()
        for _ in range(_RUNS_BEFORE_RECORDING):
            self._call(source)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            value = self._call(source)
        return graph, source, value


def _to_pinned(tensor: Any) -> Any:
    """Begin to copy a tensor from the GPU; it is there when the stream has been waited for."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return torch.empty(plain.shape, dtype=plain.dtype, pin_memory=True).copy_(plain, non_blocking=True)


def _warn(what: str, error: BaseException) -> None:
    say(f"GPU_INFER_WARNING {what} failed and is used no longer: {type(error).__name__}: {first_line(error)}.")
