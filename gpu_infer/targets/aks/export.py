"""A web service and the cluster below it as data: all that ``azureml-core`` lets one read of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from gpu_infer.blotting import remember_secrets
from gpu_infer.errors import ServiceNotFoundError, UnsupportedError
from gpu_infer.spec import ModelRef, Scale
from gpu_infer.targets import records
from gpu_infer.targets.aks import clusters, services
from gpu_infer.targets.aks.code import conda_in_state, fetch_code

__all__ = ["WebCluster", "WebService", "read_web_service"]

_OF_THE_SDK = ("AZUREML_ENTRY_SCRIPT", "AZUREML_SOURCE_DIRECTORY", "EXAMPLE_ENV_VAR")
"""Variables that ``azureml-core`` adds by itself."""


@dataclass(frozen=True, slots=True)
class WebCluster:
    """An AKS cluster.

    Args:
        name: of the compute target.
        vm_size: of its nodes, empty where Azure does not say: of an attached one.
        nodes: how many, 0 the same.
        services: names of all web services on it.
        price_per_hour: US dollars, 0 where its size is not known.
        ours: whether this library has created it.
        attached: whether it was attached, not created, by Azure ML.
        internal: whether its load balancer has no public address.
        domain: of its certificate, empty without one.
    """

    name: str
    vm_size: str = ""
    nodes: int = 0
    services: tuple[str, ...] = ()
    price_per_hour: float = 0.0
    ours: bool = False
    attached: bool = False
    internal: bool = False
    domain: str = ""


@dataclass(frozen=True, slots=True)
class WebService:
    """A web service on AKS.

    Args:
        name: of it.
        state: as Azure calls it.
        scoring_uri: where requests go.
        cluster: below it.
        location: Azure region of the workspace.
        models: registered ones that it has.
        ours: whether this library has deployed it, and its bundled runtime answers.
        code: folder with its files as the container has them, ``None`` where they cannot be read.
        code_problem: why not.
        entry_script: path below that folder, empty where Azure does not say.
        conda_file: its packages, ``None`` where it has none or Azure does not say.
        base_image: that they go on, empty where Azure does not say.
        own_image: whether it has a Dockerfile, a registry, or Python packages of an image of its own.
        environment_variables: of the container, without those that the SDK adds.
        gpus: whole GPUs of each replica.
        cpu_cores: of each replica, ``None`` where Azure does not say.
        memory_gb: of each replica, GB.
        scale: replicas.
        auth: who may score: ``key``, ``token``, or ``none``: everybody.
        timeout: seconds that one request may take.
        concurrency: requests that a replica gets at once.
        queue_ms: milliseconds that a request waits for a replica before it is answered 503.
        description: of the service.
        namespace: of Kubernetes, empty for Azure ML's own.
        collects: what of requests is kept: ``model data``, ``Application Insights``.
        tags, properties: of its user's.
    """

    name: str
    state: str
    scoring_uri: str
    cluster: WebCluster
    location: str = ""
    models: tuple[ModelRef, ...] = ()
    ours: bool = False
    code: Path | None = None
    code_problem: str = ""
    entry_script: str = ""
    conda_file: Path | None = None
    base_image: str = ""
    own_image: bool = False
    environment_variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    gpus: int = 0
    cpu_cores: float | None = None
    memory_gb: float | None = None
    scale: Scale = field(default_factory=Scale)
    auth: Literal["key", "token", "none"] = "key"
    timeout: float = 60.0
    concurrency: int = 1
    queue_ms: int = 500
    description: str = ""
    namespace: str = ""
    collects: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    properties: Mapping[str, str] = field(default_factory=dict[str, str])


def read_web_service(workspace: Any, name: str, *, code: bool = True) -> WebService:
    """Read a web service; its code is downloaded.

    Args:
        workspace: ``azureml.core.Workspace``.
        name: of the service.
        code: whether its code is wanted.

    Raises:
        ServiceNotFoundError: there is none of that name.
        UnsupportedError: it is not one on AKS.
        WorkspaceError: the workspace refused or did not answer.
    """
    service = services.look(workspace, name)
    if service is None:
        known = ", ".join(one.name for one in services.list_services(workspace)) or "none"
        message = f"There is no service {name!r} in workspace {workspace.name!r}. On AKS there: {known}."
        raise ServiceNotFoundError(message)
    if service.compute_type != "AKS":
        message = f"Service {name!r} is one of {service.compute_type}; only web services on AKS can be read."
        raise UnsupportedError(message)
    ours = records.read_tags(service.tags)
    folder, problem = fetch_code(workspace, name) if code else (None, "")
    needs: Any = service.container_resource_requirements
    return WebService(
        name=name,
        state=service.state or "",
        scoring_uri=service.scoring_uri or "",
        cluster=_cluster(workspace, service),
        location=workspace.location or "",
        models=tuple(ModelRef(one.name, version=str(one.version)) for one in service.models or ()),
        ours=bool(ours) and not ours["own_script"],
        code=folder,
        code_problem=problem,
        gpus=int((needs and needs.gpu) or 0),
        cpu_cores=needs.cpu if needs else None,
        memory_gb=needs.memory_in_gb if needs else None,
        scale=_scale(service),
        auth="token" if service.token_auth_enabled else "key" if service.auth_enabled else "none",
        timeout=(service.scoring_timeout_ms or 60_000) / 1000,
        concurrency=int(service.max_concurrent_requests_per_container or 1),
        queue_ms=int(service.max_request_wait_time or 0),
        description=service.description or "",
        namespace=service.namespace or "",
        collects=_collects(service),
        tags=_of_its_user(service.tags),
        properties=_of_its_user(service.properties),
        **_container(workspace, service),
    )


# --- inside -----------------------------------------------------------------------------------------------------------


def _container(workspace: Any, service: Any) -> dict[str, Any]:
    """What the environment of a service says; nothing of one that was made of an image."""
    environment: Any = service.environment
    if environment is None:
        return {"own_image": True}
    variables: dict[str, Any] = environment.environment_variables or {}
    every = {key: str(value) for key, value in variables.items()}
    remember_secrets(every)
    python: Any = environment.python
    docker: Any = environment.docker
    packages: Any = None if python.user_managed_dependencies else python.conda_dependencies
    bare = packages is None
    registry = getattr(docker.base_image_registry, "address", None)
    conda = None if bare else conda_in_state(workspace, service.name, packages.serialize_to_string())
    return {
        "entry_script": every.get("AZUREML_ENTRY_SCRIPT", ""),
        "conda_file": conda,
        "base_image": docker.base_image or "",
        "own_image": bare or bool(docker.base_dockerfile or registry),
        "environment_variables": {key: value for key, value in every.items() if key not in _OF_THE_SDK},
    }


def _cluster(workspace: Any, service: Any) -> WebCluster:
    name: str = service.compute_name or ""
    users = tuple(sorted(one.name for one in services.list_services(workspace, cluster=name)))
    compute = clusters.look(workspace, name) if name else None
    if compute is None:
        return WebCluster(name, services=users)
    known = records.read_tags(service.tags)  # of an attached cluster Azure does not say what its nodes are
    vm_size = compute.agent_vm_size or known.get("vm_size", "")
    nodes = int(compute.agent_count or known.get("nodes", 0))
    ssl: Any = compute.ssl_configuration
    enabled = ssl is not None and str(ssl.status or "").lower() not in ("", "disabled")
    return WebCluster(
        name,
        vm_size=vm_size,
        nodes=nodes,
        services=users,
        price_per_hour=records.cluster_price(vm_size, nodes),
        ours=records.find(records.workspace_key(workspace), records.CLUSTER, name) is not None
        or bool(known.get("cluster_created")),
        attached=bool(compute.is_attached),
        internal=str(compute.load_balancer_type or "").lower().startswith("internal"),
        domain=str(ssl.cname or "") if ssl is not None and enabled else "",
    )


def _scale(service: Any) -> Scale:
    scaler: Any = service.autoscaler
    if scaler is not None and scaler.autoscale_enabled:
        least = max(1, int(scaler.min_replicas or 1))
        return Scale(least, max_replicas=max(least, int(scaler.max_replicas or least)))
    return Scale(max(1, int(service.num_replicas or 1)))


def _collects(service: Any) -> tuple[str, ...]:
    collection: Any = service.data_collection
    stored = collection is not None and (collection.storage_enabled or collection.event_hub_enabled)
    kinds = (("model data", stored), ("Application Insights", service.enable_app_insights))
    return tuple(what for what, is_on in kinds if is_on)


def _of_its_user(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Tags or properties without ours, and without what the SDK adds of a Git repository."""
    added = ("gpu-infer-", "azureml.git.", "mlflow.source.git.", "hasInferenceSchema", "hasHttps", "isByoc")
    every = cast("dict[str, Any]", dict(labels or {}))
    return {key: str(value) for key, value in every.items() if not key.startswith(added)}
