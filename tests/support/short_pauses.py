"""Pauses that are right for Azure and long beside an emulator, which answers at once."""

from __future__ import annotations

import time
from importlib import import_module
from types import SimpleNamespace

import pytest


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Let our polls begin with a hundredth of a second, and the SDK's uploads and new keys be looked after as often."""
    from gpu_infer.targets import waiting

    patch.setattr(waiting, "FIRST_PAUSE", 0.01)
    import_module("azureml.core")  # first: what is in it imports each other in a circle
    # It looks every 0.25 s whether the uploads of one file have ended, every 5 s for a key, and has no setting for it.
    for name in ("azureml._common.async_utils.task_queue", "azureml.core.webservice.webservice"):
        patch.setattr(import_module(name), "time", SimpleNamespace(time=time.time, sleep=lambda _: time.sleep(0.01)))
