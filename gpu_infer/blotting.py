"""What must not be shown in a message: keys, tokens and signatures by their shape, the user's own secrets by value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

__all__ = ["blot_values", "blotted", "remember_secrets"]

HIDDEN = "***"

SHORTEST = 6
"""Characters of a value that is blotted out wherever it stands: a shorter one stands everywhere by chance."""

_NAMED = (
    r"([\"']?(?:primary_?key|secondary_?key|account_?key|shared_?access_?key|access_?token|refresh_?token|"
    r"instrumentation_?key|client_?secret|password|connection_?string|api_?key|authorization|secret)[\"']?"
    r"\s*[:=]\s*[\"']?)[^\"',;&\s}]+"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), blot)
    for pattern, blot in (
        (r"([?&](?:sig|code|token|access_token)=)[^&\s\"'<>]+", r"\1***"),
        (r"\b(sig=)[^&\s\"'<>]+", r"\1***"),
        (r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]+", r"\1***"),
        (r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?", HIDDEN),
        (_NAMED, r"\1***"),
        (r"(://[^/:@\s]+:)[^/@\s]+@", r"\1***@"),
    )
)

_SECRET_NAME = re.compile(
    r"(?:TOKEN|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PWD|PASS|SAS|SIG|SIGNATURE|CREDENTIALS?|CONN|CONNSTR|"
    r"CONNECTION|CONNECTIONSTRING|AUTH|AUTHORIZATION|DSN)(?:_|$)"
)
"""At the end of a word of a name: ``HF_TOKEN``, ``APIKEY``, ``AzureSqlConn``; not ``TOKENIZERS_PARALLELISM``."""

_OURS = ("GPU_INFER_", "AZUREML_", "WORKER_", "GUNICORN_", "SCORING_")
"""Names of settings, which are never secret."""

_values: frozenset[str] = frozenset()


def remember_secrets(variables: Mapping[str, str]) -> None:
    """From now on blot out what these variables hold, where their names say that it is secret.

    For as long as the process lives: a service may write of them until it ends.

    Args:
        variables: of a service's environment.
    """
    global _values  # noqa: PLW0603 - replaced as a whole, so that other threads may read it meanwhile
    found = {form for name, value in variables.items() if _is_secret(name) for form in _forms(value)}
    _values |= {form for form in found if len(form) >= SHORTEST}


def blot_values(text: str) -> str:
    """A text without the values that ``remember_secrets`` was given."""
    for value in sorted(_values, key=len, reverse=True):  # one may hold another
        text = text.replace(value, HIDDEN)
    return text


def blotted(text: str) -> str:
    """A text without keys, tokens and signatures, known or by their shape."""
    text = blot_values(text)
    for pattern, blot in _PATTERNS:
        text = pattern.sub(blot, text)
    return text


# --- inside -----------------------------------------------------------------------------------------------------------


def _is_secret(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).upper()
    return not words.startswith(_OURS) and _SECRET_NAME.search(words) is not None


def _forms(value: str) -> Iterator[str]:
    """A value as it may stand in a text: whole, as code, JSON and addresses write it, line by line, and its parts."""
    value = value.strip()
    yield from (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe=""))
    yield from (line.strip() for line in value.splitlines())
    for part in value.split(";"):  # of a connection string
        name, equals, inner = part.partition("=")
        if equals and _is_secret(name.strip()):
            yield inner.strip()
    yield from re.findall(r"://[^/:@\s]*:([^/@\s]+)@", value)
