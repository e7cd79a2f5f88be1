"""From a spec and its bundle to the deployment that ``azure-ai-ml`` takes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from gpu_infer.bundle import Bundle, Template, azure_environment, requests_at_once
from gpu_infer.errors import DeploymentError
from gpu_infer.spec import DEFAULT_CPU_CORES, DEFAULT_MEMORY_GB, Scale, ServiceSpec
from gpu_infer.targets.calls import call
from gpu_infer.targets.models import RegisteredModel
from gpu_infer.targets.online import autoscale
from gpu_infer.targets.online.sdk import entity

__all__ = ["DEFAULT_LOAD_SECONDS", "deployment_entity", "kubernetes_scale", "worker_seconds"]

DEFAULT_LOAD_SECONDS = 300.0
"""What a model gets to be copied, loaded and warmed up, where nobody has measured it."""

_PROBE_PERIOD = 10
_STOCK_WORKER_SECONDS = 300.0
"""The stock server ends a worker whose ``init()`` takes longer, and starts another, for ever."""


def deployment_entity(
    spec: ServiceSpec,
    name: str,
    *,
    model: RegisteredModel,
    bundle: Bundle | None,
    template: Template,
    tags: Mapping[str, str],
    run: str,
) -> Any:
    """The deployment of a service.

    Args:
        spec: of the service; with a cluster it is one of Kubernetes.
        name: of the deployment.
        model: that it serves.
        bundle: that it runs, ``None`` where Triton serves the model without any code.
        template: of the model's framework.
        tags: of the deployment.
        run: that creates it.

    Raises:
        DeploymentError: the SDK does not take it.
    """

    def make() -> Any:
        options: dict[str, Any] = {
            "name": name,
            "endpoint_name": spec.name,
            "model": f"azureml:{model.id}",
            "tags": {**tags, **(autoscale.tag(spec.scale) if spec.cluster is None else {})},
            "properties": {**spec.properties, "gpu-infer-run": run},
            "request_settings": _requests(spec),
            **_probes(spec),
        }
        if bundle is not None:
            options |= {
                "environment": _environment(bundle, template),
                "code_configuration": entity("CodeConfiguration")(code=str(bundle.folder), scoring_script="score.py"),
                "environment_variables": {"WORKER_TIMEOUT": str(worker_seconds(spec)), **azure_environment(bundle)},
            }
        if spec.cluster is None:
            return entity("ManagedOnlineDeployment")(
                **options, instance_type=spec.resources.vm_size, instance_count=spec.scale.replicas
            )
        named: dict[str, Any] = {"instance_type": spec.resources.vm_size} if spec.resources.vm_size else {}
        return entity("KubernetesOnlineDeployment")(
            **options,
            **named,
            resources=_resources(spec),
            instance_count=spec.scale.replicas,
            scale_settings=kubernetes_scale(spec.scale),
        )

    return call(make, doing=f"configuring deployment {name!r} of endpoint {spec.name!r}", default=DeploymentError)


def worker_seconds(spec: ServiceSpec) -> int:
    """Seconds that the stock server waits for a worker: for ``init()``, and for one request."""
    return math.ceil(max(_STOCK_WORKER_SECONDS, 2 * _load_seconds(spec), spec.timeout + 30))


def kubernetes_scale(scale: Scale) -> Any | None:
    """What Kubernetes is told of the number of replicas: a range, or ``None``, which leaves the number alone."""
    if scale.max_replicas is None:
        return None
    return entity("TargetUtilizationScaleSettings")(
        min_instances=scale.replicas,
        max_instances=scale.max_replicas,
        polling_interval=5,
        target_utilization_percentage=70,
    )


# --- inside -----------------------------------------------------------------------------------------------------------


def _load_seconds(spec: ServiceSpec) -> float:
    return spec.load_seconds or DEFAULT_LOAD_SECONDS


def _requests(spec: ServiceSpec) -> Any:
    return entity("OnlineRequestSettings")(
        max_concurrent_requests_per_instance=requests_at_once(spec), request_timeout_ms=round(spec.timeout * 1000)
    )


def _probes(spec: ServiceSpec) -> dict[str, Any]:
    """Both probes: neither may end a container that still loads its model, nor one whose script works on a request.

    A script of the user's answers no probe while it works; the bundled one does.
    """
    patience = worker_seconds(spec) if spec.entry_script is None else worker_seconds(spec) + spec.timeout
    probe = entity("ProbeSettings")
    common = {"period": _PROBE_PERIOD, "timeout": _PROBE_PERIOD, "success_threshold": 1}
    misses = max(30, math.ceil(patience / _PROBE_PERIOD))
    return {
        "liveness_probe": probe(initial_delay=_PROBE_PERIOD, failure_threshold=misses, **common),
        "readiness_probe": probe(initial_delay=_PROBE_PERIOD, failure_threshold=misses, **common),
    }


def _environment(bundle: Bundle, template: Template) -> Any:
    """Named after what is in it: the same again is not built again."""
    conda = (bundle.folder / "conda.yml").read_bytes()
    version = hashlib.sha256(template.base_image.encode() + b"\0" + conda).hexdigest()[:12]
    return entity("Environment")(
        name=f"gpu-infer-{template.name or 'script'}",
        version=version,
        image=template.base_image,
        conda_file=str(bundle.folder / "conda.yml"),
    )


def _resources(spec: ServiceSpec) -> Any:
    given = {
        "cpu": f"{spec.resources.cpu_cores or DEFAULT_CPU_CORES:g}",
        "memory": f"{spec.resources.memory_gb or DEFAULT_MEMORY_GB:g}Gi",
        "gpu": str(spec.resources.gpus),
    }
    settings = entity("ResourceSettings")
    # Limits as requests: of GPUs Kubernetes takes nothing else.
    return entity("ResourceRequirementsSettings")(requests=settings(**given), limits=settings(**given))
