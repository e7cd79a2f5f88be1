"""Deployments without code: a model of Triton's is served from its ONNX file, by Triton's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from gpu_infer.emulator import Emulator

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: make setup")
helper = pytest.importorskip("onnx.helper", reason="onnx is not installed: make setup")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model repository: ``doubler`` adds its input to itself."""
    import onnx

    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 2]) for name in ("X", "Y")]
    graph = helper.make_graph([helper.make_node("Add", ["X", "X"], ["Y"])], "doubler", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    place = tmp_path / "models" / "doubler" / "1"
    place.mkdir(parents=True)
    onnx.save(made, place / "model.onnx")
    return tmp_path / "models"


@pytest.fixture
def emulator(start: Callable[..., Emulator], request: pytest.FixtureRequest) -> Iterator[Emulator]:
    emulator = start(**getattr(request, "param", {}))
    yield emulator
    assert [call for call in emulator.requests if call.operation == "unmatched"] == []


@pytest.fixture
def client(emulator: Emulator, online: Any) -> Any:
    client = emulator.ml_client()
    online.endpoint(client)
    return client


def deploy(client: Any, online: Any, path: Path, kind: str = "triton_model") -> Any:
    model = online.entities.Model(name="doubler", version="1", path=path, type=kind)
    return online.deploy(client, model=model, environment=None, code_configuration=None)


@pytest.mark.parametrize("emulator", [{"run_services": True}], indirect=True)
def test_tritons_protocol_is_answered(client: Any, online: Any, models: Path) -> None:
    deploy(client, online, models)
    online.send(client, {"blue": 100})
    base = client.online_endpoints.get("gpu-rn").scoring_uri.removesuffix("/score")
    with requests.Session() as session:
        assert session.get(f"{base}/v2/health/ready", timeout=30).status_code == 401
        session.headers["Authorization"] = f"Bearer {client.online_endpoints.get_keys('gpu-rn').primary_key}"
        ready = session.get(f"{base}/v2/health/ready", timeout=30)
        assert (ready.status_code, ready.headers["azureml-model-deployment"]) == (200, "blue")
        assert session.get(f"{base}/v2/models/doubler/versions/1/ready", timeout=30).status_code == 200
        described = session.get(f"{base}/v2/models/doubler", timeout=30).json()
        assert described["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}]
        assert (described["name"], described["versions"]) == ("doubler", ["1"])
        one = {"name": "X", "datatype": "FP32", "shape": [1, 2]}
        asked = {"id": "7", "inputs": [{**one, "data": [1.5, 2]}]}
        infer = f"{base}/v2/models/doubler/infer"
        answered = session.post(infer, json=asked, timeout=30).json()
        assert answered["outputs"] == [{"name": "Y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 4.0]}]
        assert (answered["id"], answered["model_name"], answered["model_version"]) == ("7", "doubler", "1")
        assert_binary(session, infer, one)
        for url, body, status, said in (
            (infer, {"inputs": [{**one, "data": [1.5]}]}, "400", "failed to parse the request"),
            (infer, {"inputs": []}, "400", "onnxruntime"),
            (infer.replace("doubler", "tripler"), asked, "404", "'tripler' version latest is not found"),
            (f"{base}/v3", asked, "404", "There is nothing at '/v3'"),
        ):
            refused = session.post(url, json=body, timeout=30)
            assert (refused.status_code, refused.headers["ms-azureml-model-error-statuscode"]) == (424, status)
            assert said in refused.json()["error"]


def assert_binary(session: requests.Session, url: str, one: dict[str, Any]) -> None:
    """Tensors behind the JSON, as Triton's own client sends and asks for them."""
    tensor = np.asarray([[1.5, 2]], np.float32).tobytes()
    inputs = [{**one, "parameters": {"binary_data_size": len(tensor)}}]
    outputs = [{"name": "Y", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = session.post(url, data=head + tensor, headers=headers, timeout=30)
    size = int(answer.headers["Inference-Header-Content-Length"])
    (shown,) = json.loads(answer.content[:size])["outputs"]
    assert shown["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(answer.content[size:], np.float32).tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("mlflow_model", "MLmodel", "does not run MLflow models without code"),
        ("triton_model", "doubler/1/model.plan", "runs ONNX only"),
        ("custom_model", "doubler/1/model.onnx", "without code there is nothing to run"),
    ],
)
def test_what_nothing_here_runs_is_refused(
    client: Any, online: Any, tmp_path: Path, kind: str, name: str, message: str
) -> None:
    from azure.core.exceptions import HttpResponseError

    path = tmp_path / "other" / name
    path.parent.mkdir(parents=True)
    path.write_text("a model")
    with pytest.raises(HttpResponseError, match=message):
        deploy(client, online, tmp_path / "other", kind)
