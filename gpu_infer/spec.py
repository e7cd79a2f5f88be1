"""What to deploy, as frozen dataclasses. No I/O: everything here can be built, compared and printed anywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from gpu_infer.durations import seconds_of
from gpu_infer.rollouts import Rollout

__all__ = [
    "Auth",
    "Batching",
    "Cluster",
    "How",
    "ModelRef",
    "Purpose",
    "Resources",
    "Rollout",
    "Scale",
    "ServiceSpec",
    "TargetName",
    "labels_from",
    "seconds_of",
]

TargetName = Literal["local", "aks", "online"]
Purpose = Literal["FastProd", "DevTest"]
How = Literal["azureml", "aks"]
Auth = Literal["key", "token"]

ATTACH_OPTIONS = ("load_balancer_type", "load_balancer_subnet")
CREATE_OPTIONS = (
    *ATTACH_OPTIONS,
    "ssl_cname",
    "ssl_cert_pem_file",
    "ssl_key_pem_file",
    "vnet_name",
    "vnet_resourcegroup_name",
    "subnet_name",
    "service_cidr",
    "dns_service_ip",
    "docker_bridge_cidr",
)
"""What ``AksCompute.provisioning_configuration`` takes beside the fields of ``Cluster`` (azureml-core 1.61)."""

DEFAULT_TTL = 8 * 3600.0
"""Seconds that a kept service lives unless told otherwise: a working day."""

DEFAULT_CPU_CORES = 2.0
DEFAULT_MEMORY_GB = 4.0
"""What a replica on Azure gets, as in the tutorials: the SDK's own 0.1 cores and 0.5 GB hold no framework."""

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""What Azure ML accepts as the name of a web service (azureml-core 1.61, ``webservice_name_validation``)."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model: on this machine, or registered in a workspace.

    Args:
        name: the registered name, or the name made from the path.
        path: where it lies on this machine, ``None`` for a registered one.
        version: of the registered model, ``None`` for the newest.
    """

    name: str
    path: Path | None = None
    version: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return self.name if self.version is None else f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A GPU cluster on AKS to deploy to, created where it does not exist.

    Args:
        name: of the compute target, 3 to 24 characters.
        vm_size: of its nodes; empty takes an existing cluster as it is.
        nodes: how many.
        location: Azure region; the workspace's where ``None``.
        resource_id: an AKS cluster that exists already and is attached instead of created.
        purpose: ``"FastProd"`` for production, which Azure ML allows from 12 virtual CPUs and 3 nodes on, or
            ``"DevTest"``.
        options: what else ``AksCompute.provisioning_configuration`` takes, by name: ``ssl_cname``, ``vnet_name``,
            ``load_balancer_type`` and their kin.
        replace_failed: delete a cluster of this name whose creation has failed, and make it anew.
        how: who creates it: ``"azureml"`` as the tutorials do, with the Basic load balancer that Azure ML gives it;
            ``"aks"`` AKS itself, with a Standard load balancer, in the resource group of the workspace, to be attached.

    Raises:
        ValueError: less than one node, a purpose, an option or a way that there is not.
    """

    name: str = "aks-gpu"
    vm_size: str = "Standard_NC6"
    nodes: int = 3
    location: str | None = None
    resource_id: str | None = None
    purpose: Purpose = "FastProd"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)  # paths of keys may be among them
    replace_failed: bool = False
    how: How = "azureml"

    def __post_init__(self) -> None:
        _whole("nodes", self.nodes, at_least=1)
        if self.how not in ("azureml", "aks"):
            msg = f'how is "azureml" or "aks", got {self.how!r}.'
            raise ValueError(msg)
        if self.purpose not in ("FastProd", "DevTest"):
            msg = f'purpose is "FastProd" or "DevTest", got {self.purpose!r}.'
            raise ValueError(msg)
        known = ATTACH_OPTIONS if self.resource_id or self.how == "aks" else CREATE_OPTIONS
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            doing = "attached" if known == ATTACH_OPTIONS else "created"
            msg = f"A cluster is {doing} without {', '.join(unknown)}; options= takes {', '.join(sorted(known))}."
            raise ValueError(msg)

    @classmethod
    def attach(cls, resource_id: str, *, name: str = "aks-gpu", purpose: Purpose = "FastProd") -> Cluster:
        """An AKS cluster that exists already, by its Azure resource id; taken as it is, and never deleted."""
        return cls(name=name, vm_size="", resource_id=resource_id, purpose=purpose)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica gets; means nothing on the local target, which has the machine.

    Args:
        gpus: whole GPUs.
        cpu_cores: cores, ``DEFAULT_CPU_CORES`` where ``None``.
        memory_gb: GB, ``DEFAULT_MEMORY_GB`` where ``None``.
        vm_size: of the machines; on an online endpoint of Kubernetes, the name of its instance type.

    Raises:
        ValueError: a part of a GPU, or nothing of the rest.
    """

    gpus: int = 1
    cpu_cores: float | None = None
    memory_gb: float | None = None
    vm_size: str | None = None

    def __post_init__(self) -> None:
        _whole("gpus_per_replica", self.gpus, at_least=0)
        for what in ("cpu_cores", "memory_gb"):
            value = getattr(self, what)
            if value is not None and not 0 < value < math.inf:
                msg = f"{what} is a number above 0, got {value!r}."
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Scale:
    """How many copies serve.

    Args:
        replicas: containers; the local target runs one.
        workers: processes per container that read requests; they share one model, but for a script of the user's.
        max_replicas: how far the autoscaler may go from ``replicas`` up; ``None`` leaves their number alone.

    Raises:
        ValueError: less than one, or a maximum below the minimum.
    """

    replicas: int = 1
    workers: int = 1
    max_replicas: int | None = None

    def __post_init__(self) -> None:
        _whole("replicas", self.replicas, at_least=1)
        _whole("workers", self.workers, at_least=1)
        if self.max_replicas is not None:
            _whole("max_replicas", self.max_replicas, at_least=self.replicas)

    @classmethod
    def of(cls, replicas: Any, workers: Any = 1) -> Scale:
        """From ``replicas=``, a number or ``(least, most)``, and ``workers=``, as people give them.

        Raises:
            ValueError: something else; the message says what was given.
        """
        pair = cast("tuple[Any, ...]", replicas if isinstance(replicas, tuple) else (replicas,))
        for what, given, numbers in (("replicas", cast("Any", replicas), pair), ("workers", workers, (workers,))):
            whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 1 for one in numbers)
            if not whole or len(numbers) not in (1, 2):
                msg = f"{what} must be a whole number from 1, got {given!r}."
                raise ValueError(msg)
        if pair[-1] < pair[0]:
            msg = f"replicas=(least, most): {replicas} has them the wrong way round."
            raise ValueError(msg)
        return cls(pair[0], workers, max_replicas=pair[1] if len(pair) == 2 else None)

    @property
    def most(self) -> int:
        """The most replicas that there may be."""
        return self.replicas if self.max_replicas is None else self.max_replicas


@dataclass(frozen=True, slots=True)
class Batching:
    """Micro-batching inside a worker.

    Args:
        max_batch: the most items that run at once.
        max_queue: the most items that wait; more are refused with 503.
        enabled: whether items of different requests may run together.
    """

    max_batch: int = 32
    max_queue: int = 512
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service to deploy: the arguments of ``deploy()``, checked and in their types.

    Args:
        name: of the service.
        model: what it serves.
        target: where it runs.
        template: framework template (``tensorflow``, ``torch``, ``onnx``), ``None``: from the model's format.
        output, preprocess, postprocess: see ``deploy()``; empty for none. Hooks in a file are ``path.py:function``.
        labels: names of the classes, or the file that has them; ``None``: those that lie with the model, if any.
        entry_script: a whole score.py of the user's instead of the bundled one.
        conda_file: instead of the template's.
        timeout: seconds that one request may take.
        ttl: seconds after which a kept service is removed, ``None``: the target's default.
        keep: whether it outlives the process that deploys it.
        overwrite: whether a service of this name is replaced.
        auth: who may score on Azure: who has a key, or a token of Azure ML.
        tags, properties: for the service on Azure.
        replace_retired: whether the successor of a retired VM size is taken.
        codeless: whether Azure ML serves the model by itself, with Triton, and no bundle is needed.
        load_seconds: how long the model takes to load and warm up, where that was measured; probes wait for it.
    """

    name: str
    model: ModelRef
    target: TargetName = "local"
    template: str | None = None
    output: str = ""
    preprocess: str = ""
    postprocess: str = ""
    labels: Path | tuple[str, ...] | None = field(default=None, repr=False)  # there may be thousands
    cluster: Cluster | None = None
    resources: Resources = field(default_factory=Resources)
    scale: Scale = field(default_factory=Scale)
    batching: Batching = field(default_factory=Batching)
    entry_script: Path | None = None
    conda_file: Path | None = None
    environment_variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # may hold secrets
    timeout: float = 60.0
    ttl: float | None = None
    keep: bool = False
    overwrite: bool = False
    auth: Auth = "key"
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    replace_retired: bool = True
    codeless: bool = False
    load_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.auth not in ("key", "token"):
            msg = f'auth is "key" or "token", got {self.auth!r}.'
            raise ValueError(msg)

    def runtime_settings(self) -> dict[str, Any]:
        """The settings that the bundle carries for the serving runtime, hooks left out: their files move."""
        settings: dict[str, Any] = {
            "max_batch": self.batching.max_batch,
            "max_queue": self.batching.max_queue,
            "batching": self.batching.enabled,
            "timeout_ms": round(self.timeout * 1000),
        }
        if self.output:
            settings["output"] = self.output
        return settings


def _whole(what: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        msg = f"{what} must be a whole number from {at_least}, got {value!r}."
        raise ValueError(msg)


def labels_from(given: str | Path | Iterable[str] | None) -> Path | tuple[str, ...] | None:
    """The file of labels, or the labels themselves.

    Raises:
        TypeError: something else.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        return Path(given).expanduser()
    labels = tuple(given)
    if not all(isinstance(label, str) for label in labels):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = "labels is the path of a text file, or a list of texts, one per class."
        raise TypeError(message)
    return labels


def service_name_from(text: str) -> str:
    """A valid service name made from the name of a file or model: ``ResNet_50.onnx`` becomes ``resnet-50``."""
    stem = re.sub(r"\.(onnx|pt|pth|pt2|ts|keras|meta)$", "", text.lower())
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:28].rstrip("-")
    if not name or not name[0].isalpha():
        name = f"model-{name}".rstrip("-")
    return name if len(name) >= 3 else f"model-{name}"


def name_problem(name: str) -> str:
    """Why Azure ML would refuse a service name; empty where it would not."""
    if SERVICE_NAME.fullmatch(name) and 3 <= len(name) <= 32:
        return ""
    return (
        f"{name!r} is no name that Azure ML accepts for a service: 3 to 32 characters, lower-case letters, digits and "
        "dashes, a letter first, no dash last."
    )
