"""``init()``, stage by stage: settings, model, device, hooks, warm-up."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any, List, Optional

import numpy as np

from .adapters import load_adapter
from .adapters.base import Adapter, ModelFormatError
from .adapters.options import AdapterOptions
from .failures import BadInput, RequestFailure
from .hooks import Hook, HookError, is_file_hook, load_hook
from .model_finder import find_model
from .runtime import Runtime
from .settings import SETTINGS_FILE, Settings, SettingsError, load_settings
from .stages import say, stage

WARM_UP_SECONDS = 120.0
"""A warm-up run that takes longer than this is left behind: the service starts without it."""


def start(folder: Path) -> Runtime:
    """Load and warm up the model that ``AZUREML_MODEL_DIR`` holds, as the bundle in ``folder`` asks.

    Raises:
        SettingsError, ModelFormatError, HookError, NoGpuError: with a message that says what to do.
    """
    with stage("settings"):
        settings = load_settings(folder)
        version = json.loads((folder / SETTINGS_FILE).read_text("utf-8")).get("version", "")
        if os.environ.get("WORKER_PRELOAD", "").lower() == "true":
            raise SettingsError(
                "WORKER_PRELOAD=true does not work: threads and GPUs do not survive the fork. Unset it."
            )
    with stage("find_model") as current:
        found = find_model(Path(_model_dir()), hint=settings.model_path or None)
        current.note = f"{found.format} {found.path.name}"
    with stage("load_model") as current:
        adapter = load_adapter(found, options=_options(settings))
        current.note = str(adapter.input)
    with stage("device") as current:
        current.note = str(adapter.device)
        if adapter.device.kind == "cpu":
            say("GPU_INFER_WARNING no GPU: this service runs on the CPU, as its settings allow.")
    with stage("hooks"):
        wanted = tuple(spec.name for spec in adapter.outputs)
        preprocess = load_hook(settings.preprocess, role="preprocess", folder=folder)
        postprocess = load_hook(settings.postprocess, role="postprocess", folder=folder)
        if postprocess and len(wanted) > 1 and not is_file_hook(postprocess.text.split("|")[0]):
            raise HookError(
                f"postprocess={postprocess.text!r} takes one output, the model has {', '.join(wanted)}: "
                "name one with output=."
            )
    runtime = Runtime(settings, adapter, wanted=wanted, preprocess=preprocess, postprocess=postprocess, version=version)
    with stage("warm_up") as current:
        current.note = _warm_up(runtime) if settings.warm_up else "skipped: switched off"
        runtime.batcher.forget()
    return runtime


def _model_dir() -> str:
    folder = os.environ.get("AZUREML_MODEL_DIR", "")
    if not folder:
        raise ModelFormatError("AZUREML_MODEL_DIR is not set: the service was started without a model.")
    return folder


def _options(settings: Settings) -> AdapterOptions:
    return AdapterOptions(
        input_name=settings.input or None,
        output_names=(settings.output,) if settings.output else None,
        signature=settings.signature or None,
        item_shape=settings.item_shape,
        allow_cpu=settings.allow_cpu,
        threads=settings.threads or None,
    )


def _warm_up(runtime: Runtime) -> str:
    """Run every batch size once, through the thread that will run them later; returns a note for the stage line."""
    sample = _sample(runtime.adapter, runtime.preprocess)
    if sample is None:
        return "skipped: the shape of an item is not known (set GPU_INFER_ITEM_SHAPE)"
    done: List[str] = []
    for size in runtime.batcher.sizes:
        rows = (
            np.empty(size, dtype=object) if isinstance(sample, bytes) else np.empty((size, *sample.shape), sample.dtype)
        )
        rows[:] = [sample] * size if isinstance(sample, bytes) else sample
        try:
            outcome = runtime.batcher.run(rows, deadline=time.monotonic() + WARM_UP_SECONDS)
        except RequestFailure as failure:
            return f"stopped at batch size {size}: {failure.message}"
        if outcome.failures:
            failure = outcome.failures[0] if 0 in outcome.failures else next(iter(outcome.failures.values()))
            if isinstance(failure.__cause__, ModelFormatError):
                raise failure.__cause__
            return f"stopped: {failure.message} (on a sample of zeros; real items may be fine)"
        done.append(str(size))
    return f"batch sizes {' '.join(done)}"


def _sample(adapter: Adapter, preprocess: Optional[Hook]) -> Any:
    """An item to warm up with: a grey picture where the model takes one, else zeros; ``None`` where nobody knows."""
    if adapter.input.dtype == "bytes":
        return _grey_jpeg()
    if preprocess is not None and not is_file_hook(preprocess.text):
        try:
            return np.asarray(preprocess(_grey_jpeg()))
        except BadInput:
            pass  # a chain for arrays: the model's own shape tells more
    shape = adapter.input.item_shape
    if shape is None or any(axis is None for axis in shape):
        return None
    return np.zeros([axis or 0 for axis in shape], dtype=adapter.input.dtype)


def _grey_jpeg() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (127, 127, 127)).save(stream, "JPEG")
    return stream.getvalue()
