"""An emulated workspace for the online target, through the real azure-ai-ml."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator
from gpu_infer.targets import waiting
from gpu_infer.targets.online import target

T4 = "Standard_NC4as_T4_v3"
with warnings.catch_warnings(action="ignore"):  # of what it does itself with marshmallow
    import azure.ai.ml.entities  # noqa: F401


@pytest.fixture(scope="module", autouse=True)
def short_pauses() -> Iterator[None]:
    """Nothing here takes longer for being asked more often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "FIRST_PAUSE", 0.01)
        patch.setattr(target, "REPLACE", Rollout(steps=(100,), pause=0))
        yield


@pytest.fixture(autouse=True)
def cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each MLClient() sets this variable, for good."""
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A control plane that runs no deployments: they are healthy by word alone."""
    with Emulator(run_services=False) as started:
        yield started
        assert [call for call in started.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator) -> Any:
    return emulator.ml_client()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of this test's own."""
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """An entry script that takes any model: nothing of ours is asked of it."""
    (tmp_path / "score.py").write_text("def init(): ...\n\n\ndef run(data):\n    return data\n", "utf-8")
    return tmp_path / "score.py"


@pytest.fixture
def register(tmp_path: Path) -> Callable[..., Any]:
    """Registers a small file as a model, by the SDK itself."""
    from azure.ai.ml.entities import Model

    def register(client: Any, name: str = "net", **options: Any) -> Any:
        (tmp_path / "net.onnx").write_bytes(b"not a real network")
        return client.models.create_or_update(Model(name=name, path=str(tmp_path / "net.onnx"), **options))

    return register


@pytest.fixture
def deploy(register: Callable[..., Any], script: Path) -> Callable[..., gpu_infer.Service]:
    """deploy() of that file with that script, registered first."""

    def deploy(client: Any, **options: Any) -> gpu_infer.Service:
        register(client)
        given = {"name": "svc", "vm_size": T4, "entry_script": script, "template": "onnx", **options}
        return gpu_infer.deploy(given.pop("model", "net"), client, dry_run=False, **given)

    return deploy
