"""Wire of Azure Monitor, as azure-mgmt-monitor speaks it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..routing import WORKSPACE, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer

__all__ = ["ROUTES"]

_PROVIDER = "/subscriptions/<sub>/resourcegroups/<rg>/providers/Microsoft.Insights"
_SETTINGS = f"{_PROVIDER}/autoscalesettings"
_SETTING = f"{_SETTINGS}/<name>"
_METRIC = "RequestsPerMinute"


def _put(state: State, request: Request) -> Response:
    name = request.args["name"]
    new = state.autoscale.put(name, request.document)
    return answer(_shown(state, state.autoscale.find(name)), 201 if new else 200)


def _get(state: State, request: Request) -> Response:
    return answer(_shown(state, state.autoscale.find(request.args["name"])))


def _list(state: State, _request: Request) -> Response:
    return answer({"value": [_shown(state, setting) for setting in state.autoscale.all()]})


def _delete(state: State, request: Request) -> Response:
    return Response(200 if state.autoscale.remove(request.args["name"]) else 204)


def _metrics(state: State, request: Request) -> Response:
    """The requests of an endpoint: the mean per minute, over stretches of so many minutes as ``interval`` says."""
    name, query = request.args["name"], request.query
    state.endpoints.find(name)
    if query.get("metricnames") != _METRIC:
        raise Refusal(400, "BadRequest", f"The emulator counts {_METRIC} of endpoints only.")
    try:
        start, end = (datetime.fromisoformat(moment).timestamp() for moment in query.get("timespan", "").split("/"))
        minutes = int(query.get("interval", "PT1M").removeprefix("PT").removesuffix("M"))
    except ValueError as error:
        raise Refusal(400, "BadRequest", "The timespan is START/END, the interval PT5M or another.") from error
    data = [
        {"timeStamp": datetime.fromtimestamp(moment, UTC).isoformat(), "average": mean}
        for moment, mean in state.traffic.means(name, start, end, minutes)
    ]
    metric = {
        "id": f"{state.settings.scope}/onlineEndpoints/{name}/providers/Microsoft.Insights/metrics/{_METRIC}",
        "type": "Microsoft.Insights/metrics",
        "name": {"value": _METRIC, "localizedValue": "Requests Per Minute"},
        "unit": "Count",
        "errorCode": "Success",
        "timeseries": [{"metadatavalues": [], "data": data}] if data else [],
    }
    return answer({"cost": 0, "timespan": query["timespan"], "interval": query.get("interval"), "value": [metric]})


def _shown(state: State, setting: dict[str, Any]) -> dict[str, Any]:
    settings = state.settings
    scope = f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}"
    return {
        "id": f"{scope}/providers/microsoft.insights/autoscalesettings/{setting['name']}",
        "type": "Microsoft.Insights/autoscaleSettings",
        **setting,
    }


ROUTES = (
    Route("PUT", _SETTING, "autoscale.put", _put, "arm"),
    Route("GET", _SETTING, "autoscale.get", _get, "arm"),
    Route("DELETE", _SETTING, "autoscale.delete", _delete, "arm"),
    Route("GET", _SETTINGS, "autoscale.list", _list, "arm"),
    Route(
        "GET",
        f"{WORKSPACE}/onlineEndpoints/<name>/providers/Microsoft.Insights/metrics",
        "metrics.list",
        _metrics,
        "arm",
    ),
)
