"""What a rollout is given is looked at before anything is created; what a new deployment fails by is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator
from gpu_infer.errors import PreflightError
from gpu_infer.targets.online import rollout as rollouts

pytestmark = pytest.mark.usefixtures("home")
Deploy = Callable[..., gpu_infer.Service]
ROW = np.zeros(4, np.float32)


@pytest.mark.parametrize("item", ["snow.jpg", b"\xff\xd8", Path("snow.jpg"), {"data": [1]}, ROW])
def test_one_item_needs_no_tuple(item: Any) -> None:
    (golden,) = Rollout(golden=item).golden
    assert golden is item


def test_several_items() -> None:
    assert Rollout(golden=["a.jpg", "b.jpg"]).golden == ("a.jpg", "b.jpg")
    assert Rollout().golden == ()


@pytest.mark.parametrize(
    ("pause", "seconds"), [("1m", 60), (timedelta(minutes=2), 120), (0, 0), (0.0, 0), ("0s", 0), (1.5, 1.5)]
)
def test_a_pause_is_a_duration(pause: Any, seconds: float) -> None:
    assert Rollout(pause=pause).pause == seconds


@pytest.mark.parametrize("pause", ["soon", -1, float("nan"), float("inf"), None])
def test_what_is_no_pause(pause: Any) -> None:
    with pytest.raises(ValueError, match="pause is a number of seconds"):
        Rollout(pause=pause)


@pytest.mark.parametrize(
    ("golden", "says"),
    [
        ("nowhere.jpg", "Golden item 0 cannot be sent.*nowhere.jpg"),
        (([1, 2], object()), "Golden item 1 cannot be sent.*object"),
    ],
)
def test_golden_items_are_looked_at_before_anything_is_created(
    emulator: Emulator, client: Any, deploy: Deploy, golden: Any, says: str
) -> None:
    service = deploy(client)
    emulator.clear_log()
    with pytest.raises(PreflightError, match=says):
        service.update(rollout=Rollout(golden=golden, pause=0))
    assert not [request for request in emulator.requests if request.operation.endswith((".create", ".update"))]
    assert service.state == "Healthy"


def test_a_number_is_no_rollout(emulator: Emulator, client: Any, deploy: Deploy) -> None:
    service = deploy(client)
    emulator.clear_log()
    wrong: Any = 10
    with pytest.raises(TypeError, match=r"rollout is a gpu_infer\.Rollout.*got 10"):
        service.update(rollout=wrong)
    assert emulator.requests == []


def test_each_step_pauses_once(client: Any, deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    service = deploy(client)
    pauses: list[float] = []
    monkeypatch.setattr(rollouts.time, "sleep", pauses.append)
    service.update(rollout=Rollout(steps=(100,), pause="1m"))
    service.update(rollout=Rollout(steps=(20, 100), pause=7, mirror=10))
    assert [pause for pause in pauses if pause in (60, 7)] == [60, 7, 7, 7]
