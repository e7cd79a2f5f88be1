"""Deployments of online endpoints: create, wait, logs, delete, and what they say of the service that they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_infer.blotting import remember_secrets
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import DeploymentError, DeploymentTimeoutError, GpuInferError, TeardownError, WorkspaceError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Scale
from gpu_infer.targets import records
from gpu_infer.targets.base import Deployment, State
from gpu_infer.targets.calls import ask, call, deadline
from gpu_infer.targets.online import autoscale, compute, endpoints
from gpu_infer.targets.online.inference import kubernetes_scale
from gpu_infer.targets.online.sdk import (
    begin,
    entity,
    finish,
    is_absent,
    is_conflict,
    is_refusal,
    key_of,
    operate,
    seen,
    state_of,
)
from gpu_infer.targets.waiting import Pauses, remove

__all__ = [
    "COLOURS",
    "Incoming",
    "create_deployment",
    "delete_deployment",
    "deployment_of",
    "entry_name",
    "free_name",
    "list_deployments",
    "logs_for_error",
    "logs_of",
    "look",
    "scale",
    "scoring_address",
    "serving_of",
    "wait_ready",
]

COLOURS = ("blue", "green")
"""Names of deployments: the one that serves, and the one that takes its place."""

CONTAINERS = ("storage-initializer", "inference-server")
"""The first copies model and code, the second runs them."""

LOG_LINES = 5000

_STATES: Mapping[str, State] = {
    "Succeeded": "Healthy",
    "Failed": "Failed",
    "Canceled": "Failed",
    "Creating": "Starting",
    "Updating": "Starting",
    "Scaling": "Starting",
}


@dataclass(frozen=True, slots=True)
class Incoming:
    """A deployment that is being made.

    Args:
        endpoint: name of its endpoint.
        name: of the deployment.
        poller: of the SDK, ``None`` where only the state of the deployment tells how far it is.
    """

    endpoint: str
    name: str
    poller: Any | None


def entry_name(endpoint: str, deployment: str) -> str:
    """How the ledger names a deployment."""
    return f"{endpoint}/{deployment}"


def look(client: Any, endpoint: str, name: str, *, twice: bool = False) -> Any | None:
    """The deployment of that name, ``None`` where there is none.

    Args:
        client: of the workspace.
        endpoint: that it belongs to.
        name: of the deployment.
        twice: believe that there is none only where the list of all does not have it either.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """

    def listed() -> Any | None:
        return next((one for one in list_deployments(client, endpoint) if one.name == name), None)

    doing = f"looking for deployment {name!r} of endpoint {endpoint!r}"
    return seen(lambda: client.online_deployments.get(name, endpoint), doing=doing, otherwise=listed if twice else None)


def list_deployments(client: Any, endpoint: str) -> list[Any]:
    """All deployments of an endpoint; none where there is no such endpoint.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    try:
        return ask(lambda: list(client.online_deployments.list(endpoint)))
    except Exception as error:
        if is_absent(error):
            return []
        doing = f"listing the deployments of endpoint {endpoint!r}"
        raise azure_error(error, doing=doing, default=WorkspaceError) from error


def free_name(there: Sequence[Any]) -> str:
    """A name that no deployment of an endpoint has."""
    taken = {one.name for one in there}
    numbered = (f"{colour}-{number}" for number in range(2, 100) for colour in COLOURS)
    return next(name for name in (*COLOURS, *numbered) if name not in taken)


def create_deployment(client: Any, wanted: Any, run: records.Run, *, details: Mapping[str, Any]) -> Incoming:
    """Ask for a deployment, written down before; a lost answer is looked up, a refusal takes the entry back.

    Args:
        client: of the workspace.
        wanted: the SDK's entity.
        run: that creates it.
        details: for the ledger.

    Raises:
        DeploymentError: Azure refused it.
    """
    endpoint: str = wanted.endpoint_name
    name: str = wanted.name
    entry = records.begin(key_of(client), records.DEPLOYMENT, entry_name(endpoint, name), run, details)
    emit(Event(endpoint, "create_deployment", "start", name))
    try:
        poller = begin(client.online_deployments.begin_create_or_update, wanted)
    except Exception as error:
        doing = f"creating deployment {name!r} of endpoint {endpoint!r}"
        typed = azure_error(error, doing=doing, default=DeploymentError)
        try:
            found = look(client, endpoint, name, twice=True)
        except WorkspaceError:
            raise typed from error  # the entry stays: it may exist
        if found is not None and records.read_tags(found.tags).get("run") == run.id:
            if state_of(found) != "Failed":
                return Incoming(endpoint, name, None)  # our request was done, and its answer lost
            records.settle(entry, state="failed")
        elif is_refusal(error) or found is not None:
            records.forget(entry)  # refused, or somebody else was quicker with the name
        else:
            records.settle(entry, state="failed")
        raise typed from error
    return Incoming(endpoint, name, poller)


def wait_ready(client: Any, incoming: Incoming, *, timeout: float, doing: str = "starting") -> Any:
    """Wait until a deployment is there and healthy.

    Args:
        client: of the workspace.
        incoming: what is waited for.
        timeout: seconds.
        doing: what is waited for, for the message of an error.

    Returns:
        the SDK's deployment.

    Raises:
        DeploymentError: it failed, with the logs of its containers and the traceback of its script.
        DeploymentTimeoutError: it was not ready in time.
    """
    left = deadline(timeout)
    words = f"{doing} service {incoming.endpoint!r}"
    logs = functools.partial(logs_for_error, client, incoming.endpoint, incoming.name)
    if incoming.poller is not None:
        finish(
            incoming.poller,
            incoming.endpoint,
            what="service",
            doing=words,
            left=left,
            default=DeploymentError,
            late=DeploymentTimeoutError,
            logs=logs,
        )
    found = _wait_for_state(client, incoming, left, words, logs)
    emit(Event(incoming.endpoint, "healthy", "ok", incoming.name))
    autoscale.follow(client, found)
    return found


def _wait_for_state(
    client: Any, incoming: Incoming, left: Callable[[], float], words: str, logs: Callable[[], str]
) -> Any:
    """Poll with the public getter until the deployment has a state that does not pass."""
    pauses = Pauses()
    while True:
        try:
            found = look(client, incoming.endpoint, incoming.name)
            pauses.succeeded()
        except WorkspaceError:
            if pauses.failed():
                raise
            pauses.sleep(left, what=f"deployment {incoming.name!r} cannot be seen", error=DeploymentTimeoutError)
            continue
        state = "absent" if found is None else state_of(found)
        if state == "Succeeded":
            return found
        if state in ("Failed", "Canceled", "absent", "Deleting"):
            text = f"The deployment {incoming.name!r} is {state}."
            raise azure_error(None, doing=words, default=DeploymentError, text=text, logs=logs())
        if not left():
            raise azure_error(
                None, doing=f"{words} in time", default=DeploymentTimeoutError, text=f"It is {state}.", logs=logs()
            )
        emit(Event(incoming.endpoint, "service", "start", state))
        pauses.sleep(lambda: max(left(), 0.01), what="", error=DeploymentError)


def scale(client: Any, deployment: Any, wanted: Scale, *, timeout: float) -> None:
    """Change how many instances a deployment has, or leave that to the load, and wait for them.

    Raises:
        DeploymentError: Azure refused it, or they did not start.
    """
    endpoint: str = deployment.endpoint_name
    name: str = deployment.name
    if is_kubernetes(deployment):
        deployment.scale_settings = kubernetes_scale(wanted) or entity("DefaultScaleSettings")()
    else:
        if wanted.max_replicas is None:
            autoscale.stop(client, deployment)
        deployment.tags = autoscale.retagged(deployment, wanted)
    deployment.instance_count = min(max(deployment.instance_count or 1, wanted.replicas), wanted.most)
    try:
        poller = begin(client.online_deployments.begin_create_or_update, deployment)
    except Exception as error:
        raise azure_error(error, doing=f"scaling service {endpoint!r}", default=DeploymentError) from error
    wait_ready(client, Incoming(endpoint, name, poller), timeout=timeout, doing="scaling")
    entry = records.find(key_of(client), records.DEPLOYMENT, entry_name(endpoint, name))
    if entry is not None and price_of(deployment):
        records.settle(entry, nodes=deployment.instance_count)


def delete_deployment(client: Any, endpoint: str, name: str, *, timeout: float) -> None:
    """Delete a deployment that gets no traffic, and see that it is gone.

    Raises:
        TeardownError: it is still there.
    """
    doing = f"deleting deployment {name!r} of endpoint {endpoint!r}"

    def delete(_: Any) -> None:
        operate(
            client.online_deployments.begin_delete,
            name,
            endpoint,
            name=endpoint,
            what="delete_deployment",
            doing=doing,
            seconds=timeout,
            error=TeardownError,
        )

    remove(
        f"deployment {name!r} of endpoint {endpoint!r}",
        look=functools.partial(look, client, endpoint, name, twice=True),
        delete=delete,
        is_going=lambda deployment: state_of(deployment) == "Deleting",
        is_conflict=is_conflict,
        timeout=timeout,
    )


def logs_of(client: Any, endpoint: str, names: Sequence[str]) -> str:
    """What the containers of deployments have written, both of each.

    Raises:
        WorkspaceError: they cannot be had.
    """
    parts: list[str] = []
    for name in names:
        for container in CONTAINERS:
            text = call(
                client.online_deployments.get_logs,
                name,
                endpoint,
                LOG_LINES,
                container_type=container,
                doing=f"fetching the logs of deployment {name!r} of endpoint {endpoint!r}",
                default=WorkspaceError,
            )
            if (text or "").strip():
                parts.append(f"--- {name}: {container} ---\n{text.rstrip()}\n")
    return "\n".join(parts)


def logs_for_error(client: Any, endpoint: str, name: str) -> str:
    """The logs, or nothing where they cannot be had: the error that they are for says more than why."""
    try:
        return logs_of(client, endpoint, [name])
    except GpuInferError as error:
        emit(Event(endpoint, "logs", "warning", f"its logs are not to be had: {error}"))
        return ""


def deployment_of(client: Any, endpoint: Any, there: Sequence[Any], entry: Entry | None) -> Deployment:
    """An endpoint with its deployments as one ``Deployment``: what its tags tell, and what the ledger adds."""
    known = records.read_tags(endpoint.tags)
    for one in there:
        # Where another process has deployed it: Azure knows the variables, and what the service says may name them.
        remember_secrets(one.environment_variables or {})
    serving = serving_of(endpoint, there)
    details: Mapping[str, Any] = entry.details if entry else {}
    timeout_ms: Any = serving.request_settings.request_timeout_ms if serving and serving.request_settings else None
    of_serving = records.read_tags(serving.tags if serving else None)
    own_script: bool = of_serving.get("own_script", known.get("own_script", True))
    kserve = serving is not None and serving.code_configuration is None
    return Deployment(
        name=endpoint.name,
        state=_state(endpoint, there, serving),
        scoring_uri=scoring_address(endpoint, kserve=kserve),
        price_per_hour=sum(price_of(one) for one in there),
        cluster=compute.name_of(endpoint),
        model=_model_of(serving) if serving else "",
        created=entry.created if entry else known.get("created", 0.0),
        expires=entry.expires if entry else known.get("expires"),
        kept=bool(details["kept"]) if entry else known.get("kept", True),
        timeout=(timeout_ms or 60_000) / 1000,
        own_script=own_script or kserve,
        kserve=kserve,
        made=of_serving.get("made", ""),
        credential=endpoints.credential_of(client, endpoint),
        raw=endpoint,
    )


def serving_of(endpoint: Any, there: Sequence[Any]) -> Any | None:
    """The deployment that has most of the traffic; without any traffic, the newest that there is."""
    traffic = endpoints.traffic_of(endpoint)
    by_share = sorted(there, key=lambda one: traffic.get(one.name.lower(), 0))
    return by_share[-1] if by_share else None


def is_kubernetes(deployment: Any) -> bool:
    """Whether a deployment runs on a cluster of the user's."""
    return "kubernetes" in str(deployment.type or "").lower()


def scoring_address(endpoint: Any, *, kserve: bool) -> str:
    """Where requests go: Triton has paths of its own beside the one that Azure names."""
    uri: str = endpoint.scoring_uri or ""
    return uri.removesuffix("/score") if kserve else uri


def price_of(deployment: Any) -> float:
    """US dollars per hour of a deployment; 0 on Kubernetes, where the cluster is billed, and for unknown sizes."""
    if is_kubernetes(deployment):
        return 0.0
    return records.cluster_price(deployment.instance_type or "", int(deployment.instance_count or 0))


# --- inside -----------------------------------------------------------------------------------------------------------


def _state(endpoint: Any, there: Sequence[Any], serving: Any | None) -> State:
    if state_of(endpoint) in ("Failed", "Canceled"):
        return "Failed"
    if serving is None:
        return "Parked" if state_of(endpoint) == "Succeeded" else "Starting"
    states = {state_of(one) for one in there}
    state = _STATES.get(state_of(serving), "Starting")
    traffic = endpoints.traffic_of(endpoint)
    if state == "Healthy" and not traffic.get(serving.name.lower()):
        return "Failed" if states <= {"Failed"} else "Starting"
    return state


def _model_of(deployment: Any) -> str:
    """``net:1`` of the address of a model's version."""
    given = deployment.model
    text = given if isinstance(given, str) else getattr(given, "id", "") or ""
    name, found, version = text.rpartition("/versions/")
    return f"{name.rsplit('/', 1)[-1]}:{version}" if found else text.removeprefix("azureml:")
