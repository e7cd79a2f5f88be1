"""Everything a user can get wrong, and the sentence that says what to do. The messages are the feature."""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import gpu_infer
from gpu_infer.errors import (
    BadInputError,
    DeploymentTimeoutError,
    InsufficientGpuError,
    MissingDependencyError,
    ModelError,
    PreflightError,
    ScoringInitError,
    ScoringTimeoutError,
    UnsupportedError,
)
from gpu_infer.preflight import local as preflight

from .conftest import Script

Reply = tuple[int, dict[str, str], Any]


def post(uri: str, body: bytes, content_type: str = "application/json", **headers: str) -> Reply:
    """One raw request, as any HTTP client might send it."""
    address = urlsplit(uri)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", "/score", body, {"Content-Type": content_type, **headers})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, json.loads(text)
    finally:
        connection.close()


# --- before anything is started ---------------------------------------------------------------------------------------


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"There is no model at .*nix. Give the path of a model file or folder"):
        gpu_infer.deploy(tmp_path / "nix")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing to serve")
    with pytest.raises(PreflightError) as caught:
        gpu_infer.deploy(tmp_path / "notes")
    assert "readme.txt" in str(caught.value), "the message prints the tree"
    assert "SavedModel" in str(caught.value), "and the formats that there are"


def test_no_known_format(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(PreflightError, match=r"model\.bin"):
        gpu_infer.deploy(path)


def test_a_missing_extra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name in ("onnxruntime", "azureml_inference_server_http") else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(MissingDependencyError) as caught:
        gpu_infer.deploy(tiny_model)
    assert "The model is onnx, and onnxruntime is not installed" in str(caught.value)
    assert "Run: pip install 'gpu-infer[onnx]'" in str(caught.value)
    assert "Run: pip install 'gpu-infer[local]'" in str(caught.value)
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("name", ["Resnet", "rn", "-rn", "rn-", "a" * 33, "gpu_rn", "1st"])
def test_a_name_that_azure_ml_would_refuse(tiny_model: Path, name: str) -> None:
    with pytest.raises(PreflightError, match="no name that Azure ML accepts for a service: 3 to 32 characters"):
        gpu_infer.deploy(tiny_model, name=name)


def test_an_occupied_port(tiny_model: Path, state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PreflightError, match=f"Port {port} on 127.0.0.1 cannot be used: Address already in use"):
            gpu_infer.deploy(tiny_model, environment_variables={"SERVER_PORT": str(port)})
    assert list((state / "services").iterdir()) == []
    with pytest.raises(PreflightError, match="SERVER_PORT"):
        gpu_infer.deploy(tiny_model, environment_variables={"SERVER_PORT": "http"})


def test_windows_gets_a_sentence(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = gpu_infer.plan(tiny_model)
    monkeypatch.setattr(preflight, "WINDOWS", True)
    findings = preflight.check_local(plan.spec, None, None)
    assert [finding.code for finding in findings] == ["platform"]
    assert "does not run on Windows" in str(findings[0])
    assert "Use WSL 2" in str(findings[0])


def test_all_that_is_wrong_comes_at_once(tiny_model: Path, script: Script, tmp_path: Path) -> None:
    with pytest.raises(PreflightError) as caught:
        gpu_infer.deploy(
            tiny_model,
            name="No",
            preprocess="nix.py",
            postprocess="soft",
            conda_file=tmp_path / "nix.yml",
        )
    assert {finding.code for finding in caught.value.findings} == {"name", "hook", "conda-file"}
    assert len(caught.value.findings) == 4


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def run(data): return data", "has no init(): the server calls it"),
        ("def init(): pass", "has no run()"),
        ("def init(): pass\ndef run(*data): return data", "positional-only arguments, *args or **kwargs"),
        ("def init(): pass\ndef run(): return 1", "takes no argument"),
        ("def init(:\n", "line 1"),
    ],
)
def test_entry_scripts_that_cannot_work(tiny_model: Path, script: Script, source: str, says: str) -> None:
    with pytest.raises(PreflightError) as caught:
        gpu_infer.deploy(tiny_model, entry_script=script(source))
    assert says in str(caught.value)


def test_arguments_of_the_wrong_kind(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="'soon' is no duration"):
        gpu_infer.deploy(tiny_model, timeout="soon")
    with pytest.raises(ValueError, match="workers must be a whole number from 1"):
        gpu_infer.deploy(tiny_model, workers=0)
    for wrong, says in (
        ({"name": 5}, "name is the name of the service, a text, got 5"),
        ({"vm_size": 4}, "vm_size is the name of a VM size, such as .*, got 4"),
        ({"template": True}, "template is 'tensorflow', 'torch' or 'onnx', got True"),
        ({"entry_script": 7}, "entry_script is the path of a file, got 7"),
        ({"conda_file": 7}, "conda_file is the path of a file, got 7"),
        ({"cpu_cores": "2"}, "cpu_cores is a number, got '2'"),
        ({"environment_variables": {7: "x"}}, "environment_variables: a name is a text, got 7"),
    ):
        arguments: dict[str, Any] = wrong
        with pytest.raises(TypeError, match=says):
            gpu_infer.plan(tiny_model, **arguments)
    for name in ("A=B", "", "A\0"):
        with pytest.raises(ValueError, match="environment_variables: .* can be no name of a variable"):
            gpu_infer.plan(tiny_model, environment_variables={name: "1"})
    with pytest.raises(TypeError, match="model is a path"):
        gpu_infer.deploy(42)
    with pytest.raises(TypeError, match="azureml.core.Workspace or an azure.ai.ml.MLClient, got object"):
        gpu_infer.deploy(tiny_model, object())
    with pytest.raises(UnsupportedError, match="target='aks' needs an azureml.core.Workspace as second argument"):
        gpu_infer.deploy(tiny_model, target="aks")
    with pytest.raises(ValueError, match="no template 'caffe'; there are tensorflow, torch, onnx"):
        gpu_infer.deploy(tiny_model, template="caffe")


def test_arguments_that_do_nothing_or_do_not_fit(tiny_model: Path) -> None:
    plan = gpu_infer.plan(tiny_model, ttl="1h", vm_size="Standard_NC6", environment_variables={"GPU_INFER_MAXBATCH": 3})
    assert [finding.level for finding in plan.findings] == ["warning"] * 3
    assert "ttl= means nothing without keep=True" in str(plan)
    assert "The runtime knows no setting GPU_INFER_MAXBATCH" in str(plan)
    with pytest.raises(PreflightError, match="template='tensorflow' does not fit the model, which is onnx"):
        gpu_infer.deploy(tiny_model, template="tensorflow")
    with pytest.raises(PreflightError, match="GPU_INFER_MAX_BATCH='five': expected a whole number"):
        gpu_infer.deploy(tiny_model, environment_variables={"GPU_INFER_MAX_BATCH": "five"})
    with pytest.raises(PreflightError, match="max_batch must be a number above 0"):
        gpu_infer.deploy(tiny_model, batching=gpu_infer.Batching(max_batch=0))
    with pytest.raises(TypeError, match="output is the name of one output"):
        gpu_infer.deploy(tiny_model, output=3)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(TypeError, match="environment_variables is a mapping"):
        gpu_infer.deploy(tiny_model, environment_variables="A=1")  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(PreflightError, match="an object"):
        gpu_infer.deploy(tiny_model, postprocess=np.argmax)
    with pytest.raises(ValueError, match="up to ten years"):
        gpu_infer.deploy(tiny_model, keep=True, ttl="9999999d")


def test_a_state_folder_that_cannot_be_used(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    with monkeypatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path / "file" / "below"))
        with pytest.raises(
            PreflightError, match=r"state folder .* cannot be made: Not a directory. Set GPU_INFER_HOME"
        ):
            gpu_infer.deploy(tiny_model)
    with monkeypatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path / "damaged"))
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / "ledger.sqlite3").write_bytes(b"this is no database" * 100)
        with pytest.raises(PreflightError, match=r"The ledger .* cannot be used: file is not a database"):
            gpu_infer.services()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("GPU_INFER_HOME", "relative")
        with gpu_infer.deploy(tiny_model) as service:
            assert service.state == "Healthy"


def test_a_program_without_standard_error(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with gpu_infer.deploy(tiny_model) as service:
        assert service.state == "Healthy"


# --- while it starts --------------------------------------------------------------------------------------------------


def failing(tiny_model: Path, path: Path, **options: Any) -> ScoringInitError:
    with pytest.raises(ScoringInitError) as caught:
        gpu_infer.deploy(tiny_model, entry_script=path, **options)
    assert gpu_infer.services() == [], "nothing is left"
    return caught.value


def test_init_raises(tiny_model: Path, script: Script) -> None:
    error = failing(tiny_model, script("def init():\n    raise KeyError('weights')\ndef run(data): return data"))
    assert "KeyError: 'weights'" in error.traceback
    assert "line 2, in init" in error.traceback
    assert "azureml_inference_server_http" not in error.traceback
    assert "its entry script failed" in str(error)


def test_the_import_fails(tiny_model: Path, script: Script) -> None:
    error = failing(tiny_model, script("import not_there\ndef init(): pass\ndef run(data): return data"))
    assert "imports not_there, which is not installed where it runs" in str(error)
    assert "score.py" in error.traceback


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("sys.exit(2)", "ended the process itself (sys.exit)"),
        ("sys.exit(0)", "ended the process itself (sys.exit)"),
        ("os._exit(0)", "the script may call os._exit()"),
        ("os._exit(7)", "exit code 7): the script may call os._exit()"),
        ("os.kill(os.getpid(), 9)", "killed (signal 9), most often because the machine ran out of memory"),
        ("os.kill(os.getpid(), 11)", "segmentation fault"),
    ],
)
def test_init_exits(tiny_model: Path, script: Script, how: str, says: str) -> None:
    error = failing(tiny_model, script(f"import os, sys\ndef init():\n    {how}\ndef run(data): return data"))
    assert says in str(error)


def test_a_preloaded_worker_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ScoringInitError, match="WORKER_PRELOAD=true does not work"):
        gpu_infer.deploy(tiny_model, environment_variables={"WORKER_PRELOAD": "true"})


def test_too_many_requests_at_once_are_refused_and_the_probe_is_answered(tiny_model: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("import time\nITEM_NDIM = 1\ndef preprocess(x):\n    time.sleep(3)\n    return x\n")
    limit = {"GPU_INFER_MAX_CONCURRENCY": "4"}
    body = b'{"data": [[1, 2, 3, 4]]}'
    with gpu_infer.deploy(tiny_model, preprocess=hooks, environment_variables=limit) as service:
        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(lambda _: post(service.scoring_uri, body), range(12)))
            assert service.refresh().state == "Healthy"
        assert sorted({code for code, _, _ in replies}) == [200, 503]
        refused = [headers for code, headers, _ in replies if code == 503]
        assert {(headers["x-gpu-infer-error"], headers["retry-after"]) for headers in refused} == {("overloaded", "1")}
        assert service.score([1, 2, 3, 4]).tolist() == [2, 4, 6, 8], "the client waits and asks again"


@pytest.mark.slow
def test_init_hangs(tiny_model: Path, script: Script) -> None:
    path = script(
        "import time\ndef init(): wait_for_godot()\ndef wait_for_godot(): time.sleep(600)\ndef run(x): return x"
    )
    with pytest.raises(DeploymentTimeoutError) as caught:
        gpu_infer.deploy(tiny_model, entry_script=path, wait=10)
    assert "was not healthy after 10 s" in str(caught.value)
    assert "wait_for_godot" in str(caught.value), "the stack says where it hangs"
    assert isinstance(caught.value, TimeoutError)
    assert gpu_infer.services() == []


def test_a_gpu_is_demanded_and_none_is_there(tiny_model: Path, gpu_visible: bool) -> None:
    if gpu_visible:
        pytest.skip("this machine has a GPU")
    with pytest.raises(InsufficientGpuError) as caught:
        gpu_infer.deploy(tiny_model, environment_variables={"GPU_INFER_ALLOW_CPU": "0"})
    assert "A GPU is demanded and none is visible" in str(caught.value)
    assert "GPU_INFER_ALLOW_CPU=1" in str(caught.value)


@pytest.fixture
def gpu_visible() -> bool:
    return Path("/dev/nvidiactl").exists()


def test_a_signature_with_several_inputs(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["left", "right"], ["y"])],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("left", "right")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    with pytest.raises(ScoringInitError) as caught:
        gpu_infer.deploy(path)
    assert "left" in str(caught.value)
    assert "right" in str(caught.value)
    assert "entry_script" in str(caught.value)
    assert caught.value.stage == "load_model"


def test_a_broken_model_file(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(tiny_model.read_bytes()[:-30])
    with pytest.raises((ScoringInitError, PreflightError)):
        gpu_infer.deploy(path)


# --- while it answers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def service(tiny_model: Path, home: Path) -> Iterator[gpu_infer.Service]:
    """The doubling model; bodies up to 1 MiB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(home))
        deployed = gpu_infer.deploy(tiny_model, environment_variables={"GPU_INFER_MAX_BODY_MB": "1"})
    yield deployed
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(home))
        deployed.delete()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"", "application/json", 400, "The body is empty"),
        (b"{'data': 1}", "application/json", 400, "The body is not JSON"),
        (
            b'{"data": [[1,2,3,NaN]]}',
            "application/json",
            400,
            "NaN and Infinity are not JSON: send null, or a .npy array",
        ),
        (b'{"rows": []}', "application/json", 400, 'has no "data"'),
        (b'{"data": [[1, 2]]}', "application/json", 400, "so an item is float32 [4]; got int64 [2]"),
        (b'{"data": [[[1, 2, 3, 4]]]}', "application/json", 400, "An item has 1 axis, so a request has 1 or 2; got 3"),
        (b'{"data": [["a", "b", "c", "d"]]}', "application/json", 400, "got JSON that is no array of numbers"),
        (b"\xff\xd8\xff\xe0rubbish", "image/jpeg", 400, "not an image that can be read"),
        (b"\x93NUMPY\x01\x00", "application/x-npy", 400, "not a .npy array"),
        (b"hello", "application/octet-stream", 400, "The model takes x: float32 [N, 4], got encoded bytes (5 long)"),
        (b"hello", "text/html", 415, "'text/html' is not accepted"),
        (b"x" * (1 << 20) + b"x", "application/json", 413, "The body is larger than 1 MiB"),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400, "no file part"),
        (b"no boundary", "multipart/form-data", 400, ""),
    ],
)
def test_bodies_that_get_no_result(
    service: gpu_infer.Service, body: bytes, content_type: str, status: int, says: str
) -> None:
    code, headers, answer = post(service.scoring_uri, body, content_type)
    assert (code, headers["x-gpu-infer-error"]) == (status, "bad_input")
    assert says in answer["message"]
    assert answer["error"] == "bad_input"
    assert headers["x-gpu-infer-batch"] == "0", "it never reaches the model"
    assert service.score([1, 2, 3, 4]).tolist() == [2, 4, 6, 8], "and the service goes on"


def test_wrong_shape_dtype_and_rank_through_the_client(service: gpu_infer.Service) -> None:
    for item, says in [
        (np.zeros(5, np.float32), r"so an item is float32 \[4\]; got float32 \[5\]"),
        (np.zeros((2, 2), np.float32), r"got float32 \[2\]"),
        (np.zeros((1, 1, 4)), "a request has 1 or 2; got 3"),
        (np.zeros(4, complex), "that cast would lose values"),
    ]:
        with (
            gpu_infer.ScoringClient(service.scoring_uri, ours=False) as client,
            pytest.raises(BadInputError, match=says) as caught,
        ):
            client.score(item)
        assert caught.value.status == 400
        assert caught.value.request_id
        with pytest.raises(BadInputError, match=r"^expected float32 \[4\]") as caught:
            service.score(item)
        assert caught.value.status is None, "known here, and not sent"


def test_the_item_at_fault_is_named(service: gpu_infer.Service) -> None:
    with pytest.raises(BadInputError) as caught:
        service.score([np.zeros(4), np.zeros(4), np.zeros(3)])
    assert caught.value.item == 2


def test_nan_in_and_out(service: gpu_infer.Service) -> None:
    assert np.isnan(service.score(np.array([np.nan, 1, 2, 3]))[0]), ".npy keeps it"
    _, _, answer = post(service.scoring_uri, b'{"data": [[null, 1, 2, 3]]}')
    assert answer == [[None, 2.0, 4.0, 6.0]]


def test_headers_that_make_no_sense(service: gpu_infer.Service) -> None:
    body = b'{"data": [[1, 2, 3, 4]]}'
    for headers in (
        {"x-gpu-infer-items": "few"},
        {"x-gpu-infer-timeout-ms": "soon"},
        {"x-gpu-infer-timeout-ms": "nan"},
    ):
        code, answer_headers, answer = post(service.scoring_uri, body, **headers)
        assert code == 400
        assert answer_headers["x-gpu-infer-error"] == "bad_input"
        assert next(iter(headers)) in answer["message"]
    assert post(service.scoring_uri, body, **{"x-gpu-infer-timeout-ms": "5000"})[0] == 200


def test_a_model_that_raises_on_one_item_of_a_batch(lookup_model: Path) -> None:
    with gpu_infer.deploy(lookup_model) as service:
        with pytest.raises((BadInputError, ModelError)) as caught:
            service.score(np.array([1, 99, 2]))
        assert caught.value.item == 1
        assert "99" in str(caught.value)
        assert service.score(np.array([1, 2])).tolist() == [[2, 3], [4, 5]]


def test_hooks_that_raise(tiny_model: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text(
        "ITEM_NDIM = 1\n"
        "def preprocess(x):\n    if x[0] < 0: raise ValueError('only positive numbers')\n    x *= 1\n    return x\n"
        "def postprocess(y):\n    if y[0] > 100: raise RuntimeError('too much')\n    if y[1] > 0: raise SystemExit(3)\n"
        "    return {'first': float(y[0])}\n"
    )
    with gpu_infer.deploy(tiny_model, preprocess=hooks, postprocess=hooks) as service:
        assert service.score([1, 0, 0, 0]) == {"first": 2.0}
        with pytest.raises(BadInputError, match="preprocess refused the item: only positive numbers"):
            service.score([-1, 0, 0, 0])
        with pytest.raises(ModelError, match="postprocess raised RuntimeError: too much") as caught:
            service.score([[1, 0, 0, 0], [99, 0, 0, 0]])
        assert caught.value.item == 1
        assert "too much" in service.logs(), "the log has the traceback"
        with pytest.raises(ModelError, match="postprocess raised SystemExit: 3"):
            service.score([1, 1, 0, 0])
        assert service.score([1, 0, 0, 0]) == {"first": 2.0}, "sys.exit() in a hook ends nothing"


def test_a_request_that_takes_too_long(tiny_model: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("import time\ndef postprocess(y):\n    time.sleep(float(y[0]))\n    return y\n")
    with gpu_infer.deploy(tiny_model, postprocess=hooks, timeout=1) as service:
        code, headers, answer = post(service.scoring_uri, b'{"data": [[0.7, 0, 0, 0]]}')
        assert (code, headers["x-gpu-infer-error"]) == (504, "deadline"), answer
        with pytest.raises(ScoringTimeoutError):
            service.score([1, 0, 0, 0], timeout=0.5)
        assert service.score([0, 0, 0, 0]).tolist() == [0, 0, 0, 0]


def test_pictures_for_a_model_that_decodes_them(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(stream, "JPEG")
    picture = stream.getvalue()
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 1, 1])],
    )
    path = tmp_path / "mean.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    with gpu_infer.deploy(path, preprocess="image:8x8,layout=nchw") as service:
        assert service.score(picture).shape == (3, 1, 1)
        assert service.score([picture, picture]).shape == (2, 3, 1, 1)
        assert service.score(np.zeros((30, 20, 3), np.uint8)).sum() == 0
        with pytest.raises(BadInputError, match="cut short"):
            service.score(picture[: len(picture) // 2])
        with pytest.raises(BadInputError, match=r"not an image|Not an image|encoded image"):
            service.score(b"GIF89a not really")
        with pytest.raises(BadInputError) as caught:
            service.score([picture, picture[:200]])
        assert caught.value.item == 1
