"""What one emulator knows: its settings and the state of each service, behind one lock."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .aks.models import ManagedClusters
from .artifacts.models import Artifacts
from .assets.models import Versions
from .compute.models import Clusters
from .compute.quota import Quota
from .insights.models import Autoscale, Traffic
from .models.models import Models
from .online.models import Endpoints
from .operations import Operations, Polling, Transition
from .services.models import Services

if TYPE_CHECKING:
    from .scoring.rollout import Rollout

__all__ = ["ACCOUNT", "CONTAINER", "Settings", "State", "real_hosts"]

ACCOUNT = "emuacct"
"""The workspace's storage account."""
CONTAINER = "azureml"
"""The container in it that holds the artifacts."""


@dataclass(slots=True)
class Settings:
    """What the emulator was started with, and the ids of its workspace.

    ``url`` and ``tls_url`` are known once it listens.
    """

    subscription_id: str
    resource_group: str
    name: str
    location: str
    folder: Path
    ca_file: Path
    run_services: bool
    processes_per_service: int | None
    quota: Mapping[str, int]
    polling: Polling
    url: str = ""
    tls_url: str = ""
    workspace_id: str = field(default_factory=lambda: str(uuid.uuid4()))  # new each time: the SDK caches URLs by it
    tenant_id: str = "72f988bf-0000-4000-8000-2d7cd011db47"
    client_id: str = "00000000-0000-4000-8000-00000000c11e"
    client_secret: str = "emulator"  # noqa: S105 (what it is for is written on it)
    signing_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @property
    def scope(self) -> str:
        """ARM path of the workspace."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )


@dataclass(slots=True)
class State:
    """The state of all services.

    Attributes:
        lock: held while a call changes or reads state; never while one waits or moves many bytes.
        report: called with an exception that nobody waits for.
        rollouts: all there ever were: their processes must end with the emulator.
    """

    settings: Settings
    operations: Operations
    artifacts: Artifacts
    quota: Quota
    clusters: Clusters
    models: Models
    services: Services
    endpoints: Endpoints
    report: Callable[[BaseException], None]
    environments: Versions = field(default_factory=lambda: Versions("environments", "image", "condaFile", "build"))
    codes: Versions = field(default_factory=lambda: Versions("codes", "codeUri"))
    autoscale: Autoscale = field(default_factory=Autoscale)
    traffic: Traffic = field(default_factory=Traffic)
    managed: ManagedClusters = field(default_factory=ManagedClusters)
    rollouts: list[Rollout] = field(default_factory=list["Rollout"])
    lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def empty(
        cls,
        settings: Settings,
        transitions: Mapping[str, Transition] | Transition,
        report: Callable[[BaseException], None],
    ) -> State:
        """A new workspace with nothing in it."""
        artifacts = Artifacts(settings.folder / "artifacts", settings.signing_key)
        quota = Quota(settings.quota)
        clusters = Clusters(settings.subscription_id, settings.resource_group, settings.location, quota)
        models = Models()
        services = Services(clusters, models)
        return cls(settings, Operations(transitions), artifacts, quota, clusters, models, services, Endpoints(), report)


def real_hosts(location: str) -> tuple[str, ...]:
    """The names under which Azure itself answers, and the emulator in its place behind the proxy."""
    return (
        "management.azure.com",
        "login.microsoftonline.com",
        f"{location}.api.azureml.ms",
        f"{ACCOUNT}.blob.core.windows.net",
    )
