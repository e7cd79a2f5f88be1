"""What the fault matrix has to know of each control plane: how it is set up, and what there is in it afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_infer.emulator import Emulator, Transition

__all__ = ["AKS", "ONLINE", "Cloud"]


@dataclass(frozen=True)
class Cloud:
    """A control plane, as the matrix sees it.

    Args:
        name: ``aks`` or ``online``.
        billed: kind of the ledger's entries of what is billed.
        transitions: how long operations take, so that a process can be killed while Azure works.
        register: registers the model ``net``, which no cell is about.
        services: names of the services that exist.
        tagged: names of what is billed, as tags tell it.
        in_use: names of all that must be there, after a sweep too, where somebody uses the service.
        long: operations after which a long operation can fail though its request has succeeded.
    """

    name: str
    billed: str
    transitions: Mapping[str, Transition]
    register: Callable[[Emulator], None]
    services: Callable[[Emulator], set[str]]
    tagged: Callable[[Emulator], set[str]]
    in_use: Callable[[Emulator], set[str]]
    long: tuple[str, ...] = ()


# --- azureml-core -----------------------------------------------------------------------------------------------------


def _register_on_aks(emulator: Emulator) -> None:
    from azureml.core import Model

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        Model.register(emulator.workspace(), str(_net(folder)), "net", tags={"gpu-infer-template": "onnx"})


def _web_services(emulator: Emulator) -> list[Any]:
    from azureml.core import Webservice

    return list(Webservice.list(emulator.workspace()))


def _tagged_clusters(emulator: Emulator) -> set[str]:
    there = _web_services(emulator)
    return {one.compute_name for one in there if (one.tags or {}).get("gpu-infer-cluster") == "created"}


# Long enough under way that a process can be killed while Azure works. A deletion of a service is over at once: the SDK
# waits for it itself, 5 seconds at a time.
_SLOW = Transition.after_polls(2)

AKS = Cloud(
    name="aks",
    billed="cluster",
    transitions={"compute.*": _SLOW, "services.create": _SLOW, "services.update": _SLOW},
    register=_register_on_aks,
    services=lambda emulator: {one.name for one in _web_services(emulator)},
    tagged=_tagged_clusters,
    in_use=lambda _: {"gpus", "svc"},
)


# --- azure-ai-ml ------------------------------------------------------------------------------------------------------


def _register_online(emulator: Emulator) -> None:
    from azure.ai.ml.entities import Model

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        model = Model(name="net", path=str(_net(folder)), tags={"gpu-infer-template": "onnx"})
        emulator.ml_client().models.create_or_update(model)


def _endpoints(emulator: Emulator) -> list[Any]:
    return list(emulator.ml_client().online_endpoints.list())


def _tagged_deployments(emulator: Emulator) -> set[str]:
    client = emulator.ml_client()
    return {
        f"{endpoint.name}/{one.name}"
        for endpoint in client.online_endpoints.list()
        if "gpu-infer-run" in (endpoint.tags or {})
        for one in client.online_deployments.list(endpoint.name)
        if "gpu-infer-run" in (one.tags or {})
    }


def _serving(emulator: Emulator) -> set[str]:
    """The endpoint and the deployment that has all its requests; of several that share them it would be no end."""
    all_of_them = [name for one in _endpoints(emulator) for name, share in (one.traffic or {}).items() if share == 100]
    return {"svc", *(f"svc/{name}" for name in all_of_them or ["that serves"])}


ONLINE = Cloud(
    name="online",
    billed="deployment",
    transitions={"endpoints.*": Transition.after_polls(1), "deployments.*": Transition.after_polls(1)},
    register=_register_online,
    services=lambda emulator: {one.name for one in _endpoints(emulator)},
    tagged=_tagged_deployments,
    in_use=_serving,
    long=(
        "endpoints.create",
        "endpoints.update",
        "endpoints.delete",
        "deployments.create",
        "deployments.delete",
    ),
)


def _net(folder: str) -> Path:
    file = Path(folder) / "net.onnx"
    file.write_bytes(b"not a real network")
    return file
