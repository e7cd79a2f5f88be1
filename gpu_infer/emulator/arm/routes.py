"""Wire of ARM, discovery and cloud metadata, and the emulator's own page."""

from __future__ import annotations

from ..routing import WORKSPACE, Route
from ..state import State
from ..wire import Request, Response, answer
from . import models

__all__ = ["ROUTES"]


def _ids(state: State) -> models.Ids:
    settings = state.settings
    return {
        "subscription_id": settings.subscription_id,
        "resource_group": settings.resource_group,
        "name": settings.name,
        "location": settings.location,
        "workspace_id": settings.workspace_id,
        "tenant_id": settings.tenant_id,
    }


def _services(state: State, request: Request) -> str:
    """Where the client finds the workspace's services."""
    return f"https://{state.settings.location}.api.azureml.ms" if request.real_names else request.base


def _workspace(state: State, request: Request) -> Response:
    url = f"{_services(state, request)}/discovery/workspaces/{state.settings.workspace_id}"
    return answer(models.workspace(_ids(state), state.settings.scope, url))


def _discovery(state: State, request: Request) -> Response:
    return answer(models.discovery(_services(state, request)))


def _subscriptions(state: State, _request: Request) -> Response:
    return answer({"value": [models.subscription(_ids(state))], "count": {"type": "Total", "value": 1}})


def _metadata(state: State, _request: Request) -> Response:
    return answer([models.cloud(state.settings.tls_url, state.settings.tenant_id)])


def _emulator(state: State, _request: Request) -> Response:
    """What another process needs to connect."""
    settings = state.settings
    return answer(
        {
            **_ids(state),
            "url": settings.url,
            "tls_url": settings.tls_url,
            "ca_file": str(settings.ca_file),
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
            "no_config": str(settings.folder / "no-azure-config"),
        }
    )


ROUTES = (
    Route("GET", WORKSPACE, "workspace.get", _workspace, "arm"),
    Route("GET", "/discovery/workspaces/<id>", "discovery.get", _discovery, "plain", signed=False),
    Route("GET", "/subscriptions", "subscriptions.list", _subscriptions, "arm"),
    Route("GET", "/metadata/endpoints", "metadata.get", _metadata, "plain", signed=False),
    Route("GET", "/_emulator", "emulator.info", _emulator, "plain", signed=False, hidden=True),
)
