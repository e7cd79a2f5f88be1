"""deploy() to managed online endpoints through the real azure-ai-ml: what is sent, what is created, what is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import DeploymentError, PreflightError, ServiceNotFoundError, UnsupportedError
from gpu_infer.targets.online import OnlineTarget, endpoints

T4 = "Standard_NC4as_T4_v3"
AT_ONCE = Rollout(pause=0)

pytestmark = pytest.mark.usefixtures("home")
Deploy = Callable[..., gpu_infer.Service]


def bodies(emulator: Emulator, operation: str) -> list[Any]:
    return [request.body for request in emulator.requests if request.operation == operation]


def traffic(client: Any, name: str = "svc") -> dict[str, int]:
    return dict(client.online_endpoints.get(name).traffic)


def names(client: Any, name: str = "svc") -> list[str]:
    return sorted(one.name for one in client.online_deployments.list(name))


def left(client: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.name) for one in gpu_infer.leftovers(client)]


def test_endpoint_deployment_and_traffic_in_one_call(
    emulator: Emulator, client: Any, deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    service = deploy(client, replicas=2, timeout="90s", environment_variables={"WHO": "me"}, tags={"team": "vision"})
    assert (service.state, service.target, service.model) == ("Healthy", "online", "net:1")
    assert service.price_per_hour == pytest.approx(2 * 0.526)
    assert traffic(client) == {"blue": 100}
    (endpoint,) = bodies(emulator, "endpoints.create")
    assert endpoint["properties"]["authMode"].lower() == "key"
    assert endpoint["tags"]["team"] == "vision"
    (sent,) = bodies(emulator, "deployments.create")
    properties = sent["properties"]
    assert (properties["endpointComputeType"], properties["instanceType"]) == ("Managed", T4)
    assert sent["sku"]["capacity"] == 2
    assert properties["requestSettings"]["requestTimeout"] == "PT1M30S"
    assert properties["requestSettings"]["maxConcurrentRequestsPerInstance"] == 1, "the script knows no threads"
    variables = properties["environmentVariables"]
    assert variables["WHO"] == "me"
    assert variables["SCORING_TIMEOUT_MS"] == "90000"
    probe = properties["livenessProbe"]
    assert probe["failureThreshold"] >= 30, "a request that takes its time is no reason to end the container"
    (environment,) = bodies(emulator, "environment_versions.create")
    assert "cuda" in environment["properties"]["image"]
    assert "onnxruntime-gpu" in environment["properties"]["condaFile"]
    out, err = capfd.readouterr()
    assert (out, "Check: endpoint" in err) == ("", False), "the SDK's own noise is kept from the screen"


def test_the_bundled_script_gets_many_requests_at_once_and_time_to_load(
    emulator: Emulator, client: Any, register: Callable[..., Any]
) -> None:
    register(client)
    gpu_infer.deploy("net", client, name="svc", vm_size=T4, wait=False)
    properties = bodies(emulator, "deployments.create")[0]["properties"]
    assert properties["requestSettings"]["maxConcurrentRequestsPerInstance"] == 64
    variables = properties["environmentVariables"]
    assert int(variables["WORKER_TIMEOUT"]) >= 300
    assert "--pythonpath /var/azureml-app/" in variables["GUNICORN_CMD_ARGS"]
    assert properties["codeConfiguration"]["scoringScript"] == "score.py"


def test_a_name_is_taken_once(client: Any, deploy: Deploy) -> None:
    deploy(client)
    with pytest.raises(PreflightError, match="svc") as caught:
        deploy(client)
    assert [finding.code for finding in caught.value.findings if finding.level == "error"] == ["name-taken"]
    assert deploy(client, name=None).name == "net"
    assert deploy(client, name=None).name == "net-2"


def test_overwriting_deploys_beside_what_serves(client: Any, deploy: Deploy) -> None:
    uri = deploy(client).scoring_uri
    again = deploy(client, overwrite=True)
    assert again.scoring_uri == uri
    assert (names(client), traffic(client)) == (["green"], {"green": 100})
    assert left(client) == [("service", "svc"), ("deployment", "svc/green")]


def test_a_deployment_that_fails_leaves_nothing(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    emulator.add_fault(
        Fault("deployments.create", "fail_operation", error={"code": "ResourceNotReady", "message": "It crashed."})
    )
    with pytest.raises(DeploymentError, match="It crashed"):
        deploy(client)
    assert (left(client), emulator.billed()) == ([], [])
    with pytest.raises(ServiceNotFoundError):
        gpu_infer.attach("svc", client)


def test_overwriting_with_what_fails_leaves_the_old_one(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    deploy(client)
    emulator.add_fault(Fault("deployments.create", "fail_operation", error={"code": "OutOfCapacity", "message": "No."}))
    with pytest.raises(DeploymentError):
        deploy(client, overwrite=True)
    assert (names(client), traffic(client)) == (["blue"], {"blue": 100})
    assert left(client) == [("service", "svc"), ("deployment", "svc/blue")]


def test_an_update_moves_by_steps_and_takes_the_old_one_down(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    emulator.clear_log()
    service.update(rollout=Rollout(steps=(20, 60, 100), pause=0, mirror=10))
    shares = [body["properties"].get("traffic") or {} for body in bodies(emulator, "endpoints.update")]
    assert [share.get("green", 0) for share in shares] == [0, 20, 60, 100]
    assert bodies(emulator, "endpoints.update")[0]["properties"]["mirrorTraffic"] == {"green": 10}
    assert all(sum(share.values()) == 100 for share in shares)
    assert names(client) == ["green"]
    service.update(rollout=AT_ONCE)
    assert (names(client), service.state) == (["blue"], "Healthy")
    assert left(client) == [("service", "svc"), ("deployment", "svc/blue")]


def test_an_update_that_fails_leaves_the_old_one(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    emulator.add_fault(Fault("deployments.create", "fail_operation", error={"code": "BadArgument", "message": "No."}))
    with pytest.raises(DeploymentError):
        service.update(rollout=AT_ONCE)
    assert (names(client), traffic(client), service.state) == (["blue"], {"blue": 100}, "Healthy")
    assert left(client) == [("service", "svc"), ("deployment", "svc/blue")]


def test_traffic_that_cannot_be_moved_goes_back(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    # The first step is done, the second refused.
    emulator.add_fault(Fault("endpoints.update", "status", status=400, skip=1, times=1))
    with pytest.raises(DeploymentError):
        service.update(rollout=AT_ONCE)
    assert (names(client), traffic(client)) == (["blue"], {"blue": 100})
    assert left(client) == [("service", "svc"), ("deployment", "svc/blue")]


def test_parking_keeps_address_and_keys(emulator: Emulator, client: Any, deploy: Deploy, home: Path) -> None:
    service = deploy(client, environment_variables={"PASSWORD": "hush"})
    keys = client.online_endpoints.get_keys("svc")
    uri = service.scoring_uri
    service.park()
    assert (service.state, service.price_per_hour, emulator.billed()) == ("Parked", 0, [])
    assert left(client) == [("service", "svc")]
    assert all(b"hush" not in file.read_bytes() for file in home.rglob("*") if file.is_file())
    assert service.park().state == "Parked"
    other = gpu_infer.attach("svc", client)
    assert other.state == "Parked"
    with pytest.raises(PreflightError, match="PASSWORD"):
        other.unpark()
    emulator.clear_log()
    other.unpark(environment_variables={"PASSWORD": "hush"})
    (again,) = bodies(emulator, "deployments.create")
    assert again["properties"]["environmentVariables"]["PASSWORD"] == "hush"
    assert not bodies(emulator, "code_versions.create"), "its code lies in the workspace"
    after = client.online_endpoints.get_keys("svc")
    assert (after.primary_key, after.secondary_key) == (keys.primary_key, keys.secondary_key)
    assert (other.state, other.scoring_uri, traffic(client)) == ("Healthy", uri, {"blue": 100})
    assert emulator.billed() == ["svc/blue"]
    other.delete()
    assert (left(client), emulator.billed()) == ([], [])


@pytest.mark.parametrize("skip", [1, 2])
def test_one_wrong_answer_does_not_leave_a_parked_bill(
    emulator: Emulator, client: Any, deploy: Deploy, skip: int
) -> None:
    service = deploy(client)
    emulator.add_fault(Fault("deployments.list", "status", status=404, skip=skip, times=1))
    service.park()
    assert (service.refresh().state, emulator.billed()) == ("Parked", [])


def test_what_cannot_be_brought_back_stays_parked(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client).park()
    emulator.add_fault(Fault("deployments.create", "fail_operation", error={"code": "OutOfQuota", "message": "Full."}))
    with pytest.raises(DeploymentError, match="Full"):
        service.unpark()
    assert (service.refresh().state, emulator.billed()) == ("Parked", [])
    assert service.unpark().state == "Healthy"


def test_only_endpoints_can_be_parked(emulator: Emulator) -> None:
    with pytest.raises(UnsupportedError, match="cannot be parked"):
        gpu_infer.Service(
            "x", "Healthy", "http://127.0.0.1", "local", _target=gpu_infer.deployment.target_for(None, None)
        ).park()


def test_instances_and_keys(client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    service.scale(replicas=3)
    assert service.price_per_hour == pytest.approx(3 * 0.526)
    assert next(one.price_per_hour for one in gpu_infer.leftovers(client) if one.kind == "deployment") == pytest.approx(
        3 * 0.526
    )
    before = client.online_endpoints.get_keys("svc")
    service.rotate_keys()
    after = client.online_endpoints.get_keys("svc")
    assert {before.primary_key, before.secondary_key}.isdisjoint({after.primary_key, after.secondary_key})
    with pytest.raises(UnsupportedError, match="workers"):
        service.scale(workers=2)


def test_each_endpoint_has_its_own_price(client: Any, deploy: Deploy) -> None:
    deploy(client, name="one")
    deploy(client, name="two", replicas=2)
    prices = {service.name: service.price_per_hour for service in gpu_infer.services(client)}
    assert prices == {"one": pytest.approx(0.526), "two": pytest.approx(1.052)}


def test_the_measured_load_time_sets_probes_and_worker_time_out(
    emulator: Emulator, client: Any, shared_models: Path
) -> None:
    """Measured by the smoke test; without it the model gets minutes."""
    gpu_infer.deploy(
        shared_models / "efficientnet_lite0.onnx", client, name="svc", vm_size=T4, smoke_test=True, wait=False
    )
    (quick,) = bodies(emulator, "deployments.create")
    assert quick["properties"]["environmentVariables"]["WORKER_TIMEOUT"] == "300"
    gpu_infer.deploy(shared_models / "efficientnet_lite0.onnx", client, name="other", vm_size=T4, wait=False)
    (_, slow) = bodies(emulator, "deployments.create")
    assert slow["properties"]["environmentVariables"]["WORKER_TIMEOUT"] == "600"
    for sent in (quick, slow):
        probe = sent["properties"]["livenessProbe"]
        seconds = probe["failureThreshold"] * 10
        assert seconds >= int(sent["properties"]["environmentVariables"]["WORKER_TIMEOUT"])


def test_scaling_counts_the_quota_first(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    emulator.set_quota("standard NCASv3_T4 Family", 12)
    service = deploy(client)
    emulator.clear_log()
    with pytest.raises(PreflightError, match=r"needs 16 = ceil\(1\.2 x 3\) x 4 cores; used 0 of 12"):
        service.scale(replicas=3)
    assert not bodies(emulator, "deployments.update")
    assert service.scale(replicas=2).price_per_hour == pytest.approx(1.052)


def test_tokens_instead_of_keys(client: Any, deploy: Deploy) -> None:
    service = deploy(client, auth="token")
    assert client.online_endpoints.get("svc").auth_mode == "aml_token"
    with pytest.raises(UnsupportedError, match="token"):
        service.rotate_keys()


def test_what_another_machine_has_forgotten_is_found_by_its_tags(
    emulator: Emulator, client: Any, deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(client, ttl=0.01)
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "elsewhere"))
    found = gpu_infer.leftovers(client)
    assert [(one.kind, one.name, one.recorded) for one in found] == [
        ("service", "svc", False),
        ("deployment", "svc/blue", False),
    ]
    assert found[1].price_per_hour == pytest.approx(0.526)
    time.sleep(0.02)
    gpu_infer.sweep(client)
    assert (gpu_infer.leftovers(client), emulator.billed()) == ([], [])


def test_a_block_takes_all_of_it_down(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    assert emulator.billed() == ["svc/blue"]
    with pytest.raises(KeyboardInterrupt), service:
        raise KeyboardInterrupt
    assert (emulator.billed(), left(client)) == ([], [])


def test_what_is_kept_outlives_the_block_and_says_so(client: Any, deploy: Deploy) -> None:
    with deploy(client) as service:
        service.keep()
    assert client.online_endpoints.get("svc").tags["gpu-infer-expires"] == "never"
    assert traffic(client) == {"blue": 100}, "a change of tags leaves the traffic alone"
    assert gpu_infer.sweep(client) == []


def test_scoring_does_not_go_through_the_sdk() -> None:
    package = Path(gpu_infer.__file__).parent
    sources = [file for file in package.rglob("*.py") if "emulator" not in file.parts]
    assert len(sources) > 100
    assert not [file for file in sources if ".invoke(" in file.read_text("utf-8")]


def test_a_registered_model_on_this_machine(client: Any, home: Path, tmp_path: Path) -> None:
    """Downloaded once, by name, by version and as the SDK's own object."""
    from azure.ai.ml.entities import Model

    (tmp_path / "two").mkdir()
    model = save_elementwise(tmp_path / "two" / "doubling.onnx")
    registered = client.models.create_or_update(Model(name="doubling", path=str(model.parent), type="custom_model"))
    for given in ("doubling", "doubling:1", registered):
        with gpu_infer.deploy(given, client, target="local", name="here") as service:
            assert service.target == "local"
            assert service.score(np.arange(4, dtype=np.float32)).tolist() == [0, 2, 4, 6]
    (copy,) = (home / "models").rglob("*.onnx")
    assert copy.name == "doubling.onnx"
    with pytest.raises(PreflightError, match="Of 'doubling' there is version 1"):
        gpu_infer.deploy("doubling:7", client, target="local")


def test_somebody_who_is_quicker_with_a_name_keeps_it(
    emulator: Emulator, client: Any, deploy: Deploy, tmp_path: Path
) -> None:
    """While a model is uploaded another machine, with a ledger of its own, makes the endpoint."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    rival: list[Any] = []

    def make(_: Any) -> None:
        if not rival:
            rival.append(client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="svc")).result())

    # The first is what the fixture registers.
    emulator.add_fault(Fault("model_versions.create", "call_after", call=make, skip=1))
    with pytest.raises(PreflightError, match="exists already"):
        deploy(client, model=tmp_path / "net.onnx")
    assert client.online_endpoints.get("svc").tags == {}
    assert left(client) == []


def test_changes_of_one_service_wait_for_each_other(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    other = gpu_infer.attach("svc", client)
    seen: list[str] = []

    def interfere(_: Any) -> None:
        for change in (other.park, lambda: other.scale(replicas=2), lambda: deploy(client, overwrite=True)):
            with pytest.raises(PreflightError, match="Service 'svc' is being changed by another"):
                change()
            seen.append("busy")

    emulator.add_fault(Fault("deployments.create", "call_before", call=interfere, times=1))
    service.update(rollout=AT_ONCE)
    assert seen == ["busy"] * 3
    assert (names(client), traffic(client)) == (["green"], {"green": 100})


def test_traffic_of_nothing_is_no_obstacle(client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    endpoint = client.online_endpoints.get("svc")
    endpoint.traffic = {"blue": 0}
    client.online_endpoints.begin_create_or_update(endpoint).result()
    service.update(rollout=AT_ONCE)
    assert (names(client), traffic(client)) == (["green"], {"green": 100})


def test_an_endpoint_whose_creation_fails_does_not_stay(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    emulator.add_fault(Fault("endpoints.create", "fail_operation", error={"code": "Oops", "message": "No luck."}))
    with pytest.raises(DeploymentError, match="No luck"):
        deploy(client)
    assert list(client.online_endpoints.list()) == []
    assert left(client) == []


def test_a_second_interrupt_ends_the_removal_and_names_what_is_left(
    emulator: Emulator, client: Any, deploy: Callable[..., gpu_infer.Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OnlineTarget, "wait", interrupt)
    with monkeypatch.context() as again:
        again.setattr(endpoints, "delete_endpoint", interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            deploy(client)
    (note,) = caught.value.__notes__
    assert "service 'svc'" in note
    assert "deployment 'svc/blue'" in note
    assert "gpu_infer.sweep(workspace) removes it" in note
    assert emulator.billed() == ["svc/blue"]
    gpu_infer.sweep(client)
    assert emulator.billed() == []
    with pytest.raises(KeyboardInterrupt) as caught:
        deploy(client)
    assert not hasattr(caught.value, "__notes__"), "all of it was removed"
    assert emulator.billed() == []
