"""Web services: what is kept, what an update changes, keys and tokens. No container runs in these tests."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Transition


@pytest.fixture
def service(ws: Any, steps: Any) -> Any:
    return steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])


def again(service: Any) -> Any:
    """As another process would find it."""
    from azureml.core import Webservice

    return Webservice(service.workspace, service.name)


def test_what_was_asked_for_is_kept(ws: Any, steps: Any) -> None:
    options = {
        "num_replicas": 2,
        "scoring_timeout_ms": 30_000,
        "replica_max_concurrent_requests": 4,
        "max_request_wait_time": 900,
        "tags": {"owner": "me", "with/slash": "kept"},
        "properties": {"made": "today"},
        "description": "of the test",
        "period_seconds": 20,
        "initial_delay_seconds": 500,
        "cpu_cores_limit": 2,
        "memory_gb_limit": 3,
    }
    found = again(steps.deploy(ws, steps.cluster(ws), [steps.model(ws)], **options))
    assert (found.num_replicas, found.scoring_timeout_ms, found.max_concurrent_requests_per_container) == (2, 30_000, 4)
    assert (found.max_request_wait_time, found.tags, found.description) == (900, options["tags"], "of the test")
    assert found.properties["made"] == "today"
    probe = found.liveness_probe_requirements
    assert (probe.period_seconds, probe.initial_delay_seconds, probe.failure_threshold) == (20, 500, 3)
    wants = found.container_resource_requirements
    assert (wants.gpu, wants.cpu, wants.cpu_limit, wants.memory_in_gb, wants.memory_in_gb_limit) == (1, 1, 2, 2, 3)
    assert [model.id for model in found.models] == ["net:1"]
    assert found.environment.environment_variables["AZUREML_ENTRY_SCRIPT"] == "src/score.py"
    assert found.serialize()["computeName"] == "aks-gpu"


def test_what_was_not_asked_for_is_azures_default(ws: Any, steps: Any) -> None:
    bare = {"num_replicas": None, "cpu_cores": None, "memory_gb": None}
    found = again(steps.deploy(ws, steps.cluster(ws), [steps.model(ws)], **bare))
    assert (found.scoring_timeout_ms, found.max_concurrent_requests_per_container) == (60_000, 1)
    assert (found.max_request_wait_time, found.auth_enabled, found.token_auth_enabled) == (500, True, False)
    scaler = found.autoscaler
    assert (scaler.autoscale_enabled, scaler.min_replicas, scaler.max_replicas) == (True, 1, 10)
    assert (found.container_resource_requirements.cpu, found.container_resource_requirements.memory_in_gb) == (0.1, 0.5)


def test_keys_are_mine_or_made(ws: Any, steps: Any, service: Any) -> None:
    primary, secondary = service.get_keys()
    assert primary != secondary
    assert min(len(primary), len(secondary)) >= 32
    from azureml.core.compute import ComputeTarget

    cluster = ComputeTarget(ws, "aks-gpu")
    mine = steps.deploy(ws, cluster, [], "second", primary_key="my-first", secondary_key="my-second")
    assert mine.get_keys() == ("my-first", "my-second")


def test_tags_and_properties_are_added_one_by_one(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    service.add_tags({"a": "1"})
    service.add_tags({"b": "2"})
    service.remove_tags(["a"])
    service.add_properties({"with/slash": "3"})
    found = again(service)
    assert found.tags == {"b": "2"}
    assert found.properties["with/slash"] == "3"


def test_services_are_found_by_what_they_have(ws: Any, steps: Any, service: Any) -> None:
    from azureml.core import Webservice

    service.add_tags({"owner": "me"})

    def found(**what: Any) -> list[str]:
        return [one.name for one in Webservice.list(ws, **what)]

    assert found() == found(compute_type="AKS") == found(tags=[["owner", "me"]]) == ["gpu-rn"]
    assert found(model_name="net") == found(model_id="net:1") == ["gpu-rn"]
    assert found(compute_type="ACI") == found(tags=["absent"]) == found(model_id="net:2") == []


def test_an_update_changes_what_it_names(service: Any) -> None:
    service.update(
        num_replicas=2,
        scoring_timeout_ms=1000,
        replica_max_concurrent_requests=3,
        max_request_wait_time=2,
        cpu_cores=0.5,
        description="new",
        autoscale_enabled=False,
    )
    found = again(service)
    assert (found.num_replicas, found.scoring_timeout_ms, found.max_concurrent_requests_per_container) == (2, 1000, 3)
    assert (found.max_request_wait_time, found.description, found.container_resource_requirements.cpu) == (
        2,
        "new",
        0.5,
    )
    assert found.container_resource_requirements.gpu == 1


def test_an_update_turns_autoscaling_on_and_off(service: Any) -> None:
    service.update(autoscale_enabled=True, autoscale_min_replicas=2, autoscale_max_replicas=3)
    assert (again(service).autoscaler.autoscale_enabled, again(service).autoscaler.min_replicas) == (True, 2)
    service.update(autoscale_enabled=False, num_replicas=1)
    assert (again(service).autoscaler.autoscale_enabled, again(service).num_replicas) == (False, 1)


def test_an_update_brings_new_models_and_a_new_environment(ws: Any, steps: Any, service: Any) -> None:
    from azureml.core import Model

    second = steps.model(ws)
    service.update(models=[second], inference_config=steps.inference(NEW="yes"))
    found = again(service)
    assert (found.state, [model.id for model in found.models]) == ("Healthy", ["net:2"])
    assert found.environment.environment_variables["NEW"] == "yes"
    Model(ws, id="net:1").delete()  # not used any more


def test_overwriting_replaces_the_service_and_keeps_its_keys(ws: Any, steps: Any, service: Any) -> None:
    from azureml.core.compute import ComputeTarget

    keys = service.get_keys()
    cluster = ComputeTarget(ws, "aks-gpu")
    replaced = steps.deploy(ws, cluster, [steps.model(ws)], overwrite=True, num_replicas=2)
    assert (replaced.state, replaced.num_replicas, [model.id for model in replaced.models]) == ("Healthy", 2, ["net:2"])
    assert replaced.get_keys() == keys


def test_token_authentication_takes_the_place_of_keys(service: Any) -> None:
    from azureml.exceptions import WebserviceException

    with pytest.raises(WebserviceException, match="accessToken"):
        service.get_access_token()
    service.update(token_auth_enabled=True, auth_enabled=False)
    found = again(service)
    assert (found.auth_enabled, found.token_auth_enabled) == (False, True)
    token = found.get_access_token()
    assert token.access_token.count(".") == 2
    assert token.refresh_after < token.expiry_on
    found.update(auth_enabled=True, token_auth_enabled=False)
    assert (again(service).auth_enabled, again(service).token_auth_enabled) == (True, False)


def test_logs_have_an_end_to_ask_for(service: Any) -> None:
    assert service.get_logs() == "This emulator was started with run_services=False: no container runs.\n"
    assert "no init container" in service.get_logs(init=True)
    assert service.get_logs(num_lines=1).count("\n") == 1


def test_a_deletion_may_take_its_time(start: Any, steps: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from azureml.core import Webservice

    emulator = start(transitions={"services.delete": Transition.after_polls(2)})
    ws = emulator.workspace()
    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])
    answer = requests.delete(service._mms_endpoint, headers=ws._auth.get_authentication_header(), timeout=10)
    assert answer.status_code == 202
    assert [again(service).state for _ in range(2)] == ["Deleting", "Deleting"]
    assert Webservice.list(ws) == []


@pytest.mark.parametrize("name", ["x", "Gpu-rn", "1gpu", "gpu-", "gpu_rn", "g" * 33])
def test_names_that_azure_does_not_take_are_refused(
    name: str, emulator: Emulator, ws: Any, header: dict[str, str]
) -> None:
    url = f"{emulator.url}/modelmanagement/v1.0{emulator._running()[1].settings.scope}/services"
    answer = requests.post(url, json={"name": name, "computeType": "AKS"}, headers=header, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest")
    assert repr(name) in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"computeType": "ACI"}, 400, "on AKS only"),
        ({"computeType": "AKS", "computeName": "none"}, 404, "'none' was not found"),
        (
            {"computeType": "AKS", "computeName": "aks-gpu", "environmentImageRequest": {"modelIds": ["net:9"]}},
            404,
            "'net:9' was not found",
        ),
        ([], 400, "must be a JSON object"),
    ],
)
def test_what_cannot_be_begun_is_refused(
    body: Any, status: int, text: str, emulator: Emulator, ws: Any, steps: Any, header: dict[str, str]
) -> None:
    steps.cluster(ws)
    url = f"{emulator.url}/modelmanagement/v1.0{emulator._running()[1].settings.scope}/services"
    sent = {"name": "gpu-rn", **body} if body else body
    answer = requests.post(url, json=sent, headers=header, timeout=10)
    assert answer.status_code == status
    assert text in answer.json()["message"]


@pytest.mark.parametrize("patch", [{}, [{"op": "move", "path": "/x"}], [{"op": "add", "path": "x"}]])
def test_a_patch_that_is_none_is_refused(patch: Any, service: Any, header: dict[str, str]) -> None:
    answer = requests.patch(service._mms_endpoint, json=patch, headers=header, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest")
    assert again(service).state == "Healthy"
