"""The quota of cores that a managed online endpoint takes: the arithmetic of Azure ML, and what to ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpu_infer.catalog import VmSize, find_size
from gpu_infer.errors import Finding
from gpu_infer.preflight.facts import OnlineFacts, UsageFacts
from gpu_infer.preflight.vm_sizes import price
from gpu_infer.spec import Scale

__all__ = ["Quota", "check_quota", "cores_needed", "quota_of"]

REGION = ("TotalDedicatedCores", "Total Cluster Dedicated Regional vCPUs")
"""What Azure ML calls the quota of all families together: its name, and its name for people."""

_COUNTED = "clusterdedicatedvcpus"
"""What the names for people end with: ``Standard NCASv3_T4 Family Cluster Dedicated vCPUs``."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a deployment needs of the quota of a family of VM sizes.

    Args:
        family: as Azure spells it.
        vcpus: cores of one instance.
        reserved: whether Azure ML asks for 20 % more instances, which it needs to replace them.
        instances: that are to run.
        usage: of the family, ``None`` where it is not known.
    """

    family: str
    vcpus: int
    reserved: bool
    instances: int
    usage: UsageFacts | None

    @property
    def needed(self) -> int:
        """Cores."""
        return cores_needed(self.vcpus, self.instances, reserved=self.reserved)

    @property
    def free(self) -> int | None:
        """Cores that are left, ``None`` where there is no limit, or it is not known."""
        return None if self.usage is None or self.usage.limit is None else max(0, self.usage.limit - self.usage.used)

    @property
    def arithmetic(self) -> str:
        """How the need comes about: ``8 = ceil(1.2 x 1) x 4``."""
        instances = f"ceil(1.2 x {self.instances})" if self.reserved else str(self.instances)
        return f"{self.needed} = {instances} x {self.vcpus}"

    def __str__(self) -> str:
        if self.usage is None:
            has = f"how many {self.family or 'its family'} has is not known"
        elif self.usage.limit is None:
            has = f"{self.family} has no limit"
        else:
            has = f"{self.usage.used:,} of {self.usage.limit:,} used in {self.family}"
        return f"{self.arithmetic} cores; {has}"


def cores_needed(vcpus: int, instances: int, *, reserved: bool) -> int:
    """Cores of quota for so many instances: ``ceil(1.2 x instances)`` of them where a reserve is asked for."""
    return (-(-6 * instances // 5) if reserved else instances) * vcpus


def quota_of(vm_size: str, instances: int, facts: OnlineFacts) -> Quota | None:
    """What instances of a size need, ``None`` where nobody knows how many cores they have."""
    listed = next((one for one in facts.sizes or () if one.name.lower() == vm_size.lower()), None)
    size = find_size(vm_size) if vm_size else None
    vcpus = (listed.vcpus if listed else 0) or (size.vcpus if size else 0)
    if not vcpus:
        return None
    # The region's own name comes first: the same hardware has several in different regions.
    names = [name for name in (listed.family if listed else "", size.family if size else "") if name]
    usage = next((found for name in names if (found := _usage_of(name, facts.usage or ()))), None)
    family = usage.family if usage else next(iter(names), "")
    return Quota(family, vcpus, not (size and size.skips_reserve), instances, usage)


def check_quota(vm_size: str, scale: Scale, facts: OnlineFacts) -> list[Finding]:
    """The quota against what the instances need: the least of them must fit, the most should.

    What runs already counts as used, so a deployment that replaces another one needs its cores beside that one's.
    """
    quota = quota_of(vm_size, scale.replicas, facts)
    if quota is None or facts.usage is None:  # an unknown size, or no answer: both have been said
        return []
    if quota.usage is None:
        message = (
            f"The region's list of quotas names no family {quota.family or 'of ' + vm_size}, so whether there are the "
            f"{quota.arithmetic} cores for the deployment is not known."
        )
        return [Finding("info", "quota-unknown", message, "Azure ML's studio shows them under Quota.")]
    if (few := _too_few(quota, scale, facts)) is not None:
        return [few]
    most = quota_of(vm_size, scale.most, facts)
    if most is not None and most.free is not None and most.needed > most.free:
        message = (
            f"The quota holds {scale.replicas} of {vm_size}, not the {scale.most} that the autoscaler may go to: "
            f"needs {most.arithmetic} cores; {_used(most.usage)}."
        )
        return [Finding("warning", "quota", message, _ask_for(most))]
    return _check_region(quota, facts)


# --- inside -----------------------------------------------------------------------------------------------------------


def _key(family: str) -> str:
    """A family's name without what its spellings differ in: blanks, dashes, case, and what is counted."""
    return re.sub(r"[^a-z0-9]", "", family.lower()).removesuffix(_COUNTED)


def _usage_of(family: str, usage: Iterable[UsageFacts]) -> UsageFacts | None:
    return next((one for one in usage if _key(one.family) == _key(family)), None)


def _used(usage: UsageFacts | None) -> str:
    return "" if usage is None else f"used {usage.used} of {usage.limit}"


def _ask_for(quota: Quota) -> str:
    limit = (quota.usage.used if quota.usage else 0) + quota.needed
    return f"Ask for {limit} in family {quota.family!r} (Azure ML's studio, Quota)."


def _too_few(quota: Quota, scale: Scale, facts: OnlineFacts) -> Finding | None:
    if quota.free is None or quota.needed <= quota.free:
        return None
    reserve = " Azure ML keeps 20 % more instances free, for their replacement." if quota.reserved else ""
    message = f"Too little quota: needs {quota.arithmetic} cores; {_used(quota.usage)}.{reserve}"
    old = [one for one in (facts.endpoint.deployments or () if facts.endpoint else ()) if one.instances]
    if old:
        names = ", ".join(f"{one.name} ({one.instances} x {one.vm_size})" for one in old)
        message += f" What is replaced, {names}, holds its cores until the new one serves."
    fixes = [_ask_for(quota)]
    fewer = _most_that_fit(quota)
    if 0 < fewer < scale.replicas:
        fixes.append(f"Or lower replicas= to {fewer}.")
    if others := _that_fit(quota, facts):
        fixes.append(f"Or take what the quota holds: {', '.join(others)}.")
    return Finding("error", "quota", message, " ".join(fixes))


def _most_that_fit(quota: Quota) -> int:
    free = quota.free or 0
    return max(
        (n for n in range(quota.instances) if cores_needed(quota.vcpus, n, reserved=quota.reserved) <= free), default=0
    )


def _that_fit(quota: Quota, facts: OnlineFacts) -> list[str]:
    """Up to two sizes with NVIDIA GPUs that the quota holds as many instances of, the cheapest first."""
    found: list[VmSize] = []
    for listed in facts.sizes or ():
        size = find_size(listed.name)
        if listed.managed is False or size is None or size.gpus < 1 or not size.cuda or size.retired:
            continue
        other = quota_of(size.name, quota.instances, facts)
        if size.managed and other is not None and other.free is not None and other.needed <= other.free:
            found.append(size)
    cheapest = sorted(found, key=lambda size: size.price_per_hour or float("inf"))[:2]
    return [f"{size.name} ({size.hardware}, {price(size, 'instance')})" for size in cheapest]


def _check_region(quota: Quota, facts: OnlineFacts) -> list[Finding]:
    """All families of a region together have a quota too."""
    whole = next((found for name in REGION if (found := _usage_of(name, facts.usage or ()))), None)
    if whole is None or whole.limit is None or quota.needed <= whole.limit - whole.used:
        return []
    message = (
        f"The quota of all dedicated cores of the region may be too little: needs {quota.arithmetic} cores; "
        f"{_used(whole)}."
    )
    fix = f"Ask for {whole.used + quota.needed} in all (Azure ML's studio, Quota)."
    return [Finding("warning", "quota", message, fix)]
