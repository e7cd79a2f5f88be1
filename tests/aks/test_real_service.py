"""A deployed service that really answers: the bundle under the stock server, behind the emulated router."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer.emulator import Emulator
from gpu_infer.errors import AuthenticationError, BadInputError, DeploymentTimeoutError, ScoringInitError

T4 = "Standard_NC4as_T4_v3"
CONDA = (
    "name: own\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip\n- pip:\n"
    "  - azureml-inference-server-http==1.5.1\n  - numpy\n"
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_INFER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.chdir(tmp_path_factory.mktemp("here"))
        with Emulator() as emulator:
            workspace = emulator.workspace()
            gpu_infer.provision_cluster(workspace, "gpus", T4, 3, keep=True)
            yield workspace


def test_the_photograph_is_class_289(workspace: Any, shared_models: Path, snowleopard: Path) -> None:
    model = shared_models / "efficientnet_lite0_jpg_savedmodel"
    with gpu_infer.deploy(
        model, workspace, name="gpu-rn", cluster="gpus", replicas=2, output="probabilities"
    ) as service:
        probabilities = service.score(snowleopard)
        assert probabilities.shape == (1000,)
        assert probabilities.argmax() == 289
        assert [one.argmax() for one in service.score_many([snowleopard] * 5)] == [289] * 5

        async def ask() -> Any:
            async with service.async_client as client:
                return await client.score(snowleopard)

        assert asyncio.run(ask()).argmax() == 289
        with pytest.raises(BadInputError, match="JPEG|image|decode"):
            service.score(b"not a picture")
        assert service.gpu_report()["device"]
        assert service.stats()["requests"]
        assert "GPU_INFER_STAGE warm_up ok" in service.logs()
        service.rotate_keys()
        assert service.score(snowleopard).argmax() == 289  # the client fetches the new keys by itself
        gpu_infer.attach("gpu-rn", workspace).rotate_keys()  # as another process would
        assert [one.argmax() for one in service.score_many([snowleopard] * 5)] == [289] * 5
        with (
            gpu_infer.ScoringClient(service.scoring_uri, "the-wrong-key") as stranger,
            pytest.raises(AuthenticationError),
        ):
            stranger.score(snowleopard)


def test_tokens(workspace: Any, shared_models: Path, mnist_test: Any) -> None:
    images, labels = mnist_test
    with gpu_infer.deploy(
        shared_models / "mnist_savedmodel", workspace, name="digits", cluster="gpus", postprocess="argmax", auth="token"
    ) as service:
        assert (service.score(images[:100]) == labels[:100]).mean() > 0.9
        assert service.raw.token_auth_enabled


def test_a_crash_in_init_comes_back_with_its_traceback(workspace: Any, shared_models: Path, tmp_path: Path) -> None:
    script, conda = tmp_path / "score.py", tmp_path / "conda.yml"
    script.write_text("def init():\n    return {}['no such key']\n\ndef run(data):\n    return data\n")
    conda.write_text(CONDA)
    with pytest.raises(ScoringInitError, match="no such key") as caught:
        gpu_infer.deploy(
            shared_models / "mnist_savedmodel",
            workspace,
            name="broken",
            cluster="gpus",
            template="tensorflow",
            entry_script=script,
            conda_file=conda,
        )
    assert "return {}['no such key']" in caught.value.traceback
    assert [service.name for service in gpu_infer.services(workspace)] == []


@pytest.mark.slow
def test_a_crash_in_init_of_an_update_comes_back_with_its_traceback(
    workspace: Any, shared_models: Path, tmp_path: Path, mnist_test: Any
) -> None:
    """The old containers serve on, and write logs too: the traceback is of the new ones."""
    script, conda = tmp_path / "score.py", tmp_path / "conda.yml"
    script.write_text("def init():\n    return {}['no such key']\n\ndef run(data):\n    return data\n")
    conda.write_text(CONDA)
    images, labels = mnist_test
    with gpu_infer.deploy(
        shared_models / "mnist_savedmodel", workspace, name="changed", cluster="gpus", postprocess="argmax"
    ) as service:
        with pytest.raises(ScoringInitError, match="^Updating service 'changed' failed: .*entry script") as caught:
            service.update(entry_script=script, conda_file=conda, postprocess=None)
        assert "return {}['no such key']" in caught.value.traceback
        assert "no such key" in service.logs()
        assert service.state == "Failed"
        assert (service.score(images[:20]) == labels[:20]).mean() > 0.8
        service.update(timeout=30)
        assert service.state == "Healthy"
        assert "no such key" not in service.logs()


@pytest.mark.slow
def test_a_slow_init_and_too_short_a_wait(workspace: Any, shared_models: Path, tmp_path: Path) -> None:
    script, conda = tmp_path / "score.py", tmp_path / "conda.yml"
    script.write_text(
        "import time\n\ndef init():\n    print('reading the weights', flush=True)\n    time.sleep(300)\n\n"
        "def run(data):\n    return data\n"
    )
    conda.write_text(CONDA)
    with pytest.raises(DeploymentTimeoutError, match="reading the weights") as caught:
        gpu_infer.deploy(
            shared_models / "mnist_savedmodel",
            workspace,
            name="slow",
            cluster="gpus",
            template="tensorflow",
            entry_script=script,
            conda_file=conda,
            wait=10,
        )
    assert "deploy(wait=SECONDS)" in str(caught.value)
    assert "reading the weights" in caught.value.logs
