"""A new deployment takes the place of the old one, by steps, and only as long as it answers."""

from __future__ import annotations

import functools
import time
from typing import Any, Literal

from gpu_infer.blotting import blotted
from gpu_infer.client import ScoringClient
from gpu_infer.client.inputs import encode
from gpu_infer.client.kserve_service import kserve_inputs
from gpu_infer.diagnose import last_traceback, tail
from gpu_infer.errors import (
    DeploymentError,
    Finding,
    GpuInferError,
    PreflightError,
    ScoringError,
    ServiceNotFoundError,
)
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.samples import made_up
from gpu_infer.spec import Rollout, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.online import deployments, endpoints, removing
from gpu_infer.targets.online.sdk import key_of

__all__ = ["REPLACE", "check_golden", "retire", "serve_what_is_ready", "take_over"]

REPLACE = Rollout(steps=(100,), pause=3.0)
"""How ``deploy(overwrite=True)`` replaces what is there: at once, when the new one is ready and answers."""

GOLDEN_SECONDS = 120.0
"""For one golden request, its retries included."""


def check_golden(spec: ServiceSpec, rollout: Rollout) -> None:
    """Encode the golden items as they will be sent: what cannot be is found before anything is created.

    Raises:
        PreflightError: an item that is no file, or of no type that can be sent.
    """
    codec = _codec_of(spec)
    findings: list[Finding] = []
    for at, item in enumerate(rollout.golden):
        try:
            if codec == "kserve":
                kserve_inputs(item, one=False, max_side=None)
            else:
                encode(item, codec)
        except ScoringError as error:
            message = f"Golden item {at} cannot be sent, so nothing was created: {error}"
            findings.append(Finding("error", "golden", message))
    if findings:
        raise PreflightError(findings)


def take_over(client: Any, spec: ServiceSpec, new: str, rollout: Rollout) -> None:
    """Move the traffic of an endpoint to a deployment that is ready; ``retire()`` then deletes the others.

    Where it does not answer, the traffic goes back to where it was and the new deployment is deleted.

    Args:
        client: of the workspace.
        spec: of the service.
        new: name of the deployment.
        rollout: how.

    Raises:
        DeploymentError: the new one does not answer; the old one serves on.
        ServiceNotFoundError: there is no such endpoint any more.
    """
    endpoint = endpoints.look(client, spec.name, twice=True)
    if endpoint is None:
        message = f"Endpoint {spec.name!r} is gone: it has been deleted while its deployment {new!r} was made."
        raise ServiceNotFoundError(message)
    before = endpoints.traffic_of(endpoint)
    before.pop(new.lower(), None)
    try:
        _move(client, spec, new, rollout, endpoint=endpoint, before=before)
    except BaseException as error:
        _back(client, spec.name, new, before, error)
        raise
    if before:
        # The new one first: cut off in between, sweep() must not take both.
        going, coming = _entries(client, spec.name, new)
        records.settle_all(coming, state="live")
        records.take_over(going, state="deleting")


def serve_what_is_ready(client: Any, endpoint: Any, *, timeout: float) -> None:
    """Wait for what another process has begun; its deployment gets the requests where nothing else has them.

    Raises:
        DeploymentError: it failed, with its logs and the traceback of its script.
    """
    name: str = endpoint.name
    serving = endpoints.traffic_of(endpoint)
    there = deployments.list_deployments(client, name)
    waited = [one.name for one in there if not serving or one.name.lower() in serving]
    for one in waited:
        deployments.wait_ready(client, deployments.Incoming(name, one, None), timeout=timeout)
    if waited and not serving:
        endpoints.send_traffic(client, name, {waited[-1]: 100})


def retire(client: Any, name: str, new: str) -> None:
    """Delete what a new deployment has replaced; in the last step it had the time to answer what it still worked on.

    What cannot be deleted is said, and is the next ``sweep()``'s: the new one serves, and is not taken back for that.

    Args:
        client: of the workspace.
        name: of the endpoint.
        new: name of the deployment that serves.
    """
    going, _ = _entries(client, name, new)
    try:
        endpoint = endpoints.look(client, name, twice=True)
        if endpoint is None or not endpoints.traffic_of(endpoint).get(new.lower()):
            records.settle_all(going, state="live")  # they may have the requests, so no sweep() is to take them
            emit(Event(name, "retire", "warning", f"somebody else has changed it: {new!r} has no requests any more"))
            return
        old = [one.name for one in deployments.list_deployments(client, name) if one.name != new]
        for one in old:
            removing.drop_deployment(client, name, one)
    except BaseException as error:
        records.settle_all(going, state="failed")  # given up, so the next sweep() has it
        if not isinstance(error, GpuInferError):
            raise
        text = (
            f"{new!r} serves, and what it has replaced may still be there and billed; gpu_infer.sweep(ml_client) "
            f"removes it: {error}"
        )
        emit(Event(name, "retire", "warning", text))


# --- inside -----------------------------------------------------------------------------------------------------------


def _move(client: Any, spec: ServiceSpec, new: str, rollout: Rollout, *, endpoint: Any, before: dict[str, int]) -> None:
    """Check, mirror, and move by steps; where nothing has served before, all at once."""
    with ScoringClient(
        deployments.scoring_address(endpoint, kserve=spec.codeless),
        endpoints.credential_of(client, endpoint),
        timeout=GOLDEN_SECONDS,
        codec=_codec_of(spec),
        ours=None if spec.entry_script or spec.codeless else True,
        deployment=new,
    ) as scoring:
        golden = _golden(scoring, spec, rollout)
        check = functools.partial(_check, client, scoring, spec.name, new, golden, first=not before)
        check()
        if not before:
            endpoints.send_traffic(client, spec.name, {new: 100})
            return
        if rollout.mirror and not endpoints.is_kubernetes(endpoint):
            endpoints.send_traffic(client, spec.name, before, mirror={new: rollout.mirror})
            time.sleep(rollout.pause)
            check()
        for step in rollout.steps:
            endpoints.send_traffic(client, spec.name, {new: step, **_shares(before, 100 - step)})
            time.sleep(rollout.pause)
            check()


def _entries(client: Any, name: str, new: str) -> tuple[list[Entry], list[Entry]]:
    """What the ledger has of the deployments that are replaced, and of the new one."""
    below = removing.deployments_below(client, name)
    known = deployments.entry_name(name, new)
    return [one for one in below if one.name != known], [one for one in below if one.name == known]


def _codec_of(spec: ServiceSpec) -> Literal["json", "kserve"] | None:
    return "kserve" if spec.codeless else "json" if spec.entry_script else None


def _golden(scoring: ScoringClient, spec: ServiceSpec, rollout: Rollout) -> dict[str, Any]:
    """What is asked, by how an error names it."""
    if rollout.golden or spec.entry_script is not None or spec.codeless:
        return {f"golden item {at}": item for at, item in enumerate(rollout.golden)}
    try:
        # A list: behind a hook, one item may look as many do.
        return {"an item made up from what the model takes": [made_up(scoring.describe())]}
    except ValueError as error:
        text = (
            f"the new deployment is not asked anything before it serves: {error} "
            "Where update() makes it, Rollout(golden=...) gives items to ask."
        )
        emit(Event(spec.name, "golden", "warning", text))
        return {}


def _check(client: Any, scoring: ScoringClient, name: str, new: str, golden: dict[str, Any], *, first: bool) -> None:
    for what, item in golden.items():
        try:
            scoring.score(item)
        except ScoringError as error:
            logs = deployments.logs_for_error(client, name, new)  # now: the deployment is about to be deleted
            traceback = last_traceback(logs)
            doing, which = ("Deploying", "its") if first else ("Updating", "the new")
            end = "" if first else ", and what served before serves on"
            message = (
                f"{doing} service {name!r} failed: {which} deployment {new!r} does not answer {what}, so it gets no "
                f"requests{end}. {error}"
            )
            text = f"{message}\n{traceback}" if traceback else message
            raise DeploymentError(blotted(text), logs=tail(logs)) from error


def _shares(before: dict[str, int], total: int) -> dict[str, int]:
    """What is left, in the proportion that there was."""
    names = list(before)
    whole = sum(before.values())
    shares = {name: total * before[name] // whole for name in names}
    shares[names[0]] += total - sum(shares.values())
    return shares


def _back(client: Any, name: str, new: str, before: dict[str, int], error: BaseException) -> None:
    """Give the old ones their traffic back, then delete the new one."""
    emit(Event(name, "rollback", "start", new))
    entry = records.find(key_of(client), records.DEPLOYMENT, deployments.entry_name(name, new))
    if entry is not None:
        records.settle(entry, state="failed")  # whatever comes in between, the next sweep() has it
    try:
        endpoints.send_traffic(client, name, before)
        removing.drop_deployment(client, name, new)
    except GpuInferError as problem:
        error.add_note(
            f"Deployment {new!r} of endpoint {name!r} is still there and billed; gpu_infer.sweep(ml_client) removes "
            f"it: {problem}"
        )
