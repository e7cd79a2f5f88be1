"""Typed clients for Azure ML scoring URIs, sync and async. Works without any Azure package.

::

    inputs, arrays, pictures what users hand in, and how large it may be: limits
    codecs, json_text        -> the bytes of a request
    kserve, kserve_service   the same in KServe's protocol, for Triton
    messages                 what travels between the parts
    protocol, decisions,
    answers, retry, budget   one call, without socket, clock or sleep
    tokens, credentials      keys and tokens that do not show themselves, and are renewed in time
    telemetry                spans and metrics, for processes that use OpenTelemetry
    results, signature       answers -> the type that the caller wants; what a service tells about itself
    base, failures           what both clients share
    sync, session            move the bytes with requests
    aio, connections         the same with aiohttp
    many                     score_many: any number of items through one client
    repeated                 one request sent over and over, for measuring
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import AsyncScoringClient
    from .many.progress import Progress
    from .many.results import AsyncManyResults, ManyResults
    from .messages import Codec, ScoreResponse
    from .results import ClassScore, ClassScores, FromAnswer
    from .retry import RetryPolicy
    from .signature import Signature, Tensor
    from .sync import ScoringClient
    from .tokens import AccessToken, AsyncCredential, Credential, KeyPair

__all__ = [
    "AccessToken",
    "AsyncCredential",
    "AsyncManyResults",
    "AsyncScoringClient",
    "ClassScore",
    "ClassScores",
    "Codec",
    "Credential",
    "FromAnswer",
    "KeyPair",
    "ManyResults",
    "Progress",
    "RetryPolicy",
    "ScoreResponse",
    "ScoringClient",
    "Signature",
    "Tensor",
]

_WHERE = {
    "AccessToken": "tokens",
    "AsyncCredential": "tokens",
    "AsyncManyResults": "many.results",
    "AsyncScoringClient": "aio",
    "ClassScore": "results",
    "ClassScores": "results",
    "Codec": "messages",
    "Credential": "tokens",
    "FromAnswer": "results",
    "KeyPair": "tokens",
    "ManyResults": "many.results",
    "Progress": "many.progress",
    "RetryPolicy": "retry",
    "ScoreResponse": "messages",
    "ScoringClient": "sync",
    "Signature": "signature",
    "Tensor": "signature",
}


def __getattr__(name: str) -> object:
    # On first use: whoever only wants one of the clients does not load the other's HTTP library.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
