"""The ``config.json`` of a workspace, as the Azure portal has it to download: both SDKs are led by it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gpu_infer.errors import Finding, PreflightError

__all__ = ["WorkspaceConfig", "read_config"]

_FIELDS = ("subscription_id", "resource_group", "workspace_name")
_SCOPE = re.compile(r"/?subscriptions/([^/]+)/resource[gG]roups/([^/]+)/providers/[^/]+/workspaces/([^/]+)/?")


@dataclass(frozen=True, slots=True)
class WorkspaceConfig:
    """Which workspace a file names.

    Args:
        subscription_id: of Azure.
        resource_group: of the workspace.
        name: of the workspace.
    """

    subscription_id: str
    resource_group: str
    name: str


def read_config(config: Path) -> WorkspaceConfig:
    """The workspace of a ``config.json``, or of the folder that has one, or of one above that.

    Raises:
        PreflightError: there is none, or it does not name a workspace.
    """
    file = config if config.is_file() else _below_or_above(config)
    fix = (
        f'It needs {", ".join(_FIELDS)}; the Azure portal has it to download, at the workspace: "Download config.json".'
    )
    if file is None:
        message = f"There is no config.json in {config.resolve()}, nor in a folder above it."
        raise PreflightError([Finding("error", "config", message, fix)])
    try:
        content: Any = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        message = f"{file} cannot be read as the config.json of a workspace: {error}."
        raise PreflightError([Finding("error", "config", message, fix)]) from error
    fields = cast("dict[str, Any]", content if isinstance(content, dict) else {})
    missing = [name for name in _FIELDS if not isinstance(fields.get(name), str) or not fields[name]]
    if not missing:
        return WorkspaceConfig(*(fields[name] for name in _FIELDS))
    if scope := _SCOPE.fullmatch(str(fields.get("Scope") or "")):  # the form of old
        return WorkspaceConfig(*scope.groups())
    message = f"{file} is no config.json of a workspace: it has no {', no '.join(missing)}."
    raise PreflightError([Finding("error", "config", message, fix)])


def _below_or_above(folder: Path) -> Path | None:
    """Where the SDKs look: in some folders of this one, then of those above."""
    places = [folder.resolve(), *folder.resolve().parents]
    files = (place / inner / "config.json" for inner in (".azureml", "aml_config", "") for place in places)
    return next((file for file in files if file.is_file()), None)
