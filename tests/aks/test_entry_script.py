"""A script of the user's on AKS: the container has what the framework needs, or the plan says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.emulator import Emulator
from gpu_infer.errors import PreflightError

T4 = "Standard_NC4as_T4_v3"
SCRIPT = "import pandas\n\ndef init():\n    pass\n\ndef run(data):\n    return data\n"

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.py"
    path.write_text(SCRIPT)
    return path


def plan(workspace: Any, model: Path, script: Path, **options: Any) -> gpu_infer.Plan:
    return gpu_infer.plan(model, workspace, cluster=Cluster("gpus", vm_size=T4), entry_script=script, **options)


def sent(emulator: Emulator) -> Any:
    body: Any = next(request.body for request in emulator.requests if request.operation == "services.create")
    return body["environmentImageRequest"]["environment"]


def packages(environment: Any) -> str:
    return str(environment["python"]["condaDependencies"])


def test_the_template_is_the_one_of_the_models_format(
    emulator: Emulator, workspace: Any, script: Path, shared_models: Path
) -> None:
    made = plan(workspace, shared_models / "mnist_savedmodel", script)
    assert made.template == "tensorflow"
    found = [finding.code for finding in made.findings if finding.code != "cluster-load-balancer"]
    assert found == ["import-missing"], "the conda file is known, so it is read"
    service = gpu_infer.deploy(
        shared_models / "mnist_savedmodel",
        workspace,
        name="own",
        cluster=Cluster("gpus", vm_size=T4),
        entry_script=script,
    )
    assert service.state == "Healthy"
    assert "tensorflow[and-cuda]" in packages(sent(emulator))
    assert "cuda" in sent(emulator)["docker"]["baseImage"]


def test_an_update_to_a_script_finds_its_template_too(
    emulator: Emulator, workspace: Any, script: Path, shared_models: Path
) -> None:
    service = gpu_infer.deploy(
        shared_models / "mnist_savedmodel", workspace, name="own", cluster=Cluster("gpus", vm_size=T4)
    )
    service.update(entry_script=script)
    changes = next(request.body for request in emulator.requests if request.operation == "services.update")
    assert "tensorflow[and-cuda]" in str(changes)


@pytest.mark.parametrize(("name", "template"), [("weights.pth", "torch"), ("folder/net.h5", "tensorflow")])
def test_what_only_a_script_can_load_is_told_by_its_name(
    workspace: Any, script: Path, tmp_path: Path, name: str, template: str
) -> None:
    file = tmp_path / "model" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"only weights")
    made = plan(workspace, file if "/" not in name else tmp_path / "model", script)
    assert (made.template, made.errors) == (template, ())


def test_a_model_that_tells_nothing_needs_a_word(
    emulator: Emulator, workspace: Any, script: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"anything")
    (error,) = plan(workspace, file, script).errors
    assert error.code == "template"
    assert str(error) == (
        f"Of what framework {file} is cannot be told, so neither what the container of the entry script needs. "
        "Say template='tensorflow', 'torch' or 'onnx', or give conda_file=."
    )
    with pytest.raises(PreflightError, match="Of what framework"):
        gpu_infer.deploy(file, workspace, cluster=Cluster("gpus", vm_size=T4), entry_script=script)
    assert emulator.billed() == []
    assert plan(workspace, file, script, template="torch").errors == ()


@pytest.mark.parametrize("registered", [True, False])
def test_a_conda_file_says_all_and_still_gets_an_image_with_cuda(
    emulator: Emulator,
    workspace: Any,
    register: Callable[..., Any],
    script: Path,
    tmp_path: Path,
    *,
    registered: bool,
) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_text(
        "name: own\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip\n- pip:\n"
        "  - azureml-inference-server-http==1.5.1\n  - pandas==2.2.3\n"
    )
    (tmp_path / "model.bin").write_bytes(b"anything")
    if registered:
        register(workspace, "net", "model.bin")
    gpu_infer.deploy(
        "net" if registered else tmp_path / "model.bin",
        workspace,
        name="own",
        cluster=Cluster("gpus", vm_size=T4),
        entry_script=script,
        conda_file=conda,
    )
    assert "pandas==2.2.3" in packages(sent(emulator))
    assert "cuda" in sent(emulator)["docker"]["baseImage"]
