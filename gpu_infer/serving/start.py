"""``init()``, stage by stage: settings, model, device, hooks, warm-up, calibration."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from .adapters import load_adapter
from .adapters.base import Adapter, ModelFormatError, TensorSpec
from .adapters.options import AdapterOptions
from .engine.batching import nothing
from .engine.engine import Engine
from .engine.local import LocalEngine
from .engine.scheduling import Scheduler, scheduler
from .engine.shared import SharedEngine
from .failures import BadInput
from .health import watch_health
from .hooks import Hook, HookError, is_file_hook, load_hook
from .labels import labels_of_service
from .model_finder import find_model
from .runtime import Runtime
from .settings import SETTINGS_FILE, Settings, SettingsError, load_settings
from .stages import say, stage

_GC_THRESHOLD = 50_000
"""Objects made between two looks of the garbage collector; a request makes some hundred, and hardly a cycle."""


def start(folder: Path) -> Runtime:
    """Make a runtime of the bundle in ``folder`` and the model in ``AZUREML_MODEL_DIR``.

    With several workers the model is loaded once, in a process that all of them share.

    Raises:
        SettingsError, ModelFormatError, HookError, LabelsError, NoGpuError: with a message that says what to do.
    """
    with stage("settings"):
        settings = load_settings(folder)
        version = json.loads((folder / SETTINGS_FILE).read_text("utf-8")).get("version", "")
        if os.environ.get("WORKER_PRELOAD", "").lower() == "true":
            raise SettingsError(
                "WORKER_PRELOAD=true does not work: threads and GPUs do not survive the fork. Unset it."
            )
    _quieten(settings)
    with stage("hooks"):
        preprocess = load_hook(settings.preprocess, role="preprocess", folder=folder)
        postprocess = load_hook(settings.postprocess, role="postprocess", folder=folder)
    waiting = scheduler()
    shared = int(os.environ.get("WORKER_COUNT") or 1) > 1
    making = preprocess is not None and preprocess.decodes and not preprocess.of_user
    engine: Engine = (
        _shared_engine(folder, waiting) if shared else load_engine(settings, folder, waiting, making=making)
    )
    watch_health(engine.healthy)
    names = [spec.name for spec in engine.facts.outputs]
    if postprocess and len(names) > 1 and not is_file_hook(postprocess.text.split("|")[0]):
        raise HookError(
            f"postprocess={postprocess.text!r} takes one output, the model has {', '.join(names)}: "
            "name one with output=."
        )
    runtime = Runtime(
        settings,
        engine,
        scheduler=waiting,
        preprocess=preprocess,
        postprocess=postprocess,
        version=version,
        labels=labels_of_service(settings.labels, folder, Path(_model_dir()), engine.facts.outputs),
    )
    if isinstance(engine, SharedEngine):
        engine.publish(runtime.counts)
    with stage("ready"):
        # What is there now stays: a look through a framework's million objects would hold up every request.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD, 20, 100)
    return runtime


def _shared_engine(folder: Path, waiting: Scheduler) -> SharedEngine:
    with stage("model_process") as current:
        engine = SharedEngine(folder, scheduler=waiting)
        current.note = str(engine.facts.input)
    return engine


def load_engine(
    settings: Settings,
    folder: Path,
    waiting: Scheduler,
    *,
    making: bool = False,
    after_batch: Callable[[], None] = nothing,
) -> LocalEngine:
    """Find, load, warm up and measure the model, in this process; ``making``: it may be handed images to decode."""
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
    return LocalEngine(
        adapter,
        settings=settings,
        sample=_sample(adapter, settings, folder),
        scheduler=waiting,
        making=making,
        after_batch=after_batch,
    )


def _quieten(settings: Settings) -> None:
    """Leave the stock server's lines about each request out; ours stand in for those that matter."""
    if not settings.access_log:
        logging.getLogger("azmlinfsrv").setLevel(logging.WARNING)


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
        optimize=settings.optimize,
        precision=settings.precision,
        compile=settings.compile,
        cuda_graphs=settings.cuda_graphs,
    )


def _sample(adapter: Adapter, settings: Settings, folder: Path) -> Any:
    """An item to warm up with: a grey picture where the model takes one, else zeros; ``None`` where nobody knows."""
    if adapter.input.dtype == "bytes":
        return _grey_jpeg()
    if settings.preprocess and not any(is_file_hook(piece.strip()) for piece in settings.preprocess.split("|")):
        preprocess: Optional[Hook] = load_hook(settings.preprocess, role="preprocess", folder=folder)
        try:
            return np.asarray(preprocess(_grey_jpeg())) if preprocess else None
        except BadInput:
            pass  # a chain for arrays: the model's own shape tells more
    spec: TensorSpec = adapter.input
    if spec.item_shape is None or any(axis is None for axis in spec.item_shape):
        return None
    return np.zeros([axis or 0 for axis in spec.item_shape], dtype=spec.dtype)


def _grey_jpeg() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (127, 127, 127)).save(stream, "JPEG")
    return stream.getvalue()
