"""Wire of models as ``azure-ai-ml`` registers them: in the registry of ``azureml-core``, where both find them."""

from __future__ import annotations

from typing import Any

from ..artifacts.routes import blob_name
from ..models.models import Model
from ..routing import WORKSPACE, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer, mapping
from .models import artifact, uri
from .routes import is_wanted

__all__ = ["ROUTES"]

_MODELS = f"{WORKSPACE}/models"
_KEPT = ("modelType", "flavors", "isAnonymous", "isArchived", "stage")
"""What only this SDK says of a model."""


def _put(state: State, request: Request) -> Response:
    name, version = request.args["name"], request.args["version"]
    properties = mapping(request.document.get("properties"))
    if not version.isdecimal() or int(version) == 0:
        message = f"The emulator numbers the versions of models, for azureml-core too: {version!r} is no whole number."
        raise Refusal(400, "BadRequest", message)
    address = str(properties.get("modelUri"))
    found = state.models.find(f"{name}:{int(version)}")
    if found is None:
        prefix = artifact(address, state.settings.workspace_id)
        if not state.artifacts.below(blob_name(prefix)):
            raise Refusal(400, "BadRequest", f"There are no files at {address!r}: they were never uploaded.")
        asset = state.models.add_asset(name, [{"prefix": prefix}])
        fields = {"name": name, "url": f"aml://asset/{asset.id}", "mimeType": "application/x-python", "unpack": False}
        found = state.models.register(name, {**fields, "framework": "Custom"}, version=int(version))
    elif address not in ("None", _address(state, found)):
        message = f"Version {version} of model {name!r} has another path. Give the new one another version."
        raise Refusal(409, "Conflict", message)
    kept = {key: properties[key] for key in _KEPT if key in properties}
    said = {"description": properties.get("description"), "kvTags": mapping(properties.get("tags"))}
    found.fields = {**found.fields, **kept, **said, "properties": mapping(properties.get("properties"))}
    return answer(_shown(state, found), 201)


def _address(state: State, model: Model) -> str:
    asset = state.models.asset_of(model)
    first = mapping(asset.artifacts[0]) if asset and asset.artifacts else {}
    prefix = str(first.get("prefix") or first.get("id") or "").rstrip("/")
    return uri(prefix, state.settings.scope, state.settings.workspace_id)


def _shown(state: State, model: Model) -> dict[str, Any]:
    fields = model.fields
    return {
        "id": f"{state.settings.scope}/models/{model.name}/versions/{model.version}",
        "name": str(model.version),
        "type": "Microsoft.MachineLearningServices/workspaces/models/versions",
        "properties": {
            "modelType": "custom_model",
            "isAnonymous": False,
            "isArchived": False,
            **{key: fields[key] for key in _KEPT if key in fields},
            "flavors": mapping(fields.get("flavors")),
            "modelUri": _address(state, model),
            "description": fields.get("description"),
            "tags": mapping(fields.get("kvTags")),
            "properties": mapping(fields.get("properties")),
            "provisioningState": "Succeeded",
        },
        "systemData": {"createdAt": model.created.isoformat(), "lastModifiedAt": model.modified.isoformat()},
    }


def _of(state: State, name: str) -> list[Model]:
    return [model for model in state.models.newest_first() if model.name == name]


def _get(state: State, request: Request) -> Response:
    version = request.args["version"]
    model = state.models.find(f"{request.args['name']}:{version}")
    if model is None:
        raise Refusal(404, "NotFound", f"There is no version {version} of a model {request.args['name']!r}.")
    return answer(_shown(state, model))


def _versions(state: State, request: Request) -> Response:
    found = [model for model in _of(state, request.args["name"]) if is_wanted(request, model.fields)]
    return answer({"value": [_shown(state, model) for model in found[: int(request.query.get("$top") or len(found))]]})


def _container(state: State, name: str) -> dict[str, Any]:
    latest = max(model.version for model in _of(state, name))
    properties: dict[str, Any] = {
        "latestVersion": str(latest),
        "nextVersion": str(state.models.next_version(name)),
        "tags": {},
        "properties": {},
        "isArchived": False,
    }
    return {"id": f"{state.settings.scope}/models/{name}", "name": name, "properties": properties}


def _get_container(state: State, request: Request) -> Response:
    if not _of(state, request.args["name"]):
        raise Refusal(404, "NotFound", f"There is no model {request.args['name']!r}.")
    return answer(_container(state, request.args["name"]))


def _list(state: State, _request: Request) -> Response:
    names = dict.fromkeys(model.name for model in state.models.newest_first())
    return answer({"value": [_container(state, name) for name in names]})


ROUTES = (
    Route("PUT", f"{_MODELS}/<name>/versions/<version>", "model_versions.create", _put, "arm"),
    Route("GET", f"{_MODELS}/<name>/versions/<version>", "model_versions.get", _get, "arm"),
    Route("GET", f"{_MODELS}/<name>/versions", "model_versions.list", _versions, "arm"),
    Route("GET", f"{_MODELS}/<name>", "model_containers.get", _get_container, "arm"),
    Route("GET", _MODELS, "model_containers.list", _list, "arm"),
)
