"""Pytest fixtures for tests of deployment code: an Azure ML workspace on 127.0.0.1, and services on this machine.

pytest finds them by itself where this package is installed::

    def test_it_deploys(azureml_workspace):  # a real azureml.core.Workspace, on an emulator of the test's own
        cluster = ComputeTarget.create(azureml_workspace, "aks-gpu", AksCompute.provisioning_configuration(...))
        ...

This module is imported by every run of pytest, so it imports nothing but pytest and the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from azureml.core import Workspace

    from gpu_infer.emulator import Emulator
    from gpu_infer.service import Service

__all__ = ["azureml_client", "azureml_emulator", "azureml_emulator_options", "azureml_workspace", "local_service"]

_FIXTURES = ("azureml_client", "azureml_emulator", "azureml_workspace")

_BACKOFFS = ("AZUREML_DEFAULT_BACKOFF", "AZUREML_DEFAULT_500_BACKOFF", "AZUREML_DEFAULT_503_BACKOFF")
"""How long azureml-core waits before it repeats a request: 32 s after a 429. It reads them when it is imported."""


_SDK_WARNINGS = tuple(
    rf"ignore::{kind}:{package}\."
    for kind in ("DeprecationWarning", "PendingDeprecationWarning")
    for package in ("azureml", r"azure\.ai\.ml")
)
"""What the SDKs warn of in their own code, which nobody but their authors could change."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the SDK's warnings about itself out of tests that use the emulator; what others warn of stays."""
    for item in items:
        if set(_FIXTURES) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.filterwarnings(*_SDK_WARNINGS))


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Have azureml-core repeat requests at once, in files that use the emulator.

    It must be decided before the file is imported, and with it the SDK. Other files are left alone: their tests may
    talk to Azure.
    """
    if any(name in module_path.read_text("utf-8", errors="replace") for name in _FIXTURES):
        _repeat_at_once()


def _repeat_at_once() -> None:
    for name in _BACKOFFS:
        os.environ.setdefault(name, "0")


@pytest.fixture
def azureml_emulator_options() -> dict[str, Any]:
    """Options of ``Emulator`` for ``azureml_emulator``; override this fixture to set some."""
    return {}


@pytest.fixture
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A ledger of the test's own: its names cannot be taken, and nothing of it stays in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("gpu-infer")))
        yield


@pytest.fixture
def azureml_emulator(_own_home: None, azureml_emulator_options: dict[str, Any]) -> Iterator[Emulator]:
    """An Azure ML workspace on 127.0.0.1, empty, of this test's own: ``.requests``, ``.add_fault()``, ``.billed()``."""
    _need("azureml_emulator", "cryptography", "azureml_inference_server_http")
    _repeat_at_once()
    from gpu_infer.emulator import Emulator

    with Emulator(**azureml_emulator_options) as emulator:
        yield emulator


@pytest.fixture
def azureml_workspace(azureml_emulator: Emulator) -> Workspace:
    """A real ``azureml.core.Workspace``, on this test's own emulator."""
    _need("azureml_workspace", "azureml.core")
    return azureml_emulator.workspace()


@pytest.fixture
def azureml_client(azureml_emulator: Emulator) -> Iterator[Any]:
    """A real ``azure.ai.ml.MLClient``, on this test's own emulator: the same as ``azureml_workspace`` is on."""
    _need("azureml_client", "azure.ai.ml", extras="emulator,online")
    with pytest.MonkeyPatch.context() as patch:
        # Each MLClient() sets it for good, and azureml-core reads it.
        patch.setenv("AZUREML_CURRENT_CLOUD", os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud"))
        yield azureml_emulator.ml_client()


@pytest.fixture
def local_service(_own_home: None) -> Iterator[Callable[..., Service]]:
    """``gpu_infer.deploy`` to this machine, for services that end with the test: ``local_service("net.onnx")``."""
    _need("local_service", "azureml_inference_server_http", extras="local")
    import gpu_infer

    deployed: list[Service] = []

    def deploy(model: str | os.PathLike[str], **options: Any) -> Service:
        service = gpu_infer.deploy(model, target="local", dry_run=False, **options)
        deployed.append(service)
        return service

    yield deploy
    for service in reversed(deployed):
        service.delete()


def _need(fixture: str, *modules: str, extras: str = "emulator,aks") -> None:
    """Fail where a package is missing, with the command that installs it."""
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        pytest.fail(
            f"The fixture {fixture} needs {' and '.join(missing)}, not installed here. "
            f"Run: pip install 'gpu-infer[{extras}]'",
            pytrace=False,
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False
