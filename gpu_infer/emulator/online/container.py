"""What the container of a deployment is made of: uploaded code, a registered model, variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifacts.routes import blob_name
from ..scoring.rollout import Layout
from ..services.layout import model_files
from ..state import CONTAINER, State
from ..wire import Refusal, mapping
from .models import Limits

__all__ = ["limits", "plan", "whole"]

_ASSET = re.compile(r".*/(codes|models|environments)/([^/]+)/versions/([^/]+)")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_SECONDS = (86_400, 3_600, 60, 1)


def plan(state: State, properties: Mapping[str, Any]) -> Layout:
    """Find the files of a deployment.

    Args:
        state: of the emulator.
        properties: as the SDK sends them.

    Raises:
        Refusal: 400, it names no code; 404, something that it names is not there.
    """
    code = mapping(properties.get("codeConfiguration"))
    script = str(code.get("scoringScript") or "")
    if not code.get("codeId") or not script:
        message = "The emulator runs deployments with a code_configuration only: without code there is nothing to run."
        raise Refusal(400, "BadRequest", message)
    name, version = _asset(code["codeId"], "codes")
    address = str(state.codes.find(name, version).properties.get("codeUri"))
    files = _code_files(state, address)
    if properties.get("model"):
        name, version = _asset(properties["model"], "models")
        files += model_files(f"{name}:{version}", state.artifacts, state.models)
    if properties.get("environmentId"):
        state.environments.find(*_asset(properties["environmentId"], "environments"))
    variables = {key: str(value) for key, value in mapping(properties.get("environmentVariables")).items()}
    return Layout(script, variables, tuple(files))


def _asset(number: Any, kind: str) -> tuple[str, str]:
    """Name and version of an asset of the workspace."""
    found = _ASSET.fullmatch(str(number))
    if not found or found[1] != kind:
        raise Refusal(400, "BadRequest", f"{number!r} is no id of one of the workspace's {kind}.")
    return found[2], found[3]


def _code_files(state: State, address: str) -> list[tuple[Path, str, bool]]:
    """Where the files of an uploaded folder go: into the working folder."""
    _, found, place = address.partition(f"/{CONTAINER}-code-")
    root = blob_name(f"{CONTAINER}-code-{place}".rstrip("/"))
    names = state.artifacts.below(root) if found else []
    if not names:
        raise Refusal(404, "NotFound", f"There are no files of the code at {address!r}: they were never uploaded.")
    return [(state.artifacts.path(name), f"app/{name.removeprefix(root + '/')}", False) for name in names]


def limits(properties: Mapping[str, Any]) -> Limits:
    """The limits of requests, Azure's own where none are sent.

    Raises:
        Refusal: 400, a number is none, or a time is none in the words of ISO 8601.
    """
    sent = mapping(properties.get("requestSettings"))
    known = Limits()
    at_once = whole(sent, "maxConcurrentRequestsPerInstance", known.max_concurrent)
    duration = sent.get("requestTimeout")
    return Limits(at_once, known.timeout_ms if duration is None else _seconds(str(duration)) * 1000)


def whole(sent: Mapping[str, Any], name: str, default: int) -> int:
    """A number of things: 1 or more, ``default`` where nothing is sent.

    Raises:
        Refusal: 400, it is none.
    """
    value = sent.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refusal(400, "BadRequest", f"The {name} is a whole number, 1 or more, not {value!r}.")
    return value


def _seconds(duration: str) -> float:
    found = _DURATION.fullmatch(duration)
    if not found or not any(found.groups()):
        raise Refusal(400, "BadRequest", f"{duration!r} is no duration: they look like PT1M30S.")
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), _SECONDS, strict=True))
