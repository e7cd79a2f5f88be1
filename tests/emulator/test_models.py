"""Models, their files, and how the files lie in a service's container."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator
from gpu_infer.emulator.services.layout import plan


def layout(emulator: Emulator, folder: Path) -> dict[str, bytes]:
    """The files of the latest deployment, laid out, by their paths."""
    state = emulator._running()[1]
    sent = [request.body for request in emulator.requests if request.operation == "services.create"][-1]
    plan(sent["environmentImageRequest"], state.artifacts, state.models).copy(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_versions_count_up_and_are_never_used_twice(ws: Any, steps: Any) -> None:
    from azureml.core import Model

    assert [steps.model(ws).version, steps.model(ws).version] == [1, 2]
    Model(ws, "net").delete()
    assert [Model(ws, "net").version, steps.model(ws).version] == [1, 3]
    assert [model.id for model in Model.list(ws)] == ["net:3", "net:1"]
    assert [model.id for model in Model.list(ws, latest=True)] == ["net:3"]


def test_models_are_found_by_what_they_were_registered_with(ws: Any, steps: Any) -> None:
    from azureml.core import Model

    steps.model(ws, "one", tags={"stage": "prod"}, properties={"run": "1"}, model_framework="TensorFlow")
    steps.model(ws, "two", tags={"stage": "test"}, description="the second")

    def found(**what: Any) -> list[Any]:
        return [model.name for model in Model.list(ws, **what)]

    assert found(tags=[["stage", "prod"]]) == ["one"]
    assert found(tags=["stage"]) == ["two", "one"]
    assert found(properties=[["run", "1"]]) == ["one"]
    assert found(model_framework="TensorFlow") == ["one"]
    assert found(name="two") == ["two"]
    assert Model(ws, "two").description == "the second"


def test_long_lists_come_in_pages(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.core import Model

    models = emulator._running()[1].models
    for number in range(45):
        models.register("net", {"name": "net", "url": "aml://asset/none", "mimeType": "x", "description": str(number)})
    emulator.clear_log()
    assert [model.version for model in Model.list(ws, page_count=20)] == list(range(45, 0, -1))
    assert [request.operation for request in emulator.requests].count("models.list") == 3


def test_a_folder_is_downloaded_as_it_was_registered(ws: Any, steps: Any, tmp_path: Path) -> None:
    from azureml.core import Model

    for number in range(60):  # more than one call may name
        path = tmp_path / "saved" / str(number % 3) / f"file {number}%+ä.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))
    model = Model.register(ws, "saved", "net")
    got = Path(model.download("target"))
    assert got == Path("target/saved")
    assert (got / "2" / "file 59%+ä.bin").read_bytes() == bytes([59])
    assert len([path for path in got.rglob("*") if path.is_file()]) == 60


def test_an_empty_file_survives(ws: Any, steps: Any) -> None:
    assert Path(steps.model(ws, content=b"").download("target")).read_bytes() == b""


def test_the_containers_files_lie_as_azure_lays_them_out(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.core import Model

    folder = steps.folder / "saved" / "variables"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"deep")
    (steps.folder / "src" / "extra").mkdir()
    (steps.folder / "src" / "extra" / "more.py").write_bytes(b"more")
    models = [Model.register(ws, "saved", "tree"), steps.model(ws, "one"), steps.model(ws, "one", b"newer")]
    steps.deploy(ws, steps.cluster(ws), models)
    files = layout(emulator, steps.folder / "laid-out")
    (driver,) = (name for name in files if name.startswith("app/tmp"))
    assert b"driver_module" in files.pop(driver)
    assert {name: content for name, content in files.items() if not name.endswith("score.py")} == {
        "app/src/extra/more.py": b"more",
        "azureml-models/tree/1/saved/variables/weights": b"deep",
        "azureml-models/one/1/one.bin": b"weights",
        "azureml-models/one/2/one.bin": b"newer",
    }
    sent = next(request.body for request in emulator.requests if request.operation == "services.create")
    variables = sent["environmentImageRequest"]["environment"]["environmentVariables"]
    assert variables["AZUREML_ENTRY_SCRIPT"] == "src/score.py"
    assert "app/src/score.py" in files


def test_a_script_without_a_source_folder_lies_in_the_root(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig

    inference = InferenceConfig("src/score.py", environment=Environment("test"))
    steps.deploy(ws, steps.cluster(ws), [steps.model(ws)], inference=inference)
    assert "app/score.py" in layout(emulator, steps.folder / "laid-out")


def test_a_packed_model_is_unpacked(emulator: Emulator, ws: Any, steps: Any) -> None:
    with tarfile.open(steps.folder / "net.tar", "w") as archive:
        archive.add(steps.folder / "src" / "score.py", "inside/weights.bin")
    from azureml.core import Model

    asset: Any = Model._create_asset(ws.service_context, "net.tar", "net")
    model = Model._register_with_asset(ws, "net", asset.id, unpack=True)
    steps.deploy(ws, steps.cluster(ws), [model])
    assert "azureml-models/net/1/inside/weights.bin" in layout(emulator, steps.folder / "laid-out")


def test_an_archive_cannot_write_outside(emulator: Emulator, ws: Any, steps: Any) -> None:
    with tarfile.open(steps.folder / "net.tar", "w") as archive:
        archive.add(steps.folder / "src" / "score.py", "../../../outside.py")
    from azureml.core import Model

    asset: Any = Model._create_asset(ws.service_context, "net.tar", "net")
    steps.deploy(ws, steps.cluster(ws), [Model._register_with_asset(ws, "net", asset.id, unpack=True)])
    with pytest.raises(tarfile.OutsideDestinationError):
        layout(emulator, steps.folder / "laid-out")
    assert not (steps.folder / "outside.py").exists()


def content_uri(emulator: Emulator, header: dict[str, str], path: str) -> Any:
    arm = emulator._running()[1].settings.scope
    url = f"{emulator.url}/artifact/v2.0{arm}/artifacts/batch/metadata/LocalUpload/box"
    return requests.post(url, json={"paths": [{"path": path}]}, headers=header, timeout=10)


def signed(emulator: Emulator, header: dict[str, str], path: str = "file.bin") -> str:
    """Where a client may write, in a form that requests understands."""
    uri = content_uri(emulator, header, path).json()["artifactContentInformation"][path]["contentUri"]
    assert uri.startswith("https://emuacct.blob.core@127.0.0.1:")
    return emulator.url + uri[uri.index("/azureml/") :]


def test_large_files_come_in_blocks(emulator: Emulator, header: dict[str, str]) -> None:
    url = signed(emulator, header)
    for block, data in (("YQ==", b"first "), ("Yg==", b"second")):
        answer = requests.put(f"{url}&comp=block&blockid={block}", data=data, timeout=10)
        assert answer.status_code == 201
    assert requests.get(url, timeout=10).status_code == 404
    listing = "<BlockList><Latest>Yg==</Latest><Latest>YQ==</Latest></BlockList>"
    assert requests.put(f"{url}&comp=blocklist", data=listing, timeout=10).status_code == 201
    assert requests.get(url, timeout=10).content == b"secondfirst "
    unknown = listing.replace("YQ==", "WA==")
    assert (
        requests.put(f"{url}&comp=blocklist", data=unknown, timeout=10).headers["x-ms-error-code"] == "InvalidBlockList"
    )


@pytest.mark.slow
def test_the_sdk_uploads_a_large_file_in_blocks(emulator: Emulator, ws: Any, steps: Any) -> None:
    content = bytes(range(256)) * (70 << 12)  # 70 MiB
    model = steps.model(ws, content=content)
    assert [request.query.get("comp") for request in emulator.requests if request.operation == "blob.put"].count(
        "block"
    ) > 1
    assert Path(model.download("target")).read_bytes() == content


def test_blobs_are_read_whole_or_in_part(emulator: Emulator, header: dict[str, str]) -> None:
    url = signed(emulator, header)
    requests.put(url, data=b"0123456789", timeout=10)
    part = requests.get(url, headers={"x-ms-range": "bytes=2-4"}, timeout=10)
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    rest = requests.get(url, headers={"Range": "bytes=7-"}, timeout=10)
    assert (rest.status_code, rest.content) == (206, b"789")
    assert requests.get(url, headers={"Range": "bytes=10-"}, timeout=10).status_code == 416
    head = requests.head(url, timeout=10)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "10", b"")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"If-None-Match": "*"}, 409, "BlobAlreadyExists"),
        ({"Content-MD5": "bm8="}, 400, "Md5Mismatch"),
        ({}, 201, None),
    ],
)
def test_a_blob_is_stored_on_its_terms(
    headers: dict[str, str], status: int, code: str | None, emulator: Emulator, header: dict[str, str]
) -> None:
    url = signed(emulator, header)
    assert requests.put(url, data=b"first", timeout=10).status_code == 201
    answer = requests.put(url, data=b"again", headers=headers, timeout=10)
    assert (answer.status_code, answer.headers.get("x-ms-error-code")) == (status, code)
    assert requests.get(url, timeout=10).content == (b"again" if status == 201 else b"first")


def test_a_signature_opens_one_blob_only(emulator: Emulator, header: dict[str, str]) -> None:
    url = signed(emulator, header).replace("file.bin", "other.bin")
    assert requests.put(url, data=b"mine", timeout=10).status_code == 403


@pytest.mark.parametrize("path", ["../../escape", "a/../../../escape"])
def test_names_cannot_lead_out_of_the_store(path: str, emulator: Emulator, header: dict[str, str]) -> None:
    assert content_uri(emulator, header, path).status_code == 400


def test_a_model_needs_an_asset(emulator: Emulator, header: dict[str, str]) -> None:
    scope = emulator._running()[1].settings.scope
    url = f"{emulator.url}/modelmanagement/v1.0{scope}/models"
    body = {"name": "net", "url": "aml://asset/none", "mimeType": "application/json"}
    assert requests.post(url, json=body, headers=header, timeout=10).json()["code"] == "AssetNotFound"
    assert "mimeType" in requests.post(url, json={"name": "net"}, headers=header, timeout=10).json()["message"]
