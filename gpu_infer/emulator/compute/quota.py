"""Quota of vCPUs: what may be used of each family of VM sizes, and what managed deployments use of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ... import catalog

__all__ = ["TOTAL", "Claim", "Quota", "families", "is_offered"]

TOTAL = "total"
"""The key of the region as a whole."""

_GENEROUS = 10_000
"""vCPUs of what nothing was said about, where managed deployments ask."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one managed deployment asks of the quota.

    Attributes:
        size: of its instances.
        instances: how many.
    """

    size: catalog.VmSize
    instances: int

    @property
    def vcpus(self) -> int:
        """VCPUs that it needs: for most sizes Azure keeps a fifth more instances free, for upgrades.

        ("Manage quotas", Azure Machine Learning documentation: ``ceil(1.2 * instances) * cores``.)
        """
        instances = self.instances if self.size.skips_reserve else -(-self.instances * 12 // 10)
        return instances * self.size.vcpus


class Quota:
    """vCPUs by quota family, VM size or ``"total"``; capitals do not matter.

    Azure has one quota for virtual machines, AKS nodes among them, and another for managed endpoints: the limits here
    hold for each of the two, and what is used of the one is not missing from the other.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = {key.lower(): limit for key, limit in limits.items()}

    def set(self, key: str, limit: int) -> None:
        """Set a limit.

        Raises:
            ValueError: there is no such family or size, or the limit is below 0.
        """
        known = {TOTAL, *families(), *(size.name for size in catalog.sizes())}
        if key.lower() not in {name.lower() for name in known}:
            raise ValueError(
                f"There is no quota {key!r}. Give {TOTAL!r}, a VM size, or a family: {', '.join(families())}."
            )
        if limit < 0:
            raise ValueError(f"The quota of {key!r} cannot be {limit}: give 0 vCPUs or more.")
        self._limits[key.lower()] = limit

    def get(self, key: str) -> int | None:
        """A limit; ``None``: nothing was said."""
        return self._limits.get(key.lower())

    def limit(self, key: str) -> int:
        """What managed deployments may use."""
        found = self.get(key)
        return _GENEROUS if found is None else found

    def missing(self, wanted: Claim, others: Iterable[Claim]) -> tuple[int, int, int] | None:
        """What a managed deployment lacks.

        Args:
            wanted: by it.
            others: of the deployments that there are, without what it replaces.

        Returns:
            used, limit, needed, in vCPUs; ``None``: it is covered.
        """
        claims = list(others)
        for key in (wanted.size.family, wanted.size.name, TOTAL):
            used = used_of(key, claims)
            if key and used + wanted.vcpus > self.limit(key):
                return used, self.limit(key), wanted.vcpus
        return None

    def usages(self, claims: Iterable[Claim], *, subscription_id: str, location: str) -> list[dict[str, Any]]:
        """Limit and use of each family, as ``compute.list_usage`` shows them."""
        known = list(claims)
        root = f"/subscriptions/{subscription_id}/providers/Microsoft.MachineLearningServices/locations/{location}"
        shown = [(TOTAL, "Total Cluster Dedicated Regional vCPUs")]
        shown += [(family, f"{_words(family)} Cluster Dedicated vCPUs") for family in families()]
        return [
            {
                "id": f"{root}/usages/{key}",
                "type": "Microsoft.MachineLearningServices/usages",
                "unit": "Count",
                "currentValue": used_of(key, known),
                "limit": self.limit(key),
                "name": {"value": words if key == TOTAL else key, "localizedValue": words},
            }
            for key, words in shown
        ]


def used_of(key: str, claims: Iterable[Claim]) -> int:
    """VCPUs that count against a limit."""
    return sum(claim.vcpus for claim in claims if key in (TOTAL, claim.size.family, claim.size.name))


def families() -> tuple[str, ...]:
    """The quota families of all VM sizes that can still be had."""
    return tuple(sorted({size.family for size in catalog.sizes() if size.family and is_offered(size)}))


def is_offered(size: catalog.VmSize) -> bool:
    """Whether a size can still be had."""
    return size.retired is None or size.retired > date.today()  # noqa: DTZ011 (a calendar date)


def _words(family: str) -> str:
    """``standardDSv2Family`` as people read it."""
    return f"Standard {family.removeprefix('standard').removesuffix('Family').strip()} Family"
