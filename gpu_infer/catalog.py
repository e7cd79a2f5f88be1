"""The VM sizes of Azure that matter here: what is in them, what they cost, which are retired, and what to take instead.

The facts are of November 2026 and lie in ``catalog.json``. Where they come from:

- vCPUs, memory, GPUs: Microsoft's size tables (azure-compute-docs, ``sizes/gpu-accelerated``).
- Retirement: azure-compute-docs ``lifecycle/retirements-and-capacity-restrictions.md`` (2026-09-24) and azure-ai-docs
  ``includes/retiring-vms.md``.
- Managed endpoints, and who need not reserve 20 % more quota: azure-ai-docs
  ``reference-managed-online-endpoints-vm-sku-list.md``. It still names sizes that are retired.
- Prices: the Azure retail feed (Linux, pay as you go, eastus) as SkyPilot's catalogue kept it in 2025; of the retired
  P100 and P40 sizes, and of CPU sizes, Azure's price list. Other regions cost up to 30 % more. An estimate, no offer.

A successor is the size for inference with as many GPUs, or the nearest below where none has as many, and no less memory
per GPU. Fractions of an A10 are left out there: they are virtual GPUs with a driver of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["DEFAULT_SIZE", "DEFAULT_SUCCESSOR", "VmSize", "find_size", "sizes"]

DEFAULT_SIZE = "Standard_NC6"
"""The size of both tutorials, and of the official page on GPU inference."""

DEFAULT_SUCCESSOR = "Standard_NC4as_T4_v3"

_PREFIX = "standard_"


@dataclass(frozen=True, slots=True)
class VmSize:
    """One VM size.

    Args:
        name: as Azure spells it, ``Standard_NC4as_T4_v3``.
        vcpus: virtual CPU cores; quota counts these.
        memory_gb: main memory, GiB.
        gpus: GPUs per machine, below 1 where machines share one, 0 without.
        gpu: their model, empty without.
        gpu_memory_gb: memory of all its GPUs together, GB.
        cuda: whether they are NVIDIA's.
        family: the quota family, spelt as the quota service does; empty where unknown.
        price_per_hour: US dollars; ``None`` where unknown.
        retired: the day from which none can be had.
        successor: name of the size to take instead of a retired one.
        skips_reserve: whether managed endpoints ask no 20 % of quota on top.
        managed: whether managed endpoints take it.
    """

    name: str
    vcpus: int
    memory_gb: float
    gpus: float = 0.0
    gpu: str = ""
    gpu_memory_gb: float = 0.0
    cuda: bool = False
    family: str = ""
    price_per_hour: float | None = None
    retired: date | None = None
    successor: str | None = None
    skips_reserve: bool = False
    managed: bool = False

    @property
    def schedulable_gpus(self) -> int:
        """GPUs that Kubernetes gives away on one machine: whole ones, a virtual part of one counts as one."""
        return (1 if 0 < self.gpus < 1 else int(self.gpus)) if self.cuda else 0

    @property
    def hardware(self) -> str:
        """Its GPUs in words, such as ``1 x T4 with 16 GB``, empty without."""
        if not self.gpu:
            return ""
        count = Fraction(self.gpus).limit_denominator(16)
        return f"{count} x {self.gpu} with {self.gpu_memory_gb / max(1, self.gpus):g} GB"


def sizes() -> tuple[VmSize, ...]:
    """All sizes: those to be had, the retired ones, CPU sizes last."""
    return tuple(_by_key().values())


def find_size(name: str) -> VmSize | None:
    """The size of a name, or ``None``; upper and lower case are the same, ``Standard_`` may be left out."""
    return _by_key().get(_key(name))


def _key(name: str) -> str:
    return name.strip().lower().removeprefix(_PREFIX)


@cache
def _by_key() -> dict[str, VmSize]:
    rows: list[dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {_key(row["name"]): _read(row) for row in rows}


def _read(row: dict[str, Any]) -> VmSize:
    """One line of the file: a fraction is text there, and CUDA is said only of GPUs that have none."""
    retired = row.get("retired")
    typed: dict[str, Any] = {
        "memory_gb": float(row["memory_gb"]),
        "gpus": float(Fraction(row["gpus"])),
        "gpu_memory_gb": float(row.get("gpu_memory_gb", 0)),
        "cuda": bool(row.get("gpu")) and row.get("cuda", True),
        "retired": date.fromisoformat(retired) if retired else None,
    }
    return VmSize(**{**row, **typed})
