"""Packages that only some of the clients' work needs."""

from __future__ import annotations

from ..errors import Finding, MissingDependencyError

__all__ = ["missing_package"]


def missing_package(what: str, *, install: str) -> MissingDependencyError:
    """The error for a package that is not there.

    Args:
        what: what it is needed for, as the beginning of a sentence.
        install: what pip is to install.
    """
    message = f"{what}, which is not installed."
    return MissingDependencyError([Finding("error", "missing-extra", message, f"Install it: pip install {install}")])
