"""The README's job on a managed endpoint, run as it stands there, against an emulated workspace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gpu_infer.emulator import Emulator

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_job_on_an_online_endpoint(
    readers_folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from azure.ai.ml.entities import Model

    block = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[4]
    assert "MLClient.from_config(DefaultAzureCredential())" in block
    with Emulator() as emulator:
        client = emulator.ml_client()
        path = (readers_folder / "models" / "resnet50").resolve()
        client.models.create_or_update(Model(name="resnet50", path=str(path), type="custom_model"))
        names: dict[str, Any] = {"emulated": client}
        exec(block.replace("MLClient.from_config(DefaultAzureCredential())", "emulated"), names)
        assert names["scores"]["classes"] == 289
        assert names["service"].state == "Deleted"
        assert emulator.billed() == []
        created = [request for request in emulator.requests if request.operation == "deployments.create"]
        (environment,) = [call.body for call in emulator.requests if call.operation == "environment_versions.create"][
            :1
        ]
    assert "cuda" in environment["properties"]["image"], "a GPU is asked for"
    assert "tensorflow[and-cuda]" in environment["properties"]["condaFile"]
    assert len(created) == 3, "the first, that of the update, and the one that was parked"
    assert "$1.05 per hour" in capsys.readouterr().out
