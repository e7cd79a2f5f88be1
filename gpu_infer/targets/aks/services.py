"""Web services on AKS: look, create, wait, delete, and what they say of themselves."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

from gpu_infer.blotting import remember_secrets
from gpu_infer.bundle import Bundle
from gpu_infer.client.tokens import AccessToken, KeyPair
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import (
    DeploymentError,
    DeploymentTimeoutError,
    Finding,
    PreflightError,
    ServiceNotFoundError,
    TeardownError,
    WorkspaceError,
)
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.targets import records
from gpu_infer.targets.aks.inference import Properties, inference_config
from gpu_infer.targets.aks.sdk import is_absent, is_conflict, is_refusal, sdk
from gpu_infer.targets.base import Deployment, State
from gpu_infer.targets.calls import ask, call, deadline
from gpu_infer.targets.waiting import Pauses, remove

__all__ = [
    "add_tags",
    "change",
    "create_service",
    "credential_of",
    "delete_service",
    "deployment_of",
    "list_services",
    "logs_of",
    "look",
    "wait_healthy",
]

_STATES: Mapping[str, State] = {
    "Healthy": "Healthy",
    "Unhealthy": "Unhealthy",
    "Failed": "Failed",
    "Unschedulable": "Failed",
    "Transitioning": "Starting",
}


def look(workspace: Any, name: str, *, twice: bool = False) -> Any | None:
    """The web service of that name, ``None`` where there is none.

    Args:
        workspace: where.
        name: of the service.
        twice: believe that there is none only where the list of all does not have it either.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    webservice = sdk("azureml.core.Webservice")
    try:
        return ask(webservice, workspace, name)
    except Exception as error:
        if not is_absent(error):
            raise azure_error(error, doing=f"looking for service {name!r}", default=WorkspaceError) from error
    listed = list_services(workspace) if twice else []
    return next((one for one in listed if one.name == name), None)


def list_services(workspace: Any, *, cluster: str | None = None) -> list[Any]:
    """The AKS services of a workspace, or those on one cluster.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    listed = call(
        sdk("azureml.core.Webservice").list,
        workspace,
        compute_type="AKS",
        doing="listing the services",
        default=WorkspaceError,
    )
    return [service for service in listed if cluster in (None, service.compute_name)]


def gpus_taken(services: list[Any], *, but: str) -> int:
    """GPUs that services hold, at their greatest number of replicas."""
    taken = 0
    for service in services:
        needs = service.container_resource_requirements
        if service.name == but or needs is None or not needs.gpu:
            continue
        scaler: Any = service.autoscaler
        autoscaled = bool(scaler and scaler.autoscale_enabled)
        taken += int(needs.gpu) * int((scaler.max_replicas if autoscaled else service.num_replicas) or 1)
    return taken


def create_service(
    workspace: Any,
    name: str,
    *,
    model: Any,
    bundle: Bundle,
    base_image: str,
    cluster: Any,
    arguments: Mapping[str, Any],
    run: records.Run,
    overwrite: bool,
    details: Mapping[str, Any],
) -> Any:
    """Create the service, written down before; a lost answer is looked up, a refusal takes the entry back.

    Raises:
        PreflightError: the name is taken.
        DeploymentError: Azure refused it.
    """
    key = records.workspace_key(workspace)
    existing = look(workspace, name)
    if existing is not None and not overwrite:
        message = f"A service {name!r} exists already in workspace {workspace.name!r}."
        fix = f"Use overwrite=True, another name, or gpu_infer.attach({name!r}, workspace)."
        raise PreflightError([Finding("error", "name-taken", message, fix)])
    configuration = call(
        sdk("azureml.core.webservice.AksWebservice").deploy_configuration,
        **arguments,
        doing=f"configuring service {name!r}",
        default=DeploymentError,
    )
    inference = inference_config(bundle, base_image=base_image)
    entry = records.begin(key, records.SERVICE, name, run, {**details, "existed": existing is not None})
    emit(Event(name, "create_service", "start"))
    try:
        return ask(
            sdk("azureml.core.Model").deploy,
            workspace,
            name,
            [model],
            inference,
            configuration,
            cluster,
            overwrite=overwrite,
        )
    except Exception as error:
        typed = azure_error(error, doing=f"creating service {name!r}", default=DeploymentError)
        try:
            found = look(workspace, name, twice=True)
        except WorkspaceError:
            raise typed from error  # the entry stays: it may exist
        properties: dict[str, str] = (found.properties if found is not None else None) or {}
        if properties.get("gpu-infer-run") == run.id:
            return found  # our request was done, and its answer lost
        if is_refusal(error) or (found is not None and existing is None):
            records.forget(entry)  # refused, or somebody else was quicker with the name
        else:
            records.settle(entry, state="failed")
        raise typed from error


def change(service: Any, *, doing: str = "updating", **arguments: Any) -> None:
    """``AksWebservice.update``, which returns when Azure has begun.

    Raises:
        DeploymentError: Azure refuses it.
    """
    # Never without properties: the SDK would send those of the Git repository that it finds itself in.
    run = records.read_tags(service.tags).get("run", "")
    given: dict[str, Any] = {"properties": Properties({"gpu-infer-run": run}), **arguments}
    call(service.update, **given, doing=f"{doing} service {service.name!r}", default=DeploymentError)


def add_tags(service: Any, tags: Mapping[str, str]) -> None:
    """Add tags to a service, or change them."""
    change(service, doing="noting how long it lives on", tags={**(service.tags or {}), **tags})


def wait_healthy(service: Any, name: str, *, timeout: float, doing: str = "starting") -> Any:
    """Poll with the public getter until the service is healthy.

    Args:
        service: of the SDK.
        name: of it.
        timeout: seconds.
        doing: what is waited for, for the message of an error.

    Raises:
        DeploymentError: it failed, with its logs and the traceback of its script.
        DeploymentTimeoutError: it was not healthy in time.
    """
    left = deadline(timeout)
    pauses = Pauses()
    began = time.monotonic()
    while True:
        try:
            ask(service.update_deployment_state)
            pauses.succeeded()
        except Exception as error:
            typed = azure_error(error, doing=f"waiting for service {name!r}", default=DeploymentError)
            if is_absent(error) or pauses.failed():
                raise typed from error
        if service.state == "Healthy":
            emit(Event(name, "healthy", "ok", service.scoring_uri or ""))
            return service
        if service.state in ("Failed", "Unschedulable") or (service.state == "Unhealthy" and service.error):
            emit(Event(name, "service", "failed", str(service.state)))
            raise azure_error(
                None,
                doing=f"{doing} service {name!r}",
                default=DeploymentError,
                text=f"The service is {service.state}. {_words(service.error)}",
                logs=logs_of(service, missing=""),
            )
        if not left():
            raise azure_error(
                None,
                doing=f"{doing} service {name!r} within {timeout:g} s",
                default=DeploymentTimeoutError,
                text=_words(service.error),
                logs=logs_of(service, missing=""),
                crashed=doing == "starting",
            )
        emit(Event(name, "service", "start", f"{service.state}, {time.monotonic() - began:.0f} s"))
        pauses.sleep(lambda: max(left(), 0.01), what="", error=DeploymentError)


def delete_service(workspace: Any, name: str, *, timeout: float) -> None:
    """Delete a service and see that it is gone.

    Raises:
        TeardownError: it is still there.
    """
    remove(
        f"service {name!r}",
        look=functools.partial(look, workspace, name, twice=True),
        delete=lambda service: call(service.delete, doing=f"deleting service {name!r}", default=TeardownError),
        is_going=lambda service: service.state == "Deleting",
        is_conflict=is_conflict,
        timeout=timeout,
    )


def logs_of(service: Any, *, missing: str | None = None) -> str:
    """What the containers of a service have written, those that ended included.

    Args:
        service: of the SDK.
        missing: what to give where Azure has no logs; ``None`` raises instead.

    Raises:
        WorkspaceError: they cannot be had.
    """
    try:
        return (
            call(service.get_logs, doing=f"fetching the logs of service {service.name!r}", default=WorkspaceError) or ""
        )
    except WorkspaceError:
        if missing is None:
            raise
        return missing


def credential_of(service: Any) -> Callable[[], KeyPair | AccessToken]:
    """Gives both keys or the token of a service, fetched anew each time it is asked.

    Both, so that a client goes on while another process replaces one after the other.

    What it gives raises ``ServiceNotFoundError`` where the service has been deleted meanwhile.
    """

    def ask_azure() -> KeyPair | AccessToken:
        if not service.token_auth_enabled:
            doing = f"fetching the keys of {service.name!r}"
            return KeyPair(*call(service.get_keys, doing=doing, default=WorkspaceError))
        doing = f"fetching a token of {service.name!r}"
        token = call(service.get_access_token, doing=doing, default=WorkspaceError)
        # The SDK's times have no zone, and are this machine's.
        return AccessToken(token.access_token, token.expiry_on.timestamp(), token.refresh_after.timestamp())

    def fetch() -> KeyPair | AccessToken:
        try:
            return ask_azure()
        except WorkspaceError as error:
            if error.status != HTTPStatus.NOT_FOUND or look(service.workspace, service.name, twice=True) is not None:
                raise
            message = (
                f"Service {service.name!r} is gone: it has been deleted. gpu_infer.services(workspace) lists what "
                "there is."
            )
            raise ServiceNotFoundError(message) from error

    return fetch


def deployment_of(service: Any, entry: Entry | None) -> Deployment:
    """A service of the SDK as a ``Deployment``: what its tags tell, and what the ledger adds."""
    known = records.read_tags(service.tags)
    # Where another process has deployed it: Azure knows the variables, and what the service says may name them.
    remember_secrets(getattr(service.environment, "environment_variables", None) or {})
    details: Mapping[str, Any] = entry.details if entry else {}
    models = [f"{model.name}:{model.version}" for model in cast("list[Any]", service.models or [])]
    expires = entry.expires if entry else known.get("expires")
    return Deployment(
        name=service.name,
        state=_STATES.get(service.state or "", "Starting"),
        scoring_uri=service.scoring_uri or "",
        cluster=service.compute_name or "",
        price_per_hour=records.cluster_price(known.get("vm_size", ""), known.get("nodes", 0)),
        model=details.get("model") or ", ".join(models),
        created=entry.created if entry else known.get("created", 0.0),
        expires=expires,
        kept=bool(details["kept"]) if entry else known.get("kept", True),
        timeout=(service.scoring_timeout_ms or 60_000) / 1000,
        own_script=known.get("own_script", True),
        made=known.get("run", ""),
        credential=credential_of(service) if service.auth_enabled or service.token_auth_enabled else None,
        raw=service,
    )


def _words(error: Any) -> str:
    """Azure's error as text, with nothing cut off: the causes stand in its details."""
    if not error:
        return ""
    return json.dumps(error) if isinstance(error, dict | list) else str(error)
