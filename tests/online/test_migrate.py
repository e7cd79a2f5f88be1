"""From AKS web services to managed endpoints that give the same answers: both really run, on one emulated workspace."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import gpu_infer
from gpu_infer.cli import main
from gpu_infer.emulator import Emulator
from gpu_infer.errors import AnswersDifferError, PreflightError, ScoringInitError

TUTORIAL = Path(__file__).parents[1] / "emulator" / "tutorials" / "resnet50"
T4 = "Standard_NC4as_T4_v3"
HOOK = "def preprocess(item):\n    return item + OFFSET\n\n\nOFFSET = 3\n"


@dataclass(frozen=True)
class Place:
    """One workspace as both SDKs have it."""

    emulator: Emulator
    workspace: Any
    client: Any
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("here")
        patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        patch.chdir(folder)
        with Emulator() as emulator:
            workspace = emulator.workspace()
            gpu_infer.provision_cluster(workspace, "gpus", T4, 3, keep=True)
            yield Place(emulator, workspace, emulator.ml_client(), folder)


@pytest.fixture(scope="module")
def tutorial(place: Place, shared_models: Path) -> str:
    """The first tutorial's web service, by the tutorial's own calls; its code is then gone from this machine."""
    from azureml.core import Model
    from azureml.core.compute import ComputeTarget
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AksWebservice

    for name in ("score.py", "myenv.yml"):
        shutil.copy(TUTORIAL / name, place.folder)
    (place.folder / "resnet50").symlink_to(shared_models / "efficientnet_lite0_jpg_savedmodel")
    Model.register(place.workspace, model_path="resnet50", model_name="resnet50")
    with warnings.catch_warnings(action="ignore"):  # the SDK warns of itself
        service: Any = Model.deploy(
            place.workspace,
            "gpu-rn",
            [Model(place.workspace, "resnet50")],
            InferenceConfig(runtime="python", entry_script="score.py", conda_file="myenv.yml", enable_gpu=True),
            AksWebservice.deploy_configuration(
                autoscale_enabled=False, num_replicas=2, cpu_cores=2, memory_gb=4, gpu_cores=1
            ),
            ComputeTarget(place.workspace, "gpus"),
        )
    service.wait_for_deployment()
    for name in ("score.py", "myenv.yml", "resnet50"):
        (place.folder / name).unlink()
    return service.name


def photographs(picture: Path, count: int) -> list[bytes]:
    """A photograph, small and each time a little brighter."""
    with Image.open(picture) as image:
        small = image.convert("RGB").resize((96, 96))
    found: list[bytes] = []
    for at in range(count):
        stream = io.BytesIO()
        ImageEnhance.Brightness(small).enhance(0.5 + at / count).save(stream, "JPEG")
        found.append(stream.getvalue())
    return found


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """An ONNX model that doubles ``x`` float32 ``[N, 4]``."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "doubling.onnx"))
    return tmp_path / "doubling.onnx"


def test_the_first_tutorials_service_gives_the_same_hundred_answers(
    place: Place, tutorial: str, snowleopard: Path
) -> None:
    golden = [snowleopard, *photographs(snowleopard, 99)]
    done = gpu_infer.migrate(place.workspace, place.client, tutorial, golden=golden)
    try:
        assert done.comparison.requests == 100
        assert done.comparison.largest <= 1e-5
        assert (done.service.target, done.service.state, done.service.kept) == ("online", "Healthy", True)
        assert done.service.price_per_hour == pytest.approx(2 * 0.526)
        (deployment,) = place.client.online_deployments.list(tutorial)
        assert (deployment.instance_type, deployment.instance_count) == (T4, 2)
        assert deployment.model.endswith("/models/resnet50/versions/1")
        assert [service.name for service in gpu_infer.services(place.workspace)] == [tutorial]  # left until told
        assert [one.kind for one in gpu_infer.leftovers(place.client) if not one.kept] == []
    finally:
        done.service.delete()


def test_one_of_our_own_comes_with_its_hook_variables_and_settings(
    place: Place, doubling: Path, tmp_path: Path
) -> None:
    (tmp_path / "hooks.py").write_text(HOOK, "utf-8")
    gpu_infer.deploy(
        doubling,
        place.workspace,
        name="ours",
        cluster="gpus",
        preprocess=tmp_path / "hooks.py",
        postprocess="softmax",
        labels=["a", "b", "c", "d"],
        batching=gpu_infer.Batching(max_batch=8),
        environment_variables={"GPU_INFER_THREADS": "1", "API_TOKEN": "very-secret-value"},
        tags={"team": "lynx"},
        auth="token",
        timeout=40,
    )
    (tmp_path / "hooks.py").unlink()
    plan = gpu_infer.migrate_plan(place.workspace, place.client, "ours", new_name="ours-online")
    for shown in (str(plan), repr(plan), json.dumps(plan.to_dict()), plan._repr_html_()):
        assert "very-secret-value" not in shown
    assert "API_TOKEN, GPU_INFER_THREADS" in str(plan)
    done = gpu_infer.migrate(place.workspace, place.client, "ours", new_name="ours-online", delete_old=True)
    try:
        assert done.comparison.requests == 1  # made up
        told = done.service.describe()
        assert told["labels"] == ["a", "b", "c", "d"]
        assert (told["settings"]["max_batch"], told["settings"]["threads"]) == (8, 1)
        expected = np.exp(2 * (np.arange(4) + 3.0))
        assert done.service.score([np.arange(4, dtype=np.float32)])[0] == pytest.approx(expected / expected.sum())
        assert done.service.raw.auth_mode == "aml_token"
        assert done.service.raw.tags["team"] == "lynx"
        assert "ours" not in [service.name for service in gpu_infer.services(place.workspace)]
    finally:
        done.service.delete(model=True)


def test_answers_that_differ_remove_the_new_one_and_leave_the_old_one(
    place: Place, tutorial: str, snowleopard: Path, tmp_path: Path
) -> None:
    script = tmp_path / "score.py"
    script.write_text(
        (TUTORIAL / "score.py").read_text("utf-8").replace("result[1].tolist()", "(result[1] + 0.25).tolist()")
    )
    with pytest.raises(AnswersDifferError, match=r"answer golden item 0 differently.*removed again") as caught:
        gpu_infer.migrate(
            place.workspace, place.client, tutorial, golden=[snowleopard], new_name="other", entry_script=script
        )
    assert caught.value.largest == pytest.approx(0.25)
    assert gpu_infer.services(place.client) == []
    assert gpu_infer.leftovers(place.client) == []
    assert gpu_infer.attach(tutorial, place.workspace).state == "Healthy"


def test_a_new_one_that_does_not_start_leaves_nothing(
    place: Place, tutorial: str, snowleopard: Path, tmp_path: Path
) -> None:
    script = tmp_path / "score.py"
    script.write_text("def init():\n    return {}['no such key']\n\n\ndef run(data):\n    return data\n")
    with pytest.raises(ScoringInitError, match="no such key"):
        gpu_infer.migrate(
            place.workspace, place.client, tutorial, golden=[snowleopard], new_name="other", entry_script=script
        )
    assert gpu_infer.leftovers(place.client) == []


def test_what_the_old_one_does_not_answer_stops_it_before_anything_is_created(place: Place, tutorial: str) -> None:
    place.emulator.clear_log()
    with pytest.raises(gpu_infer.errors.ScoringError) as caught:
        gpu_infer.migrate(place.workspace, place.client, tutorial, golden=[b"no picture"])
    assert any("nothing was created" in note for note in caught.value.__notes__)
    assert not [call for call in place.emulator.requests if call.operation.endswith(".create")]


def test_a_script_of_the_users_needs_golden_requests(place: Place, tutorial: str, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"script of its own.*Give golden="):
        gpu_infer.migrate(place.workspace, place.client, tutorial)
    with pytest.raises(PreflightError, match=r"There is no file .*absent\.jpg"):
        gpu_infer.migrate(place.workspace, place.client, tutorial, golden=[tmp_path / "absent.jpg"])


def test_on_the_command_line(
    place: Place,
    tutorial: str,
    snowleopard: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    where = ["-w", place.emulator.url]
    assert main(["migrate", tutorial, *where]) == 0
    shown = capsys.readouterr()
    assert "AKS WEB SERVICE" in shown.out
    assert f"2 instances, each {T4}" in " ".join(shown.out.split())
    assert f"gpu-infer migrate {tutorial} -w {place.emulator.url} --apply" in shown.err
    golden = tmp_path / "golden"
    golden.mkdir()
    for at, picture in enumerate(photographs(snowleopard, 3)):
        (golden / f"{at}.jpg").write_bytes(picture)
    command = ["migrate", tutorial, *where, "--name", "moved", "--golden", str(golden), "--replicas", "1"]
    assert main([*command, "--apply", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["comparison"] == {"requests": 3, "largest": 0.0, "at": 0, "what": "", "agree": True}
    assert (done["endpoint"], done["price_per_hour"], done["old_deleted"]) == ("moved", 0.526, False)
    assert main([*command, "--apply"]) == 1  # it is there by now
    assert "Give --name, or delete that endpoint first." in capsys.readouterr().err
    assert main(["down", "moved", *where, "--online"]) == 0
    assert main(["migrate", tutorial, *where, "--delete-old"]) == 2
    assert main(["migrate", tutorial]) == 2
    assert main(["migrate", tutorial, *where, "--golden", str(tmp_path / "absent")]) == 2
    assert main(["migrate", "absent", *where]) == 1
    assert f"On AKS there: {tutorial}" in capsys.readouterr().err


def test_nothing_is_left_of_all_that(place: Place) -> None:
    assert gpu_infer.services(place.client) == []
    assert place.emulator.errors == []
    assert list(place.folder.iterdir()) == []
