"""Wire of Azure Monitor, as azure-mgmt-monitor speaks it."""

from __future__ import annotations

from typing import Any

from ..routing import Route
from ..state import State
from ..wire import Request, Response, answer

__all__ = ["ROUTES"]

_PROVIDER = "/subscriptions/<sub>/resourcegroups/<rg>/providers/Microsoft.Insights"
_SETTINGS = f"{_PROVIDER}/autoscalesettings"
_SETTING = f"{_SETTINGS}/<name>"


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
)
