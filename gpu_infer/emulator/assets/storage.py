"""Wire of datastores, and of the containers behind them."""

from __future__ import annotations

from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from ..artifacts.routes import blob_name, read, store
from ..routing import WORKSPACE, Route
from ..state import ACCOUNT, CONTAINER, State
from ..wire import Refusal, Request, Response, answer
from .models import DATASTORES, blobstore

__all__ = ["ROUTES", "base"]

_DATASTORE = f"{WORKSPACE}/datastores/<name>"
_SUFFIX = "blob.core.windows.net"
_BASE = f"/{ACCOUNT}.{_SUFFIX}"
"""What the SDK makes of an account name that has this machine's address before it."""


def base(state: State, request: Request) -> str:
    """Where the account's containers are."""
    return f"https://{_account(state, request)}.{_SUFFIX}"


def _account(state: State, request: Request) -> str:
    """The SDK puts ``https://{account}.blob.core.windows.net`` together: an address may stand before the name."""
    return ACCOUNT if request.real_names else f"{urlsplit(state.settings.tls_url).netloc}/{ACCOUNT}"


def _container(state: State, request: Request) -> str:
    name = request.args["name"]
    if name not in DATASTORES:
        raise Refusal(404, "NotFound", f"There is no datastore {name!r}. There are: {', '.join(DATASTORES)}.")
    return blobstore(state.settings.workspace_id) if name == DATASTORES[0] else CONTAINER


def _datastore(state: State, request: Request) -> Response:
    container = _container(state, request)
    name = request.args["name"]
    properties = {
        "datastoreType": "AzureBlob",
        "accountName": _account(state, request),
        "containerName": container,
        "credentials": {"credentialsType": "Sas"},
        "endpoint": "core.windows.net",
        "protocol": "https",
        "isDefault": name == DATASTORES[0],
        "tags": {},
        "properties": {},
    }
    return answer({"id": f"{state.settings.scope}/datastores/{name}", "name": name, "properties": properties})


def _default(state: State, request: Request) -> Response:
    """The SDK asks for the default one by a filter."""
    request.args = {**request.args, "name": DATASTORES[0]}
    return Response(200, b'{"value": [' + _datastore(state, request).body + b"]}", {"Content-Type": "application/json"})


def _secrets(state: State, request: Request) -> Response:
    return answer({"secretsType": "Sas", "sasToken": state.artifacts.query(_container(state, request))})


def _place(state: State, request: Request) -> tuple[str, str]:
    """The container, for which the query must be signed, and what the names of its blobs begin with in our store."""
    rest = request.args.get("rest", "")
    container = f"{CONTAINER}-{rest}" if rest else CONTAINER
    state.artifacts.check(container, request.query)
    return container, blob_name(f"{container}/") if rest else ""


def _put(state: State, request: Request) -> Response:
    return store(state, request, _place(state, request)[1] + request.args["name"])


def _read(state: State, request: Request) -> Response:
    return read(state, request, _place(state, request)[1] + request.args["name"])


def _list(state: State, request: Request) -> Response:
    """The blobs of a container whose names begin with a prefix, or the folders that they are in; all in one page."""
    container, root = _place(state, request)
    if request.query.get("comp") != "list":
        raise Refusal(400, "UnsupportedQueryParameter", "Of a container the emulator gives the list of its blobs only.")
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    names = [name.removeprefix(root) for name in state.artifacts.below(root) if name.startswith(root + prefix)]
    shown: dict[str, str] = {}
    for name in names:
        folder, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if found:
            shown[folder] = f"<BlobPrefix><Name>{escape(prefix + folder + delimiter)}</Name></BlobPrefix>"
        else:
            shown[name] = _listed(state, name, root + name)
    listing = f'<EnumerationResults ContainerName="{container}"><Blobs>{"".join(shown.values())}</Blobs><NextMarker/>'
    body = f'<?xml version="1.0" encoding="utf-8"?>{listing}</EnumerationResults>'
    return Response(200, body.encode(), {"Content-Type": "application/xml"})


def _listed(state: State, name: str, full: str) -> str:
    size = state.artifacts.existing(full).stat().st_size
    kept = state.artifacts.metadata.get(full, {})
    metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in kept.items())
    properties = f"<Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType>"
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties>{properties}</Properties><Metadata>{metadata}</Metadata></Blob>"
    )


def _routes(container: str) -> tuple[Route, ...]:
    return (
        Route("PUT", f"{container}/<path:name>", "blob.put", _put, "blob", locked=False, signed=False, streams=True),
        Route("HEAD", f"{container}/<path:name>", "blob.head", _read, "blob", locked=False, signed=False),
        Route("GET", f"{container}/<path:name>", "blob.get", _read, "blob", locked=False, signed=False),
        Route("GET", container, "blob.list", _list, "blob", locked=False, signed=False),
    )


ROUTES = (
    Route("GET", f"{WORKSPACE}/datastores", "datastores.list", _default, "arm"),
    Route("GET", _DATASTORE, "datastores.get", _datastore, "arm"),
    Route("POST", f"{_DATASTORE}/listSecrets", "datastores.secrets", _secrets, "arm"),
    *_routes(f"/{CONTAINER}-<rest>"),  # where the client calls the account by its own name
    Route("GET", f"/{CONTAINER}", "blob.list", _list, "blob", locked=False, signed=False),
    *_routes(f"{_BASE}/{CONTAINER}-<rest>"),
    *_routes(f"{_BASE}/{CONTAINER}"),
)
