"""The places that the contract is held against, and what is deployed there."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import places
import pytest
from onnx_models import save_elementwise
from places import Place
from short_pauses import shorten

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.targets.online import target

# Read when azureml-core is imported.
for _name in ("BACKOFF", "500_BACKOFF", "503_BACKOFF"):
    os.environ.setdefault(f"AZUREML_DEFAULT_{_name}", "0")

EMULATED: dict[str, Callable[[], contextlib.AbstractContextManager[Place]]] = {
    "local": places.local,
    "aks": places.emulated_aks,
    "managed": places.emulated_managed,
    "kubernetes": places.emulated_kubernetes,
}
LIVE = {
    "live-aks": places.live_aks,
    "live-managed": places.live_managed,
    "live-kubernetes": places.live_kubernetes,
}

SDKS = {"aks": "azureml.core", "managed": "azure.ai.ml.entities", "kubernetes": "azure.ai.ml.entities"}
"""What a place is reached through: each works without the other, and the suite runs with either alone."""

HOOKS = """
import numpy as np

def postprocess(output):
    if output.max() > 1000:
        raise LookupError("no class is that large")
    return output
"""
CRASHING = """
def init():
    raise LookupError("no weights in the cupboard")

def run(data):
    return data
"""


@pytest.fixture(scope="module", params=[*EMULATED, *(pytest.param(name, marks=pytest.mark.live) for name in LIVE)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, twice: Path) -> Iterator[Place]:
    """One place after the other; nothing of the tests is left there at the end."""
    name: str = request.param
    with warnings.catch_warnings(action="ignore"):  # azure-ai-ml warns of what it does itself with marshmallow
        if (sdk := SDKS.get(name.removeprefix("live-"))) is not None:
            pytest.importorskip(sdk, reason=f"{sdk} is not installed: make setup")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # each MLClient() sets it, for good
        patch.chdir(tmp_path_factory.mktemp("here"))
        if name in EMULATED:
            patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("home")))
            shorten(patch)
            patch.setattr(target, "REPLACE", Rollout(steps=(100,), pause=0))
            found = stack.enter_context(EMULATED[name]())
        else:
            patch.delenv("GPU_INFER_HOME")  # the user's own ledger: sweep() finds there what a killed run has left
            environment = places.environment(request.config.invocation_params.dir)
            found = stack.enter_context(LIVE[name](environment))
            places.check_price(found, twice, environment)
        try:
            yield found
        finally:
            places.leave_nothing(found)


@pytest.fixture(scope="session")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that doubles ``x`` float32 ``[N, 4]``."""
    return save_elementwise(tmp_path_factory.mktemp("model") / "twice.onnx")


@pytest.fixture(scope="session")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that squares ``x`` float32 ``[N, 4]``."""
    return save_elementwise(tmp_path_factory.mktemp("model") / "square.onnx", "Mul")


@pytest.fixture(scope="session")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hook that raises on results beyond a thousand."""
    return _written(tmp_path_factory.mktemp("hooks") / "hooks.py", HOOKS)


@pytest.fixture(scope="session")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An entry script that does not start."""
    return _written(tmp_path_factory.mktemp("script") / "score_it.py", CRASHING)


@pytest.fixture(scope="module")
def service(place: Place, twice: Path, hooks: Path) -> gpu_infer.Service:
    """A service that the tests of one file share."""
    return place.deploy(twice, "shared", postprocess=hooks)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path
