"""What may stand for ``credential=``, in types that do not show what they hold, and when a token is due for renewal."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

__all__ = [
    "HIDDEN",
    "SCOPE",
    "AccessToken",
    "AsyncCredential",
    "AsyncProvider",
    "AsyncTokenCredential",
    "Credential",
    "Given",
    "IssuedToken",
    "KeyPair",
    "Provider",
    "Sealed",
    "Token",
    "TokenCredential",
    "renewal_time",
]

SCOPE = "https://ml.azure.com/.default"
"""What a Microsoft Entra token is asked for to score at an online endpoint."""

HIDDEN = "***"

MIN_REDACTED = 4
"""Characters: a shorter key would blot out half of every message, and protects nothing."""

RENEWAL_BEGINS, RENEWAL_ENDS = 0.8, 0.9
"""Shares of a token's life, between which it is renewed: early enough for several attempts, and not all at once."""

RENEWAL_SPREAD = 0.1
"""Share of the time from ``refresh_on`` to the end, over which renewals are spread."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """Both keys of an Azure ML service or endpoint. The second is used as soon as the first is refused.

    Attributes:
        primary: the key that is used first.
        secondary: the key to fall back to.
    """

    primary: str
    secondary: str

    # Nothing is checked here: an error raised in the constructor would show the keys among its variables.

    def __repr__(self) -> str:
        return f"KeyPair({HIDDEN!r}, {HIDDEN!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Keys are never pickled.")


@dataclass(frozen=True, slots=True, repr=False)
class AccessToken:
    """A token that expires: an Azure ML token, or one of Microsoft Entra.

    Attributes:
        token: the text.
        expires_on: when it expires, in seconds since 1970.
        refresh_on: when to fetch the next one, in seconds since 1970; after 80 to 90 % of its life where ``None``.
    """

    token: str
    expires_on: float
    refresh_on: float | None = None

    def __repr__(self) -> str:
        return f"AccessToken({HIDDEN!r}, expires_on={self.expires_on!r}, refresh_on={self.refresh_on!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A token is never pickled.")


class IssuedToken(Protocol):
    """What a Microsoft Entra credential gives; ``azure.core.credentials.AccessToken`` is one."""

    @property
    def token(self) -> str:
        """The text."""
        ...

    @property
    def expires_on(self) -> float:
        """When it expires, in seconds since 1970."""
        ...


class TokenCredential(Protocol):
    """A Microsoft Entra credential, as those of ``azure.identity`` are."""

    def get_token(self, *scopes: str) -> IssuedToken:
        """A token for these scopes."""
        ...


class AsyncTokenCredential(Protocol):
    """A Microsoft Entra credential for event loops, as those of ``azure.identity.aio`` are."""

    async def get_token(self, *scopes: str) -> IssuedToken:
        """A token for these scopes."""
        ...


Given: TypeAlias = str | KeyPair | AccessToken | IssuedToken
"""What a function may return for a credential."""

Provider: TypeAlias = Callable[[], Given]
"""Gives a credential; called before the first request, when it is due for renewal, and when it was refused."""

AsyncProvider: TypeAlias = Callable[[], Awaitable[Given]]

Credential: TypeAlias = str | KeyPair | AccessToken | TokenCredential | Provider
"""What ``ScoringClient(credential=...)`` takes."""

AsyncCredential: TypeAlias = Credential | AsyncTokenCredential | AsyncProvider
"""What ``AsyncScoringClient(credential=...)`` takes."""


class Token:
    """A key or token as it is sent, that does not show itself.

    Args:
        secret: the text.
        round: how many were in use before; tells which of two tokens is the newer one.
        expires_on: seconds since 1970; infinite for a key.
    """

    __slots__ = ("_secret", "expires_on", "round")

    def __init__(self, secret: str, round: int, expires_on: float = math.inf) -> None:  # noqa: A002  (the word for it)
        self._secret = secret
        self.round: int = round
        self.expires_on: float = expires_on

    def __repr__(self) -> str:
        return f"Token({HIDDEN!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key or token is never pickled.")

    def header(self) -> str:
        """The value of ``Authorization``. Keep it out of variables: tracebacks show those."""
        return f"Bearer {self._secret}"

    def hide_in(self, text: str) -> str:
        """The text with the secret blotted out, for whatever a server echoes."""
        return text.replace(self._secret, HIDDEN) if len(self._secret) >= MIN_REDACTED else text

    def anew(self, round: int) -> Token:  # noqa: A002  (the word for it)
        """The same key, taken into use once more."""
        return Token(self._secret, round, self.expires_on)

    def is_one_of(self, others: tuple[Token, ...]) -> bool:
        """Whether one of them is the same text."""
        return any(self.header() == other.header() for other in others)


class Sealed:
    """What a user or a provider has handed over, in a box: tools that print variables with tracebacks print ``***``.

    Args:
        value: anything.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value: Any = value

    def __repr__(self) -> str:
        return HIDDEN

    def __reduce__(self) -> NoReturn:
        raise TypeError("A credential is never pickled.")

    @property
    def absent(self) -> bool:
        """Whether it is ``None``."""
        return self._value is None

    @property
    def kind(self) -> str:
        """The name of its type."""
        return type(self._value).__name__

    @property
    def awaitable(self) -> bool:
        """Whether it is to be awaited."""
        return inspect.isawaitable(self._value)

    def value(self) -> Any:
        """What is in the box. Not for a variable."""
        return self._value

    @property
    def is_fixed(self) -> bool:
        """Whether it is a key or token itself, and not what gives one."""
        return not self.issues_tokens and bool(self._texts())

    @property
    def issues_tokens(self) -> bool:
        """Whether it is a Microsoft Entra credential."""
        return self._has("get_token") or self._has("get_token_info")

    @property
    def is_provider(self) -> bool:
        """Whether it is a function that gives credentials."""
        return callable(self._value) and not self.issues_tokens and not self.is_fixed

    @property
    def is_async(self) -> bool:
        """Whether what it gives must be awaited, as far as can be seen before."""
        called = self._function()
        return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004

    def ask(self) -> Any:
        """What the provider or the Entra credential gives, or something to await that gives it."""
        return self._function()(SCOPE) if self.issues_tokens else self._function()()

    def _function(self) -> Any:
        if not self.issues_tokens:
            return self._value
        # As azure-core does it: only get_token_info says when to renew, and all credentials of azure-identity have it.
        return self._value.get_token_info if self._has("get_token_info") else self._value.get_token

    def _has(self, method: str) -> bool:
        # A mock that stands for a function has every attribute that it is asked for, but does not list them.
        return method in dir(self._value) or (
            not callable(self._value) and callable(getattr(self._value, method, None))
        )

    # --- what it holds ------------------------------------------------------------------------------------------------

    @property
    def expires_on(self) -> float:
        """When it expires, in seconds since 1970; infinite for keys."""
        return getattr(self._value, "expires_on", math.inf)

    @property
    def refresh_on(self) -> float | None:
        """When it wants to be renewed, where it says so."""
        wanted = getattr(self._value, "refresh_on", None)
        return wanted if _is_time(wanted) else None

    def tokens(self, round: int) -> tuple[Token, ...]:  # noqa: A002  (the word for it)
        """The keys or the token, in the order in which they are tried."""
        return tuple(Token(text.strip(), round, self.expires_on) for text in self._texts())

    def problem(self, now: float) -> str:
        """What it is instead of a credential, empty where it is one. Returned, not raised: tracebacks have variables.

        Args:
            now: seconds since 1970.
        """
        if inspect.iscoroutine(self._value):
            self._value.close()  # else Python warns that nobody waited for it
            return "something to be awaited, which only AsyncScoringClient does"
        texts = self._texts()
        if not texts or not all(isinstance(text, str) for text in texts):
            wrong = next((type(text).__name__ for text in texts if not isinstance(text, str)), self.kind)
            return f"{wrong}, not a str, an AccessToken or a KeyPair"
        if not isinstance(self._value, str | KeyPair) and not _is_time(self.expires_on):
            return "a token whose expires_on is not a number of seconds since 1970"
        if now >= self.expires_on:
            ago = f"{now - self.expires_on:,.0f} s ago by this machine's clock"
            return f"a token that has expired, {ago}. Is the clock right?"
        return ""

    def flaw(self) -> str:
        """What is wrong with the text itself, empty where nothing is."""
        texts = [text.strip() for text in self._texts()]  # keys read from a file end with a line break
        if not all(texts):
            return "The credential is empty."
        if not all(text.isascii() and text.isprintable() for text in texts):
            return "The credential has characters that cannot stand in an HTTP header."
        return ""

    def _texts(self) -> tuple[Any, ...]:
        if isinstance(self._value, KeyPair):
            return (self._value.primary, self._value.secondary)
        if isinstance(self._value, str):
            return (self._value,)
        if not callable(self._value) and hasattr(self._value, "token") and hasattr(self._value, "expires_on"):
            return (self._value.token,)
        return ()


def renewal_time(*, now: float, expires_on: float, refresh_on: float | None, random: float) -> float:
    """When to fetch the next token, in seconds since 1970: before this one expires, and spread over many clients.

    From ``refresh_on`` on where it is still to come, over a tenth of the time up to the end; else after 80 to 90 % of
    the time that is left. A token that its issuer gives out again is thus asked for at ever shorter intervals.

    Args:
        now: seconds since 1970, before ``expires_on``.
        expires_on: when the token expires.
        refresh_on: when its issuer wants it to be renewed.
        random: a number in [0, 1).
    """
    if refresh_on is not None and now < refresh_on < expires_on:
        begin, end = refresh_on, refresh_on + RENEWAL_SPREAD * (expires_on - refresh_on)
    else:
        begin, end = now + RENEWAL_BEGINS * (expires_on - now), now + RENEWAL_ENDS * (expires_on - now)
    return begin + random * (end - begin)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
