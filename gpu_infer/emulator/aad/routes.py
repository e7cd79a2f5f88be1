"""Wire of Azure Active Directory, as far as MSAL asks for it."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ..routing import Route
from ..state import State
from ..wire import Refusal, Request, Response, answer
from . import models

__all__ = ["ROUTES"]


def _login(state: State, request: Request) -> str:
    """Where the client signs in."""
    return "https://login.microsoftonline.com" if request.real_names else state.settings.tls_url


def _instance(state: State, request: Request) -> Response:
    host = _login(state, request).partition("//")[2]
    tenant = state.settings.tenant_id
    return answer(
        {
            "tenant_discovery_endpoint": f"{_login(state, request)}/{tenant}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        }
    )


def _configuration(state: State, request: Request) -> Response:
    base = f"{_login(state, request)}/{request.args['tenant']}"
    return answer(
        {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token", "token"],
            "subject_types_supported": ["pairwise"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }
    )


def _token(state: State, request: Request) -> Response:
    form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
    settings = state.settings
    if form.get("client_secret") != settings.client_secret:
        raise Refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
    token = models.token(
        settings.signing_key,
        tenant=request.args["tenant"],
        audience=form.get("scope", "").removesuffix("/.default"),
        subject=form.get("client_id", settings.client_id),
    )
    return answer({"token_type": "Bearer", "expires_in": int(models.LIFETIME), "access_token": token})


ROUTES = (
    Route("GET", "/common/discovery/instance", "aad.instance", _instance, "aad", signed=False),
    Route(
        "GET",
        "/<tenant>/v2.0/.well-known/openid-configuration",
        "aad.configuration",
        _configuration,
        "aad",
        signed=False,
    ),
    Route("POST", "/<tenant>/oauth2/v2.0/token", "aad.token", _token, "aad", signed=False),
)
