"""Keras 3 ``.keras`` files, on the TensorFlow backend."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Type, cast

import numpy as np

from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import ENTRY_SCRIPT, OnePool, chosen_outputs, only_input
from .options import AdapterOptions
from .tf_common import FRAMEWORK, LOAD_ERRORS, Compiled, load_error, out_of_memory, prepare, spec_of, tf

# An earlier choice, in the environment or by an import in the user's hooks, is checked in load().
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
keras: Any = import_module("keras")


class KerasAdapter(OnePool):
    """A Keras model, run in inference mode.

    Args:
        model: built, with one input.
        device: where it will run.
        options: of the user.
    """

    framework = FRAMEWORK

    def __init__(self, model: Any, device: DeviceInfo, options: AdapterOptions) -> None:
        inputs: Sequence[Any] = model.inputs
        self.input: TensorSpec = only_input([_spec(tensor.name, tensor) for tensor in inputs])
        outputs = _named(model.output, list(model.output_names))
        self.outputs: Tuple[TensorSpec, ...] = chosen_outputs([_spec(*pair) for pair in outputs.items()], options)
        self.device = device
        names: List[str] = list(model.output_names)
        source = tf.TensorSpec(inputs[0].shape, tf.as_dtype(inputs[0].dtype))
        self._run = Compiled(lambda x: _named(model(_like(model.input, x), training=False), names), source)
        self.invalid_input_errors: Tuple[Type[BaseException], ...] = self._run.invalid_input_errors

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``."""
        return self._run(batch, wanted)


def load(path: Path, options: AdapterOptions) -> KerasAdapter:
    """Load a ``.keras`` file in safe mode: it may not bring Python code of its own.

    Raises:
        ModelFormatError: it cannot be loaded, has custom code, or several inputs.
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelFormatError(
            f"Keras runs on {keras.backend.backend()} here, and .keras files are served on TensorFlow. Set "
            "KERAS_BACKEND=tensorflow, or export the model: model.export(folder)."
        )
    device = prepare(options)
    try:
        model: Any = keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except LOAD_ERRORS as error:
        if out_of_memory(error):
            raise
        raise _custom_code(path, error) or load_error(f"The Keras model {path.name}", error) from error
    if not getattr(model, "inputs", None):
        raise ModelFormatError(
            f"The Keras model {path.name} does not say what its input is (a subclassed or unbuilt model). Save it as a "
            f"SavedModel, which does: model.export(folder). {ENTRY_SCRIPT}"
        )
    if isinstance(model, keras.Sequential):
        # It holds a functional model and hides its tensors: wrapped, it has the same face as the others.
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return KerasAdapter(model, device, options)


def _custom_code(path: Path, error: BaseException) -> Any:
    """An error about Python code that the file names or brings along, ``None`` where it is about something else."""
    text = str(error)
    if not any(
        sign in text for sign in ("Could not locate class", "could not locate", "safe_mode", "unsafe", "Lambda")
    ):
        return None
    return ModelFormatError(
        f"The Keras model {path.name} needs Python code that is not here (a custom class, or a Lambda layer, which "
        f"safe mode refuses): {text.strip().splitlines()[0][:300]} Export the model instead, which leaves no code "
        "behind: model.export(folder), and deploy that folder."
    )


def _spec(name: str, tensor: Any) -> TensorSpec:
    return spec_of(name, tf.as_dtype(tensor.dtype), tensor.shape)


def _named(value: Any, names: Sequence[str]) -> Dict[str, Any]:
    """Outputs by name: a dict keeps its keys, a list takes the model's output names."""
    if isinstance(value, dict):
        return {str(key): part for key, part in cast("Dict[Any, Any]", value).items()}
    parts = cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else [value]
    return dict(zip(names, parts))


def _like(structure: Any, x: Any) -> Any:
    """The input in the structure in which the model was built: itself, a list or a dict of one."""
    if isinstance(structure, dict):
        return dict.fromkeys(cast("Dict[Any, Any]", structure), x)
    return [x] if isinstance(structure, (list, tuple)) else x
