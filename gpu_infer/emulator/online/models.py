"""Online endpoints and their deployments: who may call, and which deployment answers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..operations import Operation
from ..scoring.rollout import Layout, Rollout
from ..services.models import new_key
from ..wire import Refusal

__all__ = ["AuthMode", "Deployment", "Endpoint", "Endpoints", "Limits", "check_name", "layout"]

AuthMode = Literal["key", "aml_token", "aad_token"]
"""What a caller must bring, in the SDK's words."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``request_settings`` of a deployment, with Azure's defaults.

    Args:
        max_concurrent: requests that one instance works on at once (``max_concurrent_requests_per_instance``).
        timeout_ms: how long it may take for one (``request_timeout_ms``).
    """

    max_concurrent: int = 1
    timeout_ms: float = 5_000


@dataclass(slots=True)
class Deployment:
    """What answers for an endpoint.

    Attributes:
        name: its name.
        entry_script: relative to its code.
        environment: variables of the container.
        limits: of requests.
        rollout: its processes; ``None``: the emulator runs none.
        latest: those that were started last, whether they came up or not; ``None``: those of ``rollout``.
        files: what its processes are made of.
        replicas: how many instances it has.
        sent: what else was said of it, and is shown as it came.
        tags: of the resource.
        state: ``provisioningState``.
        operation: the last long operation on it.
        created: when.
    """

    name: str
    entry_script: str
    environment: dict[str, str]
    limits: Limits
    rollout: Rollout | None = None
    latest: Rollout | None = None
    files: Layout | None = None
    replicas: int = 1
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    state: str = "Succeeded"
    operation: Operation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def check_idle(self) -> None:
        """Refuse to begin an operation on it while another runs.

        Raises:
            Refusal: 409.
        """
        if self.operation is not None and self.operation.state == "Running":
            message = f"There is already an active operation on the deployment {self.name!r}. Wait until it ends."
            raise Refusal(409, "Conflict", message)

    def end(self) -> None:
        """End its processes."""
        for rollout in (self.rollout, self.latest):
            if rollout:
                rollout.end()


@dataclass(slots=True)
class Endpoint:
    """An endpoint.

    Attributes:
        name: its name.
        auth_mode: what callers must bring.
        keys: primary and secondary.
        tokens: access tokens handed out, and when each expires (seconds since the epoch).
        deployments: by name.
        traffic: percent of the requests that each deployment gets; those it does not name get none.
        compute: ARM path of the Kubernetes cluster that it is on; ``None``: a managed one.
        sent: what else was said of it, and is shown as it came: ``description``, ``properties``, ``mirrorTraffic``, ...
        tags: of the resource.
        state: ``provisioningState``.
        operation: the last long operation on it.
        created: when.
    """

    name: str
    auth_mode: AuthMode = "key"
    keys: tuple[str, str] = field(default_factory=lambda: (new_key(), new_key()))
    tokens: dict[str, float] = field(default_factory=dict[str, float])
    deployments: dict[str, Deployment] = field(default_factory=dict[str, Deployment])
    traffic: dict[str, int] = field(default_factory=dict[str, int])
    compute: str | None = None
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    state: str = "Succeeded"
    operation: Operation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def choose(self, name: str) -> Deployment:
        """The deployment for a request: the one it names, else one by lot, as the traffic says.

        Args:
            name: of the header ``azureml-model-deployment``; may be empty.

        Raises:
            Refusal: 404, there is none of that name, or none gets any traffic ("Troubleshoot online endpoints", Azure
                Machine Learning documentation, has the words).
        """
        if name:
            if name not in self.deployments:
                raise Refusal(404, "NotFound", f"Deployment {name} was not found in endpoint {self.name}")
            return self.deployments[name]
        lots = [name for name in self.deployments for _ in range(self.traffic.get(name, 0))]
        if not lots:
            raise Refusal(404, "NotFound", f"Endpoint {self.name} has no valid deployment with positive weight")
        return self.deployments[secrets.choice(lots)]

    def check_idle(self) -> None:
        """Refuse to begin an operation on it while another runs.

        Raises:
            Refusal: 409.
        """
        if self.operation is not None and self.operation.state == "Running":
            message = f"There is already an active operation on the online endpoint {self.name!r}. Wait until it ends."
            raise Refusal(409, "Conflict", message)

    def check_traffic(self, traffic: dict[str, int]) -> None:
        """Refuse a division of the requests that cannot be.

        Raises:
            Refusal: 400, it names a deployment that is not there, or is not 0 or 100 percent in all.
        """
        unknown = sorted(set(traffic) - set(self.deployments))
        if unknown:
            message = f"The traffic names deployments that endpoint {self.name!r} does not have: {', '.join(unknown)}."
            raise Refusal(400, "BadRequest", message)
        total = sum(traffic.values())
        if total not in (0, 100) or min(traffic.values(), default=0) < 0:
            raise Refusal(400, "BadRequest", f"The traffic must sum to 0 or 100 percent, not {total}.")

    def remove(self, deployment: Deployment) -> None:
        """Forget a deployment; its processes end."""
        self.deployments.pop(deployment.name, None)
        self.traffic.pop(deployment.name, None)
        deployment.end()

    def renew_key(self, which: Literal["primary", "secondary"]) -> None:
        """Give it a new key in the place of one; the old one is refused from now on."""
        primary, secondary = self.keys
        self.keys = (new_key(), secondary) if which == "primary" else (primary, new_key())
        self.open_doors()

    def open_doors(self) -> None:
        """Let callers in on the terms that hold now."""
        for deployment in self.deployments.values():
            front = deployment.rollout.open(deployment.replicas) if deployment.rollout else None
            if front is None:
                continue
            front.keys = self.keys
            front.tokens = dict(self.tokens)
            front.auth = _DOORS[self.auth_mode]
            front.max_concurrent = deployment.limits.max_concurrent
            front.scoring_timeout_ms = deployment.limits.timeout_ms


_DOORS: dict[AuthMode, Literal["key", "token", "aad"]] = {"key": "key", "aml_token": "token", "aad_token": "aad"}


class Endpoints:
    """All online endpoints of the workspace."""

    def __init__(self) -> None:
        self.all: dict[str, Endpoint] = {}

    def find(self, name: str) -> Endpoint:
        """An endpoint.

        Raises:
            Refusal: 404, there is none of that name.
        """
        endpoint = self.all.get(name)
        if endpoint is None:
            raise Refusal(404, "ResourceNotFound", f"Online endpoint {name!r} was not found in the workspace.")
        return endpoint

    def billed(self) -> list[str]:
        """The deployments of managed endpoints, as ``endpoint/deployment``, be they failed or half deleted."""
        managed = [endpoint for endpoint in self.all.values() if endpoint.compute is None]
        return [f"{endpoint.name}/{name}" for endpoint in managed for name in endpoint.deployments]

    def remove(self, endpoint: Endpoint) -> None:
        """Forget an endpoint with its deployments; their processes end."""
        self.all.pop(endpoint.name, None)
        for deployment in endpoint.deployments.values():
            if deployment.operation:
                deployment.operation.cancel()
            deployment.end()


def check_name(kind: str, name: str) -> None:
    """Refuse names that the SDK refuses, too.

    Raises:
        ValueError: not 3 to 32 letters, digits and hyphens, the first a letter.
    """
    letters = name.isascii() and name[:1].isalpha() and name.replace("-", "").isalnum()
    if not (3 <= len(name) <= 32 and letters):
        raise ValueError(
            f"{name!r} is no name of {kind}: give 3 to 32 letters, digits and hyphens, the first of them a letter."
        )


def layout(source: Path, *, entry_script: str, model: Path | None, environment: dict[str, str]) -> Layout:
    """Where the files of a folder of this machine go in the container, and those of a model.

    Args:
        source: the folder with the code.
        entry_script: relative to it.
        model: a file or a folder; comes as the first version of a model of that name.
        environment: variables of the container.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    if not (source / entry_script).is_file():
        raise FileNotFoundError(f"There is no entry script {entry_script!r} in {source}: name one with entry_script=.")
    files = [(path, f"app/{path.relative_to(source).as_posix()}", False) for path in _files(source)]
    if model is not None:
        root = f"azureml-models/{model.stem}/1"
        found = _files(model) if model.is_dir() else [model]
        if not found or not found[0].exists():
            raise FileNotFoundError(f"There is no model at {model}: give a file, or a folder with files in it.")
        files += [(path, f"{root}/{path.relative_to(model.parent).as_posix()}", False) for path in found]
    return Layout(entry_script, environment, tuple(files))


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
