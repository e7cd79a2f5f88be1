"""What tests of the adapters share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpu_infer.serving.adapters import load_adapter
from gpu_infer.serving.adapters.base import Adapter
from gpu_infer.serving.adapters.options import AdapterOptions
from gpu_infer.serving.model_finder import find_model

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

LoadModel = Callable[..., Adapter]


@pytest.fixture(scope="session")
def load_model() -> LoadModel:
    """Finds and loads a model as the service does; the CPU is allowed unless the test says otherwise."""

    def load(path: Path, **options: Any) -> Adapter:
        return load_adapter(find_model(path), options=AdapterOptions(**{"allow_cpu": True, **options}))

    return load
