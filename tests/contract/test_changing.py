"""What holds wherever a service runs: it is changed, kept and removed with the same verbs, or says why it cannot be."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest
from places import Place

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.errors import DeploymentError, ServiceNotFoundError

ITEM = np.arange(4, dtype=np.float32)
DOUBLED, SQUARED = [0, 2, 4, 6], [0, 1, 4, 9]


def names(place: Place) -> list[str]:
    return [one.name for one in gpu_infer.services(place.workspace)]


def test_one_that_does_not_start_leaves_the_old_one_serving_and_the_next_takes_its_place(
    place: Place, service: gpu_infer.Service, twice: Path, square: Path
) -> None:
    uri, before, served = service.scoring_uri, service.model, service.score(ITEM).tolist()
    with pytest.raises(DeploymentError, match=r"no output nix\. It has: y"):
        service.update(output="nix", **place.update)
    assert service.score(ITEM).tolist() == served
    assert service.refresh().model == before
    model, expected = (square, SQUARED) if served == DOUBLED else (twice, DOUBLED)
    service.update(model, **place.update)
    assert (service.state, service.scoring_uri) == ("Healthy", uri)
    assert service.score(ITEM).tolist() == expected
    assert gpu_infer.attach(service.name, place.workspace).model == service.model != before


def test_what_an_update_does_not_take(service: gpu_infer.Service) -> None:
    served = service.score(ITEM).tolist()
    with pytest.raises(TypeError, match="does not have: colour"):
        service.update(colour="red")
    with pytest.raises(ValueError, match=r"does not change name"):
        service.update(name="other")
    assert service.score(ITEM).tolist() == served


def test_more_of_it(place: Place, service: gpu_infer.Service) -> None:
    before = service.score(ITEM).tolist()
    with place.allowing("scale replicas"):
        service.scale(replicas=2)
    with place.allowing("scale workers"):
        service.scale(workers=2)
    assert service.state == "Healthy"
    assert service.score(ITEM).tolist() == before
    with pytest.raises(ValueError, match="a whole number from 1"):
        service.scale(replicas=0)


def test_new_keys(place: Place, service: gpu_infer.Service) -> None:
    before = service.score(ITEM).tolist()
    other = gpu_infer.attach(service.name, place.workspace)
    with place.allowing("rotate keys"):
        service.rotate_keys()
    assert service.score(ITEM).tolist() == before
    assert other.score(ITEM).tolist() == before, "a client that has had the old keys fetches the new ones"


def test_what_only_some_places_can(place: Place, service: gpu_infer.Service) -> None:
    before = service.score(ITEM).tolist()
    if "rollout" in place.cannot:
        with place.allowing("rollout"):
            service.update(rollout=Rollout())
    if "park" in place.cannot:
        with place.allowing("park"):
            service.park()
    assert service.score(ITEM).tolist() == before


def test_what_is_kept_outlives_its_block(place: Place, service: gpu_infer.Service) -> None:
    assert not service.kept
    service.keep("1h")
    assert service.kept
    assert service.expires == pytest.approx(time.time() + 3600, abs=120)
    with service:
        pass
    assert service.refresh().state == "Healthy"
    assert service.score(ITEM).tolist() in (DOUBLED, SQUARED)


@pytest.mark.parametrize("error", [None, LookupError("the end")])
def test_the_block_removes_it(place: Place, twice: Path, error: Exception | None) -> None:
    with contextlib.suppress(LookupError), place.deploy(twice, "block", wait=place.live):
        assert place.named("block") in names(place)
        if error is not None:
            raise error
    assert place.named("block") not in names(place)


def test_it_is_deleted_twice(place: Place, twice: Path) -> None:
    service = place.deploy(twice, "gone", wait=place.live)
    other = gpu_infer.attach(service.name, place.workspace)
    for handle in (service, service, other):
        handle.delete()
        assert handle.state == "Deleted"
    assert service.name not in names(place)
    with pytest.raises(ServiceNotFoundError, match=service.name):
        gpu_infer.attach(service.name, place.workspace)
    with pytest.raises(ServiceNotFoundError, match="is gone"):
        other.score(ITEM)
