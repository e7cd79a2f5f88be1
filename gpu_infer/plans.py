"""What a deployment would create, what the checks have found, and what it costs."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from gpu_infer.catalog import find_size
from gpu_infer.errors import Finding
from gpu_infer.notebook import html_table
from gpu_infer.spec import DEFAULT_CPU_CORES, DEFAULT_MEMORY_GB, DEFAULT_TTL, Cluster, ServiceSpec

__all__ = ["HOURS_PER_MONTH", "LINE", "Plan", "size_in_words", "wrapped"]

HOURS_PER_MONTH = 730

LINE = 110
"""Columns that a plan takes at most: what most terminals show whole."""


@dataclass(frozen=True)
class Plan:
    """What ``deploy()`` would do.

    Args:
        spec: what was asked for, checked.
        model_format: as the finder recognised it, empty where an entry script loads the model.
        template: name of the template.
        findings: of all checks.
        price_per_hour: US dollars while it exists, of the least instances where their number follows the load; 0 on the
            local target, on a Kubernetes endpoint, whose cluster is billed as it is, and where no price is known.
        creates: what would be created on Azure, in order.
        vm_size: of the nodes of the cluster, or of the instances of a managed endpoint; empty on the local target and
            where it is not known.
        nodes: how many, 0 the same.
        quota: what the instances of a managed endpoint need of the region's quota, in words.
    """

    spec: ServiceSpec
    model_format: str = ""
    template: str = ""
    findings: tuple[Finding, ...] = ()
    price_per_hour: float = 0.0
    creates: tuple[str, ...] = ()
    vm_size: str = ""
    nodes: int = 0
    quota: str = ""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would stop the deployment."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def price_per_month(self) -> float:
        """US dollars for 730 hours."""
        return self.price_per_hour * HOURS_PER_MONTH

    def rows(self) -> list[tuple[str, str]]:
        """The plan as pairs of what and value, in the order they are shown."""
        spec = self.spec
        rows = [
            ("service", spec.name),
            ("target", spec.target),
            ("model", f"{spec.model}" + (f" ({self.model_format})" if self.model_format else "")),
            ("template", self.template),
            ("preprocess", spec.preprocess),
            ("output", spec.output),
            ("postprocess", spec.postprocess),
            ("labels", _labels(spec)),
            ("entry script", str(spec.entry_script or "")),
            *self._place_rows(),
            *_server(spec),
            ("time-out", f"{spec.timeout:g} s per request"),
            ("lives", _life(spec)),
            ("creates", ", ".join(self.creates)),
            ("price", self._price()),
        ]
        return [(key, value) for key, value in rows if value]

    def to_dict(self) -> dict[str, object]:
        """The plan as plain values, for JSON."""
        return {
            **dict(self.rows()),
            "creates": list(self.creates),
            "vm_size": self.vm_size,
            "nodes": self.nodes,
            "quota": self.quota,
            "price_per_hour": self.price_per_hour,
            "findings": [
                {"level": found.level, "code": found.code, "message": found.message, "fix": found.fix}
                for found in self.findings
            ],
            "ok": not self.errors,
        }

    def _place_rows(self) -> list[tuple[str, str]]:
        """What it runs on."""
        spec = self.spec
        if spec.target == "local":
            return []
        place = self._cluster_rows() if spec.target == "aks" else self._endpoint_rows()
        return [*place, ("scored with", "a key" if spec.auth == "key" else "a token of Azure ML")]

    def _cluster_rows(self) -> list[tuple[str, str]]:
        cluster = self.spec.cluster or Cluster()
        asked = self.spec.resources.gpus * self.spec.scale.most
        return [
            ("cluster", f"{cluster.name}, {'for production' if cluster.purpose == 'FastProd' else 'dev-test'}"),
            ("VM size", size_in_words(self.vm_size)),
            ("nodes", str(self.nodes or "")),
            ("GPUs", _gpus(self.vm_size, self.nodes, asked, "in the cluster")),
            ("replicas", f"{_between(self.spec)}; {_share(self.spec)} each"),
        ]

    def _endpoint_rows(self) -> list[tuple[str, str]]:
        spec, most = self.spec, self.spec.scale.most
        new = "new" if f"endpoint {spec.name}" in self.creates else "there already"
        if spec.cluster is not None:
            return [
                ("endpoint", f"on Kubernetes compute {spec.cluster.name}, {new}"),
                ("instance type", spec.resources.vm_size or "the default of the cluster"),
                ("replicas", f"{_between(spec)}; {_share(spec)} each"),
            ]
        return [
            ("endpoint", f"managed, {new}"),
            ("VM size", size_in_words(self.vm_size)),
            ("instances", _between(spec)),
            ("GPUs", _gpus(self.vm_size, most, spec.resources.gpus * most, "in the instances")),
            ("quota", self.quota),
        ]

    def _price(self) -> str:
        spec = self.spec
        if spec.target == "online" and spec.cluster is not None:
            return f"nothing beside the cluster {spec.cluster.name}, which is billed as it is"
        if spec.target != "local" and not self.price_per_hour:
            return "unknown: there is no price for what it would run on"
        more = spec.scale.most / spec.scale.replicas if spec.target == "online" else 1.0
        hour = _money(self.price_per_hour, more, "{:.2f}")
        text = f"{hour} per hour, {_money(self.price_per_month, more, '{:,.0f}')} per month"
        if spec.target == "local":
            return text
        if spec.target == "online":
            return f"{text}, with requests or without (list price in eastus)"
        creates_cluster = any(created.startswith("cluster ") for created in self.creates)
        return f"{text}, {'' if creates_cluster else 'already, '}for the cluster (list price in eastus)"

    def __str__(self) -> str:
        width = max(len(key) for key, _ in self.rows())
        lines = [f"{key:<{width}}  {value}" for key, value in self.rows()]
        for found in self.findings:
            lines += ["", *wrapped(found.level.upper(), found.message, width), *wrapped("", found.fix, width)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        pairs = [*self.rows(), *((finding.level.upper(), str(finding)) for finding in self.findings)]
        return html_table("Plan", pairs)


def _server(spec: ServiceSpec) -> list[tuple[str, str]]:
    """What reads the requests in a container."""
    if spec.codeless:
        return [("served by", "Triton, which Azure ML runs by itself")]
    return [
        ("workers", str(spec.scale.workers)),
        ("batching", f"up to {spec.batching.max_batch} items" if spec.batching.enabled else "off"),
    ]


def _labels(spec: ServiceSpec) -> str:
    """Where the labels come from; empty where none are given."""
    return f"{len(spec.labels):,} given" if isinstance(spec.labels, tuple) else str(spec.labels or "")


def wrapped(head: str, text: str, width: int) -> list[str]:
    """A text beside its head, in lines that most terminals show whole; lines of its own stay."""
    room = LINE - width - 2
    lines = [piece for line in text.splitlines() for piece in _fold(line, room)]
    return [f"{head if at == 0 else '':<{width}}  {line}" for at, line in enumerate(lines)]


def _fold(line: str, room: int) -> list[str]:
    return textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False, drop_whitespace=True) or [""]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def size_in_words(name: str) -> str:
    """A size with what is in it."""
    size = find_size(name) if name else None
    if size is None:
        return name
    return ", ".join(part for part in (f"{name}: {size.vcpus} cores", f"{size.memory_gb:g} GB", size.hardware) if part)


def _money(least: float, times: float, how: str) -> str:
    """Dollars; two numbers where there may be several times as much."""
    both = [f"${how.format(least * each)}" for each in (1.0, times)]
    return both[0] if times == 1 else " to ".join(both)


def _between(spec: ServiceSpec) -> str:
    """How many replicas there are."""
    least, most = spec.scale.replicas, spec.scale.max_replicas
    return str(least) if most is None else f"{least} to {most}, as the load asks for"


def _share(spec: ServiceSpec) -> str:
    """What a replica gets of a node."""
    cores, memory = spec.resources.cpu_cores or DEFAULT_CPU_CORES, spec.resources.memory_gb or DEFAULT_MEMORY_GB
    return f"{cores:g} cores, {memory:g} GB, {_count(spec.resources.gpus, 'GPU')}"


def _gpus(vm_size: str, machines: int, needed: int, where: str) -> str:
    """How many of the machines' GPUs the replicas take; what other services hold is a finding."""
    size = find_size(vm_size) if vm_size else None
    if size is None or not machines:
        return f"{needed} asked for"
    return f"{needed} asked for, {machines * size.schedulable_gpus} {where}"


def _life(spec: ServiceSpec) -> str:
    if spec.target != "local":
        if spec.keep and spec.ttl is None:
            return "until deleted"
        return f"until deleted; sweep() removes it {(spec.ttl or DEFAULT_TTL) / 3600:g} h from now"
    if not spec.keep:
        return "until deleted, or this process ends"
    return f"until deleted, or {(spec.ttl or DEFAULT_TTL) / 3600:g} h from now"
