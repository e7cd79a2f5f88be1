"""Wire of environments and code."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from ..routing import WORKSPACE, Route
from ..state import State
from ..wire import Request, Response, answer, mapping
from .models import Version, Versions
from .storage import base

__all__ = ["ROUTES", "is_wanted", "next_version"]

_Of = Callable[[State], Versions]


def next_version(versions: list[str]) -> str:
    """What the SDK gives the next version where its user gives none."""
    return str(max((int(version) for version in versions if version.isdecimal()), default=0) + 1)


def is_wanted(request: Request, properties: dict[str, Any]) -> bool:
    """Whether a list shows a version: archived ones only where they are asked for."""
    archived = bool(properties.get("isArchived"))
    view = request.query.get("listViewType", "ActiveOnly")
    return view == "All" or archived == (view == "ArchivedOnly")


def _shown(state: State, versions: Versions, found: Version) -> dict[str, Any]:
    return {
        "id": f"{state.settings.scope}/{versions.kind}/{found.name}/versions/{found.version}",
        "name": found.version,
        "type": f"Microsoft.MachineLearningServices/workspaces/{versions.kind}/versions",
        "properties": {"tags": {}, "properties": {}, **found.properties, "provisioningState": "Succeeded"},
        "systemData": {"createdAt": found.created.isoformat(), "createdBy": "emulator"},
    }


def _routes(kind: str, one: str, of: _Of) -> tuple[Route, ...]:
    """The calls that all kinds of assets have."""

    def put(state: State, request: Request) -> Response:
        properties = mapping(request.document.get("properties"))
        made = of(state).put(request.args["name"], request.args["version"], properties)
        return answer(_shown(state, of(state), made), 201)

    def get(state: State, request: Request) -> Response:
        return answer(_shown(state, of(state), of(state).find(request.args["name"], request.args["version"])))

    def versions(state: State, request: Request) -> Response:
        found = [made for made in of(state).of(request.args["name"]) if is_wanted(request, made.properties)]
        wanted = request.query.get("hash")
        if wanted:
            found = [made for made in found if mapping(made.properties.get("properties")).get("hash_sha256") == wanted]
        top = int(request.query.get("$top") or len(found))
        return answer({"value": [_shown(state, of(state), made) for made in found[:top]]})

    rule = f"{WORKSPACE}/{kind}/<name>/versions"
    return (
        Route("PUT", f"{rule}/<version>", f"{one}_versions.create", put, "arm"),
        Route("GET", f"{rule}/<version>", f"{one}_versions.get", get, "arm"),
        Route("GET", rule, f"{one}_versions.list", versions, "arm"),
    )


def _environments(state: State, _request: Request) -> Response:
    return answer({"value": [_container(state, name) for name in state.environments.names()]})


def _environment(state: State, request: Request) -> Response:
    name = request.args["name"]
    if not state.environments.of(name):
        state.environments.find(name, "1")  # raises what there is to say
    return answer(_container(state, name))


def _container(state: State, name: str) -> dict[str, Any]:
    made = state.environments.of(name)
    properties: dict[str, Any] = {
        "latestVersion": made[0].version,
        "nextVersion": next_version([one.version for one in made]),
        "tags": {},
        "properties": {},
        "isArchived": False,
    }
    return {"id": f"{state.settings.scope}/environments/{name}", "name": name, "properties": properties}


def _upload(state: State, request: Request) -> Response:
    """A container of its own for the files of one version."""
    container = f"azureml-code-{uuid.uuid4()}"
    where = f"{base(state, request)}/{container}"
    reference = {
        "blobUri": where,
        "storageAccountArmId": "",
        "credential": {"credentialType": "SAS", "sasUri": f"{where}?{state.artifacts.query(container)}"},
    }
    found = {"pendingUploadType": "TemporaryBlobReference", "pendingUploadId": str(uuid.uuid4())}
    return answer({**found, "blobReferenceForConsumption": reference})


def _of_environments(state: State) -> Versions:
    return state.environments


def _of_codes(state: State) -> Versions:
    return state.codes


ROUTES = (
    *_routes("environments", "environment", _of_environments),
    Route("GET", f"{WORKSPACE}/environments/<name>", "environments.get", _environment, "arm"),
    Route("GET", f"{WORKSPACE}/environments", "environments.list", _environments, "arm"),
    *_routes("codes", "code", _of_codes),
    Route("POST", f"{WORKSPACE}/codes/<name>/versions/<version>/startPendingUpload", "codes.upload", _upload, "arm"),
)
