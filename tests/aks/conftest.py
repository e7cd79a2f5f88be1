"""An emulated workspace for the AKS target, and the SDK's back-offs made short: they are read when it is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_matrix import Zygote
from short_pauses import shorten

from gpu_infer.emulator import Emulator

for _name in ("BACKOFF", "500_BACKOFF", "503_BACKOFF"):
    os.environ.setdefault(f"AZUREML_DEFAULT_{_name}", "0")


@pytest.fixture(scope="module", autouse=True)
def short_pauses() -> Iterator[None]:
    """Nothing here takes longer for being asked more often."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """The process that the processes of a file's tests are forked from."""
    started = Zygote()
    yield started
    started.close()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A control plane that runs no services: they are healthy by word alone."""
    with Emulator(run_services=False) as started:
        yield started


@pytest.fixture
def workspace(emulator: Emulator) -> Any:
    return emulator.workspace()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of this test's own."""
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Registers a small file as a model, by the SDK itself."""
    from azureml.core import Model

    def register(workspace: Any, name: str = "net", file: str = "net.onnx", **options: Any) -> Any:
        monkeypatch.chdir(tmp_path)
        Path(file).write_bytes(b"not a real network")
        return Model.register(workspace, file, name, **options)

    return register
