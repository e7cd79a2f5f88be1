"""Tokens: JSON Web Tokens as Azure hands them out, signed with a key that nobody checks."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from typing import Any

__all__ = ["LIFETIME", "expiry", "token"]

LIFETIME = 3600.0
"""Seconds for which a token holds."""


def token(key: bytes, *, tenant: str, audience: str, subject: str, lifetime: float = LIFETIME) -> str:
    """A token.

    Args:
        key: signs it.
        tenant: whose directory.
        audience: for which service.
        subject: who asks.
        lifetime: seconds.
    """
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": now,
        "nbf": now,
        "exp": int(now + lifetime),
        "appid": subject,
        "oid": subject,
        "tid": tenant,
        "ver": "1.0",
    }
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    return f"{signed}.{_text(hmac.digest(key, signed.encode(), 'sha256'))}"


def expiry(token: str) -> float | None:
    """When a token expires, in seconds since the epoch; ``None``: it is no JWT with an expiry."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def _part(value: Any) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
