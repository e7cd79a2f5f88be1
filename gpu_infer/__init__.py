"""From a deep-learning model to GPU inference on Azure ML in one call.

    with gpu_infer.deploy("models/resnet50") as service:
        scores = service.score("lynx.jpg")

The names below are imported when they are first used: ``import gpu_infer`` itself loads no framework, no Azure package
and no NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpu_infer._version import __version__

if TYPE_CHECKING:
    from gpu_infer import errors
    from gpu_infer.client import AsyncScoringClient, ClassScores, ScoringClient
    from gpu_infer.deployment import attach, deploy, plan, services
    from gpu_infer.migration import Migration, MigrationPlan, migrate, migrate_plan
    from gpu_infer.plans import Plan
    from gpu_infer.service import Service
    from gpu_infer.spec import Batching, Cluster, Rollout
    from gpu_infer.targets.aks import build_inference_config, provision_cluster
    from gpu_infer.teardown import Leftover, leftovers, sweep

__all__ = [
    "AsyncScoringClient",
    "Batching",
    "ClassScores",
    "Cluster",
    "Leftover",
    "Migration",
    "MigrationPlan",
    "Plan",
    "Rollout",
    "ScoringClient",
    "Service",
    "__version__",
    "attach",
    "build_inference_config",
    "deploy",
    "errors",
    "leftovers",
    "migrate",
    "migrate_plan",
    "plan",
    "provision_cluster",
    "services",
    "sweep",
]

_HOMES = {
    "AsyncScoringClient": "client",
    "Batching": "spec",
    "ClassScores": "client",
    "Cluster": "spec",
    "Leftover": "teardown",
    "Migration": "migration",
    "MigrationPlan": "migration",
    "Plan": "plans",
    "Rollout": "spec",
    "ScoringClient": "client",
    "Service": "service",
    "attach": "deployment",
    "build_inference_config": "targets.aks",
    "deploy": "deployment",
    "leftovers": "teardown",
    "migrate": "migration",
    "migrate_plan": "migration",
    "plan": "deployment",
    "provision_cluster": "targets.aks",
    "services": "deployment",
    "sweep": "teardown",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("gpu_infer.errors")
    if name not in _HOMES:
        message = f"module 'gpu_infer' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"gpu_infer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
