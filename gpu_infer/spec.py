"""What to deploy, as frozen dataclasses. No I/O: everything here can be built, compared and printed anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

__all__ = ["Batching", "Cluster", "ModelRef", "Resources", "Scale", "ServiceSpec", "TargetName", "seconds_of"]

TargetName = Literal["local", "aks", "online"]

DEFAULT_TTL = 8 * 3600.0
"""Seconds that a kept service lives unless told otherwise: a working day."""

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""What Azure ML accepts as the name of a web service (azureml-core 1.61, ``webservice_name_validation``)."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*")
_LONGEST = 3650 * 86400.0
_UNIT_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(duration: float | str | timedelta) -> float:
    """A duration in seconds.

    Args:
        duration: seconds, a ``timedelta``, or text such as ``"30m"``, ``"8h"`` or ``"2d"``.

    Raises:
        ValueError: text that is no duration, or a duration that is not above 0.
    """
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, str):
        match = _DURATION.fullmatch(duration)
        if match is None:
            msg = f'{duration!r} is no duration: give seconds, or text such as "30m", "8h" or "2d".'
            raise ValueError(msg)
        seconds = float(match[1]) * _UNIT_SECONDS[match[2]]
    else:
        seconds = float(duration)
    if not 0 < seconds <= _LONGEST:
        msg = f"A duration is above 0 and up to ten years, got {duration!r}."
        raise ValueError(msg)
    return seconds


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
        vm_size: of its nodes.
        nodes: how many.
        location: Azure region; the workspace's where ``None``.
        resource_id: an AKS cluster that exists already and is attached instead of created.
    """

    name: str = "aks-gpu"
    vm_size: str = "Standard_NC6"
    nodes: int = 3
    location: str | None = None
    resource_id: str | None = None

    @classmethod
    def attach(cls, resource_id: str, *, name: str = "aks-gpu") -> Cluster:
        """An AKS cluster that exists already, by its Azure resource id."""
        return cls(name=name, resource_id=resource_id)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica gets; means nothing on the local target, which has the machine."""

    gpus: int = 1
    cpu_cores: float | None = None
    memory_gb: float | None = None
    vm_size: str | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """How many copies serve.

    Args:
        replicas: containers; the local target runs one.
        workers: processes per container, each with a model of its own.
    """

    replicas: int = 1
    workers: int = 1


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
        entry_script: a whole score.py of the user's instead of the bundled one.
        conda_file: instead of the template's.
        timeout: seconds that one request may take.
        ttl: seconds after which a kept service is removed, ``None``: the target's default.
        keep: whether it outlives the process that deploys it.
    """

    name: str
    model: ModelRef
    target: TargetName = "local"
    template: str | None = None
    output: str = ""
    preprocess: str = ""
    postprocess: str = ""
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
