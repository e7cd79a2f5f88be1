"""Autoscale settings, kept as they were sent and refused where they contradict themselves; and requests, counted."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ..wire import Refusal, items, mapping

__all__ = ["Autoscale", "Traffic"]

_DIRECTIONS = ("Increase", "Decrease", "None")
_MOST_PROFILES = 20


class Autoscale:
    """All autoscale settings of the resource group; capitals in their names do not matter."""

    def __init__(self) -> None:
        self._all: dict[str, dict[str, Any]] = {}

    def put(self, name: str, body: dict[str, Any]) -> bool:
        """Keep a setting, in the place of one of that name.

        Returns:
            whether it is new.

        Raises:
            Refusal: 400, it has no target, no profile, or a profile whose numbers or rules cannot be.
        """
        properties = mapping(body.get("properties"))
        profiles = [mapping(one) for one in items(properties.get("profiles"))]
        if not body.get("location") or not properties.get("targetResourceUri"):
            raise Refusal(400, "InvalidRequest", "An autoscale setting needs a location and a targetResourceUri.")
        if not 1 <= len(profiles) <= _MOST_PROFILES:
            raise Refusal(400, "InvalidRequest", f"An autoscale setting has 1 to {_MOST_PROFILES} profiles.")
        for profile in profiles:
            _check(profile)
        new = name.lower() not in self._all
        self._all[name.lower()] = {"name": name, "location": body["location"], "tags": mapping(body.get("tags"))}
        self._all[name.lower()]["properties"] = {**properties, "name": name}
        return new

    def find(self, name: str) -> dict[str, Any]:
        """A setting.

        Raises:
            Refusal: 404, there is none of that name.
        """
        setting = self._all.get(name.lower())
        if setting is None:
            raise Refusal(404, "ResourceNotFound", f"The autoscale setting {name!r} was not found.")
        return setting

    def remove(self, name: str) -> bool:
        """Forget a setting; whether there was one."""
        return self._all.pop(name.lower(), None) is not None

    def all(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return list(self._all.values())


def _check(profile: dict[str, Any]) -> None:
    capacity = mapping(profile.get("capacity"))
    try:
        least, most, default = (int(capacity[which]) for which in ("minimum", "maximum", "default"))
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(400, "InvalidCapacity", "A profile's capacity has a minimum, a maximum and a default.") from error
    if not 0 <= least <= default <= most:
        message = f"The capacity of a profile rises from minimum {least} over default {default} to maximum {most}."
        raise Refusal(400, "InvalidCapacity", message)
    for rule in items(profile.get("rules")):
        trigger, action = mapping(mapping(rule).get("metricTrigger")), mapping(mapping(rule).get("scaleAction"))
        if not trigger.get("metricName") or not trigger.get("metricResourceUri"):
            raise Refusal(400, "InvalidRule", "The metricTrigger of a rule names a metric and its resource.")
        if action.get("direction") not in _DIRECTIONS:
            raise Refusal(400, "InvalidRule", f"The direction of a rule is one of {', '.join(_DIRECTIONS)}.")


class Traffic:
    """How many requests each endpoint has had, by the minute."""

    def __init__(self) -> None:
        self._minutes: dict[str, Counter[int]] = {}

    def note(self, endpoint: str, *, ago: float = 0.0, requests: int = 1) -> None:
        """An endpoint has had requests, so many seconds ago."""
        self._minutes.setdefault(endpoint, Counter())[int((time.time() - ago) // 60)] += requests

    def means(self, endpoint: str, start: float, end: float, minutes: int) -> list[tuple[float, float]]:
        """The mean of the requests per minute, over stretches of so many minutes: when each begins, and the mean.

        As with Azure, stretches without any request are left out.
        """
        sums: Counter[int] = Counter()
        for minute, requests in self._minutes.get(endpoint, Counter[int]()).items():
            if start <= minute * 60 + 59 and minute * 60 < end:
                sums[minute // minutes] += requests
        return [(stretch * minutes * 60.0, requests / minutes) for stretch, requests in sorted(sums.items())]
