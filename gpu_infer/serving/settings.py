"""What the bundle tells the runtime: ``gpu_infer.json`` beside ``score.py``; ``GPU_INFER_*`` variables win over it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

SETTINGS_FILE = "gpu_infer.json"
"""Never ``config.json``: the stock server would read that as its own configuration."""

ENVIRONMENT_PREFIX = "GPU_INFER_"

PRECISIONS = ("fp32", "bf16", "fp16")
"""What a model may compute with; the first is as it was saved."""


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names it and what it takes."""


@dataclass(frozen=True)
class Settings:
    """The runtime's settings. Each field is read from ``gpu_infer.json``, or from ``GPU_INFER_<NAME>``, which wins.

    Args:
        model_path: path below ``AZUREML_MODEL_DIR`` that picks the model; empty: the only one there.
        input: name of the input tensor (TF1 graphs), empty: found.
        output: the output to answer with; empty: all of them by name, or the only one.
        signature: SavedModel signature; empty: ``serving_default``, or the only one.
        item_shape: shape of one item where the format does not say (TorchScript); ``"3,224,224"`` in the environment.
        preprocess: built-in by name, or ``file.py:function``; empty: none.
        postprocess: the same.
        labels: file in the bundle with the names of the classes; empty: ``labels.txt`` of the model's folder, if any.
        allow_cpu: serve without a GPU instead of failing in ``init()``.
        max_batch: the most items that run at once.
        max_queue: the most items that wait; more are refused with 503.
        max_queue_ms: the longest wait for the device that a request is let in for, as the pace of the device foretells
            it; more are refused with 503.
        max_concurrency: the most requests that a worker works on at once; more are refused with 503.
        batching: whether items of different requests may run together.
        calibrate: whether ``init()`` measures which batch size, and how many runs side by side, give most.
        parallel: how many runs go side by side; 0: measured, or one.
        timeout_ms: deadline of a request; a request may ask for less, never for more.
        max_body_mb: the largest request body, in MiB.
        threads: threads the framework may use for one run; 0: its own choice.
        optimize: whether PyTorch runs models in a faster form of the same dtype (memory layout, frozen weights).
        precision: ``fp32``: the numbers that the model was saved with; ``bf16``, ``fp16``: of 16 bits (PyTorch).
        compile: whether ``torch.export`` programs run through ``torch.compile``.
        cuda_graphs: whether PyTorch records the run of each batch size on a GPU, and replays it.
        warm_up: whether ``init()`` runs the model once per batch size.
        access_log: whether each request gets a line in the log; those that are refused for their own fault always do.
    """

    model_path: str = ""
    input: str = ""
    output: str = ""
    signature: str = ""
    item_shape: Optional[Tuple[int, ...]] = None
    preprocess: str = ""
    postprocess: str = ""
    labels: str = ""
    allow_cpu: bool = False
    max_batch: int = 32
    max_queue: int = 512
    max_queue_ms: int = 5_000
    max_concurrency: int = 1000
    batching: bool = True
    calibrate: bool = True
    parallel: int = 0
    timeout_ms: int = 60_000
    max_body_mb: float = 100.0
    threads: int = 0
    optimize: bool = True
    precision: str = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    warm_up: bool = True
    access_log: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "max_queue_ms", "max_concurrency", "timeout_ms", "max_body_mb"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be a number above 0, got {getattr(self, name)}.")
        for name, meaning in (("threads", "the framework's own choice"), ("parallel", "measured")):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be 0 ({meaning}) or more, got {getattr(self, name)}.")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")


def load_settings(folder: Union[str, Path], environ: Optional[Mapping[str, str]] = None) -> Settings:
    """Read the settings of the bundle in ``folder``.

    Raises:
        SettingsError: a file or variable that cannot be read as the setting it names.
    """
    environ = os.environ if environ is None else environ
    path = Path(folder) / SETTINGS_FILE
    values: Dict[str, Any] = {}
    if path.exists():
        try:
            values = dict(json.loads(path.read_text("utf-8")).get("settings", {}))
        except (ValueError, AttributeError, TypeError) as error:
            raise SettingsError(f"{path} cannot be read: {error}. Build the bundle again.") from error
    known = {field.name: str(field.type) for field in fields(Settings)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(f"{path} has settings that this version does not know: {', '.join(unknown)}.")
    for name, kind in known.items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        if environ.get(variable, "").strip():
            values[name] = _parse(variable, environ[variable].strip(), kind)
    if values.get("item_shape") is not None:
        values["item_shape"] = tuple(int(axis) for axis in values["item_shape"])
    return Settings(**values)


def _parse(variable: str, text: str, kind: str) -> Any:
    """Turn the text of an environment variable into the type of its field."""
    try:
        if kind == "bool":
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind.startswith("Optional[Tuple"):
            return tuple(int(axis) for axis in text.split(",") if axis.strip())
    except (ValueError, KeyError):
        expected = {"bool": "1 or 0", "int": "a whole number", "float": "a number"}.get(kind, "numbers with commas")
        raise SettingsError(f"{variable}={text!r}: expected {expected}.") from None
    return text
