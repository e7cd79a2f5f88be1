"""Environments and code, in versions; where the files of an address are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..wire import Refusal

__all__ = ["DATASTORES", "Version", "Versions", "artifact", "blobstore", "uri"]

_URI = re.compile(
    r"azureml://subscriptions/[^/]+/resourcegroups/[^/]+/workspaces/[^/]+/datastores/([^/]+)/paths/(.+)", re.IGNORECASE
)
_RUNS = "ExperimentRun/"
"""What the names of all blobs of the artifact store begin with."""

DATASTORES = ("workspaceblobstore", "workspaceartifactstore")
"""Where the SDK of today uploads models to, and where the one before does."""


@dataclass(slots=True)
class Version:
    """One version of an environment or of code.

    Attributes:
        name: of the asset.
        version: of it.
        properties: as they were sent.
        created: when.
    """

    name: str
    version: str
    properties: dict[str, Any]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class Versions:
    """All versions of one kind of asset.

    Args:
        kind: as the path has it: ``"environments"``.
        fixed: properties that no version may change.
    """

    def __init__(self, kind: str, *fixed: str) -> None:
        self.kind = kind
        self._fixed = fixed
        self._all: dict[tuple[str, str], Version] = {}

    def put(self, name: str, version: str, properties: dict[str, Any]) -> Version:
        """Make a version, or say something else of one that is there.

        Raises:
            Refusal: 409, it would be another version then.
        """
        known = self._all.get((name, version))
        if known is None:
            known = self._all[name, version] = Version(name, version, properties)
        changed = [key for key in self._fixed if known.properties.get(key) != properties.get(key)]
        if changed:
            message = f"Version {version} of {name!r} is there already with another {', '.join(changed)}."
            raise Refusal(409, "Conflict", f"{message} Give the new one another version.")
        known.properties = properties
        return known

    def find(self, name: str, version: str) -> Version:
        """One version.

        Raises:
            Refusal: 404, there is none.
        """
        found = self._all.get((name, version))
        if found is None:
            raise Refusal(404, "NotFound", f"There is no version {version} of {name!r} among the {self.kind}.")
        return found

    def of(self, name: str) -> list[Version]:
        """All versions of a name, the newest first."""
        return [found for found in reversed(self._all.values()) if found.name == name]

    def names(self) -> list[str]:
        """Of all assets."""
        return sorted({name for name, _ in self._all})


def blobstore(workspace_id: str) -> str:
    """The container of the workspace's blob store."""
    return f"azureml-blobstore-{workspace_id}"


def artifact(address: str, workspace_id: str) -> str:
    """The artifact, a file or a folder of them, that an address means.

    Raises:
        Refusal: 400, it is none on a datastore of the workspace.
    """
    found = _URI.fullmatch(address)
    store, path = found.groups() if found else ("", "")
    if store == DATASTORES[0]:
        return f"{blobstore(workspace_id)}/{path}".rstrip("/")
    if store == DATASTORES[1] and path.startswith(_RUNS):
        return path.removeprefix(_RUNS).rstrip("/")
    raise Refusal(400, "BadRequest", f"The emulator has no files of {address!r}: give a path on {DATASTORES[0]}.")


def uri(artifact_id: str, scope: str, workspace_id: str) -> str:
    """The address of an artifact; the reverse of :func:`artifact`."""
    own = blobstore(workspace_id) + "/"
    store, path = DATASTORES[1], _RUNS + artifact_id
    if artifact_id.startswith(own):
        store, path = DATASTORES[0], artifact_id.removeprefix(own)
    parts = scope.split("/")  # /subscriptions/S/resourceGroups/G/providers/P/workspaces/W
    return f"azureml://subscriptions/{parts[2]}/resourcegroups/{parts[4]}/workspaces/{parts[8]}/datastores/{store}/paths/{path}"
