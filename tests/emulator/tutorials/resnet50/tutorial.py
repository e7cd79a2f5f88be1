"""The first tutorial, "How to do GPU inferencing", as one script: its own code, its mistakes mended.

Needs nothing but azureml.core and requests. In the working folder: the SavedModel as ``resnet50/``, ``score.py``,
``myenv.yml`` and ``snowleopard.jpg``. How to get at the workspace, the tutorial leaves to its reader.
"""

import os
from typing import Any

import requests
from azureml.core import Workspace
from azureml.core.authentication import ServicePrincipalAuthentication
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.model import InferenceConfig, Model
from azureml.core.webservice import AksWebservice

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

# The tutorial's prerequisite: a registered TensorFlow SavedModel.
Model.register(ws, model_path="resnet50", model_name="resnet50")

# Provision AKS cluster with GPU machine
aks_name = "aks-gpu"
prov_config = AksCompute.provisioning_configuration(vm_size="Standard_NC4as_T4_v3")

# Create the cluster
aks_target = ComputeTarget.create(workspace=ws, name=aks_name, provisioning_configuration=prov_config)

aks_target.wait_for_completion()

aks_service_name = "gpu-rn"
gpu_aks_config = AksWebservice.deploy_configuration(
    autoscale_enabled=False, num_replicas=3, cpu_cores=2, memory_gb=4, gpu_cores=1
)
model = Model(ws, "resnet50")

inference_config = InferenceConfig(runtime="python", entry_script="score.py", conda_file="myenv.yml", enable_gpu=True)

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

scoring_url = aks_service.scoring_uri
api_key = aks_service.get_keys()[0]

headers = {"Authorization": ("Bearer " + api_key)}
with open("snowleopard.jpg", "rb") as image:
    img_data = image.read()
r = requests.post(scoring_url, data=img_data, headers=headers, timeout=60)

(scores,) = r.json()
print("status:", r.status_code)
print("class:", scores.index(max(scores)), "of", len(scores))
print("GET:", requests.get(scoring_url, headers=headers, timeout=60).status_code)
print("without key:", requests.post(scoring_url, data=img_data, timeout=60).status_code)

aks_service.delete()
aks_target.delete()
