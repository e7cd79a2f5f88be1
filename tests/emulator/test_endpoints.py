"""Online endpoints: the real azure-ai-ml scores on them, the door is locked, and deployments share the traffic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault, variables
from gpu_infer.emulator.aad.models import token

SCORE = """
import json
import os

def init():
    global weights
    (name,) = os.listdir(os.environ["AZUREML_MODEL_DIR"])
    weights = open(os.path.join(os.environ["AZUREML_MODEL_DIR"], name)).read()

def run(data):
    return {"doubled": [2 * n for n in json.loads(data)["data"]], "who": os.environ["WHO"], "weights": weights}
"""
MODES = ("key", "aml-token", "aad-token")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "code").mkdir()
    (folder / "code" / "score.py").write_text(SCORE)
    (folder / "net.bin").write_text("heavy")
    (folder / "request.json").write_text('{"data": [1, 2]}')
    return folder


@pytest.fixture(scope="module")
def running(source: Path) -> Iterator[Emulator]:
    """An endpoint of each auth mode, each with a deployment ``blue``."""
    with Emulator() as emulator:
        for mode in MODES:
            deploy(emulator, source, mode)
        yield emulator
        assert emulator.errors == []


def deploy(emulator: Emulator, source: Path, mode: str) -> None:
    name: Any = mode.replace("-", "_")
    emulator.add_endpoint(mode, auth_mode=name)
    options = {"model": source / "net.bin", "environment_variables": {"WHO": mode}}
    emulator.add_deployment(mode, source / "code", name="blue", **options)


@pytest.fixture(scope="module")
def client(running: Emulator) -> Iterator[Any]:
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # each MLClient() sets it, for good
        yield running.ml_client()


def uri(emulator: Emulator, endpoint: str) -> str:
    return f"{emulator.url}/api/v1/endpoint/{endpoint}/score"


def arm(emulator: Emulator, endpoint: str) -> str:
    return (
        f"{emulator.url}/subscriptions/{emulator.subscription_id}/resourceGroups/{emulator.resource_group}/providers/"
        f"Microsoft.MachineLearningServices/workspaces/{emulator.name}/onlineEndpoints/{endpoint}"
    )


def post(url: str, body: str = '{"data": [3]}', **headers: str) -> requests.Response:
    return requests.post(url, data=body, headers=headers, timeout=30)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("deployment", [None, "blue"])
def test_invoke_scores(client: Any, running: Emulator, source: Path, mode: str, deployment: str | None) -> None:
    running.clear_log()
    request = str(source / "request.json")
    answer = client.online_endpoints.invoke(endpoint_name=mode, request_file=request, deployment_name=deployment)
    assert json.loads(answer) == {"doubled": [2, 4], "who": mode, "weights": "heavy"}
    asked = ["deployments.list"] * bool(deployment) + ["endpoints.get"]
    asked += {"key": ["endpoints.keys"], "aml-token": ["endpoints.token"], "aad-token": []}[mode]
    assert [call.operation for call in running.requests] == [*asked, "scoring.post"]


def test_the_sdk_shows_the_endpoint(client: Any, running: Emulator) -> None:
    endpoint = client.online_endpoints.get("key")
    assert (endpoint.name, endpoint.auth_mode, endpoint.provisioning_state) == ("key", "key", "Succeeded")
    assert (endpoint.scoring_uri, endpoint.traffic, endpoint.kind) == (uri(running, "key"), {"blue": 100}, "K8S")
    keys = client.online_endpoints.get_keys("key")
    assert keys.primary_key != keys.secondary_key
    assert post(uri(running, "key"), Authorization=f"Bearer {keys.secondary_key}").status_code == 200
    handed_out = client.online_endpoints.get_keys("aml-token")
    assert handed_out.expiry_time_utc > handed_out.refresh_after_time_utc > time.time()


def test_the_sdk_raises_its_own_errors(client: Any, running: Emulator, source: Path) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    request = str(source / "request.json")
    with pytest.raises(ResourceNotFoundError, match="Online endpoint 'nowhere' was not found"):
        client.online_endpoints.invoke(endpoint_name="nowhere", request_file=request)
    with pytest.raises(Exception, match="Deployment name red not found for this endpoint"):
        client.online_endpoints.invoke(endpoint_name="key", request_file=request, deployment_name="red")
    running.add_fault(Fault("endpoints.keys", "status", status=403))
    with pytest.raises(HttpResponseError) as refused:
        client.online_endpoints.invoke(endpoint_name="key", request_file=request)
    assert refused.value.status_code == 403
    assert refused.value.error is not None
    assert refused.value.error.code == "AuthorizationFailed"


@pytest.mark.slow
def test_code_that_makes_its_own_client_goes_through_the_proxy(client: Any, running: Emulator, source: Path) -> None:
    script = """
        import sys
        from azure.ai.ml import MLClient
        from azure.identity import ClientSecretCredential

        signed_in = ClientSecretCredential("my-tenant", "my-client-id", "emulator")
        client = MLClient(signed_in, *sys.argv[2:])
        print(client.online_endpoints.invoke(endpoint_name="key", request_file=sys.argv[1]))
    """
    arguments = [str(source / "request.json"), running.subscription_id, running.resource_group, running.name]
    command = [sys.executable, "-c", "\n".join(line.strip() for line in script.splitlines()), *arguments]
    environment = {**os.environ, **variables(running.url, mode="proxy")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["doubled"] == [2, 4]


def test_the_door_is_locked(running: Emulator, header: dict[str, str]) -> None:
    key = requests.post(f"{arm(running, 'key')}/listKeys", headers=header, timeout=30).json()["primaryKey"]
    assert post(uri(running, "key"), Authorization=f"Bearer {key}").json()["doubled"] == [6]
    late = token(b"any", tenant="t", audience="https://ml.azure.com", subject="s", lifetime=-1)
    for mode, secret, status in (
        ("key", "", 401),
        ("key", "wrong", 401),
        ("aml-token", key, 401),
        ("aad-token", "no.token", 401),
        ("aad-token", late, 401),
        ("aad-token", header["Authorization"].removeprefix("Bearer "), 200),
    ):
        assert post(uri(running, mode), Authorization=f"Bearer {secret}").status_code == status, (mode, secret)
    assert requests.post(f"{arm(running, 'key')}/listKeys", timeout=30).status_code == 401


def test_each_mode_has_its_own_call(running: Emulator, header: dict[str, str]) -> None:
    keys = requests.post(f"{arm(running, 'aml-token')}/listKeys", headers=header, timeout=30)
    assert (keys.status_code, keys.json()["error"]["code"]) == (400, "BadRequest")
    handed_out = requests.post(f"{arm(running, 'key')}/token", headers=header, timeout=30)
    assert "has auth mode Key, not AMLToken" in handed_out.json()["error"]["message"]
    assert requests.get(arm(running, "nowhere"), headers=header, timeout=30).status_code == 404


def test_traffic_goes_where_it_is_sent(running: Emulator, source: Path, header: dict[str, str]) -> None:
    running.add_endpoint("split")
    key = requests.post(f"{arm(running, 'split')}/listKeys", headers=header, timeout=30).json()["primaryKey"]
    bearer = {"Authorization": f"Bearer {key}"}
    nobody = post(uri(running, "split"), **bearer)
    assert (nobody.status_code, "positive weight" in nobody.text) == (404, True)
    for name, traffic in (("blue", 100), ("green", 0)):
        options = {"name": name, "traffic": traffic, "model": source / "net.bin"}
        running.add_deployment("split", source / "code", environment_variables={"WHO": name}, **options)
    assert {post(uri(running, "split"), **bearer).json()["who"] for _ in range(5)} == {"blue"}
    chosen = {"azureml-model-deployment": "green", **bearer}
    assert post(uri(running, "split"), **chosen).json()["who"] == "green"
    unknown = {"azureml-model-deployment": "red", **bearer}
    assert post(uri(running, "split"), **unknown).status_code == 404
    with pytest.raises(ValueError, match="1 more are not left"):
        running.add_deployment("split", source / "code", name="red", traffic=1)


def test_a_script_that_crashes_leaves_no_deployment(running: Emulator, source: Path, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init():\n    raise LookupError('no weights')\n\n\ndef run(data): ...\n")
    running.add_endpoint("broken")
    with pytest.raises(RuntimeError, match="'blue' crashed while starting(.|\n)*no weights"):
        running.add_deployment("broken", tmp_path, name="blue")
    (tmp_path / "score.py").write_text(SCORE)
    options = {"model": source / "net.bin", "environment_variables": {"WHO": "mended"}}
    running.add_deployment("broken", tmp_path, name="blue", **options)


def test_what_cannot_be_deployed_is_said(start: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = start()
    emulator.add_endpoint("gpu-rn")
    with pytest.raises(ValueError, match="'gpu-rn' already"):
        emulator.add_endpoint("gpu-rn")
    with pytest.raises(ValueError, match="'g_' is no name of an endpoint"):
        emulator.add_endpoint("g_")
    with pytest.raises(FileNotFoundError, match="no entry script 'score.py'"):
        emulator.add_deployment("gpu-rn", tmp_path)
    (tmp_path / "score.py").write_text(SCORE)
    with pytest.raises(FileNotFoundError, match="There is no model at"):
        emulator.add_deployment("gpu-rn", tmp_path, model=tmp_path / "gone.onnx")
    with pytest.raises(ValueError, match=r"Call add_endpoint\('other'\) first"):
        emulator.add_deployment("other", tmp_path)
    emulator.add_deployment("gpu-rn", tmp_path)
    with pytest.raises(ValueError, match="a deployment 'default' already"):
        emulator.add_deployment("gpu-rn", tmp_path)
    answer = post(uri(emulator, "gpu-rn"))
    assert (answer.status_code, "run_services=False" in answer.text) == (503, True)
