"""What a deployment would create, what the checks have found, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_infer.errors import Finding
from gpu_infer.notebook import html_table
from gpu_infer.spec import DEFAULT_TTL, ServiceSpec

__all__ = ["Plan"]

HOURS_PER_MONTH = 730


@dataclass(frozen=True)
class Plan:
    """What ``deploy()`` would do.

    Args:
        spec: what was asked for, checked.
        model_format: as the finder recognised it, empty where an entry script loads the model.
        template: name of the template.
        findings: of all checks.
        price_per_hour: US dollars while it exists; 0 on the local target.
    """

    spec: ServiceSpec
    model_format: str = ""
    template: str = ""
    findings: tuple[Finding, ...] = ()
    price_per_hour: float = 0.0

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
            ("entry script", str(spec.entry_script or "")),
            ("workers", str(spec.scale.workers)),
            ("batching", f"up to {spec.batching.max_batch} items" if spec.batching.enabled else "off"),
            ("time-out", f"{spec.timeout:g} s per request"),
            ("lives", _life(spec)),
            ("price", f"${self.price_per_hour:.2f} per hour, ${self.price_per_month:,.0f} per month"),
        ]
        return [(key, value) for key, value in rows if value]

    def to_dict(self) -> dict[str, object]:
        """The plan as plain values, for JSON."""
        return {
            **dict(self.rows()),
            "price_per_hour": self.price_per_hour,
            "findings": [
                {"level": found.level, "code": found.code, "message": found.message, "fix": found.fix}
                for found in self.findings
            ],
            "ok": not self.errors,
        }

    def __str__(self) -> str:
        width = max(len(key) for key, _ in self.rows())
        lines = [f"{key:<{width}}  {value}" for key, value in self.rows()]
        lines += [f"{finding.level.upper():<{width}}  {finding}" for finding in self.findings]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        pairs = [*self.rows(), *((finding.level.upper(), str(finding)) for finding in self.findings)]
        return html_table("Plan", pairs)


def _life(spec: ServiceSpec) -> str:
    if not spec.keep:
        return "until deleted, or this process ends"
    return f"until deleted, or {(spec.ttl or DEFAULT_TTL) / 3600:g} h from now"
