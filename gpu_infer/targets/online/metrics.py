"""Whether anybody asks an endpoint: its requests, as Azure Monitor has counted them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from gpu_infer.errors import GpuInferError, WorkspaceError
from gpu_infer.progress import Event, emit
from gpu_infer.targets.arm import installed, monitor
from gpu_infer.targets.calls import call
from gpu_infer.targets.online.sdk import arm_of

__all__ = ["idle_seconds"]

METRIC = "RequestsPerMinute"
"""Of an endpoint: the mean over the minutes of an interval (Azure Monitor, supported metrics of online endpoints)."""

GRAIN = timedelta(minutes=5)


def idle_seconds(client: Any, name: str, *, within: float) -> float | None:
    """How long nobody has asked an endpoint anything.

    Args:
        client: of the workspace.
        name: of the endpoint.
        within: seconds to look back.

    Returns:
        seconds, to 5 minutes; ``within`` where there was no request in all that time; ``None`` where Azure Monitor
        cannot be asked, or does not count the requests of this endpoint.
    """
    if not installed("azure.mgmt.monitor"):
        return None
    now = datetime.now(UTC)
    try:
        answer = call(_ask, client, name, now, within, doing=f"reading {METRIC} of {name!r}", default=WorkspaceError)
    except GpuInferError as error:
        emit(Event(name, "metrics", "ok", f"how many requests it gets is not readable: {error}"))
        return None
    listed: list[Any] = answer.value or []
    metrics = [metric for metric in listed if metric.name.value == METRIC]
    if not metrics or any((metric.error_code or "Success") != "Success" for metric in metrics):
        return None
    asked: list[datetime] = []
    for metric in metrics:
        series: list[Any] = metric.timeseries or []
        for one in series:
            values: list[Any] = one.data or []
            asked += [value.time_stamp for value in values if value.average]
    if not asked:
        return within  # Azure writes nothing down for minutes without requests
    return min(within, max(0.0, (now - max(asked) - GRAIN).total_seconds()))


# --- inside -----------------------------------------------------------------------------------------------------------


def _ask(client: Any, name: str, now: datetime, within: float) -> Any:
    arm = arm_of(client)
    endpoint = (
        f"subscriptions/{arm.subscription_id}/resourceGroups/{arm.resource_group}/providers/"
        f"Microsoft.MachineLearningServices/workspaces/{client.workspace_name}/onlineEndpoints/{name}"
    )
    start, end = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (now - timedelta(seconds=within), now))
    with monitor(arm) as service:
        return service.metrics.list(
            endpoint,
            timespan=f"{start}/{end}",
            interval=f"PT{GRAIN.seconds // 60}M",
            metricnames=METRIC,
            aggregation="Average",
        )
