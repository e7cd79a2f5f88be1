"""What tests of all folders share: the real models and data, and a state folder apart from the user's own."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import gpu_infer

# How long an example takes says something about the machine, not about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SHARED = Path(os.environ.get("GPU_INFER_SHARED") or Path(__file__).parents[2] / "shared")
"""Real models and data beside the checkout; ``GPU_INFER_SHARED`` names another place."""


LONGEST = (
    "test_examples.py",
    "local/test_local.py",
    "contract/test_changing.py",
    "contract/test_using.py",
    "test_main_job.py",
    "aks/test_real_service.py",
    "local/test_bad_input.py",
    "local/test_ownership.py",
    "local/test_workers.py",
    "test_cli.py",
    "test_fuzz.py",
    "online/test_migrate.py",
    "emulator/test_plugin.py",
    "local/test_short_way.py",
    "aks/test_half_made.py",
    "aks/test_fault_matrix.py",
    "aks/test_deploy.py",
    "emulator/test_tutorials.py",
    "emulator/test_page.py",
    "test_demo.py",
    "emulator/test_scoring_replicas.py",
    "test_load.py",
    "test_aks_readme.py",
    "emulator/test_command.py",
    "test_aks_examples.py",
)
"""Files that take longest. They are run first, so that no worker has one left to do when the others have finished."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, the others in the order in which they were found; xdist hands them out in this order."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(autouse=True, scope="session")
def own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services of the tests stand in a ledger of their own, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder for a file, and a screen of 100 columns; what runs at the file's end is removed."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(home))
        patch.setenv("COLUMNS", "100")
        yield home
        for service in gpu_infer.services():
            service.delete()


@pytest.fixture(autouse=True, scope="module")
def as_outside_a_notebook() -> Iterator[None]:
    """Who runs a notebook has ``ipykernel`` loaded from then on, and progress would be shown as inside of one."""
    yield
    sys.modules.pop("ipykernel", None)


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"no {path.name} beside the checkout; GPU_INFER_SHARED names the folder that has it")
    return path


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of the real models."""
    return _existing(SHARED / "models")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data."""
    return _existing(SHARED / "data")


@pytest.fixture(scope="session")
def snowleopard(shared_data: Path) -> Path:
    """A photograph of ImageNet's class 289."""
    return _existing(shared_data / "snowleopard.jpg")


@pytest.fixture(scope="session")
def mnist_test(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """2,000 test digits: images float32 ``[2000, 784]`` in 0 to 1, labels uint8 ``[2000]``."""
    folder = shared_data / "mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images / np.float32(255), labels


@pytest.fixture
def readers_folder(tmp_path: Path, shared_models: Path, snowleopard: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the names that the README uses, and the README's commands on the path."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "resnet50").symlink_to(shared_models / "efficientnet_lite0_jpg_savedmodel")
    (tmp_path / "net.onnx").symlink_to(shared_models / "efficientnet_lite0.onnx")
    for name in ("lynx.jpg", "cat.jpg"):
        (tmp_path / name).symlink_to(snowleopard)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path
