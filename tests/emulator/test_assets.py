"""Models, environments and code, as the real azure-ai-ml uploads and registers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator

pytestmark = pytest.mark.usefixtures("entities")


@pytest.fixture
def emulator(start: Callable[..., Emulator]) -> Iterator[Emulator]:
    emulator = start()
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator) -> Any:
    return emulator.ml_client()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two files."""
    (tmp_path / "net" / "parts").mkdir(parents=True)
    (tmp_path / "net" / "net.onnx").write_bytes(b"heavy")
    (tmp_path / "net" / "parts" / "labels.txt").write_bytes(b"0\n1\n")
    return tmp_path / "net"


def called(emulator: Emulator, operation: str) -> int:
    return sum(call.operation == operation for call in emulator.requests)


def test_a_model_is_uploaded_registered_and_downloaded(
    client: Any, entities: Any, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    made = client.models.create_or_update(entities.Model(name="net", path=folder, tags={"of": "test"}))
    assert (made.name, made.version, made.tags, made.type) == ("net", "1", {"of": "test"}, "custom_model")
    assert made.path.endswith("/net")
    assert client.models.get("net", "1").path == client.models.get("net", label="latest").path == made.path
    assert [one.name for one in client.models.list()] == ["net"]
    assert [one.version for one in client.models.list("net")] == ["1"]
    client.models.download("net", version="1", download_path=tmp_path / "down")
    found = {path.relative_to(tmp_path / "down").as_posix(): path.read_bytes() for path in files(tmp_path / "down")}
    assert found == {"net/net/net.onnx": b"heavy", "net/net/parts/labels.txt": b"0\n1\n"}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_there_is_not_uploaded_again(client: Any, entities: Any, emulator: Emulator, folder: Path) -> None:
    first = client.models.create_or_update(entities.Model(name="net", path=folder))
    before = called(emulator, "blob.put")
    second = client.models.create_or_update(entities.Model(name="net", path=folder))
    assert (second.version, second.path) == ("2", first.path)
    assert called(emulator, "blob.put") - before <= 1  # what is said of the files, not the files


def test_a_version_keeps_its_files(client: Any, entities: Any, folder: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    client.models.create_or_update(entities.Model(name="net", version="7", path=folder))
    (folder / "net.onnx").write_bytes(b"other")
    with pytest.raises(HttpResponseError) as refused:
        client.models.create_or_update(entities.Model(name="net", version="7", path=folder))
    assert refused.value.status_code == 409
    assert client.models.create_or_update(entities.Model(name="net", path=folder)).version == "8"
    with pytest.raises(HttpResponseError, match="'beta' is no whole number"):
        client.models.create_or_update(entities.Model(name="net", version="beta", path=folder))


def test_both_sdks_have_one_registry(
    client: Any, entities: Any, emulator: Emulator, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azureml.core import Model

    monkeypatch.chdir(tmp_path)
    workspace = emulator.workspace()
    client.models.create_or_update(entities.Model(name="net", path=folder, tags={"of": "v2"}))
    seen = Model(workspace, "net")
    assert (seen.id, seen.tags) == ("net:1", {"of": "v2"})
    there = Path(seen.download("downloaded"))
    assert (there / "net.onnx").read_bytes() == b"heavy"
    (tmp_path / "old.bin").write_bytes(b"old")
    Model.register(workspace, "old.bin", "net", tags={"of": "v1"})
    latest = client.models.get("net", label="latest")
    assert (latest.version, latest.tags) == ("2", {"of": "v1"})
    assert "/datastores/workspaceartifactstore/paths/ExperimentRun/" in latest.path
    client.models.download("net", version="2", download_path=tmp_path / "down")
    assert [path.read_bytes() for path in files(tmp_path / "down")] == [b"old"]


def test_a_large_file_comes_in_blocks(client: Any, entities: Any, emulator: Emulator, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate((64 << 20) + 1)
    client.models.create_or_update(entities.Model(name="large", path=large))
    assert any(call.query.get("comp") == "blocklist" for call in emulator.requests)


def test_an_environment_keeps_its_image_and_conda_file(client: Any, entities: Any, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    conda = tmp_path / "conda.yml"
    conda.write_text("name: gpu\ndependencies: [python=3.11, pip]\n")
    image = "mcr.microsoft.com/azureml/minimal-ubuntu22.04-py311-cuda11.8-gpu-inference"
    made = client.environments.create_or_update(entities.Environment(name="gpu", image=image, conda_file=conda))
    assert (made.name, made.version, made.image) == ("gpu", "1", image)
    assert made.conda_file["dependencies"] == ["python=3.11", "pip"]
    assert client.environments.get("gpu", label="latest").image == image
    again = client.environments.create_or_update(entities.Environment(name="gpu", image=image))
    assert again.version == "2"
    assert [one.version for one in client.environments.list("gpu")] == ["2", "1"]
    assert [(one.name, one.latest_version) for one in client.environments.list()] == [("gpu", "2")]
    with pytest.raises(HttpResponseError, match="another image"):
        client.environments.create_or_update(
            entities.Environment(name="gpu", version="1", image="other", conda_file=conda)
        )


def test_code_is_uploaded_once(client: Any, entities: Any, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("def init(): ...\n")
    code = client._code.create_or_update(entities._assets.Code(name="mine", version="1", path=tmp_path / "code"))
    before = called(emulator, "blob.put")
    assert before == 2
    again = client._code.create_or_update(entities._assets.Code(name="mine", version="1", path=tmp_path / "code"))
    assert again.id == code.id
    assert called(emulator, "blob.put") == before


def test_a_wrong_signature_opens_nothing(client: Any, entities: Any, emulator: Emulator, folder: Path) -> None:
    client.models.create_or_update(entities.Model(name="net", path=folder))
    put = next(call for call in emulator.requests if call.operation == "blob.put")
    url = f"{emulator.url}{put.path}"
    for query in ({}, {"sig": "wrong"}):
        assert requests.get(url, params=query, timeout=30).status_code == 403
    assert requests.get(url, params={"sig": put.query["sig"]}, timeout=30).status_code == 200
