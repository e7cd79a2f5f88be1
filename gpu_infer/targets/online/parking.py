"""Parking: the deployments of an endpoint go, so that nothing is billed; its address and keys stay.

What has served is kept as a file of this machine, in the form of ``azure-ai-ml`` itself, and deployed again from it:
model, environment and code lie in the workspace. Values of variables that the user has set may be secrets, so the file
has their names alone.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_infer.errors import DeploymentError, Finding, PreflightError, UnsupportedError, WorkspaceError
from gpu_infer.ledger import state_folder
from gpu_infer.progress import Event, emit
from gpu_infer.targets import records
from gpu_infer.targets.calls import call
from gpu_infer.targets.online import deployments, endpoints, removing
from gpu_infer.targets.online.sdk import key_of, sdk, state_of, workspace_path

__all__ = ["forget", "park", "refuse_parked", "unpark"]

_OURS = ("GUNICORN_CMD_ARGS", "SCORING_TIMEOUT_MS", "TF_FORCE_GPU_ALLOW_GROWTH", "WORKER_COUNT", "WORKER_TIMEOUT")
"""Variables that the library sets itself: no secret is among them."""


def park(client: Any, name: str) -> None:
    """Write down what serves, take the traffic off it, and delete all deployments; without any, nothing is done.

    Raises:
        DeploymentError: the traffic could not be taken off.
        TeardownError: a deployment is still there, and billed.
    """
    endpoint = endpoints.look(client, name, twice=True)
    there = deployments.list_deployments(client, name) or _by_the_ledger(client, name)
    serving = deployments.serving_of(endpoint, there) if endpoint is not None else None
    if serving is None:
        emit(Event(name, "park", "ok", "it is parked already, and nothing of it is billed"))
        return
    _write(client, name, serving)
    names = [one.name for one in there]
    known = [records.find(key_of(client), records.DEPLOYMENT, deployments.entry_name(name, one)) for one in names]
    emit(Event(name, "park", "start"))
    going = records.take_over([entry for entry in known if entry is not None], state="deleting")
    try:
        endpoints.send_traffic(client, name, {})
        for one in names:
            removing.drop_deployment(client, name, one)
    except BaseException:
        records.settle_all(going, state="failed")  # given up, so the next sweep() has it
        raise
    emit(Event(name, "park", "ok", "nothing of it is billed; its address and keys stay"))


def unpark(client: Any, name: str, run: records.Run, *, variables: Mapping[str, str], timeout: float) -> None:
    """Deploy again what was parked, and let it have the requests; where something has them already, nothing is done.

    Args:
        client: of the workspace.
        name: of the endpoint.
        run: that the deployment is made by; what it has made is removed again where it fails.
        variables: values that are kept nowhere.
        timeout: seconds.

    Raises:
        PreflightError: nothing was parked from this machine, or a variable has no value.
        DeploymentError: it does not start; the endpoint stays parked.
    """
    if _serves(client, name):
        emit(Event(name, "unpark", "ok", "it serves already"))
        return
    entity = _read(client, name, variables)
    entity.name = deployments.free_name(deployments.list_deployments(client, name))
    entity.tags = {**(entity.tags or {}), **records.run_tag(run, entity.tags)}
    managed = not isinstance(entity, sdk("azure.ai.ml.entities.KubernetesOnlineDeployment"))
    nodes = {"vm_size": entity.instance_type, "nodes": int(entity.instance_count or 0)} if managed else _NOT_BILLED
    try:
        incoming = deployments.create_deployment(client, entity, run, details={"attached": False, **nodes})
        deployments.wait_ready(client, incoming, timeout=timeout)
        endpoints.send_traffic(client, name, {entity.name: 100})
    except BaseException as error:
        removing.roll_back(client, run, error)
        raise
    made = [one for one in records.entries(key_of(client)) if one.details["run"] == run.id]
    records.settle_all(made, state="live")
    forget(client, name)


def refuse_parked(name: str, there: Sequence[Any]) -> None:
    """Raise where a service has no deployment that could be changed.

    Raises:
        UnsupportedError: there is none.
    """
    if not there:
        message = f"Service {name!r} is parked: it has no instances to change. Bring it back first: unpark()."
        raise UnsupportedError(message)


def forget(client: Any, name: str) -> None:
    """Remove what was written down: it serves again, or is gone."""
    for suffix in (".yml", ".json"):
        _file(client, name).with_suffix(suffix).unlink(missing_ok=True)


# --- inside -----------------------------------------------------------------------------------------------------------

_NOT_BILLED = {"vm_size": "", "nodes": 0}
"""On Kubernetes the cluster is."""


def _serves(client: Any, name: str) -> bool:
    """Whether requests are answered: a deployment that has not failed gets them."""
    endpoint = endpoints.look(client, name)
    there = deployments.list_deployments(client, name)
    serving = deployments.serving_of(endpoint, there) if endpoint is not None else None
    if serving is None or state_of(serving) in ("Failed", "Canceled"):
        return False
    return bool(endpoints.traffic_of(endpoint).get(serving.name.lower()))


def _read(client: Any, name: str, variables: Mapping[str, str]) -> Any:
    """The SDK's deployment as it was, with the variables that are given now."""
    file = _file(client, name)
    if not file.is_file():
        message = f"What has served as {name!r} is not known on this machine: it was not parked from here."
        fix = f"Deploy it again, at the same address: deploy(model, ml_client, name={name!r}, overwrite=True)."
        raise PreflightError([Finding("error", "not-parked", message, fix)])
    needed: list[str] = json.loads(file.with_suffix(".json").read_text("utf-8"))
    missing = [one for one in needed if one not in variables]
    if missing:
        message = f"Service {name!r} had variables whose values are kept nowhere: {', '.join(missing)}."
        raise PreflightError([Finding("error", "variables", message, "Give them as environment_variables={...}.")])
    load = sdk("azure.ai.ml.load_online_deployment")
    entity = call(_unwarned, load, str(file), doing=f"reading what was parked as {name!r}", default=WorkspaceError)
    entity.environment_variables = {**(entity.environment_variables or {}), **variables}
    return entity


def _by_the_ledger(client: Any, name: str) -> list[Any]:
    """The deployments that the ledger knows, asked for one by one: a list may be wrong once, and these are billed."""
    known = [entry.name.partition("/")[2] for entry in removing.deployments_below(client, name)]
    looked = [deployments.look(client, name, one) for one in known]
    return [found for found in looked if found is not None]


def _file(client: Any, name: str) -> Path:
    return state_folder() / "parked" / workspace_path(client) / f"{name}.yml"


def _write(client: Any, name: str, deployment: Any) -> None:
    """Into a file beside, then moved: killed in between, an earlier one is still whole."""
    file = _file(client, name)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    variables: dict[str, str] = deployment.environment_variables or {}
    deployment.environment_variables = {key: value for key, value in variables.items() if key in _OURS}
    secret = sorted(set(variables) - set(_OURS))
    new = file.with_suffix(f".{os.getpid()}.yml")
    new.unlink(missing_ok=True)
    call(_unwarned, deployment.dump, str(new), doing=f"writing down what serves as {name!r}", default=DeploymentError)
    file.with_suffix(".json").write_text(json.dumps(secret) + "\n", "utf-8")
    new.replace(file)


def _unwarned(function: Callable[[str], Any], path: str) -> Any:
    """The SDK warns of what it does itself with marshmallow: some turn warnings into errors."""
    with warnings.catch_warnings(action="ignore"):
        return function(path)
