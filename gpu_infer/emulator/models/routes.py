"""Wire of models and assets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from ..patches import apply
from ..routing import MMS, Route
from ..state import State
from ..wire import Refusal, Request, Response, answer, items, mapping
from .models import Asset, Model, matches

__all__ = ["ROUTES", "shown"]

_PAGE = 255
_FIELDS = (
    "framework",
    "frameworkVersion",
    "url",
    "mimeType",
    "description",
    "unpack",
    "parentModelId",
    "runId",
    "experimentName",
    "sampleInputData",
    "sampleOutputData",
    "resourceRequirements",
)


def _add_asset(state: State, request: Request) -> Response:
    body = request.document
    return answer(_shown_asset(state.models.add_asset(str(body.get("name")), items(body.get("artifacts")))))


def _get_asset(state: State, request: Request) -> Response:
    asset = state.models.assets.get(request.args["id"])
    if asset is None:
        raise Refusal(404, "AssetNotFound", f"There is no asset {request.args['id']!r}.")
    return answer(_shown_asset(asset))


def _shown_asset(asset: Asset) -> dict[str, Any]:
    return {
        "id": asset.id,
        "name": asset.name,
        "artifacts": asset.artifacts,
        "createdTime": asset.created.isoformat(),
        "kvTags": {},
        "properties": {},
    }


def _register(state: State, request: Request) -> Response:
    body = request.document
    missing = [name for name in ("name", "url", "mimeType") if not body.get(name)]
    if missing:
        raise Refusal(400, "BadRequest", f"The model lacks {', '.join(missing)}.")
    url = str(body["url"])
    if url.startswith("aml://asset/") and url.removeprefix("aml://asset/") not in state.models.assets:
        raise Refusal(400, "AssetNotFound", f"There is no asset {url!r}.")
    return answer(shown(state.models.register(str(body["name"]), body)))


def shown(model: Model) -> dict[str, Any]:
    """A model as the service shows it. The SDK reads its tags under either name."""
    fields = model.fields
    tags = mapping(fields.get("kvTags"))
    return {
        **{name: fields.get(name) for name in _FIELDS},
        "id": model.id,
        "name": model.name,
        "version": model.version,
        "kvTags": tags,
        "tags": tags,
        "properties": mapping(fields.get("properties")),
        "datasets": items(fields.get("datasets")),
        "derivedModelIds": [],
        "createdTime": model.created.isoformat(),
        "modifiedTime": model.modified.isoformat(),
        "createdBy": {"userObjectId": "emulator", "userName": "emulator"},
    }


def _list(state: State, request: Request) -> Response:
    query = request.query
    found = [model for model in state.models.newest_first() if _is_wanted(model, query)]
    if query.get("latestVersionOnly", "").lower() == "true":
        latest: dict[str, Model] = {}
        for model in found:
            if model.name not in latest or latest[model.name].version < model.version:
                latest[model.name] = model
        found = list(latest.values())
    start = int(query.get("$skipToken") or 0)
    end = start + min(int(query.get("count") or _PAGE), _PAGE)
    page: dict[str, Any] = {"value": [shown(model) for model in found[start:end]]}
    if end < len(found):
        page["nextLink"] = f"{request.base}{request.path}?{urlencode({**query, '$skipToken': end})}"
    return answer(page)


def _is_wanted(model: Model, query: Mapping[str, str]) -> bool:
    fields = model.fields
    exact = {"name": model.name, "framework": fields.get("framework"), "runId": fields.get("runId")}
    if any(query.get(name) and query[name] != value for name, value in exact.items()):
        return False
    filters = {"tags": fields.get("kvTags"), "properties": fields.get("properties")}
    return all(matches(query[name], mapping(value)) for name, value in filters.items() if query.get(name))


def _find(state: State, request: Request) -> Model:
    model = state.models.find(request.args["id"]) if ":" in request.args["id"] else None
    if model is None:
        raise Refusal(404, "ModelNotFound", f"Model with ID {request.args['id']!r} was not found.")
    return model


def _get(state: State, request: Request) -> Response:
    return answer(shown(_find(state, request)))


def _update(state: State, request: Request) -> Response:
    model = _find(state, request)
    model.fields = apply(model.fields, request.json)
    return answer(shown(model))


def _delete(state: State, request: Request) -> Response:
    model = _find(state, request)
    users = [service.name for service in state.services.all.values() if model.id in service.model_ids]
    if users:
        message = f"DeletionRequired: model {model.id!r} is used by {', '.join(users)}. Delete the service first."
        raise Refusal(412, "DeletionRequired", message)
    state.models.remove(model)
    return answer({})


ROUTES = (
    Route("POST", f"{MMS}/assets", "assets.create", _add_asset),
    Route("GET", f"{MMS}/assets/<id>", "assets.get", _get_asset),
    Route("POST", f"{MMS}/models", "models.create", _register),
    Route("GET", f"{MMS}/models", "models.list", _list),
    Route("GET", f"{MMS}/models/<id>", "models.get", _get),
    Route("PATCH", f"{MMS}/models/<id>", "models.update", _update),
    Route("DELETE", f"{MMS}/models/<id>", "models.delete", _delete),
)
