"""TensorFlow SavedModel, written by TensorFlow 1 or 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Sequence, Tuple, Type

import numpy as np

from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import OnePool, chosen_outputs, only_input
from .options import AdapterOptions
from .tf_common import FRAMEWORK, LOAD_ERRORS, Compiled, load_error, out_of_memory, pick_name, prepare, spec_of, tf

DEFAULT_SIGNATURE = "serving_default"


class SavedModelAdapter(OnePool):
    """A signature of a SavedModel, called by keyword.

    Args:
        loaded: what ``tf.saved_model.load`` returned; kept, since signatures do not keep its variables alive.
        signature: the ConcreteFunction.
        device: where it will run.
        options: of the user.
    """

    framework = FRAMEWORK

    def __init__(self, loaded: Any, signature: Any, device: DeviceInfo, options: AdapterOptions) -> None:
        self._loaded = loaded
        keywords: Mapping[str, Any] = signature.structured_input_signature[1]
        self.input: TensorSpec = only_input([spec_of(name, s.dtype, s.shape) for name, s in sorted(keywords.items())])
        found: Mapping[str, Any] = signature.structured_outputs
        specs = [spec_of(name, tensor.dtype, tensor.shape) for name, tensor in sorted(found.items())]
        self.outputs: Tuple[TensorSpec, ...] = chosen_outputs(specs, options)
        self.device = device
        self._run = Compiled(lambda x: signature(**{self.input.name: x}), keywords[self.input.name])
        self.invalid_input_errors: Tuple[Type[BaseException], ...] = self._run.invalid_input_errors

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``."""
        return self._run(batch, wanted)


def load(path: Path, options: AdapterOptions) -> SavedModelAdapter:
    """Load a SavedModel folder; its tables and assets are initialised by TensorFlow.

    Raises:
        ModelFormatError: it cannot be loaded, or has no signature with one input.
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    device = prepare(options)
    try:
        loaded: Any = tf.saved_model.load(str(path))
    except LOAD_ERRORS as error:
        if out_of_memory(error):
            raise
        raise load_error(f"The SavedModel {path.name}", error) from error
    return SavedModelAdapter(loaded, _signature(loaded, path, options), device, options)


def _signature(loaded: Any, path: Path, options: AdapterOptions) -> Any:
    signatures: Mapping[str, Any] = loaded.signatures
    names: List[str] = sorted(signatures)
    if not names:
        raise ModelFormatError(
            f"The SavedModel {path.name} has no signature, so nothing says what goes in and out. Save it again with "
            "tf.saved_model.save(model, folder, signatures=...), or a Keras model with model.export(folder)."
        )
    name = pick_name(names, options.signature, DEFAULT_SIGNATURE)
    if name is None:
        what = f"no signature {options.signature!r}" if options.signature else f"{len(names)} signatures and no default"
        raise ModelFormatError(
            f"The SavedModel {path.name} has {what}. It has: {', '.join(names)}. Name one with the environment "
            "variable GPU_INFER_SIGNATURE."
        )
    return signatures[name]
