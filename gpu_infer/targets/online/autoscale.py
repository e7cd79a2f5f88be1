"""Managed deployments whose number of instances follows the load: one setting of Azure Monitor for each.

What a deployment is to have stands in a tag of it (``gpu-infer-replicas``), the rules in a setting that is named after
it. A setting costs nothing, so it is not in the ledger: ``sweep()`` finds by its own tags one whose deployment is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from gpu_infer.catalog import find_size
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import DeploymentError, Finding, GpuInferError, WorkspaceError
from gpu_infer.ledger import Entry
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Scale, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.arm import installed, monitor
from gpu_infer.targets.calls import ask, call, load
from gpu_infer.targets.online.sdk import arm_of, is_absent, key_of

__all__ = ["check", "drop", "follow", "look", "remove", "retagged", "scale_of", "settings", "stop", "tag"]

GPU_METRIC, CPU_METRIC = "GpuUtilizationPercentage", "CpuUtilizationPercentage"
"""Of a deployment, per cent, one value a minute (Azure Monitor, supported metrics of online deployments)."""

BUSY, IDLE = 70.0, 30.0
"""Per cent of use, over all instances, above which one is added, and below which one goes. The load of two that are
just idle leaves one that is not busy: they would come and go for ever otherwise."""

BUSY_MINUTES, IDLE_MINUTES = 5, 15
"""How long it has to be so. A GPU instance is slow to come, so it is not sent away by a short silence."""

COOL_MINUTES = 15
"""Until the next one comes or goes: an instance serves 12 to 18 minutes after it was asked for, and the others are as
busy as before until then."""

_TAG = "gpu-infer-replicas"
_PREFIX = "gpu-infer"


def tag(scale: Scale) -> dict[str, str]:
    """The tag of a deployment whose number of instances follows the load; none where it is fixed."""
    return {} if scale.max_replicas is None else {_TAG: f"{scale.replicas}-{scale.max_replicas}"}


def retagged(deployment: Any, scale: Scale) -> dict[str, str]:
    """All tags of a deployment, with this number of instances."""
    others = {key: text for key, text in _tags(deployment).items() if key != _TAG}
    return {**others, **tag(scale)}


def scale_of(deployment: Any) -> Scale | None:
    """The range that a deployment's tag names, ``None`` where it has a fixed number of instances."""
    least, _, most = str(_tags(deployment).get(_TAG, "")).partition("-")
    if not (least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most)):
        return None
    return Scale(int(least), max_replicas=int(most))


def check(client: Any, spec: ServiceSpec) -> list[Finding]:
    """Whether the number of instances can be left to the load, and what that may cost; nothing where it is fixed.

    Kubernetes does it by itself.
    """
    if spec.scale.max_replicas is None or spec.cluster is not None:
        return []
    try:
        call(_list, client, doing="looking for autoscale settings", default=WorkspaceError)
    except GpuInferError as error:
        findings: list[Finding] = getattr(error, "findings", [])
        return findings or [Finding("error", "autoscale", f"replicas={_pair(spec.scale)} needs Azure Monitor. {error}")]
    prices = [records.cluster_price(spec.resources.vm_size or "", number) for number in (1, spec.scale.most)]
    least, most = prices[0] * spec.scale.replicas, prices[1]
    message = (
        f"Azure Monitor chooses between {spec.scale.replicas} and {spec.scale.most} instances by how busy they are: "
        f"${least:.2f} to ${most:.2f} per hour."
    )
    return [Finding("info", "autoscale", message)]


def follow(client: Any, deployment: Any) -> None:
    """Let a deployment's instances follow the load, where its tag says so; once more changes nothing.

    Raises:
        DeploymentError: Azure Monitor refused it.
    """
    scale = scale_of(deployment)
    if scale is None:
        return
    endpoint: str = deployment.endpoint_name
    name = _name(client, endpoint, deployment.name)
    # A deployment does not say where it is. Azure takes a setting only in the region of what it changes.
    doing = f"letting the instances of service {endpoint!r} follow the load"
    location: str = call(client.online_endpoints.get, endpoint, doing=doing, default=DeploymentError).location
    emit(Event(endpoint, "autoscale", "start", f"{deployment.name}: {scale.replicas} to {scale.most} instances"))
    arm = arm_of(client)
    with monitor(arm) as service:
        call(
            service.autoscale_settings.create_or_update,
            arm.resource_group,
            name,
            _setting(name, deployment, scale, location=location),
            doing=doing,
            default=DeploymentError,
        )
    emit(Event(endpoint, "autoscale", "ok"))


def stop(client: Any, deployment: Any) -> None:
    """Let a deployment keep the number of instances that it has.

    Raises:
        DeploymentError: Azure Monitor refused it, and goes on changing the number.
    """
    if scale_of(deployment) is None:
        return
    try:
        _delete(client, _name(client, deployment.endpoint_name, deployment.name))
    except GpuInferError:
        raise
    except Exception as error:
        doing = f"ending the autoscaling of service {deployment.endpoint_name!r}"
        raise azure_error(error, doing=doing, default=DeploymentError) from error


def drop(client: Any, there: Collection[Any]) -> None:
    """Remove the settings of deployments that are gone. One that stays costs nothing, so that is a warning."""
    for deployment in there:
        try:
            stop(client, deployment)
        except GpuInferError as error:
            text = (
                f"the autoscale setting of {deployment.name!r} stays, which costs nothing; sweep() removes it: {error}"
            )
            emit(Event(deployment.endpoint_name, "autoscale", "warning", text))


def look(client: Any, entry: Entry) -> Any | None:
    """The setting that an entry names, ``None`` where there is none.

    Raises:
        WorkspaceError: Azure Monitor refused or did not answer.
    """
    arm = arm_of(client)
    endpoint, _, name = entry.name.partition("/")
    with monitor(arm) as service:
        try:
            return ask(service.autoscale_settings.get, arm.resource_group, _name(client, endpoint, name))
        except Exception as error:
            if is_absent(error):
                return None
            doing = f"looking for the autoscale setting of {entry.name!r}"
            raise azure_error(error, doing=doing, default=WorkspaceError) from error


def remove(client: Any, entry: Entry) -> None:
    """Remove the setting that an entry names; removing the absent succeeds.

    Raises:
        WorkspaceError: Azure Monitor refused it.
    """
    endpoint, _, name = entry.name.partition("/")
    doing = f"removing the autoscale setting of {entry.name!r}"
    call(_delete, client, _name(client, endpoint, name), doing=doing, default=WorkspaceError)


def settings(client: Any) -> list[Entry]:
    """Our settings in this workspace, each as an entry with the name of its deployment, as from a run that has failed.

    None where Azure Monitor cannot be asked: they cost nothing.
    """
    if not installed("azure.mgmt.monitor"):
        return []
    try:
        listed: list[Any] = call(_list, client, doing="listing the autoscale settings", default=WorkspaceError)
    except GpuInferError as error:
        emit(Event(client.workspace_name, "autoscale", "warning", f"what autoscales is not seen: {error}"))
        return []
    found: list[Entry] = []
    for setting in listed:
        name, tags = _target_of(client, setting), records.read_tags(setting.tags)
        if name and tags:
            entry = records.unwritten(key_of(client), records.AUTOSCALE, name, tags)
            found.append(replace(entry, details={**entry.details, "state": "failed"}))
    return found


# --- inside -----------------------------------------------------------------------------------------------------------


def _pair(scale: Scale) -> str:
    return f"({scale.replicas}, {scale.most})"


def _name(client: Any, endpoint: str, deployment: str) -> str:
    """Settings are known by their name in the whole resource group, which may have several workspaces."""
    return f"{_PREFIX}-{client.workspace_name}-{endpoint}-{deployment}"


def _list(client: Any) -> list[Any]:
    arm = arm_of(client)
    with monitor(arm) as service:
        return list(service.autoscale_settings.list_by_resource_group(arm.resource_group))


def _delete(client: Any, name: str) -> None:
    arm = arm_of(client)
    with monitor(arm) as service:
        try:
            ask(service.autoscale_settings.delete, arm.resource_group, name)
        except Exception as error:
            if not is_absent(error):
                raise


def _target_of(client: Any, setting: Any) -> str:
    """``endpoint/deployment`` of the deployment of this workspace that a setting changes; empty for another's.

    Of the capitals in its paths Azure keeps some, and not always the same.
    """
    scope = (
        f"/subscriptions/{client.subscription_id}/resourcegroups/{client.resource_group_name}/providers/"
        f"microsoft.machinelearningservices/workspaces/{client.workspace_name}/onlineendpoints/"
    )
    path = str(setting.target_resource_uri or "")
    if not path.lower().startswith(scope.lower()):
        return ""
    parts = path[len(scope) :].split("/")
    return f"{parts[0]}/{parts[2]}" if len(parts) == 3 else ""


def _tags(deployment: Any) -> dict[str, str]:
    tags: dict[str, str] | None = deployment.tags
    return tags or {}


def _setting(name: str, deployment: Any, scale: Scale, *, location: str) -> Any:
    capacity = _model("ScaleCapacity")(
        minimum=str(scale.replicas), maximum=str(scale.most), default=str(scale.replicas)
    )
    rules = [
        _rule(deployment, "GreaterThan", BUSY, minutes=BUSY_MINUTES, direction="Increase"),
        _rule(deployment, "LessThan", IDLE, minutes=IDLE_MINUTES, direction="Decrease"),
    ]
    ours = {key: text for key, text in _tags(deployment).items() if key.startswith(f"{_PREFIX}-")}
    return _model("AutoscaleSettingResource")(
        location=location,
        tags={**ours, "gpu-infer-created": ours.get("gpu-infer-created", str(int(time.time())))},
        profiles=[_model("AutoscaleProfile")(name=_PREFIX, capacity=capacity, rules=rules)],
        enabled=True,
        name_properties_name=name,
        target_resource_uri=deployment.id,
    )


def _rule(deployment: Any, operator: str, percent: float, *, minutes: int, direction: str) -> Any:
    size = find_size(deployment.instance_type or "")
    trigger = _model("MetricTrigger")(
        metric_name=CPU_METRIC if size is not None and not size.schedulable_gpus else GPU_METRIC,
        metric_resource_uri=deployment.id,
        time_grain=timedelta(minutes=1),
        statistic="Average",
        time_window=timedelta(minutes=minutes),
        time_aggregation="Average",
        operator=operator,
        threshold=percent,
    )
    action = _model("ScaleAction")(
        direction=direction, type="ChangeCount", value="1", cooldown=timedelta(minutes=COOL_MINUTES)
    )
    return _model("ScaleRule")(metric_trigger=trigger, scale_action=action)


def _model(name: str) -> Any:
    return load(
        f"azure.mgmt.monitor.models.{name}", extra="autoscale", reached="Autoscaling is set through azure-mgmt-monitor"
    )
