"""While an update goes on no request is lost: neither where it succeeds, nor where the new deployment is no good."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer import Rollout, ScoringClient
from gpu_infer.emulator import Emulator
from gpu_infer.errors import DeploymentError, GpuInferError, ScoringInitError

from .conftest import T4

ITEM = np.arange(4, dtype=np.float32)
DOUBLED, SQUARED = (0.0, 2.0, 4.0, 6.0), (0.0, 1.0, 4.0, 9.0)
STEPS = Rollout(steps=(10, 50, 100), pause=0.2)
SENDERS = 4
HOOKS = """
def postprocess(output):
    if output.max() > 1000:
        raise LookupError("no class is that large")
    return output
"""

how_many = pytest.mark.parametrize(
    "requests", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)


class Senders:
    """Callers that send one request after the other, and never a second time; they stop when enough were sent.

    Args:
        service: that is asked.
        wanted: how many requests must have been answered in the end.
    """

    def __init__(self, service: gpu_infer.Service, wanted: int) -> None:
        self._client = ScoringClient(service.scoring_uri, service._credential, timeout=60, retries=0, ours=True)
        self._wanted = wanted
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._begun = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        self.answers: Counter[tuple[float, ...]] = Counter()
        self.failures: list[GpuInferError] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._begun.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _send(self) -> None:
        first = True
        while not self._over.is_set() or self.answers.total() + len(self.failures) < self._wanted:
            try:
                answer = tuple(self._client.score(ITEM).tolist())
            except GpuInferError as error:
                with self._lock:
                    self.failures.append(error)
            else:
                with self._lock:
                    self.answers[answer] += 1
            if first:
                first = False
                self._begun.release()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulator, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        with Emulator() as emulator:
            yield emulator, emulator.ml_client()
            assert emulator.errors == []


@pytest.fixture
def service(running: tuple[Emulator, Any], tmp_path: Path) -> Iterator[gpu_infer.Service]:
    """A service that doubles."""
    model = save_elementwise(tmp_path / "twice.onnx")
    with gpu_infer.deploy(model, running[1], name="svc", vm_size=T4, dry_run=False) as service:
        yield service


@pytest.fixture
def serves(running: tuple[Emulator, Any]) -> Callable[[str], None]:
    """Asserts that one deployment is there, has all requests, and is all that is billed."""
    emulator, client = running

    def serves(name: str) -> None:
        assert client.online_endpoints.get("svc").traffic == {name: 100}
        assert [one.name for one in client.online_deployments.list("svc")] == [name]
        assert emulator.billed() == [f"svc/{name}"]

    return serves


@how_many
def test_a_new_model_that_crashes(service: gpu_infer.Service, serves: Callable[[str], None], requests: int) -> None:
    with (
        Senders(service, requests) as sent,
        pytest.raises(ScoringInitError, match=r"^Updating service 'svc' failed: (?s:.*)no output nix"),
    ):
        service.update(output="nix", rollout=STEPS)
    assert (sent.failures, set(sent.answers)) == ([], {DOUBLED})
    assert sent.answers.total() >= requests
    serves("blue")
    assert service.state == "Healthy"


@how_many
def test_a_new_one_that_does_not_answer_the_golden_request(
    service: gpu_infer.Service, serves: Callable[[str], None], tmp_path: Path, requests: int
) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOKS, "utf-8")
    rollout = Rollout(golden=(ITEM, ITEM + 1000), steps=STEPS.steps, pause=STEPS.pause)
    says = r"^Updating service 'svc' failed: the new deployment 'green' does not answer golden item 1.*that large"
    with Senders(service, requests) as sent, pytest.raises(DeploymentError, match=says) as caught:
        service.update(postprocess=hooks, rollout=rollout)
    assert "LookupError: no class is that large" in caught.value.logs
    assert re.search(r'Traceback \(most recent call last\):\n(?s:.*)File ".*hooks\.py", line 4', str(caught.value))
    assert (sent.failures, set(sent.answers)) == ([], {DOUBLED})
    assert sent.answers.total() >= requests
    serves("blue")


@how_many
def test_a_new_one_that_takes_over(
    service: gpu_infer.Service, serves: Callable[[str], None], tmp_path: Path, requests: int
) -> None:
    uri = service.scoring_uri
    with Senders(service, requests) as sent:
        service.update(save_elementwise(tmp_path / "square.onnx", "Mul"), rollout=STEPS)
    assert (sent.failures, set(sent.answers)) == ([], {DOUBLED, SQUARED})
    assert sent.answers.total() >= requests
    serves("green")
    assert service.scoring_uri == uri
    assert tuple(service.score(ITEM).tolist()) == SQUARED


def test_a_first_deployment_that_does_not_answer(running: tuple[Emulator, Any], tmp_path: Path) -> None:
    emulator, client = running
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def preprocess(item):\n    raise LookupError('not this one')\n", "utf-8")
    says = (
        r"^Deploying service 'first' failed: its deployment 'blue' does not answer an item made up from what the model "
        r"takes, so it gets no requests\. (?s:.*)not this one"
    )
    with pytest.raises(DeploymentError, match=says) as caught:
        gpu_infer.deploy(
            save_elementwise(tmp_path / "twice.onnx"), client, name="first", vm_size=T4, preprocess=hooks, dry_run=False
        )
    assert "golden" not in str(caught.value)
    assert "LookupError: not this one" in caught.value.logs
    assert emulator.billed() == []
