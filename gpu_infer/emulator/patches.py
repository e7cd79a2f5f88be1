"""JSON patches, in the form in which the SDK writes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from .wire import Refusal

__all__ = ["apply"]


def apply(document: Mapping[str, Any], patches: Any) -> dict[str, Any]:
    """A changed copy of a document.

    The SDK does not escape names, so below ``/properties`` and ``/kvTags`` the rest of a path is one name.

    Args:
        document: stays as it is.
        patches: a list of ``{"op", "path", "value"}``.

    Raises:
        Refusal: 400, the patches cannot be read.
    """
    changed = copy.deepcopy(dict(document))
    if not isinstance(patches, list):
        raise Refusal(400, "BadRequest", "A JSON patch is a list of operations.")
    for patch in cast("list[dict[str, Any]]", patches):
        operation, path = str(patch.get("op", "")).lower(), str(patch.get("path", ""))
        if operation not in ("add", "replace", "remove") or not path.startswith("/"):
            raise Refusal(400, "BadRequest", f"The patch {patch!r} cannot be applied.")
        first, _, rest = path[1:].partition("/")
        names = [first, rest] if first in ("properties", "kvTags") and rest else path[1:].split("/")
        place: dict[str, Any] = changed
        for name in names[:-1]:
            if not isinstance(place.get(name), dict):
                place[name] = {}
            place = place[name]
        if operation == "remove":
            place.pop(names[-1], None)
        else:
            place[names[-1]] = patch.get("value")
    return changed
