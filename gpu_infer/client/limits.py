"""How large a request may be: said here, before megabytes are sent to a router that refuses them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from .arrays import bad_input

__all__ = ["check_max_body", "known_limit", "positive_or_none", "refuse_too_large"]

AKS_ROUTER = 100 << 20
"""Bytes that the router of Azure ML on AKS takes (documented as 100 MB; counted generously)."""

_AKS_PATH = re.compile(r"/api/v1/service/[^/]+/score/?")
"""The scoring address of an AKS web service, whose host is a bare IP address or any name."""


def check_max_body(max_body: int | None) -> int | None:
    """The limit that a caller sets, in bytes.

    Raises:
        ValueError: no whole number above 0.
    """
    return positive_or_none("max_body", max_body, unit="bytes")


def positive_or_none(name: str, value: int | None, *, unit: str) -> int | None:
    """A number that a caller may set.

    Raises:
        ValueError: no whole number above 0.
    """
    # bool is an int, and True was surely meant as something else.
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be a number of {unit} above 0, or None, not {value!r}.")
    return value


def known_limit(uri: str) -> int | None:
    """Bytes that the service at this address takes at most, ``None`` where no limit is published.

    For managed online endpoints there is none: their table of limits has a bandwidth, 5 MB/s, and no size.
    """
    return AKS_ROUTER if _AKS_PATH.fullmatch(urlsplit(uri).path) else None


def refuse_too_large(size: int, *, limit: int | None, known: int | None) -> None:
    """Check the size of a body.

    Args:
        size: bytes.
        limit: what the caller set, which outranks what is known; ``None`` where nothing.
        known: from :func:`known_limit`.

    Raises:
        BadInputError: it is too large; nothing has been sent.
    """
    most = known if limit is None else limit
    if most is not None and size > most:
        whose = "the router of Azure ML on AKS takes" if limit is None else "max_body= allows"
        bad_input(
            f"the request has {size:,} bytes, and {whose} {most:,} at most. Send fewer items per request, arrays as "
            ".npy instead of JSON, or scale pictures with max_side="
        )
