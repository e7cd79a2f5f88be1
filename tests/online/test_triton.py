"""Models that Azure ML serves by Triton, without any code: deployed, asked in KServe's protocol, changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator
from gpu_infer.errors import BadInputError, PreflightError, UnsupportedError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository as Triton wants it."""
    folder = tmp_path / "models" / "tiny" / "1"
    folder.mkdir(parents=True)
    save_elementwise(folder / "model.onnx")
    return tmp_path / "models"


def test_a_model_of_triton_needs_no_code(home: Path, repository: Path, tmp_path: Path) -> None:
    from azure.ai.ml.entities import Model

    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    with Emulator() as emulator:
        client = emulator.ml_client()
        client.models.create_or_update(Model(name="tiny", path=str(repository), type="triton_model"))
        with gpu_infer.deploy("tiny", client, name="tri", vm_size="Standard_NC4as_T4_v3") as service:
            (sent,) = [call.body["properties"] for call in emulator.requests if call.operation == "deployments.create"]
            assert not sent.get("codeConfiguration")
            assert not sent.get("environmentId")
            assert not service.scoring_uri.endswith("/score")
            np.testing.assert_array_equal(service.score(rows), 2 * rows)
            np.testing.assert_array_equal(gpu_infer.attach("tri", client).score(rows), 2 * rows)
            with pytest.raises(BadInputError):
                service.score(np.zeros((2, 5), np.float32))
            with pytest.raises(UnsupportedError, match="served by Triton"):
                service.stats()
            service.update(rollout=Rollout(golden=(rows,), pause=0))
            assert service.raw.traffic == {"green": 100}
            service.park().unpark()
            np.testing.assert_array_equal(service.score(rows), 2 * rows)
            square = save_elementwise(tmp_path / "square.onnx", "Mul")
            client.models.create_or_update(Model(name="ours", path=str(square)))
            service.update("ours", rollout=Rollout(steps=(100,), pause=0))
            np.testing.assert_array_equal(service.score(rows), rows * rows)
            assert service.describe()["framework"] == "onnxruntime"
            service.update("tiny", rollout=Rollout(golden=rows, pause=0))
            np.testing.assert_array_equal(service.score(rows), 2 * rows)
        assert emulator.billed() == []


def test_what_only_our_runtime_heeds_is_refused_where_triton_serves(home: Path, repository: Path) -> None:
    from azure.ai.ml.entities import Model

    with Emulator(run_services=False) as emulator:
        client = emulator.ml_client()
        client.models.create_or_update(Model(name="tiny", path=str(repository), type="triton_model"))
        given: dict[str, Any] = {"name": "tri", "vm_size": "Standard_NC4as_T4_v3"}
        plan = gpu_infer.plan("tiny", client, **given)
        assert plan.errors == ()
        rows = dict(plan.rows())
        assert rows["served by"].startswith("Triton")
        assert not {"workers", "batching"} & set(rows)
        refused = gpu_infer.plan(
            "tiny",
            client,
            **given,
            preprocess="flatten",
            postprocess="softmax",
            output="y",
            labels=["a", "b"],
            workers=2,
            batching=False,
            environment_variables={"GPU_INFER_MAX_BATCH": "4"},
        )
        (error,) = refused.errors
        assert error.code == "triton"
        assert (
            "takes preprocess, postprocess, output, labels, workers, batching and "
            "environment_variables GPU_INFER_MAX_BATCH." in error.message
        )
        assert "template='onnx'" in error.fix
        with pytest.raises(PreflightError, match="which is what takes smoke_test"):
            gpu_infer.deploy("tiny", client, **given, smoke_test=True)
        assert emulator.billed() == []
