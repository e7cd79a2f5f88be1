"""The second tutorial, "Deploy a deep learning model for inference with GPU", as one script: its mistakes mended.

Needs nothing but azureml.core, numpy and requests. In the working folder: the checkpoint as ``tf-dnn-mnist/``,
``score.py``, ``myenv.yml`` and the test digits below ``data/mnist``. How to get at the workspace, the tutorial leaves
to its reader.
"""

import gzip
import json
import os
from typing import Any

import numpy as np
import requests
from azureml.core import Environment, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.environment import DEFAULT_GPU_IMAGE
from azureml.core.model import InferenceConfig, Model
from azureml.core.webservice import AksWebservice
from azureml.exceptions import ComputeTargetException

ws = Workspace(
    subscription_id=os.environ["SUBSCRIPTION_ID"],
    resource_group=os.environ["RESOURCE_GROUP"],
    workspace_name=os.environ["WORKSPACE_NAME"],
    auth=ServicePrincipalAuthentication(
        tenant_id=os.environ["TENANT_ID"],
        service_principal_id=os.environ["CLIENT_ID"],
        service_principal_password=os.environ["CLIENT_SECRET"],
    ),
)

# The tutorial's prerequisite: a registered model.
Model.register(ws, model_path="tf-dnn-mnist", model_name="tf-dnn-mnist")

# Choose a name for your cluster
aks_name = "aks-gpu"

# Check to see if the cluster already exists
try:
    aks_target: Any = ComputeTarget(workspace=ws, name=aks_name)
    print("Found existing compute target")
except ComputeTargetException:
    print("Creating a new compute target...")
    # Provision AKS cluster with GPU machine
    prov_config = AksCompute.provisioning_configuration(vm_size="Standard_NC4as_T4_v3")

    # Create the cluster
    aks_target = ComputeTarget.create(workspace=ws, name=aks_name, provisioning_configuration=prov_config)

    aks_target.wait_for_completion(show_output=True)

aks_service_name = "aks-dnn-mnist"
gpu_aks_config = AksWebservice.deploy_configuration(
    autoscale_enabled=False, num_replicas=3, cpu_cores=2, memory_gb=4, gpu_cores=1
)
model = Model(ws, "tf-dnn-mnist")

environment = Environment.from_conda_specification("project_environment", "myenv.yml")
environment.docker.base_image = DEFAULT_GPU_IMAGE
inference_config = InferenceConfig(entry_script="score.py", environment=environment)

aks_service: Any = Model.deploy(
    ws,
    models=[model],
    inference_config=inference_config,
    deployment_config=gpu_aks_config,
    deployment_target=aks_target,
    name=aks_service_name,
)

aks_service.wait_for_deployment(show_output=True)
print("state:", aks_service.state)


def load_data(filename, label=False):
    """The tutorial takes this from a file of its own, ``utils.py``."""
    with gzip.open(filename) as gz:
        content = gz.read()
    return np.frombuffer(content, np.uint8, offset=8) if label else np.frombuffer(content, np.uint8, offset=16)


# Load test data from model training
X_test = load_data("./data/mnist/t10k-images-idx3-ubyte.gz", False).reshape(-1, 784) / 255.0
y_test = load_data("./data/mnist/t10k-labels-idx1-ubyte.gz", True).reshape(-1)

api_key = aks_service.get_keys()[0]
headers = {"Content-Type": "application/json", "Authorization": ("Bearer " + api_key)}
print("POST to url", aks_service.scoring_uri)

# send random rows from the test set to score
random_indices = np.random.default_rng().integers(0, len(X_test), 20)
for random_index in random_indices:
    input_data = json.dumps({"data": [X_test[random_index].tolist()]})
    resp = requests.post(aks_service.scoring_uri, input_data, headers=headers, timeout=60)
    print("label:", y_test[random_index], "prediction:", resp.text)

# and all of them at once: how many are right
resp = requests.post(aks_service.scoring_uri, json.dumps({"data": X_test.tolist()}), headers=headers, timeout=60)
print("accuracy:", np.mean(np.array(resp.json()) == y_test))

aks_service.delete()
aks_target.delete()
