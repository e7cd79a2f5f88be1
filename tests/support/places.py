"""Where services can run: a small description of each place, emulated or real, for the tests that all of them share."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Rollout
from gpu_infer.emulator import Emulator
from gpu_infer.errors import UnsupportedError
from gpu_infer.targets.aks import workspace_from
from gpu_infer.targets.online.connecting import client_from

T4 = "Standard_NC4as_T4_v3"

CONFIG = "GPU_INFER_LIVE_CONFIG"
MAX_PRICE = "GPU_INFER_LIVE_MAX_PRICE"
AKS = "GPU_INFER_LIVE_AKS"
VM_SIZE = "GPU_INFER_LIVE_VM_SIZE"
KUBERNETES = "GPU_INFER_LIVE_KUBERNETES"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place where services run.

    Args:
        name: of the place.
        workspace: second argument of ``deploy()``.
        arguments: what ``deploy()`` needs there beside it.
        cannot: what cannot be done there, and the words of the ``UnsupportedError`` that says so.
        update: what ``update()`` is given there, so that it does not wait for longer than it must.
        failure: HTTP status by which the answer of a model that has raised reaches the client.
        free: whether a service costs nothing there, beside what was there before.
        at_once: how many times the price of one plan the tests may cost at one moment.
        live: whether it is in Azure, and costs money.
        prefix: that the names of all services of these tests begin with.
    """

    name: str
    workspace: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    update: Mapping[str, Any] = field(default_factory=dict)
    failure: int = 500
    free: bool = False
    at_once: int = 1
    live: bool = False
    prefix: str = "svc"

    def named(self, name: str) -> str:
        """A name for a service of these tests."""
        return f"{self.prefix}-{name}"

    def deploy(self, model: Path | str, name: str, **options: Any) -> gpu_infer.Service:
        """``deploy()`` to this place."""
        given = {**self.arguments, **options}
        return gpu_infer.deploy(model, self.workspace, name=self.named(name), dry_run=False, **given)

    def allowing(self, what: str) -> contextlib.AbstractContextManager[Any]:
        """For a block that does something: it must raise where that cannot be done here."""
        if what in self.cannot:
            return pytest.raises(UnsupportedError, match=self.cannot[what])
        return contextlib.nullcontext()


# --- emulated ---------------------------------------------------------------------------------------------------------

_PARK = "cannot be parked: only an online endpoint keeps its address"


@contextlib.contextmanager
def local() -> Iterator[Place]:
    """This machine."""
    yield Place(
        name="local",
        free=True,
        cannot={
            "scale replicas": "means nothing on the local target: one server runs",
            "rotate keys": "has no keys: it answers on 127.0.0.1 alone",
            "rollout": "for online endpoints.* on this machine the old server ends before the new one starts",
            "park": _PARK,
        },
    )


@contextlib.contextmanager
def emulated_aks() -> Iterator[Place]:
    """A cluster in a workspace of the emulator, through ``azureml-core``."""
    with Emulator() as emulator:
        workspace = emulator.workspace()
        gpu_infer.provision_cluster(workspace, "gpus", T4, 3, keep=True)
        yield _on_aks(workspace, "gpus")
        assert emulator.errors == []


@contextlib.contextmanager
def emulated_managed() -> Iterator[Place]:
    """Managed endpoints in a workspace of the emulator, through ``azure-ai-ml``."""
    with Emulator() as emulator:
        yield _managed(emulator.ml_client(), T4)
        assert emulator.errors == []
        assert emulator.billed() == []


def _managed(client: Any, vm_size: str, **options: Any) -> Place:
    return Place(
        name="managed",
        workspace=client,
        arguments={"vm_size": vm_size},
        update={"rollout": Rollout(steps=(20, 100), pause=0)},
        failure=424,
        cannot={"scale workers": r"update\(workers"},
        at_once=4,  # one for each of two files, one that is made beside, and one that crashes
        **options,
    )


@contextlib.contextmanager
def emulated_kubernetes() -> Iterator[Place]:
    """Endpoints on an AKS cluster that is attached to a workspace of the emulator, through ``azure-ai-ml``."""
    from azure.ai.ml.entities import KubernetesCompute

    number = "/subscriptions/s/resourcegroups/theirs/providers/Microsoft.ContainerService/managedClusters/their-aks"
    with Emulator() as emulator:
        emulator.add_aks(number, vm_size=T4, nodes=4)
        client = emulator.ml_client()
        gpu: Any = {"instanceTypes": {"gpu": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}}
        client.compute.begin_attach(KubernetesCompute(name="k8s", resource_id=number, properties=gpu)).result()
        yield _on_kubernetes(client, "k8s", "gpu")
        assert emulator.errors == []


def _on_kubernetes(client: Any, cluster: str, instance_type: str, **options: Any) -> Place:
    return Place(
        name="kubernetes",
        workspace=client,
        arguments={"cluster": cluster, "vm_size": instance_type},
        update={"rollout": Rollout(steps=(20, 100), pause=0)},
        failure=502,
        cannot={"scale workers": r"update\(workers"},
        free=True,
        **options,
    )


def _on_aks(workspace: Any, cluster: str, **options: Any) -> Place:
    return Place(
        name="aks",
        workspace=workspace,
        arguments={"cluster": cluster},
        failure=502,
        cannot={"scale workers": r"update\(workers", "rollout": "for online endpoints", "park": _PARK},
        **options,
    )


# --- in Azure ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def live_managed(environment: Mapping[str, str]) -> Iterator[Place]:
    """Managed endpoints in a workspace of the user's."""
    size = _set(environment, VM_SIZE)
    yield _managed(_live_client(environment), size, live=True, prefix=live_prefix())


@contextlib.contextmanager
def live_kubernetes(environment: Mapping[str, str]) -> Iterator[Place]:
    """Endpoints on a cluster that is attached already, in a workspace of the user's."""
    cluster, _, instance_type = _set(environment, KUBERNETES).partition("/")
    yield _on_kubernetes(_live_client(environment), cluster, instance_type, live=True, prefix=live_prefix())


def _live_client(environment: Mapping[str, str]) -> Any:
    return client_from(Path(_set(environment, CONFIG)))


@contextlib.contextmanager
def live_aks(environment: Mapping[str, str]) -> Iterator[Place]:
    """A cluster that is there already, in a workspace of the user's."""
    config, cluster = _set(environment, CONFIG), _set(environment, AKS)
    yield _on_aks(workspace_from(Path(config)), cluster, live=True, prefix=live_prefix())


def environment(folder: Path) -> dict[str, str]:
    """The variables of this process; the file that they name is meant from where the tests were begun."""
    found = dict(os.environ)
    if found.get(CONFIG):
        found[CONFIG] = str(folder / found[CONFIG])
    return found


def live_prefix() -> str:
    """So that a run removes its own services and no others."""
    return f"contract-{uuid.uuid4().hex[:6]}"


def check_price(place: Place, model: Path, environment: Mapping[str, str]) -> None:
    """Refuse to begin where the tests might cost more than was said."""
    text = environment.get(MAX_PRICE, "")
    if not text:
        pytest.fail(f"{MAX_PRICE} says how many US dollars per hour these tests may cost; set it.", pytrace=False)
    price = gpu_infer.plan(model, place.workspace, **place.arguments).price_per_hour * place.at_once
    if price > float(text):
        message = f"On {place.name} these tests may cost ${price:.2f} per hour, and {MAX_PRICE} is {text}."
        pytest.fail(message, pytrace=False)


def leave_nothing(place: Place) -> None:
    """Delete what services of these tests are left, sweep, and see that nothing of them is there and billed."""
    for service in gpu_infer.services(place.workspace):
        if service.name.startswith(f"{place.prefix}-"):
            service.delete(model=place.live)
    if place.workspace is None:
        return
    gpu_infer.sweep(place.workspace)
    left = [one for one in gpu_infer.leftovers(place.workspace) if one.name.startswith(f"{place.prefix}-")]
    assert left == []


def _set(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        pytest.skip(f"{name} is not set; CONTRIBUTING.md says what the tests in Azure need")
    return value
