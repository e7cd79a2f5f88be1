"""Wire of the artifact service and of blob storage."""

from __future__ import annotations

import email.utils
import hashlib
import re
from typing import Any
from urllib.parse import quote, urlsplit

from ..routing import WORKSPACE, Route
from ..state import ACCOUNT, CONTAINER, State
from ..wire import Refusal, Request, Response, answer, items, mapping

__all__ = ["ROUTES", "blob_name", "read", "store"]

_ARTIFACTS = f"/artifact/v2.0{WORKSPACE}/artifacts"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_META = "x-ms-meta-"
"""What the headers begin with that say something of a blob."""
_BATCH = 50
"""Paths that one call may create."""


def blob_name(artifact_id: str) -> str:
    """Name of the blob that holds an artifact."""
    return f"ExperimentRun/{artifact_id}"


def _create(state: State, request: Request) -> Response:
    origin, container = request.args["origin"], request.args["container"]
    paths = items(request.document.get("paths"))
    if not paths or len(paths) > _BATCH:
        raise Refusal(400, "UserError", f"Between 1 and {_BATCH} paths are allowed, not {len(paths)}.")
    artifacts: dict[str, Any] = {}
    contents: dict[str, Any] = {}
    for entry in paths:
        path = str(mapping(entry).get("path") or "")
        artifact = _artifact(origin, container, path)
        state.artifacts.path(blob_name(artifact["artifactId"]))  # refuses names that lead out of the folder
        artifacts[path] = artifact
        contents[path] = _content(state, request, origin, container, path, write=True)
    return answer({"artifacts": artifacts, "artifactContentInformation": contents, "errors": {}})


def _list_content(state: State, request: Request) -> Response:
    origin, container = request.args["origin"], request.args["container"]
    start = blob_name(f"{origin}/{container}/")
    names = state.artifacts.below(blob_name(f"{origin}/{container}/{request.args.get('path', '')}"))
    value = [_content(state, request, origin, container, name.removeprefix(start), write=False) for name in names]
    return answer({"value": value})


def _get_content(state: State, request: Request) -> Response:
    origin, container, path = request.args["origin"], request.args["container"], request.args["path"]
    state.artifacts.existing(blob_name(f"{origin}/{container}/{path}"))
    return answer(_content(state, request, origin, container, path, write=False))


def _artifact(origin: str, container: str, path: str) -> dict[str, Any]:
    return {
        "artifactId": f"{origin}/{container}/{path}",
        "origin": origin,
        "container": container,
        "path": path,
        "etag": None,
        "tags": {},
    }


def _content(state: State, request: Request, origin: str, container: str, path: str, *, write: bool) -> dict[str, Any]:
    """Where a client reads or writes an artifact.

    The SDK takes an upload address apart at its dots and puts ``https://{account}.blob.{rest}`` together again. What
    stands before ``@`` survives that and is never looked up, so the connection goes to this machine.
    """
    name = blob_name(f"{origin}/{container}/{path}")
    location = f"/{CONTAINER}/{quote(name)}?{state.artifacts.query(name)}"
    settings = state.settings
    if request.real_names:
        base = f"https://{ACCOUNT}.blob.core.windows.net"
    elif write:
        base = f"https://{ACCOUNT}.blob.core@{urlsplit(settings.tls_url).netloc}"
    else:
        base = settings.url
    return {"contentUri": base + location, "origin": origin, "container": container, "path": path, "tags": {}}


def _put(state: State, request: Request) -> Response:
    return store(state, request, state.artifacts.check(request.args["name"], request.query))


def store(state: State, request: Request, name: str) -> Response:
    """Store a blob, a part of one, or what is said of one, under this name."""
    if request.upload is None:
        raise Refusal(400, "InvalidInput", "There is no body.")
    fresh = request.headers.get("if-none-match") == "*"
    md5 = request.headers.get("content-md5")
    kind = request.query.get("comp", "")
    if kind == "block":
        state.artifacts.put_block(name, request.query.get("blockid", ""), request.upload)
    elif kind == "blocklist":
        listing = request.upload.read_text("utf-8")
        blocks = re.findall(r"<(?:Latest|Uncommitted|Committed)>([^<]*)</", listing)
        state.artifacts.put_blocks(name, blocks, fresh=fresh)
    elif kind == "metadata":
        state.artifacts.existing(name)
        state.artifacts.metadata[name] = _metadata(request)
        return Response(200, b"", {"ETag": f'"{_etag(name)}"', "Last-Modified": email.utils.formatdate(usegmt=True)})
    elif kind:
        raise Refusal(400, "UnsupportedQueryParameter", f"The emulator does not know comp={kind}.")
    else:
        state.artifacts.put(name, request.upload, md5=md5, fresh=fresh)
    headers = {"ETag": f'"{_etag(name)}"', "Last-Modified": email.utils.formatdate(usegmt=True)}
    return Response(201, b"", {**headers, "x-ms-request-server-encrypted": "true"})


def _metadata(request: Request) -> dict[str, str]:
    return {name.removeprefix(_META): value for name, value in request.headers.items() if name.startswith(_META)}


def _read(state: State, request: Request) -> Response:
    return read(state, request, state.artifacts.check(request.args["name"], request.query, container=CONTAINER))


def read(state: State, request: Request, name: str) -> Response:
    """The blob of this name, or a range of it."""
    path = state.artifacts.existing(name)
    stat = path.stat()
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(stat.st_size),
        "ETag": f'"{_etag(name)}"',
        "Last-Modified": email.utils.formatdate(stat.st_mtime, usegmt=True),
        "x-ms-blob-type": "BlockBlob",
        "Accept-Ranges": "bytes",
        **{_META + key: value for key, value in state.artifacts.metadata.get(name, {}).items()},
    }
    asked = _RANGE.fullmatch(request.headers.get("x-ms-range") or request.headers.get("range") or "")
    if not asked:
        return Response(200, b"", headers, path)
    start, end = int(asked[1]), min(int(asked[2] or stat.st_size - 1) + 1, stat.st_size)
    if start >= end:
        raise Refusal(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    headers |= {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{stat.st_size}"}
    return Response(206, b"", headers, path, (start, end))


def _etag(name: str) -> str:
    return "0x" + hashlib.sha256(name.encode()).hexdigest()[:15].upper()


_BLOB = f"/{CONTAINER}/<path:name>"

ROUTES = (
    Route("POST", f"{_ARTIFACTS}/batch/metadata/<origin>/<container>", "artifacts.create", _create, "artifact"),
    Route(
        "GET",
        f"{_ARTIFACTS}/prefix/contentinfo/<origin>/<container>/<path:path>",
        "artifacts.content",
        _list_content,
        "artifact",
    ),
    Route(
        "GET", f"{_ARTIFACTS}/prefix/contentinfo/<origin>/<container>", "artifacts.content", _list_content, "artifact"
    ),
    Route(
        "GET",
        f"{_ARTIFACTS}/contentinfo/<origin>/<container>/<path:path>",
        "artifacts.content",
        _get_content,
        "artifact",
    ),
    Route("PUT", _BLOB, "blob.put", _put, "blob", locked=False, signed=False, streams=True),
    Route("HEAD", _BLOB, "blob.head", _read, "blob", locked=False, signed=False),
    Route("GET", _BLOB, "blob.get", _read, "blob", locked=False, signed=False),
)
