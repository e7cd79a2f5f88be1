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
from . import triton
from .models import MOST_INSTANCES, Limits, Spec

__all__ = ["build_problem", "spec"]

_ASSET = re.compile(r".*/(codes|models|environments)/([^/]+)/versions/([^/]+)")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_REMOVED = re.compile(r"^\s*-\s*[\"']?tensorflow-gpu\b", re.MULTILINE)
_SECONDS = (86_400, 3_600, 60, 1)


def spec(state: State, body: Mapping[str, Any]) -> Spec:
    """Read a deployment.

    Args:
        state: of the emulator.
        body: as the SDK sends it.

    Raises:
        Refusal: 400, it names no code, or has a number or a time that is none; 404, something that it names is not
            there.
    """
    properties = mapping(body.get("properties"))
    least = whole(mapping(properties.get("scaleSettings")), "minInstances", 1)
    replicas = whole(mapping(body.get("sku")), "capacity", least)
    if replicas > MOST_INSTANCES:
        message = f"A deployment has at most {MOST_INSTANCES} instances, not {replicas}."
        raise Refusal(400, "BadRequest", message)
    files = _files(state, properties)
    return Spec(files, _limits(properties), replicas, _patience(properties), properties, mapping(body.get("tags")))


def _files(state: State, properties: Mapping[str, Any]) -> Layout:
    code = mapping(properties.get("codeConfiguration"))
    script = str(code.get("scoringScript") or "")
    model: list[tuple[Path, str, bool]] = []
    kind = ""
    if properties.get("model"):
        name, version = _asset(properties["model"], "models")
        model = model_files(f"{name}:{version}", state.artifacts, state.models)
        found = state.models.find(f"{name}:{version}")
        kind = str(found.fields.get("modelType")) if found else ""
    if code.get("codeId") and script:
        name, version = _asset(code["codeId"], "codes")
        files = _code_files(state, str(state.codes.find(name, version).properties.get("codeUri")))
    else:
        script, files = triton.SCRIPT, triton.files(kind, model)
    if properties.get("environmentId"):
        state.environments.find(*_asset(properties["environmentId"], "environments"))
    variables = {key: str(value) for key, value in mapping(properties.get("environmentVariables")).items()}
    return Layout(script, variables, (*files, *model))


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


def build_problem(state: State, properties: Mapping[str, Any]) -> str:
    """Why the image of a deployment cannot be built, empty where nothing is known against it."""
    number = properties.get("environmentId")
    if not number:
        return ""
    conda = str(state.environments.find(*_asset(number, "environments")).properties.get("condaFile") or "")
    if not _REMOVED.search(conda):
        return ""
    return (
        'Pip subprocess error: The "tensorflow-gpu" package has been removed! Please install "tensorflow" instead. '
        "CondaEnvException: Pip failed"
    )


def _patience(properties: Mapping[str, Any]) -> float:
    """Seconds until the liveness probe gives a container up; Azure's defaults where nothing is sent."""
    probe = mapping(properties.get("livenessProbe"))
    delay, period = (_seconds(str(probe.get(name) or "PT10S")) for name in ("initialDelay", "period"))
    return delay + period * whole(probe, "failureThreshold", 30)


def _limits(properties: Mapping[str, Any]) -> Limits:
    """The limits of requests, Azure's own where none are sent."""
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
