"""AKS web services through ``azureml-core``: the only room that imports the SDK v1."""

from __future__ import annotations

from gpu_infer.targets.aks.copies import workspace_from
from gpu_infer.targets.aks.export import WebCluster, WebService, read_web_service
from gpu_infer.targets.aks.inference import build_inference_config
from gpu_infer.targets.aks.provisioning import provision_cluster
from gpu_infer.targets.aks.target import AksTarget

__all__ = [
    "AksTarget",
    "WebCluster",
    "WebService",
    "build_inference_config",
    "provision_cluster",
    "read_web_service",
    "workspace_from",
]
