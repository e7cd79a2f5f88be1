"""Web services: what was asked for, what is running, and who may call it."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ... import catalog
from ..compute.models import Cluster, Clusters, Pod, unschedulable
from ..models.models import Models
from ..operations import Operation
from ..wire import Refusal, items, mapping

if TYPE_CHECKING:
    from ..scoring.rollout import Rollout

__all__ = ["Service", "Services", "complete", "kubernetes_error", "pods"]

_GPU_IMAGE_SIGNS = ("cuda", "gpu")

_DEFAULTS: dict[str, Any] = {
    "description": None,
    "kvTags": {},
    "properties": {},
    "appInsightsEnabled": False,
    "maxConcurrentRequestsPerContainer": 1,
    "maxQueueWaitMs": 500,
    "scoringTimeoutMs": 60_000,
    "namespace": None,
    "containerResourceRequirements": {
        "cpu": 0.1,
        "cpuLimit": None,
        "memoryInGB": 0.5,
        "memoryInGBLimit": None,
        "gpu": None,
    },
    "livenessProbeRequirements": {
        "periodSeconds": 10,
        "initialDelaySeconds": 310,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": 3,
    },
    "dataCollection": {"eventHubEnabled": False, "storageEnabled": False},
    "autoScaler": {
        "autoscaleEnabled": False,
        "minReplicas": 1,
        "maxReplicas": 10,
        "refreshPeriodInSeconds": 1,
        "targetUtilization": 70,
    },
}


@dataclass(slots=True)
class Service:
    """A web service.

    Attributes:
        name: its name.
        spec: what it is, complete: see :func:`complete`.
        state: ``Transitioning``, ``Healthy``, ``Unhealthy``, ``Failed``, ``Unschedulable`` or ``Deleting``.
        error: of the latest deployment.
        placed: its pods hold their GPUs.
        keys: primary and secondary.
        tokens: access tokens, and when each expires (seconds since the epoch).
        running: what answers scoring requests.
        coming: the deployment on its way.
        log: of the latest deployment, where that came to nothing.
    """

    name: str
    spec: dict[str, Any]
    keys: tuple[str, str]
    state: str = "Transitioning"
    error: dict[str, Any] | None = None
    placed: bool = False
    tokens: dict[str, float] = field(default_factory=dict[str, float])
    operation: Operation | None = None
    running: Rollout | None = None
    coming: Rollout | None = None
    log: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def model_ids(self) -> list[str]:
        """Ids of its models."""
        return [str(model_id) for model_id in items(mapping(self.spec.get("environmentImageRequest")).get("modelIds"))]

    def rollouts(self) -> Iterator[Rollout]:
        """What runs, and what is about to."""
        for rollout in (self.running, self.coming):
            if rollout is not None:
                yield rollout


class Services:
    """All web services of the workspace."""

    def __init__(self, clusters: Clusters, models: Models) -> None:
        self._clusters = clusters
        self._models = models
        self.all: dict[str, Service] = {}

    def find(self, name: str) -> Service:
        """A service.

        Raises:
            Refusal: 404, there is none of that name.
        """
        service = self.all.get(name)
        if service is None:
            raise Refusal(404, "NotFound", f"Service {name!r} was not found.")
        return service

    def check(self, spec: Mapping[str, Any]) -> None:
        """Refuse what cannot even be begun.

        Raises:
            Refusal: 400, 404.
        """
        name = str(spec.get("name") or "")
        tail = name[1:].replace("-", "")
        letters = name[:1].isalpha() and name.islower() and (not tail or tail.isalnum()) and not name.endswith("-")
        if not (3 <= len(name) <= 32 and letters and name.isascii()):
            raise Refusal(
                400,
                "BadRequest",
                f"The service name {name!r} is invalid: 3 to 32 small letters, digits and hyphens, the first a letter, "
                "the last no hyphen.",
            )
        if spec.get("computeType") != "AKS":
            message = f"The emulator runs services on AKS only, not on {spec.get('computeType')!r}."
            raise Refusal(400, "BadRequest", message)
        cluster = self._cluster(spec)
        if cluster.state != "Succeeded":
            message = f"Compute resource with Id: {cluster.name} is not in Succeeded state: {cluster.state}."
            raise Refusal(400, "BadRequest", message)
        self.check_models(spec)

    def check_models(self, spec: Mapping[str, Any]) -> None:
        """Refuse models that do not exist."""
        for model_id in items(mapping(spec.get("environmentImageRequest")).get("modelIds")):
            if self._models.find(str(model_id)) is None:
                raise Refusal(404, "ModelNotFound", f"Model with ID {model_id!r} was not found.")

    def _cluster(self, spec: Mapping[str, Any]) -> Cluster:
        name = spec.get("computeName")
        cluster = self._clusters.targets.get(str(name))
        if cluster is None:
            raise Refusal(404, "ComputeNotFound", f"Compute target {name!r} was not found in the workspace.")
        return cluster

    def objection(self, spec: Mapping[str, Any]) -> str:
        """Why Azure would not begin such a deployment, empty where it would: the check before the POST."""
        cluster = self._clusters.targets.get(str(spec.get("computeName")))
        size = catalog.find_size(cluster.aks.vm_size) if cluster else None
        if cluster is None or size is None or cluster.aks.gpus_per_node or not _wants_gpu(spec):
            return ""
        return (
            "Deployment request failed due to insufficient compute resource. The service expects a GPU, and the nodes "
            f"of {cluster.name} are of size {size.name}, which has none."
        )

    def obstacle(self, service: Service, spec: Mapping[str, Any]) -> str | None:
        """What Kubernetes says when these pods find no node, those of the service itself left out."""
        cluster = self._cluster(spec)
        mine = cluster.aks.resource_id
        others = [
            pod
            for other in self.all.values()
            if other is not service and other.placed and self._aks_of(other) == mine
            for pod in pods(other.spec)
        ]
        return unschedulable(cluster.aks, others, pods(spec))

    def _aks_of(self, service: Service) -> str:
        cluster = self._clusters.targets.get(str(service.spec.get("computeName")))
        return cluster.aks.resource_id if cluster else ""

    def cluster_gone(self, name: str) -> None:
        """A cluster went away, and with it the pods on it; the services stay in the list."""
        for service in self.all.values():
            if service.spec.get("computeName") == name:
                end(service)
                service.state = "Unhealthy"

    def remove(self, service: Service) -> None:
        """Forget a service and end what runs for it."""
        end(service)
        self.all.pop(service.name, None)


def end(service: Service) -> None:
    """End what runs for a service."""
    if service.operation and service.operation.kind in ("services.create", "services.update"):
        service.operation.cancel()
    for rollout in service.rollouts():
        rollout.end()
    service.running = service.coming = None
    service.placed = False


def new_key() -> str:
    """As long as Azure's."""
    return secrets.token_urlsafe(24)


def complete(body: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, with Azure's defaults where it says nothing."""
    spec = copy.deepcopy({name: value for name, value in body.items() if name not in ("keys", "overwrite")})
    for name, default in _DEFAULTS.items():
        given = spec.get(name)
        if isinstance(default, dict) and name not in ("kvTags", "properties"):
            said = {key: value for key, value in mapping(given).items() if value is not None}
            spec[name] = mapping(default) | said
        elif given is None:
            spec[name] = mapping(default).copy() if isinstance(default, dict) else default
    if not body.get("autoScaler") and spec.get("numReplicas") is None:
        spec["autoScaler"]["autoscaleEnabled"] = True
    if spec.get("numReplicas") is None:
        spec["numReplicas"] = spec["autoScaler"]["minReplicas"] if spec["autoScaler"]["autoscaleEnabled"] else 1
    spec["aadAuthEnabled"] = bool(spec.get("aadAuthEnabled"))
    if spec.get("authEnabled") is None:
        spec["authEnabled"] = not spec["aadAuthEnabled"]
    return spec


def replicas(spec: Mapping[str, Any]) -> int:
    """How many replicas are started: the least of an autoscaled service."""
    scaler = spec["autoScaler"]
    return int(scaler["minReplicas"] if scaler["autoscaleEnabled"] else spec["numReplicas"])


def pods(spec: Mapping[str, Any]) -> list[Pod]:
    """What its replicas ask of nodes."""
    wants = spec["containerResourceRequirements"]
    pod = Pod(int(wants.get("gpu") or 0), float(wants.get("cpu") or 0), float(wants.get("memoryInGB") or 0))
    return [pod] * replicas(spec)


def _wants_gpu(spec: Mapping[str, Any]) -> bool:
    if mapping(spec.get("containerResourceRequirements")).get("gpu"):
        return True
    environment = mapping(mapping(spec.get("environmentImageRequest")).get("environment"))
    image = str(mapping(environment.get("docker")).get("baseImage")).lower()
    return any(sign in image for sign in _GPU_IMAGE_SIGNS)


def kubernetes_error(code: str, message: str) -> dict[str, Any]:
    """The error of a deployment that Kubernetes could not bring up."""
    return {
        "code": "KubernetesError" if code == "Unschedulable" else "KubernetesDeploymentFailed",
        "statusCode": 400,
        "message": "Kubernetes Deployment Error" if code == "Unschedulable" else "Kubernetes Deployment failed",
        "details": [{"code": code, "message": message}],
    }
