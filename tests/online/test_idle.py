"""Endpoints that nobody asks: Azure Monitor counts their requests, leftovers() tells, sweep(idle_for=) removes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import gpu_infer
from gpu_infer import teardown
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.teardown import Leftover

pytestmark = pytest.mark.usefixtures("home")
Deploy = Callable[..., gpu_infer.Service]
HOUR = 3600.0


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything was made two days ago."""
    real = teardown._leftover

    def aged(entry: Any, state: str) -> Leftover:
        return real(replace(entry, created=time.time() - 48 * HOUR), state)

    monkeypatch.setattr(teardown, "_leftover", aged)


def service_of(client: Any) -> Leftover:
    (found,) = [one for one in gpu_infer.leftovers(client) if one.kind == "service"]
    return found


@pytest.mark.usefixtures("old")
def test_leftovers_tell_how_long_nobody_has_asked(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    deploy(client)
    emulator.add_requests("svc", ago=3 * HOUR, requests=40)
    emulator.add_requests("svc", ago=20 * HOUR)
    found = service_of(client)
    assert found.idle_seconds == pytest.approx(3 * HOUR, abs=600)
    assert found.to_dict()["idle_seconds"] == round(found.idle_seconds or 0)
    assert ", not asked for 2.9 h, " in str(found) or ", not asked for 3.0 h, " in str(found)
    (deployment,) = [one for one in gpu_infer.leftovers(client) if one.kind == "deployment"]
    assert "idle_seconds" not in deployment.to_dict()


def test_what_is_young_is_not_idle_for_longer_than_it_is_there(client: Any, deploy: Deploy) -> None:
    deploy(client)
    idle = service_of(client).idle_seconds
    assert idle is not None
    assert idle < 600
    assert gpu_infer.sweep(client, idle_for="2h") == []


@pytest.mark.usefixtures("old")
def test_sweep_removes_what_nobody_asks(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    deploy(client, ttl="30d")
    deploy(client, name="asked", ttl="30d")
    deploy(client, name="kept", keep=True)
    emulator.add_requests("svc", ago=5 * HOUR)
    emulator.add_requests("asked", ago=HOUR)
    assert gpu_infer.sweep(client) == []
    assert [one.name for one in gpu_infer.sweep(client, idle_for="2h", dry_run=True)] == ["svc"]
    assert [one.name for one in gpu_infer.sweep(client, idle_for="2h")] == ["svc"]
    assert sorted(one.name for one in client.online_endpoints.list()) == ["asked", "kept"]
    assert sorted(emulator.billed()) == ["asked/blue", "kept/blue"]


@pytest.mark.usefixtures("old")
def test_further_back_than_a_day(client: Any, emulator: Emulator, deploy: Deploy) -> None:
    deploy(client, ttl="30d")
    emulator.add_requests("svc", ago=30 * HOUR)
    assert gpu_infer.sweep(client, idle_for="36h") == []
    assert [one.name for one in gpu_infer.sweep(client, idle_for="28h")] == ["svc"]


@pytest.mark.usefixtures("old")
def test_a_request_that_comes_in_is_counted(client: Any, deploy: Deploy) -> None:
    import requests

    service = deploy(client, ttl="30d")
    assert requests.post(service.scoring_uri, json={}, timeout=10).status_code == 503  # nothing runs here
    assert service_of(client).idle_seconds == 0.0
    assert gpu_infer.sweep(client, idle_for="2h") == []


@pytest.mark.usefixtures("old")
def test_what_is_parked_stays(client: Any, deploy: Deploy) -> None:
    deploy(client, ttl="30d").park()
    assert service_of(client).idle_seconds is None
    assert gpu_infer.sweep(client, idle_for="2h") == []


@pytest.mark.usefixtures("old")
def test_what_cannot_be_known_stays(
    client: Any, emulator: Emulator, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(client, ttl="30d")
    emulator.add_fault(Fault("metrics.list", status=403, times=None))
    assert service_of(client).idle_seconds is None
    assert "idle_seconds" not in service_of(client).to_dict()
    assert gpu_infer.sweep(client, idle_for="2h") == []
    emulator.clear_faults()
    failed = {"value": [{"id": "x", "type": "x", "name": {"value": "RequestsPerMinute"}, "errorCode": "InternalError"}]}
    emulator.add_fault(Fault("metrics.list", status=200, body=failed, times=None))
    assert gpu_infer.sweep(client, idle_for="2h") == []
    emulator.clear_faults()
    monkeypatch.setitem(sys.modules, "azure.mgmt.monitor", None)
    assert gpu_infer.sweep(client, idle_for="2h") == []


def test_on_aks_it_is_not_known(emulator: Emulator) -> None:
    assert gpu_infer.sweep(emulator.workspace(), idle_for="2h") == []
