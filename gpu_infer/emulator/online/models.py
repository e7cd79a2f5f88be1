"""Online endpoints and their deployments: who may call, and which deployment answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..operations import Operation, Outcome
from ..scoring.rollout import Layout, Rollout
from ..services.models import new_key
from ..wire import Refusal
from .door import ManagedDoor
from .shares import Shares

__all__ = [
    "MOST_DEPLOYMENTS",
    "MOST_ENDPOINTS",
    "MOST_INSTANCES",
    "AuthMode",
    "Deployment",
    "Endpoint",
    "Endpoints",
    "Limits",
    "Spec",
    "check_name",
    "layout",
]

AuthMode = Literal["key", "aml_token", "aad_token"]
"""What a caller must bring, in the SDK's words."""


MOST_DEPLOYMENTS = 20
"""Of one endpoint ("Manage quotas", Azure Machine Learning documentation, as the two below)."""
MOST_ENDPOINTS = 100
"""Of a subscription in a region."""
MOST_INSTANCES = 50
"""Of one deployment."""
_MARGIN = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """``request_settings`` of a deployment, with Azure's defaults.

    Args:
        max_concurrent: requests that one instance works on at once (``max_concurrent_requests_per_instance``).
        timeout_ms: how long it may take for one (``request_timeout_ms``).
    """

    max_concurrent: int = 1
    timeout_ms: float = 5_000


@dataclass(frozen=True, slots=True)
class Spec:
    """What was said of a deployment.

    Attributes:
        files: of its containers, and their variables.
        limits: of requests.
        replicas: how many instances it has.
        patience: seconds after which the liveness probe gives up a container that does not answer.
        sent: what else was said, and is shown as it came.
        tags: of the resource.
    """

    files: Layout
    limits: Limits
    replicas: int = 1
    patience: float = 310.0
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Deployment:
    """What answers for an endpoint.

    Attributes:
        name: its name.
        spec: what it is; after an update that failed, what it was before.
        coming: what it is to become, while an operation is about it.
        rollout: the processes that answer; ``None``: there are none.
        latest: those that were started last, whether they came up or not; ``None``: none ever were.
        runs: it came up at least once.
        state: ``provisioningState``.
        operation: the last long operation on it.
        created: when.
    """

    name: str
    spec: Spec
    coming: Spec | None = None
    rollout: Rollout | None = None
    latest: Rollout | None = None
    runs: bool = False
    state: str = "Succeeded"
    operation: Operation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def shown(self) -> Spec:
        """What there is to see."""
        return self.coming or self.spec

    def check_idle(self) -> None:
        """Refuse to begin an operation on it while another runs.

        Raises:
            Refusal: 409.
        """
        if self.operation is not None and self.operation.state == "Running":
            message = f"There is already an active operation on the deployment {self.name!r}. Wait until it ends."
            raise Refusal(409, "Conflict", message)

    def settle(self, rollout: Rollout | None, error: Outcome) -> None:
        """An operation that was to bring it to ``coming`` ended: new containers replace the old ones, or it failed."""
        spec, self.coming = self.shown, None
        self.state = "Failed" if error else "Succeeded"
        if error is None:
            before, self.rollout = self.rollout, rollout
            if before is not None and before is not rollout:
                before.end(patience=self.patience)
            self.runs = True
        if error is None or not self.runs:
            self.spec = spec

    @property
    def patience(self) -> float:
        """Seconds that its containers may take to answer those who are at the door when they are to end."""
        return self.spec.limits.timeout_ms / 1000 + _MARGIN

    def end(self) -> None:
        """End its processes."""
        for rollout in (self.rollout, self.latest):
            if rollout:
                rollout.end(patience=self.patience)


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
        mirror: percent of the requests of which a deployment gets a copy.
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
    mirror: dict[str, int] = field(default_factory=dict[str, int])
    shares: Shares = field(default_factory=Shares)
    copies: Shares = field(default_factory=Shares)
    compute: str | None = None
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    state: str = "Succeeded"
    operation: Operation | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def choose(self, name: str) -> Deployment:
        """The deployment for a request: the one it names, else the one whose turn it is, as the traffic says.

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
        chosen = self.shares.next({name: self.traffic.get(name, 0) for name in self.deployments})
        if chosen is None:
            raise Refusal(404, "NotFound", f"Endpoint {self.name} has no valid deployment with positive weight")
        return self.deployments[chosen]

    def choose_copy(self) -> Deployment | None:
        """The deployment that gets a copy of a request, if it is one of those that are copied."""
        there = {name: percent for name, percent in self.mirror.items() if name in self.deployments}
        chosen = self.copies.next({**there, "": 100 - sum(there.values())}) if there else None
        return self.deployments[chosen] if chosen else None

    def check_idle(self) -> None:
        """Refuse to begin an operation on it while another runs.

        Raises:
            Refusal: 409.
        """
        if self.operation is not None and self.operation.state == "Running":
            message = f"There is already an active operation on the online endpoint {self.name!r}. Wait until it ends."
            raise Refusal(409, "Conflict", message)

    def check_traffic(self, traffic: dict[str, int], mirror: dict[str, int]) -> None:
        """Refuse a division of the requests that cannot be, or copies that nobody makes.

        Raises:
            Refusal: 400, it names a deployment that is not there, or is not 0 or 100 percent in all; copies for more
                than one, of more than half the requests, or for one that gets requests itself.
        """
        unknown = sorted({*traffic, *mirror} - set(self.deployments))
        if unknown:
            message = f"The traffic names deployments that endpoint {self.name!r} does not have: {', '.join(unknown)}."
            raise Refusal(400, "BadRequest", message)
        total = sum(traffic.values())
        if total not in (0, 100) or min(traffic.values(), default=0) < 0:
            raise Refusal(400, "BadRequest", f"The traffic must sum to 0 or 100 percent, not {total}.")
        if not mirror:
            return
        ((name, percent),) = list(mirror.items())[:1]
        if self.compute or len(mirror) > 1 or not 0 <= percent <= 50 or traffic.get(name):
            message = (
                "Mirror traffic is for one deployment of a managed endpoint, which gets no other traffic, and of at "
                f"most 50 percent of the requests; not {mirror}."
            )
            raise Refusal(400, "BadRequest", message)

    def remove(self, deployment: Deployment) -> None:
        """Forget a deployment; its processes end."""
        self.deployments.pop(deployment.name, None)
        self.traffic.pop(deployment.name, None)
        self.mirror.pop(deployment.name, None)
        deployment.end()

    def renew_key(self, which: Literal["primary", "secondary"]) -> None:
        """Give it a new key in the place of one; the old one is refused from now on."""
        primary, secondary = self.keys
        self.keys = (new_key(), secondary) if which == "primary" else (primary, new_key())
        self.open_doors()

    def open_doors(self) -> None:
        """Let callers in on the terms that hold now."""
        for deployment in self.deployments.values():
            if deployment.rollout is None:
                continue
            limits = deployment.spec.limits
            front = deployment.rollout.open(deployment.spec.replicas, None if self.compute else ManagedDoor)
            if front is None:
                continue
            front.keys = self.keys
            front.tokens = dict(self.tokens)
            front.auth = _DOORS[self.auth_mode]
            front.max_concurrent = limits.max_concurrent
            front.scoring_timeout_ms = limits.timeout_ms
            if isinstance(front, ManagedDoor):
                front.deployment = deployment.name


_DOORS: dict[AuthMode, Literal["key", "token", "aad"]] = {"key": "key", "aml_token": "token", "aad_token": "aad"}


class Endpoints:
    """All online endpoints of the workspace."""

    def __init__(self) -> None:
        self.all: dict[str, Endpoint] = {}
        self.taken: set[str] = set()
        """Names of other workspaces' endpoints in this region, in small letters."""

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

    def check_new(self, name: str) -> None:
        """Refuse a new endpoint.

        Raises:
            Refusal: 400, the name cannot be, or there are too many; 409, an endpoint of this region has the name.
        """
        try:
            check_name("an endpoint", name)
        except ValueError as error:
            raise Refusal(400, "BadRequest", str(error)) from error
        if name.lower() in self.taken | {known.lower() for known in self.all}:
            message = f"An online endpoint named {name!r} exists already in this region. Choose another name."
            raise Refusal(409, "Conflict", message)
        if len(self.all) >= MOST_ENDPOINTS:
            message = f"Endpoint Quota reached: {len(self.all)}/{MOST_ENDPOINTS}. Delete one, or ask for more."
            raise Refusal(400, "BadRequest", message)

    def cluster_gone(self, compute: str) -> None:
        """A cluster went away, and with it the pods on it; endpoints and deployments stay in the list."""
        for endpoint in self.all.values():
            if endpoint.compute and endpoint.compute.rpartition("/")[2] == compute:
                for deployment in endpoint.deployments.values():
                    if deployment.operation:
                        deployment.operation.cancel()
                    deployment.end()
                    deployment.rollout, deployment.coming, deployment.state = None, None, "Failed"

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
