"""What went wrong below HTTP, in words: both HTTP libraries wrap what the operating system and OpenSSL say."""

from __future__ import annotations

import os
import ssl
import zlib
from typing import cast

from .credentials import CredentialError
from .messages import Failure

__all__ = ["chain_of", "credential_failure", "not_encrypted", "reason_of", "too_large"]

_HANDSHAKE_FAILED = (
    "HTTP_REQUEST",
    "NO_PROTOCOLS_AVAILABLE",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_VERSION_NUMBER",
)
"""Reasons of OpenSSL's that only come before anything is sent."""


def too_large(limit: int) -> Failure:
    """The outcome for an answer beyond the limit."""
    return Failure("too_large", f"The answer is larger than {limit:,} bytes; score fewer items per request.")


def credential_failure(problem: CredentialError) -> Failure:
    """The outcome when no credential could be had."""
    return Failure("credential", str(problem), problem.__cause__ or problem)


def chain_of(error: BaseException) -> list[BaseException]:
    """An exception and all that it came from, as far as its layers say so.

    ``__context__`` is left out: it leads to whatever the caller was handling when it called us.
    """
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        current = todo.pop(0)
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            # urllib3 keeps the inner exception as an argument or as .reason, not always as the cause.
            todo += [current.__cause__, getattr(current, "reason", None), *current.args]
            if isinstance(current, BaseExceptionGroup):
                todo += cast("BaseExceptionGroup[BaseException]", current).exceptions
    return found


def reason_of(error: BaseException) -> str:
    """In a few words, what the operating system or the protocol said; never the address with its query."""
    chain = chain_of(error)
    for inner in reversed(chain):
        if isinstance(inner, zlib.error) or type(inner).__name__ == "ContentEncodingError":  # aiohttp's, an extra
            return f"it cannot be unpacked ({inner})"
        if isinstance(inner, ConnectionError) and inner.errno:
            return os.strerror(inner.errno)
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
    return type(chain[-1]).__name__


def not_encrypted(error: BaseException, where: str) -> Failure | None:
    """The outcome where no TLS connection came about, ``None`` where that is not what went wrong.

    Args:
        error: what the HTTP library raised.
        where: scheme, host and port of the service.
    """
    for inner in chain_of(error):
        if isinstance(inner, ssl.SSLCertVerificationError):
            text = f"The certificate of {where} was not accepted: {reason_of(error)}. Nothing was sent."
            return Failure("tls", text, error)
        if isinstance(inner, ssl.SSLError) and getattr(inner, "reason", None) in _HANDSHAKE_FAILED:
            text = (
                f"No encrypted connection to {where} could be agreed on: {reason_of(error)}. Does the service speak "
                "http there, and not https? Nothing was sent."
            )
            return Failure("tls", text, error)
    return None
