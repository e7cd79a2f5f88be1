"""What holds wherever a service runs: it is scored, looked at and found in the same words, with the same errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from places import Place

import gpu_infer
from gpu_infer.errors import BadInputError, ModelError, PreflightError, ScoringInitError, ServiceNotFoundError

ITEM = np.arange(4, dtype=np.float32)


def codes(error: PreflightError) -> list[str]:
    return [finding.code for finding in error.findings if finding.level == "error"]


def test_an_array_and_a_list(service: gpu_infer.Service) -> None:
    np.testing.assert_array_equal(service.score(ITEM), 2 * ITEM)
    np.testing.assert_array_equal(service.score(np.stack([ITEM, ITEM + 1])), [2 * ITEM, 2 * ITEM + 2])
    np.testing.assert_array_equal(service.score([0, 1, 2, 3]), 2 * ITEM)
    answers = service.score([ITEM, ITEM + 1])
    np.testing.assert_array_equal(answers, [2 * ITEM, 2 * ITEM + 2])


def test_many_items(service: gpu_infer.Service) -> None:
    answers = list(service.score_many([ITEM + at for at in range(20)]))
    np.testing.assert_array_equal(answers, [2 * (ITEM + at) for at in range(20)])


@pytest.mark.parametrize("wrong", [np.zeros(7, np.float32), [["a", "b", "c", "d"]], b"not an item"])
def test_what_the_model_does_not_take(service: gpu_infer.Service, wrong: object) -> None:
    with pytest.raises(BadInputError):
        service.score(wrong)
    np.testing.assert_array_equal(service.score(ITEM), 2 * ITEM)


def test_what_the_model_or_a_hook_raises(place: Place, service: gpu_infer.Service) -> None:
    with pytest.raises(ModelError, match="LookupError.*no class is that large") as caught:
        service.score(ITEM + 1000)
    assert caught.value.status == place.failure
    np.testing.assert_array_equal(service.score(ITEM), 2 * ITEM)


def test_the_service_as_it_describes_itself(place: Place, service: gpu_infer.Service) -> None:
    assert service.describe()["input"] == {"name": "x", "dtype": "float32", "shape": [None, 4], "item_ndim": 1}
    assert (service.gpu_report()["device"] == "cpu") != place.live
    before = service.stats()["items"]
    service.score([ITEM, ITEM])
    assert service.stats()["items"] >= before + 2


def test_its_logs(service: gpu_infer.Service) -> None:
    assert "GPU_INFER_STAGE load_model ok" in service.logs()


def test_the_handle_of_another_process(place: Place, service: gpu_infer.Service) -> None:
    found = {one.name: one for one in gpu_infer.services(place.workspace)}
    for other in (gpu_infer.attach(service.name, place.workspace), found[service.name]):
        with other as again:
            assert (again.state, again.scoring_uri, again.model) == ("Healthy", service.scoring_uri, service.model)
            np.testing.assert_array_equal(again.score(ITEM), 2 * ITEM)
    assert service.refresh().state == "Healthy", "the block of an attached handle deletes nothing"
    with pytest.raises(ServiceNotFoundError, match="absent"):
        gpu_infer.attach(place.named("absent"), place.workspace)


def test_a_name_that_is_taken(place: Place, service: gpu_infer.Service, square: Path) -> None:
    with pytest.raises(PreflightError, match="already.*overwrite=True") as caught:
        place.deploy(square, "shared")
    assert codes(caught.value) == ["name-taken"]
    np.testing.assert_array_equal(service.score(ITEM), 2 * ITEM)


def test_a_model_that_is_missing(place: Place) -> None:
    with pytest.raises(PreflightError, match="nosuch") as caught:
        place.deploy("nosuch", "missing")
    assert codes(caught.value) == ["model-missing"]
    plan = gpu_infer.plan("nosuch", place.workspace, **place.arguments)
    assert [finding.code for finding in plan.errors] == ["model-missing"]


def test_a_crash_in_init(place: Place, twice: Path, crashing: Path) -> None:
    with pytest.raises(ScoringInitError, match="no weights in the cupboard") as caught:
        place.deploy(twice, "crash", entry_script=crashing)
    assert 'raise LookupError("no weights in the cupboard")' in caught.value.traceback
    assert place.named("crash") not in [one.name for one in gpu_infer.services(place.workspace)]


def test_a_plan_creates_nothing(place: Place, twice: Path) -> None:
    plan = gpu_infer.plan(twice, place.workspace, name=place.named("planned"), **place.arguments)
    assert (plan.errors, plan.template, plan.spec.name) == ((), "onnx", place.named("planned"))
    assert (plan.price_per_hour == 0) == place.free
    assert place.named("planned") not in [one.name for one in gpu_infer.services(place.workspace)]
