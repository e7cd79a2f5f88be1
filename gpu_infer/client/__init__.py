"""Typed clients for Azure ML scoring URIs, sync and async. Works without any Azure package.

::

    inputs, arrays           what users hand in
    codecs, json_text        -> the bytes of a request
    messages                 what travels between the parts
    protocol, decisions,
    answers, retry, budget   one call, without socket, clock or sleep
    credentials              keys and tokens that do not show themselves
    base                     what both clients share
    sync, aio                move the bytes: requests, httpx
    repeated                 one request sent over and over, for measuring
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import AsyncScoringClient
    from .messages import Codec, ScoreResponse
    from .retry import RetryPolicy
    from .sync import ScoringClient

__all__ = ["AsyncScoringClient", "Codec", "RetryPolicy", "ScoreResponse", "ScoringClient"]

_WHERE = {
    "AsyncScoringClient": "aio",
    "Codec": "messages",
    "RetryPolicy": "retry",
    "ScoreResponse": "messages",
    "ScoringClient": "sync",
}


def __getattr__(name: str) -> object:
    # On first use: whoever only wants one of the clients does not load the other's HTTP library.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
