"""Online endpoints: look, create, send traffic, keys, delete."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from gpu_infer.client.tokens import AccessToken, KeyPair
from gpu_infer.errors import DeploymentError, GpuInferError, ServiceNotFoundError, TeardownError, WorkspaceError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.spec import ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.calls import call, call_timeout, deadline
from gpu_infer.targets.online.sdk import entity, is_conflict, is_refusal, key_of, operate, seen, state_of
from gpu_infer.targets.waiting import Pauses, remove

__all__ = [
    "change",
    "create_endpoint",
    "credential_of",
    "delete_endpoint",
    "is_kubernetes",
    "list_endpoints",
    "look",
    "rotate_keys",
    "send_traffic",
    "traffic_of",
]

_AUTH_MODES = {"key": "key", "token": "aml_token"}


def look(client: Any, name: str, *, twice: bool = False) -> Any | None:
    """The endpoint of that name, ``None`` where there is none.

    Args:
        client: of the workspace.
        name: of the endpoint.
        twice: believe that there is none only where the list of all does not have it either.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """

    def listed() -> Any | None:
        return next((one for one in list_endpoints(client) if one.name == name), None)

    doing = f"looking for endpoint {name!r}"
    return seen(lambda: client.online_endpoints.get(name), doing=doing, otherwise=listed if twice else None)


def list_endpoints(client: Any) -> list[Any]:
    """All online endpoints of the workspace.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    return call(
        lambda: list(client.online_endpoints.list()), doing="listing the online endpoints", default=WorkspaceError
    )


def create_endpoint(
    client: Any, spec: ServiceSpec, run: records.Run, *, tags: Mapping[str, str], details: Mapping[str, Any]
) -> Any:
    """Create the endpoint of a service, written down before; a lost answer is looked up.

    Args:
        client: of the workspace.
        spec: of the service; with a cluster the endpoint is one of Kubernetes.
        run: that it is created by.
        tags: of the endpoint.
        details: for the ledger.

    Raises:
        DeploymentError: Azure refused it.
    """
    entry = records.begin(key_of(client), records.SERVICE, spec.name, run, details)
    emit(Event(spec.name, "create_endpoint", "start"))
    options: dict[str, Any] = {
        "name": spec.name,
        "auth_mode": _AUTH_MODES[spec.auth],
        "tags": dict(tags),
        "properties": {**spec.properties, "gpu-infer-run": run.id},
    }
    try:
        wanted = (
            entity("ManagedOnlineEndpoint")(**options)
            if spec.cluster is None
            else entity("KubernetesOnlineEndpoint")(**options, compute=spec.cluster.name)
        )
    except BaseException:
        records.forget(entry)  # nothing was sent
        raise
    doing = f"creating endpoint {spec.name!r}"
    try:
        operate(
            client.online_endpoints.begin_create_or_update,
            wanted,
            name=spec.name,
            what="endpoint",
            doing=doing,
            seconds=call_timeout(),
            error=DeploymentError,
        )
    except GpuInferError as error:
        _after_failure(client, entry, run, error)
    emit(Event(spec.name, "create_endpoint", "ok"))
    return _seen(client, spec.name)


def _after_failure(client: Any, entry: Entry, run: records.Run, error: GpuInferError) -> None:
    """Look what a request has done whose answer is an error: nothing is raised where it was done all the same.

    Raises:
        GpuInferError: it was not.
    """
    try:
        found = _look_until_settled(client, entry.name)
    except WorkspaceError:
        raise error from error.__cause__  # the entry stays: it may exist
    ours = found is not None and records.read_tags(found.tags).get("run") == run.id
    if ours and state_of(found) == "Succeeded":
        return
    if not ours and (found is not None or (error.__cause__ is not None and is_refusal(error.__cause__))):
        records.forget(entry)  # refused, or somebody else was quicker with the name
    else:
        records.settle(entry, state="failed")
    raise error from error.__cause__


def _look_until_settled(client: Any, name: str) -> Any | None:
    """The endpoint once Azure does not work on it any more, or when that takes too long; ``None``: there is none."""
    left, pauses = deadline(call_timeout()), Pauses()
    while True:
        found = look(client, name, twice=True)
        if found is None or state_of(found) not in ("Creating", "Updating") or not left():
            return found
        pauses.sleep(lambda: max(left(), 0.01), what="", error=WorkspaceError)


def send_traffic(client: Any, name: str, traffic: Mapping[str, int], *, mirror: Mapping[str, int] | None = None) -> Any:
    """Let deployments of an endpoint have its requests, each so many in a hundred.

    Args:
        client: of the workspace.
        name: of the endpoint.
        traffic: per cent by the names of deployments.
        mirror: per cent of the requests that a deployment gets a copy of.

    Returns:
        the endpoint as it is then.

    Raises:
        DeploymentError: Azure refused it.
    """
    said = ", ".join(f"{share} % to {deployment}" for deployment, share in traffic.items() if share) or "none"
    emit(Event(name, "traffic", "start", said))
    return change(
        client,
        name,
        doing=f"moving the traffic of endpoint {name!r}",
        traffic={deployment: share for deployment, share in traffic.items() if share},
        mirror_traffic=dict(mirror or {}),
    )


def change(client: Any, name: str, *, doing: str, **attributes: Any) -> Any:
    """Change attributes of an endpoint. Read first: what a request leaves out, Azure empties.

    Raises:
        DeploymentError: Azure refused it.
    """
    endpoint = _seen(client, name)
    for attribute, value in attributes.items():
        setattr(endpoint, attribute, value)
    operate(
        client.online_endpoints.begin_create_or_update,
        endpoint,
        name=name,
        what="endpoint",
        doing=doing,
        seconds=call_timeout(),
        error=DeploymentError,
    )
    return _seen(client, name)


def delete_endpoint(client: Any, name: str, *, timeout: float) -> None:
    """Delete an endpoint, with all its deployments, and see that it is gone.

    Raises:
        TeardownError: it is still there.
    """
    doing = f"deleting endpoint {name!r}"

    def delete(_: Any) -> None:
        operate(
            client.online_endpoints.begin_delete,
            name,
            name=name,
            what="delete_endpoint",
            doing=doing,
            seconds=timeout,
            error=TeardownError,
        )

    remove(
        f"endpoint {name!r}",
        look=functools.partial(look, client, name, twice=True),
        delete=delete,
        is_going=lambda endpoint: state_of(endpoint) == "Deleting",
        is_conflict=is_conflict,
        timeout=timeout,
    )


def rotate_keys(client: Any, name: str) -> None:
    """Replace both keys, and see that they are others.

    Raises:
        GpuInferError: Azure refused it, or has kept a key.
    """
    before = _keys(client, name)
    for which in ("primary", "secondary"):
        doing = f"replacing the {which} key of endpoint {name!r}"
        operate(
            client.online_endpoints.begin_regenerate_keys,
            name,
            key_type=which,
            name=name,
            what="rotate_keys",
            doing=doing,
            seconds=call_timeout(),
            error=GpuInferError,
        )
    after = _keys(client, name)
    kept = [which for which in ("primary_key", "secondary_key") if getattr(before, which) == getattr(after, which)]
    if kept:
        message = (
            f"Azure has accepted the request to replace the keys of endpoint {name!r}, and the "
            f"{' and the '.join(kept).replace('_', ' ')} stayed the same. Replace them in the portal."
        )
        raise GpuInferError(message)


def traffic_of(endpoint: Any) -> dict[str, int]:
    """Per cent of the requests by the names of deployments, in lower case; those without any are left out."""
    shares: dict[str, int] = endpoint.traffic or {}
    return {name.lower(): share for name, share in shares.items() if share}


def is_kubernetes(endpoint: Any) -> bool:
    """Whether an endpoint's deployments run on a cluster of the user's, instead of Azure ML's own machines."""
    return bool(getattr(endpoint, "compute", None))


def credential_of(client: Any, endpoint: Any) -> Callable[[], KeyPair | AccessToken]:
    """Gives both keys or a token of an endpoint, fetched anew each time it is asked.

    Both, so that a client goes on while another process replaces one after the other. What it gives raises
    ``ServiceNotFoundError`` where the endpoint has been deleted meanwhile.
    """
    name: str = endpoint.name

    def fetch() -> KeyPair | AccessToken:
        try:
            found = _keys(client, name)
        except WorkspaceError as error:
            if error.status != HTTPStatus.NOT_FOUND or look(client, name, twice=True) is not None:
                raise
            message = (
                f"Endpoint {name!r} is gone: it has been deleted. gpu_infer.services(ml_client) lists what there is."
            )
            raise ServiceNotFoundError(message) from error
        if getattr(found, "primary_key", None):
            return KeyPair(found.primary_key, found.secondary_key)
        expires = float(getattr(found, "expiry_time_utc", 0) or 0)
        refresh = float(getattr(found, "refresh_after_time_utc", 0) or 0)
        return AccessToken(found.access_token, expires, refresh or expires)

    return fetch


# --- inside -----------------------------------------------------------------------------------------------------------


def _keys(client: Any, name: str) -> Any:
    return call(
        client.online_endpoints.get_keys, name, doing=f"fetching the keys of endpoint {name!r}", default=WorkspaceError
    )


def _seen(client: Any, name: str) -> Any:
    return call(client.online_endpoints.get, name, doing=f"looking at endpoint {name!r}", default=WorkspaceError)
