"""Pauses that are right for Azure and long beside an emulator, which answers at once."""

from __future__ import annotations

import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Let our polls begin with a hundredth of a second, and the SDK's uploads and new keys be looked after as often."""
    from gpu_infer.targets import waiting

    patch.setattr(waiting, "FIRST_PAUSE", 0.01)
    if find_spec("azureml") is None:
        return  # azure-ai-ml is here alone
    import_module("azureml.core")  # first: what is in it imports each other in a circle
    # It looks every 0.25 s whether the uploads of one file have ended, every 5 s for a key, and has no setting for it.
    for name in ("azureml._common.async_utils.task_queue", "azureml.core.webservice.webservice"):
        patch.setattr(import_module(name), "time", SimpleNamespace(time=time.time, sleep=lambda _: time.sleep(0.01)))


def shorten_online(patch: pytest.MonkeyPatch) -> None:
    """The same for ``azure-ai-ml``: its looks at operations are 5 s or 30 s apart, its retries up to 3 s."""
    from gpu_infer import Rollout
    from gpu_infer.targets import waiting
    from gpu_infer.targets.online import target

    patch.setattr(waiting, "FIRST_PAUSE", 0.01)
    patch.setattr(target, "REPLACE", Rollout(steps=(100,), pause=0))
    with warnings.catch_warnings(action="ignore"):  # of what it does itself with marshmallow
        import_module("azure.ai.ml.entities")
    transport = import_module("azure.core.pipeline.transport").RequestsTransport
    patch.setattr(transport, "sleep", lambda _self, seconds: time.sleep(min(seconds, 0.02)))
