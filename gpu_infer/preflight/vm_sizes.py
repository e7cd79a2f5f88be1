"""Which VM size a service runs on: not a retired one, not one without a GPU that CUDA knows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction

from gpu_infer.catalog import DEFAULT_SUCCESSOR, VmSize, find_size, sizes
from gpu_infer.errors import Finding

__all__ = ["gpus_per_node", "resolve_size", "same_size"]

RETIRING_SOON = timedelta(days=183)
ANOTHER = f'Give a size with a whole NVIDIA GPU, such as vm_size="{DEFAULT_SUCCESSOR}".'


def resolve_size(
    asked: str,
    facts_sizes: Mapping[str, int] | None,
    *,
    replace_retired: bool,
    today: date,
    machine: str = "node",
    gpu: bool = True,
) -> tuple[str, list[Finding]]:
    """The VM size to create machines of.

    Azure Machine Learning's own list keeps sizes long after their retirement, so the catalog's date counts; with
    ``replace_retired=False`` a size that the region still lists is taken at its word.

    Args:
        asked: the size that is wanted; empty gives empty, and nothing to say.
        facts_sizes: the region's own list, each with its GPUs; ``None`` where it could not be read.
        replace_retired: whether a retired size becomes its successor, with a warning; else it is an error.
        today: the day that decides what is retired.
        machine: what a machine of it is called: a ``node`` of a cluster, an ``instance`` of a deployment.
        gpu: whether the service is to run on a GPU.

    Returns:
        the size's name as Azure spells it, and what is to be said of it.
    """
    if not asked:  # an existing cluster as it is; where there is none, check_cluster() says so
        return "", []
    listed = {name.lower(): name for name in facts_sizes or {}}
    size = find_size(asked)
    if size is None:
        name = listed.get(_full(asked).lower(), _full(asked))
        return name, _check_unknown(name, facts_sizes, gpu=gpu)
    if size.retired is None or today < size.retired:
        gpu_findings = _check_gpu(size, machine) if gpu else []
        if not size.cuda and gpu:
            return size.name, gpu_findings
        return size.name, [*gpu_findings, *_check_retiring(size, today), *_check_listed(size, listed, machine)]
    if replace_retired:
        successor = _successor(size)
        return successor.name, [_replaced(size, successor, machine), *_check_listed(successor, listed, machine)]
    return size.name, [_retired(size, machine, still_listed=size.name.lower() in listed)]


def same_size(one: str, other: str) -> bool:
    """Whether two names mean the same size, a retired one and its successor included."""
    return _full(one).lower() in _means(other) or _full(other).lower() in _means(one)


def gpus_per_node(name: str, facts_sizes: Mapping[str, int] | None = None) -> int | None:
    """GPUs that Kubernetes gives away on a node of that size, ``None`` where that is not known."""
    size = find_size(name)
    if size is not None:
        return size.schedulable_gpus
    return {listed.lower(): gpus for listed, gpus in (facts_sizes or {}).items()}.get(_full(name).lower())


def price(size: VmSize, machine: str) -> str:
    """The price of a machine in words."""
    return "price unknown" if size.price_per_hour is None else f"${size.price_per_hour:.2f} per hour and {machine}"


# --- inside -----------------------------------------------------------------------------------------------------------


def _full(name: str) -> str:
    return name if name.lower().startswith("standard_") else f"Standard_{name}"


def _means(name: str) -> set[str]:
    size = find_size(name)
    if size is None:
        return {_full(name).lower()}
    return {size.name.lower()} | ({size.successor.lower()} if size.successor else set[str]())


def _successor(size: VmSize) -> VmSize:
    """The last of the chain: a successor may be retired itself one day."""
    while size.successor:
        found = find_size(size.successor)
        if found is None:
            break
        size = found
    return size


def _day(size: VmSize) -> str:
    return f"{size.retired:%d %B %Y}".lstrip("0")


def _replaced(size: VmSize, successor: VmSize, machine: str) -> Finding:
    message = (
        f"Azure has retired {size.name} ({size.hardware}, {price(size, machine)}) on {_day(size)}. Its successor "
        f"{successor.name} ({successor.hardware}, {price(successor, machine)}) is taken instead."
    )
    fix = f'vm_size="{successor.name}" says so without this warning, replace_retired=False makes it an error.'
    return Finding("warning", "vm-retired", message, fix)


def _retired(size: VmSize, machine: str, *, still_listed: bool) -> Finding:
    successor = _successor(size)
    said = f"Azure has retired {size.name} on {_day(size)}"
    if still_listed:
        message = f"{said}, though the region still lists it. It is tried, since replace_retired=False."
        return Finding("warning", "vm-retired", message)
    fix = f'Give vm_size="{successor.name}" ({successor.hardware}, {price(successor, machine)}).'
    return Finding("error", "vm-retired", f"{said}: none can be had.", fix)


def _check_gpu(size: VmSize, machine: str) -> list[Finding]:
    if not size.gpus:
        message = f"{size.name} has no GPU, and the service is to run on one."
        return [Finding("error", "vm-cpu", message, ANOTHER)]
    if not size.cuda:
        message = f"The GPU of {size.name} is AMD's {size.gpu}, which CUDA and so the service's image cannot use."
        return [Finding("error", "vm-amd", message, ANOTHER)]
    if size.gpus < 1:
        share = Fraction(size.gpus).limit_denominator(16)
        message = (
            f"{machine.capitalize()}s of size {size.name} have {share} of an {size.gpu} with {size.gpu_memory_gb:g} "
            "GB. It counts as one GPU, needs NVIDIA's GRID driver, and shares its speed with others."
        )
        return [Finding("warning", "vm-fraction", message, ANOTHER)]
    return []


def _check_retiring(size: VmSize, today: date) -> list[Finding]:
    if size.retired is None or size.retired - today > RETIRING_SOON:
        return []
    message = f"Azure retires {size.name} on {_day(size)}; its machines are switched off that day."
    return [Finding("warning", "vm-retiring", message, f'vm_size="{_successor(size).name}" is its successor.')]


def _check_listed(size: VmSize, listed: Mapping[str, str], machine: str) -> list[Finding]:
    if not listed or size.name.lower() in listed:
        return []
    message = f"The region's list of VM sizes does not name {size.name}, so Azure may refuse it there."
    alive = [other for name in listed if (other := find_size(name)) and other.cuda and other.retired is None]
    cheapest = sorted(alive, key=lambda other: other.price_per_hour or float("inf"))[:3]
    names = ", ".join(f"{other.name} ({price(other, machine)})" for other in cheapest)
    fix = f"It does name {names}." if names else "Another region may have it."
    return [Finding("warning", "vm-region", message, fix)]


def _check_unknown(name: str, facts_sizes: Mapping[str, int] | None, *, gpu: bool) -> list[Finding]:
    """A size that the catalog does not have: newer than this library, or misspelt."""
    gpus = gpus_per_node(name, facts_sizes)
    if gpus == 0 and gpu:
        return [Finding("error", "vm-cpu", f"{name} has no GPU, and the service is to run on one.", ANOTHER)]
    known = {size.name.lower(): size.name for size in sizes() if not size.retired and size.cuda}
    known |= {listed.lower(): listed for listed in facts_sizes or {}}
    close = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.8)]
    if gpus is not None:
        message = f"This version does not know {name}, so neither its price nor the memory of its GPUs is checked."
        return [Finding("warning", "vm-unknown", message)]
    who = "Neither this version nor the region's list knows" if facts_sizes else "This version does not know"
    fix = f"If it is misspelt: there is {', '.join(close)}." if close else ""
    return [Finding("warning", "vm-unknown", f"{who} {name}. It is passed on unchecked.", fix)]
