"""Long operations of online endpoints, told of in each of ARM's ways; and faults on every call of a deployment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpu_infer.emulator import Emulator, Fault, Transition

LOOKS = {
    "azure": {"online.operation", "online.result"},
    "async-operation": {"online.operation"},
    "location": {"online.result"},
    "resource": {"endpoints.get", "deployments.get"},
}


def walk(client: Any, online: Any) -> None:
    """Create, change and remove all there is."""
    made = online.endpoint(client, tags={"of": "test"})
    assert (made.provisioning_state, made.tags) == ("Succeeded", {"of": "test"})
    for count in (1, 2):
        deployed = online.deploy(client, instance_count=count)
        assert (deployed.provisioning_state, deployed.instance_count) == ("Succeeded", count)
    online.send(client, {"blue": 100})
    assert client.online_endpoints.get("gpu-rn").traffic == {"blue": 100}
    online.send(client, {})
    client.online_deployments.begin_delete("blue", "gpu-rn").result()
    client.online_endpoints.begin_delete("gpu-rn").result()


@pytest.mark.parametrize("style", sorted(LOOKS))
def test_the_sdk_gets_there_in_each_way(start: Callable[..., Emulator], online: Any, style: str) -> None:
    emulator = start(polling=style)
    client = emulator.ml_client()
    walk(client, online)
    assert list(client.online_endpoints.list()) == []
    asked = {call.operation for call in emulator.requests}
    assert asked & {"online.operation", "online.result"} == LOOKS[style] & {"online.operation", "online.result"}
    assert asked >= LOOKS[style]


@pytest.mark.parametrize("style", ["location", "resource"])
def test_a_failure_is_told_in_each_way(start: Callable[..., Emulator], online: Any, style: str) -> None:
    from azure.core.exceptions import HttpResponseError

    emulator = start(polling=style, transitions={"deployments.create": Transition.after_polls(1)})
    client = emulator.ml_client()
    online.endpoint(client)
    emulator.add_fault(Fault("deployments.create", "fail_operation", error="OutOfCapacity"))
    poller = client.online_deployments.begin_create_or_update(online.deployment())
    with pytest.raises(HttpResponseError) as failed:
        poller.result()
    if style == "location":
        assert failed.value.error is not None
        assert failed.value.error.code == "OutOfCapacity"
    assert client.online_deployments.get("blue", "gpu-rn").provisioning_state == "Failed"


def test_there_is_no_other_way() -> None:
    wrong: Any = "telepathy"
    with pytest.raises(ValueError, match="no polling 'telepathy'. There are: azure, async-operation"):
        Emulator(polling=wrong)


@pytest.mark.parametrize("kind", ["status", "reset_before", "reset_after", "hang"])
def test_every_call_of_a_deployment_can_go_wrong(start: Callable[..., Emulator], online: Any, kind: Any) -> None:
    """Each call once: the SDK repeats it, and all is well; what was done already is done again."""
    emulator = start()
    client = emulator.ml_client()
    walk(client, online)
    kinds = {call.operation for call in emulator.requests if call.method in ("GET", "PUT", "DELETE")}
    asked = {name for name in kinds if not name.startswith("blob.")}  # the store has tests of its own
    of_all = ("create", "update", "delete", "get")
    assert asked >= {f"{what}.{done}" for what in ("endpoints", "deployments") for done in of_all} - {"deployments.get"}
    emulator.clear_log()
    for name in asked:
        emulator.add_fault(Fault(name, kind, status=503, seconds=0))
    walk(client, online)
    met = {call.operation for call in emulator.requests if call.fault == kind}
    assert met >= asked - {"online.result"}  # who deletes again what is gone has nothing to look at


@pytest.mark.parametrize("name", ["endpoints.update", "endpoints.delete", "deployments.update", "deployments.delete"])
def test_what_fails_to_change_or_to_go_is_still_there(start: Callable[..., Emulator], online: Any, name: str) -> None:
    from azure.core.exceptions import HttpResponseError

    emulator = start()
    client = emulator.ml_client()
    online.endpoint(client)
    online.deploy(client)
    steps: dict[str, Callable[[], Any]] = {
        "endpoints.update": lambda: online.send(client, {"blue": 100}),
        "endpoints.delete": lambda: client.online_endpoints.begin_delete("gpu-rn").result(),
        "deployments.update": lambda: online.deploy(client, instance_count=2),
        "deployments.delete": lambda: client.online_deployments.begin_delete("blue", "gpu-rn").result(),
    }
    emulator.add_fault(Fault(name, "fail_operation"))
    with pytest.raises(HttpResponseError, match="An internal server error occurred"):
        steps[name]()
    endpoint, deployment = client.online_endpoints.get("gpu-rn"), client.online_deployments.get("blue", "gpu-rn")
    states = {"endpoints": endpoint.provisioning_state, "deployments": deployment.provisioning_state}
    failed = name.partition(".")[0]
    assert {what: state for what, state in states.items() if state != "Succeeded"} == {failed: "Failed"}
    assert (endpoint.traffic, deployment.instance_count, emulator.billed()) == ({"blue": 0}, 1, ["gpu-rn/blue"])
    steps[name]()
    if name.endswith("delete"):
        assert emulator.billed() == []
