"""A small flow through the SDK in one of the two modes that need a process of their own: ``modes.py MODE URL``."""

from __future__ import annotations

import sys
from pathlib import Path

from gpu_infer.emulator import workspace

mode, url = sys.argv[1:]
ws = workspace(url, mode=mode)  # pyright: ignore[reportArgumentType] (of the command line)

from azureml.core import Environment, Model, Webservice  # noqa: E402 (after the variables were checked)
from azureml.core.compute import AksCompute, ComputeTarget  # noqa: E402
from azureml.core.model import InferenceConfig  # noqa: E402
from azureml.core.webservice import AksWebservice  # noqa: E402

assert ws.get_details()["location"] == "eastus"
cluster = ComputeTarget.create(ws, "aks-gpu", AksCompute.provisioning_configuration(2, "Standard_NC4as_T4_v3"))
cluster.wait_for_completion()
Path("net.bin").write_bytes(b"weights of a mode")
Path("src").mkdir()
Path("src/score.py").write_text("def init(): ...\n\n\ndef run(data): ...\n")
model = Model.register(ws, "net.bin", "net")
assert Path(model.download("downloaded")).read_bytes() == b"weights of a mode"
environment = Environment("test")
environment.python.user_managed_dependencies = True
inference = InferenceConfig("score.py", source_directory="src", environment=environment)
config = AksWebservice.deploy_configuration(num_replicas=2, gpu_cores=1)
service = Model.deploy(ws, "gpu-rn", [model], inference, config, cluster)
service.wait_for_deployment()
assert service.state == "Healthy", service.error
assert [one.name for one in Webservice.list(ws)] == ["gpu-rn"]
service.delete()
cluster.delete()
assert list(ws.compute_targets) == [], ws.compute_targets
print("done", type(ws._auth).__name__)
