"""Wire of online endpoints: what ``online_endpoints.get``, ``get_keys`` and ``invoke`` of azure-ai-ml ask ARM for."""

from __future__ import annotations

import time
from typing import Any

from ..aad import models as aad
from ..routing import WORKSPACE, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer
from .models import AuthMode, Deployment, Endpoint

__all__ = ["ROUTES"]

_ENDPOINT = f"{WORKSPACE}/onlineEndpoints/<name>"
_TYPE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"
_MODES: dict[AuthMode, str] = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}


def _get(state: State, request: Request) -> Response:
    return answer(_shown(state, state.endpoints.find(request.args["name"])))


def _deployments(state: State, request: Request) -> Response:
    endpoint = state.endpoints.find(request.args["name"])
    return answer({"value": [_shown_deployment(state, endpoint, one) for one in endpoint.deployments.values()]})


def _keys(state: State, request: Request) -> Response:
    endpoint = state.endpoints.find(request.args["name"])
    _check_mode(endpoint, "key")
    primary, secondary = endpoint.keys
    return answer({"primaryKey": primary, "secondaryKey": secondary})


def _token(state: State, request: Request) -> Response:
    endpoint = state.endpoints.find(request.args["name"])
    _check_mode(endpoint, "aml_token")
    now = time.time()
    token = aad.token(
        state.settings.signing_key,
        tenant=state.settings.tenant_id,
        audience=_id(state, endpoint),
        subject=endpoint.name,
    )
    endpoint.tokens[token] = now + aad.LIFETIME
    endpoint.open_doors()
    return answer(
        {
            "accessToken": token,
            "tokenType": "Bearer",
            "refreshAfterTimeUtc": int(now + aad.LIFETIME * 0.8),
            "expiryTimeUtc": int(now + aad.LIFETIME),
        }
    )


def _check_mode(endpoint: Endpoint, wanted: AuthMode) -> None:
    if endpoint.auth_mode != wanted:
        message = f"Endpoint {endpoint.name!r} has auth mode {_MODES[endpoint.auth_mode]}, not {_MODES[wanted]}."
        raise Refusal(400, "BadRequest", message)


def _id(state: State, endpoint: Endpoint) -> str:
    return f"{state.settings.scope}/onlineEndpoints/{endpoint.name}"


def _shown(state: State, endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as the service shows it. ``compute`` makes it one on Kubernetes: azureml-fe is the door of those."""
    uri = f"{state.settings.url}/api/v1/endpoint/{endpoint.name}"
    return {
        "id": _id(state, endpoint),
        "name": endpoint.name,
        "type": _TYPE,
        "location": state.settings.location,
        "tags": {},
        "kind": "K8S",
        "identity": {
            "type": "SystemAssigned",
            "principalId": state.settings.workspace_id,
            "tenantId": state.settings.tenant_id,
        },
        "properties": {
            "authMode": _MODES[endpoint.auth_mode],
            "compute": f"{state.settings.scope}/computes/emulated",
            "description": None,
            "properties": {},
            "provisioningState": "Succeeded",
            "scoringUri": f"{uri}/score",
            "swaggerUri": f"{uri}/swagger.json",
            "traffic": endpoint.traffic,
            "mirrorTraffic": {},
        },
        "systemData": _system_data(endpoint),
    }


def _shown_deployment(state: State, endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """A deployment as the service shows it."""
    limits = deployment.limits
    return {
        "id": f"{_id(state, endpoint)}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": f"{_TYPE}/deployments",
        "location": state.settings.location,
        "tags": {},
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Kubernetes",
            "codeConfiguration": {
                "codeId": f"{state.settings.scope}/codes/{endpoint.name}-{deployment.name}/versions/1",
                "scoringScript": deployment.entry_script,
            },
            "environmentVariables": deployment.environment,
            "requestSettings": {
                "maxConcurrentRequestsPerInstance": limits.max_concurrent,
                "requestTimeout": f"PT{limits.timeout_ms / 1000:g}S",
            },
            "scaleSettings": {"scaleType": "Default"},
            "containerResourceRequirements": {},
            "appInsightsEnabled": False,
            "properties": {},
            "provisioningState": "Succeeded",
        },
        "systemData": _system_data(deployment),
    }


def _system_data(made: Endpoint | Deployment) -> dict[str, str]:
    moment = made.created.isoformat()
    return {"createdBy": "emulator", "createdAt": moment, "lastModifiedBy": "emulator", "lastModifiedAt": moment}


ROUTES = (
    Route("GET", _ENDPOINT, "endpoints.get", _get, "arm"),
    Route("GET", f"{_ENDPOINT}/deployments", "deployments.list", _deployments, "arm"),
    Route("POST", f"{_ENDPOINT}/listKeys", "endpoints.keys", _keys, "arm"),
    Route("POST", f"{_ENDPOINT}/token", "endpoints.token", _token, "arm"),
)
