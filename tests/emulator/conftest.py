"""Emulators for the tests, the SDK imported so that it leaves nothing behind, and a few steps many tests begin with."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gpu_infer.emulator import Emulator

# Read when the SDK is imported.
for _name in ("BACKOFF", "500_BACKOFF", "503_BACKOFF"):
    os.environ.setdefault(f"AZUREML_DEFAULT_{_name}", "0")
# Model.deploy() warns of the SDK's age on behalf of its caller.
os.environ.setdefault("AZUREML_LOG_DEPRECATION_WARNING_ENABLED", "False")

GPU_SIZE = "Standard_NC4as_T4_v3"
GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04"
SCORE = "def init():\n    print('init ran')\n\n\ndef run(data):\n    return {'got': data}\n"


@pytest.fixture(autouse=True, scope="module")
def no_leftovers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each deployment of the SDK leaves two temporary files: they go to pytest's own folder."""
    before = tempfile.tempdir
    tempfile.tempdir = str(tmp_path_factory.mktemp("tmp"))
    yield
    tempfile.tempdir = before


@pytest.fixture(scope="session")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The SDK, imported under another home folder: it keeps the address of its cache of service URLs for good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        import azureml.core  # noqa: F401


@pytest.fixture
def start(sdk: None) -> Iterator[Callable[..., Emulator]]:
    """Starts emulators that run no services if not told otherwise; they must not have failed inside."""
    with ExitStack() as stack:
        started: list[Emulator] = []

        def start(**options: Any) -> Emulator:
            emulator = stack.enter_context(Emulator(**{"run_services": False, **options}))
            started.append(emulator)
            return emulator

        yield start
        assert [emulator.errors for emulator in started if emulator.errors] == []


@pytest.fixture
def emulator(start: Callable[..., Emulator]) -> Emulator:
    return start()


@pytest.fixture
def ws(emulator: Emulator) -> Any:
    return emulator.workspace()


class Steps:
    """What most tests begin with, in the SDK's own words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "src").mkdir()
        (folder / "src" / "score.py").write_text(SCORE)

    def cluster(self, ws: Any, name: str = "aks-gpu", nodes: int = 3, size: str = GPU_SIZE) -> Any:
        from azureml.core.compute import AksCompute, ComputeTarget

        return ComputeTarget.create(ws, name, AksCompute.provisioning_configuration(nodes, size))

    def model(self, ws: Any, name: str = "net", content: bytes = b"weights", **options: Any) -> Any:
        """Model files must lie below the working folder, which is the test's own."""
        from azureml.core import Model

        path = self.folder / f"{name}.bin"
        path.write_bytes(content)
        return Model.register(ws, path.name, name, **options)

    def inference(self, **variables: str) -> Any:
        from azureml.core import Environment
        from azureml.core.model import InferenceConfig

        environment = Environment("test")
        environment.docker.base_image = GPU_IMAGE
        environment.python.user_managed_dependencies = True
        environment.environment_variables = dict(variables)
        return InferenceConfig("score.py", source_directory="src", environment=environment)

    def deploy(self, ws: Any, cluster: Any, models: list[Any], name: str = "gpu-rn", **options: Any) -> Any:
        from azureml.core import Model
        from azureml.core.webservice import AksWebservice

        overwrite = options.pop("overwrite", False)
        inference = options.pop("inference", None) or self.inference()
        options = {"num_replicas": 1, "gpu_cores": 1, "cpu_cores": 1, "memory_gb": 2, **options}
        config = AksWebservice.deploy_configuration(**options)
        return Model.deploy(ws, name, models, inference, config, cluster, overwrite)


@pytest.fixture(scope="session")
def steps_in(sdk: None) -> Callable[[Path], Steps]:
    """Makes the steps in a folder; the caller makes that the working folder."""
    return Steps


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sdk: None) -> Steps:
    monkeypatch.chdir(tmp_path)
    return Steps(tmp_path)


@pytest.fixture
def entities(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What azure-ai-ml is given; skips without it."""
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # each MLClient() sets it, for good
    return pytest.importorskip("azure.ai.ml.entities", reason="azure-ai-ml is not installed: make setup")


@pytest.fixture
def header() -> dict[str, str]:
    """What a request needs that the SDK does not send."""
    from gpu_infer.emulator.aad.models import token

    return {"Authorization": f"Bearer {token(b'test', tenant='t', audience='a', subject='s')}"}


OUTSIDE = "/subscriptions/s/resourcegroups/theirs/providers/Microsoft.ContainerService/managedClusters/their-aks"
DOUBLES = """
import json

def init():
    print("init ran")

def run(data):
    return [2 * number for number in json.loads(data)["data"]]
"""


class OnlineSteps:
    """What most tests of deployments begin with, in the words of azure-ai-ml."""

    def __init__(self, entities: Any, folder: Path) -> None:
        self.entities = entities
        self.folder = folder / "online"
        self.folder.mkdir()

    def endpoint(self, client: Any, name: str = "gpu-rn", **options: Any) -> Any:
        wanted = self.entities.ManagedOnlineEndpoint(name=name, **options)
        return client.online_endpoints.begin_create_or_update(wanted).result()

    def on_kubernetes(self, client: Any, emulator: Emulator, *, nodes: int = 2, resource_id: str = "") -> Any:
        """An endpoint ``on-aks``, on an attached cluster that has an instance type ``gpu``."""
        if not resource_id:
            emulator.add_aks(resource_id := OUTSIDE, vm_size=GPU_SIZE, nodes=nodes)
        properties = {"instanceTypes": {"gpu": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}}
        cluster = self.entities.KubernetesCompute(name="k8s", resource_id=resource_id, properties=properties)
        client.compute.begin_attach(cluster).result()
        wanted = self.entities.KubernetesOnlineEndpoint(name="on-aks", compute="k8s")
        return client.online_endpoints.begin_create_or_update(wanted).result()

    def deployment(self, name: str = "blue", *, endpoint: str = "gpu-rn", script: str = DOUBLES, **options: Any) -> Any:
        code = self.folder / f"{endpoint}-{name}"
        code.mkdir(exist_ok=True)
        (code / "score.py").write_text(script)
        kind = "Kubernetes" if "resources" in options else "Managed"
        filled = {
            "environment": self.entities.Environment(name="gpu", version="1", image="an/image"),
            "code_configuration": self.entities.CodeConfiguration(code=str(code), scoring_script="score.py"),
            "instance_type": "gpu" if kind == "Kubernetes" else GPU_SIZE,
            "instance_count": 1,
            **options,
        }
        return getattr(self.entities, f"{kind}OnlineDeployment")(name=name, endpoint_name=endpoint, **filled)

    def deploy(self, client: Any, name: str = "blue", **options: Any) -> Any:
        return client.online_deployments.begin_create_or_update(self.deployment(name, **options)).result()

    def gpu(self, gpus: str = "1") -> Any:
        """Resources of a pod."""
        limits = self.entities.ResourceSettings(cpu="500m", memory="2Gi", gpu=gpus)
        return self.entities.ResourceRequirementsSettings(requests=limits, limits=limits)

    def send(self, client: Any, traffic: dict[str, int], mirror: dict[str, int] | None = None) -> None:
        endpoint = client.online_endpoints.get("gpu-rn")
        endpoint.traffic = traffic
        endpoint.mirror_traffic = mirror or {}
        client.online_endpoints.begin_create_or_update(endpoint).result()


@pytest.fixture
def online(entities: Any, tmp_path: Path) -> OnlineSteps:
    return OnlineSteps(entities, tmp_path)
