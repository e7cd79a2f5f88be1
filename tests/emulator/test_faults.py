"""Faults of every kind, on any call, and the log that says where they acted."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, Fault, LoggedRequest


def operations(emulator: Emulator, fault: str) -> list[tuple[str, int | None]]:
    return [(request.operation, request.status) for request in emulator.requests if request.fault == fault]


def info(emulator: Emulator) -> requests.Response:
    """A call without token or body."""
    return requests.get(f"{emulator.url}/metadata/endpoints", timeout=10)


def test_a_status_is_answered_and_nothing_done(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.exceptions import ComputeTargetException

    emulator.add_fault(Fault("compute.create", status=403))
    with pytest.raises(ComputeTargetException, match=r"Response Code: 403[\s\S]*AuthorizationFailed"):
        steps.cluster(ws)
    assert emulator.billed() == []
    assert operations(emulator, "status") == [("compute.create", 403)]


def test_retry_after_is_sent_and_a_body_is_mine(emulator: Emulator) -> None:
    emulator.add_fault(Fault("metadata.get", status=429, retry_after="7", body={"mine": True}))
    answer = info(emulator)
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()) == (429, "7", {"mine": True})
    assert info(emulator).status_code == 200


@pytest.mark.parametrize(
    ("skip", "times", "expected"), [(0, 1, "xooo"), (2, 1, "ooxo"), (1, 2, "oxxo"), (1, None, "oxxx")]
)
def test_it_acts_on_those_calls_it_is_meant_for(
    skip: int, times: int | None, expected: str, emulator: Emulator
) -> None:
    emulator.add_fault(Fault("metadata.*", status=503, skip=skip, times=times))
    assert "".join("o" if info(emulator).ok else "x" for _ in expected) == expected


def test_other_calls_go_through(emulator: Emulator) -> None:
    emulator.add_fault(Fault("compute.*", times=None))
    assert info(emulator).ok


def test_faults_can_be_taken_back(emulator: Emulator) -> None:
    emulator.add_fault(Fault("*", times=None))
    assert info(emulator).status_code == 500
    emulator.clear_faults()
    assert info(emulator).ok


def test_a_reset_before_the_work_leaves_it_undone(emulator: Emulator, header: dict[str, str]) -> None:
    emulator.add_fault(Fault("compute.create", "reset_before", times=None))
    with pytest.raises(requests.exceptions.ConnectionError, match="reset by peer"):
        requests.put(compute_url(emulator), json=CREATE, headers=header, timeout=10)
    assert emulator.billed() == []
    assert operations(emulator, "reset_before") == [("compute.create", None)]


def test_a_reset_after_the_work_loses_the_answer_only(emulator: Emulator, header: dict[str, str]) -> None:
    emulator.add_fault(Fault("compute.create", "reset_after"))
    with pytest.raises(requests.exceptions.ConnectionError, match="reset by peer"):
        requests.put(compute_url(emulator), json=CREATE, headers=header, timeout=10)
    assert emulator.billed() == ["aks-gpu"]
    assert operations(emulator, "reset_after") == [("compute.create", 201)]


def test_the_sdk_replays_a_lost_creation_and_meets_its_own_service(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.exceptions import WebserviceException

    emulator.add_fault(Fault("services.create", "reset_after"))
    with pytest.raises(WebserviceException, match="Response Code: 409"):
        steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])
    made = [request.status for request in emulator.requests if request.operation == "services.create"]
    assert made == [202, 409]


def test_resets_reach_connections_over_tls(emulator: Emulator) -> None:
    emulator.add_fault(Fault("metadata.get", "reset_before"))
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{emulator.tls_url}/metadata/endpoints", timeout=10, verify=str(emulator.ca_file))


def test_a_hang_outlasts_the_client_and_the_work_is_done_late(emulator: Emulator, header: dict[str, str]) -> None:
    emulator.add_fault(Fault("compute.create", "hang", seconds=1.5))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.put(compute_url(emulator), json=CREATE, headers=header, timeout=0.2)
    assert emulator.billed() == []
    deadline = time.monotonic() + 30
    while not emulator.billed() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert emulator.billed() == ["aks-gpu"]


def test_the_end_of_the_emulator_releases_who_hangs() -> None:
    outcome: list[BaseException] = []
    with Emulator(run_services=False) as emulator:
        emulator.add_fault(Fault("metadata.get", "hang"))
        url = emulator.url

        def ask() -> None:
            try:
                requests.get(f"{url}/metadata/endpoints", timeout=60)
            except requests.exceptions.ConnectionError as error:
                outcome.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not emulator.requests:
            time.sleep(0.01)
    thread.join(timeout=50)
    assert len(outcome) == 1  # and not after the hour that a hang lasts


def test_an_operation_fails_as_told(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.exceptions import ComputeTargetException

    error = {"code": "BadArgument", "statusCode": 400, "message": "No."}
    emulator.add_fault(Fault("compute.create", "fail_operation", error=error))
    cluster = steps.cluster(ws)
    with pytest.raises(ComputeTargetException, match="StatusCode: 400\nMessage: No."):
        cluster.wait_for_completion()
    assert cluster.get_status() == "Failed"
    assert cluster.provisioning_errors == [{"error": {"code": "BadArgument", "message": "No."}}]
    assert emulator.billed() == ["aks-gpu"]


def test_the_sdk_takes_a_failed_deletion_for_a_good_one(
    emulator: Emulator, ws: Any, steps: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from azureml.core import Webservice

    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])
    emulator.add_fault(Fault("services.delete", "fail_operation"))
    service.delete()
    found: Any = Webservice(ws, "gpu-rn")
    assert found.state == "Healthy"
    service.delete()
    assert Webservice.list(ws) == []


@pytest.mark.parametrize(
    ("kind", "code", "state"),
    [
        ("services.create", "DeploymentTimedOut", "Unhealthy"),
        ("services.create", "Canceled", "Failed"),
        ("services.create", "KubernetesError", "Failed"),
    ],
)
def test_a_failed_deployment_leaves_its_state(
    kind: str, code: str, state: str, emulator: Emulator, ws: Any, steps: Any
) -> None:
    from azureml.exceptions import WebserviceException

    emulator.add_fault(Fault(kind, "fail_operation", error={"code": code, "statusCode": 504, "message": "told"}))
    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])
    with pytest.raises(WebserviceException, match=f"current service state: {state}[\\s\\S]*{code}"):
        service.wait_for_deployment()


def test_a_failed_update_leaves_the_service_as_it_was(emulator: Emulator, ws: Any, steps: Any) -> None:
    service = steps.deploy(ws, steps.cluster(ws), [steps.model(ws)])
    emulator.add_fault(Fault("services.update", "fail_operation"))
    service.update(num_replicas=3)
    assert (service.state, service.num_replicas, service.error["code"]) == ("Failed", 1, "InternalServerError")
    service.update(num_replicas=2)
    assert (service.state, service.num_replicas, service.error) == ("Healthy", 2, None)


def test_calls_before_and_after_the_work_see_the_request(emulator: Emulator, header: dict[str, str]) -> None:
    seen: list[tuple[str, str, list[str]]] = []

    def before(request: LoggedRequest) -> None:
        seen.append(("before", request.operation, emulator.billed()))

    def after(request: LoggedRequest) -> None:
        seen.append(("after", request.operation, emulator.billed()))

    emulator.add_fault(Fault("compute.create", "call_before", call=before))
    emulator.add_fault(Fault("compute.create", "call_after", call=after))
    answer = requests.put(compute_url(emulator), json=CREATE, headers=header, timeout=10)
    assert answer.status_code == 201
    assert seen == [("before", "compute.create", []), ("after", "compute.create", ["aks-gpu"])]
    assert operations(emulator, "call_before+call_after") == [("compute.create", 201)]


def test_what_a_called_function_raises_is_kept() -> None:
    def fail(request: LoggedRequest) -> None:
        raise LookupError("mine")

    with Emulator(run_services=False) as emulator:
        emulator.add_fault(Fault("metadata.get", "call_before", call=fail))
        with pytest.raises(requests.exceptions.ConnectionError):
            info(emulator)
        assert [repr(error) for error in emulator.errors] == ["LookupError('mine')"]


def test_faults_that_could_never_act_are_refused(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"No operation is named 'compute.crate'.*compute.create"):
        emulator.add_fault(Fault("compute.crate"))
    with pytest.raises(ValueError, match="There is no kind of fault 'explode'"):
        Fault(kind="explode")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="needs call="):
        Fault(kind="call_before")


def test_the_log_can_be_cleared_and_counts_on(emulator: Emulator) -> None:
    info(emulator)
    emulator.clear_log()
    info(emulator)
    assert [(request.number, request.status, request.fault) for request in emulator.requests] == [(2, 200, "")]


CREATE = {"location": "eastus", "properties": {"computeType": "AKS", "properties": {"agentVmSize": "NC4as_T4_v3"}}}


def compute_url(emulator: Emulator) -> str:
    workspace = (
        f"/subscriptions/{emulator.subscription_id}/resourceGroups/{emulator.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{emulator.name}"
    )
    return f"{emulator.url}{workspace}/computes/aks-gpu?api-version=2020-02-02"
