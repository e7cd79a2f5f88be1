"""What is wrong with a conda file, found before Azure spends half an hour on building an image from it.

``conda_reader`` reads the file, ``conda_rules`` has the rules. Both need packages that only the extras bring, so they
are imported where a file is checked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

from gpu_infer.errors import Finding

__all__ = ["lint_conda"]


def lint_conda(text: str, *, gpu: bool = True, today: date | None = None) -> list[Finding]:
    """Check a conda file for an Azure ML inference image.

    Args:
        text: of the file.
        gpu: whether the service is to run on a GPU.
        today: the day that decides which Python is out of support; now where ``None``.

    Returns:
        everything that is wrong with it, errors first.
    """
    from gpu_infer.preflight.conda_reader import read_conda
    from gpu_infer.preflight.conda_rules import RULES

    file = replace(read_conda(text), gpu=gpu, today=today or datetime.now(UTC).date())
    findings = list(file.problems)
    if not any(finding.code == "conda-yaml" for finding in findings):
        findings += [finding for rule in RULES for finding in rule(file)]
    order = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: order.index(finding.level))
