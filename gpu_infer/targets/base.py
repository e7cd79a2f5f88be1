"""What a target is: a place that can run a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from gpu_infer.bundle import Template
from gpu_infer.client.tokens import Provider
from gpu_infer.errors import UnsupportedError
from gpu_infer.ledger import Entry
from gpu_infer.plans import Plan
from gpu_infer.spec import ModelRef, Rollout, ServiceSpec

__all__ = ["DEFAULT_WAIT", "CloudTarget", "Deployment", "ParkingTarget", "State", "Target", "refuse_rollout"]

DEFAULT_WAIT = 600.0
"""Seconds that a service gets to become healthy: a large model on a slow disk takes minutes."""

State = Literal["Starting", "Healthy", "Unhealthy", "Failed", "Parked", "Deleted"]
"""``Parked``: an online endpoint without a deployment, so that nothing is billed."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A service as its target knows it now.

    Args:
        name: of the service.
        state: ``Starting``, ``Healthy``, ``Unhealthy``, ``Failed``, ``Parked`` or ``Deleted``.
        scoring_uri: where requests go.
        price_per_hour: US dollars of the cluster below it, 0 for what costs nothing.
        cluster: name of the cluster below it, empty where there is none.
        model: what it serves, in words.
        created: seconds since the epoch.
        expires: when it is removed by itself, ``None`` for never.
        kept: whether it outlives the process that started it.
        timeout: seconds that one request may take there.
        own_script: whether something else than our runtime answers: an entry script of the user's, or Triton.
        kserve: whether that speaks KServe's protocol, as Triton does.
        credential: gives the keys or the token for its address, ``None`` where it asks for none.
        made: what tells this deployment from the next one of its name, such as the run that has made it; empty where
            that is not known.
        cluster_created: whether the call that gave this has created the cluster below it.
        model_ref: the registered model that it serves, ``None`` where models are not registered.
        hand_over: to be called when the caller is about to get it: until then it counts as half made, and is removed
            by the next ``sweep()`` where this process ends. ``None`` where that does not matter.
        give_up: to be called where it does not get healthy: removes what this call has made, and leaves what was
            there before. ``None`` where that is the whole service.
        raw: what the target itself has on it.
    """

    name: str
    state: State
    scoring_uri: str
    price_per_hour: float = 0.0
    cluster: str = ""
    model: str = ""
    created: float = 0.0
    expires: float | None = None
    kept: bool = False
    timeout: float = 60.0
    own_script: bool = False
    kserve: bool = False
    credential: Provider | None = field(default=None, repr=False)
    made: str = ""
    cluster_created: bool = False
    model_ref: ModelRef | None = None
    hand_over: Callable[[], None] | None = field(default=None, repr=False)
    give_up: Callable[[], None] | None = field(default=None, repr=False)
    raw: Any = field(default=None, repr=False)


class Target(Protocol):
    """A place that runs services. Every verb takes a service's name; an unknown one is a ``ServiceNotFoundError``."""

    name: str
    default_wait: float
    """Seconds that a service gets to become healthy."""

    def plan(self, spec: ServiceSpec) -> Plan:
        """What ``start()`` would do, and what the checks find; creates nothing.

        Returns:
            the plan; ``start()`` takes its spec and its template.
        """
        ...

    def start(self, spec: ServiceSpec, template: Template | None) -> Deployment:
        """Start a service; does not wait for it to be healthy."""
        ...

    def wait(self, name: str, *, timeout: float) -> Deployment:
        """Wait until it is healthy.

        Raises:
            DeploymentError: it failed, or was not healthy within ``timeout`` seconds.
        """
        ...

    def find(self, name: str) -> Deployment:
        """Look at one service."""
        ...

    def services(self) -> list[Deployment]:
        """All services there."""
        ...

    def update(
        self, name: str, spec: ServiceSpec, template: Template | None, *, rollout: Rollout | None = None
    ) -> Deployment:
        """Serve another model or other settings under the same name and URI.

        Raises:
            UnsupportedError: a ``rollout`` where one deployment cannot run beside another.
        """
        ...

    def logs(self, name: str) -> str:
        """What its containers or processes have written."""
        ...

    def scale(self, name: str, *, replicas: int | tuple[int, int] | None, workers: int | None) -> Deployment:
        """Change how many copies serve."""
        ...

    def rotate_keys(self, name: str) -> None:
        """Replace the keys of the service."""
        ...

    def keep(self, name: str, *, ttl: float | None) -> Deployment:
        """Let it outlive this process, for ``ttl`` seconds."""
        ...

    def hold(self, name: str) -> None:
        """Note that it is used in a ``with`` block, so that it is nobody's once this process has ended."""
        ...

    def delete(self, name: str, *, cluster: bool, model: bool = False, created: float | None = None) -> None:
        """Remove it; deleting the absent succeeds.

        Args:
            name: of the service.
            cluster: remove the cluster too, where we have created it.
            model: remove the registered model too, where we have registered it.
            created: remove only the service created then, not one that has its name by now.
        """
        ...


class CloudTarget(Target, Protocol):
    """A place where what runs is billed: what has been made there can be found again, and removed."""

    def entries(self) -> list[Entry]:
        """What the ledger of this machine has of this workspace."""
        ...

    def tagged(self) -> list[Entry]:
        """What the tags of things in the workspace tell of."""
        ...

    def state_of(self, entry: Entry) -> str:
        """How Azure calls the state of what an entry names; ``absent`` where it is not there."""
        ...

    def idle_seconds(self, entry: Entry, *, within: float) -> float | None:
        """How long nobody has asked a service anything, looking back ``within`` seconds; ``None`` where not known."""
        ...

    def remove(self, entry: Entry) -> None:
        """Remove what one entry names, and strike it out.

        Raises:
            TeardownError: it is still there.
        """
        ...


@runtime_checkable
class ParkingTarget(Protocol):
    """A place where a service keeps its address while nothing of it runs."""

    def park(self, name: str) -> Deployment:
        """Take down what is billed."""
        ...

    def unpark(self, name: str, *, variables: Mapping[str, str]) -> Deployment:
        """Bring it back, and wait for it."""
        ...


def refuse_rollout(rollout: Rollout | None, where: str) -> None:
    """Raise where a rollout is asked for and there can be none.

    Raises:
        UnsupportedError: there is one.
    """
    if rollout is not None:
        message = f"rollout= is for online endpoints, where two deployments run side by side; {where}."
        raise UnsupportedError(message)
