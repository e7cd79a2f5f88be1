"""Wire of online endpoints: what ``online_endpoints`` of azure-ai-ml asks ARM for."""

from __future__ import annotations

import time
from typing import Any, Literal

from ..aad import models as aad
from ..operations import Outcome
from ..routing import WORKSPACE, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer, mapping
from . import lro
from .models import AuthMode, Endpoint

__all__ = ["ROUTES"]

_ENDPOINT = f"{WORKSPACE}/onlineEndpoints/<name>"
_TYPE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"
_MODES: dict[AuthMode, str] = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}
_SHOWN = ("description", "properties", "publicNetworkAccess")
"""Properties of an endpoint that are kept as they come."""


def _name_put(state: State, request: Request) -> str:
    return "endpoints.update" if request.args["name"] in state.endpoints.all else "endpoints.create"


def _put(state: State, request: Request) -> Response:
    """Create an endpoint, or replace all that is said of one: what is not sent is gone, its traffic included."""
    name, body = request.args["name"], request.document
    properties = mapping(body.get("properties"))
    mode = _mode(properties.get("authMode"))
    traffic, mirror = _traffic(properties.get("traffic")), _traffic(properties.get("mirrorTraffic"))
    kind = _name_put(state, request)
    if kind == "endpoints.create":
        state.endpoints.check_new(name)
        endpoint = Endpoint(name, mode, compute=_compute(state, properties.get("compute")))
        endpoint.tags = mapping(body.get("tags"))  # known from the first moment on, however the creation ends
    else:
        endpoint = state.endpoints.find(name)
        endpoint.check_idle()
    endpoint.check_traffic(traffic, mirror)
    state.endpoints.all[name] = endpoint

    def finish() -> Outcome:
        if request.failing is None:
            endpoint.auth_mode, endpoint.traffic, endpoint.mirror = mode, traffic, mirror
            endpoint.tags = mapping(body.get("tags"))
            endpoint.sent = {key: properties[key] for key in _SHOWN if key in properties}
            endpoint.open_doors()
        endpoint.state = "Failed" if request.failing else "Succeeded"
        return request.failing

    endpoint.state = "Creating" if kind == "endpoints.create" else "Updating"
    endpoint.operation = state.operations.begin(kind, finish, lambda: _shown(state, endpoint))
    headers = lro.begun(state, request, endpoint.operation, kind="oeidp")
    return answer(_shown(state, endpoint), 201 if kind == "endpoints.create" else 200, headers)


def _compute(state: State, sent: Any) -> str | None:
    """ARM path of the attached cluster that an endpoint is to be on; ``None``: it is a managed one.

    Raises:
        Refusal: 400, there is no such cluster, or it is none for online endpoints.
    """
    if not sent:
        return None
    name = str(sent).rstrip("/").rpartition("/")[2]
    cluster = state.clusters.targets.get(name)
    if cluster is None:
        raise Refusal(400, "BadRequest", f"Compute {name!r} was not found in the workspace. Attach a cluster first.")
    if cluster.kind != "Kubernetes":
        message = "Creation of Online Endpoints or deployments on AKS compute type is no longer supported."
        raise Refusal(400, "BadRequest", message)
    return f"{state.settings.scope}/computes/{name}"


def _traffic(sent: Any) -> dict[str, int]:
    """Percent by name of the deployment; the SDK sends the names in small letters."""
    wrong = sorted(key for key, value in mapping(sent).items() if not isinstance(value, int))
    if wrong:
        raise Refusal(400, "BadRequest", f"The traffic of {', '.join(wrong)} is no whole number of percent.")
    return {key.lower(): value for key, value in mapping(sent).items()}


def _mode(sent: Any) -> AuthMode:
    """How callers prove who they are, in the wire's words."""
    for mode, word in _MODES.items():
        if str(sent).lower() == word.lower():
            return mode
    raise Refusal(400, "BadRequest", f"The auth mode of an endpoint is {', '.join(_MODES.values())}, not {sent!r}.")


def _delete(state: State, request: Request) -> Response:
    endpoint = state.endpoints.all.get(request.args["name"])
    if endpoint is None:
        return Response(204)
    endpoint.check_idle()

    def finish() -> Outcome:
        if request.failing is None:
            state.endpoints.remove(endpoint)
        else:
            endpoint.state = "Failed"
        return request.failing

    endpoint.state = "Deleting"
    endpoint.operation = state.operations.begin("endpoints.delete", finish)
    return Response(202, b"", lro.begun(state, request, endpoint.operation, kind="oeidp"))


def _regenerate(state: State, request: Request) -> Response:
    """Renew a key. The SDK sends the key that holds now as ``keyValue``; what was asked for is another one."""
    endpoint = state.endpoints.find(request.args["name"])
    _check_mode(endpoint, "key")
    endpoint.check_idle()
    words: dict[str, Literal["primary", "secondary"]] = {"primary": "primary", "secondary": "secondary"}
    which = words.get(str(request.document.get("keyType")).lower())
    if which is None:
        raise Refusal(400, "BadRequest", "The keyType is Primary or Secondary.")

    def finish() -> Outcome:
        if request.failing is None:
            endpoint.renew_key(which)
        endpoint.state = "Failed" if request.failing else "Succeeded"
        return request.failing

    endpoint.state = "Updating"
    endpoint.operation = state.operations.begin("endpoints.regenerate", finish)
    return Response(202, b"", lro.begun(state, request, endpoint.operation, kind="oeidp"))


def _get(state: State, request: Request) -> Response:
    endpoint = state.endpoints.find(request.args["name"])
    headers = lro.looked_at(state, endpoint.operation)
    return answer(_shown(state, state.endpoints.find(endpoint.name)), headers=headers)  # it may be gone now


def _list(state: State, _request: Request) -> Response:
    return answer({"value": [_shown(state, endpoint) for endpoint in state.endpoints.all.values()]})


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
    """An endpoint as the service shows it. ``compute`` makes it one on Kubernetes, for the SDK too."""
    uri = f"{state.settings.url}/api/v1/endpoint/{endpoint.name}"
    properties: dict[str, Any] = {
        "authMode": _MODES[endpoint.auth_mode],
        "description": None,
        "properties": {},
        "mirrorTraffic": endpoint.mirror,
        "provisioningState": endpoint.state,
        "scoringUri": f"{uri}/score",
        "swaggerUri": f"{uri}/swagger.json",
        "traffic": endpoint.traffic,
        **endpoint.sent,
    }
    if endpoint.compute:
        properties["compute"] = endpoint.compute
    return {
        "id": _id(state, endpoint),
        "name": endpoint.name,
        "type": _TYPE,
        "location": state.settings.location,
        "tags": endpoint.tags,
        "kind": "K8S" if endpoint.compute else "Managed",
        "identity": {
            "type": "SystemAssigned",
            "principalId": state.settings.workspace_id,
            "tenantId": state.settings.tenant_id,
        },
        "properties": properties,
        "systemData": _system_data(endpoint),
    }


def _system_data(made: Endpoint) -> dict[str, str]:
    moment = made.created.isoformat()
    return {"createdBy": "emulator", "createdAt": moment, "lastModifiedBy": "emulator", "lastModifiedAt": moment}


ROUTES = (
    Route("PUT", _ENDPOINT, "endpoints.create endpoints.update", _put, "arm", _name_put),
    Route("GET", _ENDPOINT, "endpoints.get", _get, "arm"),
    Route("DELETE", _ENDPOINT, "endpoints.delete", _delete, "arm"),
    Route("GET", f"{WORKSPACE}/onlineEndpoints", "endpoints.list", _list, "arm"),
    Route("POST", f"{_ENDPOINT}/listKeys", "endpoints.keys", _keys, "arm"),
    Route("POST", f"{_ENDPOINT}/regenerateKeys", "endpoints.regenerate", _regenerate, "arm"),
    Route("POST", f"{_ENDPOINT}/token", "endpoints.token", _token, "arm"),
)
