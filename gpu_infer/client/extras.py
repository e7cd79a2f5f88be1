"""Packages that only some of the clients' work needs."""

from __future__ import annotations

from ..errors import Finding, MissingDependencyError

__all__ = ["missing_extra"]


def missing_extra(what: str, extra: str) -> MissingDependencyError:
    """The error for a package that is not there.

    Args:
        what: what it is needed for, as the beginning of a sentence.
        extra: of this package, that brings it.
    """
    message = f"{what}, which is not installed."
    return MissingDependencyError([Finding("error", "missing-extra", message, f"pip install 'gpu-infer[{extra}]'")])
