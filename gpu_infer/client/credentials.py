"""Keys and tokens: fetched once, renewed once for everybody, and shown to nobody.

:class:`ThreadVault` and :class:`TaskVault` differ only in the lock and in how the provider is called.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, cast

from ..errors import ServiceNotFoundError

__all__ = ["AsyncProvider", "CredentialError", "Provider", "TaskVault", "ThreadVault", "Token"]

Provider: TypeAlias = Callable[[], str]
"""Gives a key or token; called before the first request, and again when it was refused."""

AsyncProvider: TypeAlias = Callable[[], Awaitable[str]]

HIDDEN = "***"

MIN_REDACTED = 4
"""Characters: a shorter key would blot out half of every message, and protects nothing."""


class CredentialError(Exception):
    """No credential could be had; the message says why, never what it is. Becomes an ``AuthenticationError``."""


class Token:
    """A key or token that does not show itself.

    Args:
        secret: the text.
        round: how often it was fetched before; tells which of two tokens is the newer one.
    """

    __slots__ = ("_secret", "round")

    def __init__(self, secret: str, round: int) -> None:  # noqa: A002  (the word for it)
        self._secret = secret
        self.round: int = round

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


class _Vault:
    """What both vaults share: the current token, and which fetch it came from."""

    def __init__(self, credential: str | Callable[[], Any] | None) -> None:
        if credential is not None and not isinstance(credential, str) and not callable(credential):
            raise TypeError(f"credential must be a key, a token or a callable, not {type(credential).__name__}.")
        self._provider = None if isinstance(credential, str) else credential
        self._token: Token | None = None
        self._fetches = 0
        self._failure: tuple[int, CredentialError] | None = None
        if isinstance(credential, str):
            try:
                self._store(credential)
            except CredentialError as problem:
                raise ValueError(str(problem)) from None

    @property
    def renewable(self) -> bool:
        """Whether another credential can be fetched when one is refused."""
        return self._provider is not None

    @property
    def empty(self) -> bool:
        """Whether requests are sent without a credential."""
        return self._provider is None and self._token is None

    def __repr__(self) -> str:
        return "None" if self.empty else "provider" if self.renewable else HIDDEN

    def hide_in(self, text: str) -> str:
        """The text with the current secret blotted out."""
        return self._token.hide_in(text) if self._token else text

    def portable(self) -> Callable[[], Any] | None:
        """What may be pickled: the provider, never what it gave.

        Raises:
            TypeError: the credential is a fixed key.
        """
        if self._token is not None and self._provider is None:
            raise TypeError(
                "A client with a fixed key cannot be pickled, since the key would be written out. Give it a provider "
                "(a function that fetches the key where it is called), or make the client in the other process."
            )
        return self._provider

    def _fresh(self, refused: Token | None) -> bool:
        """Whether there is a token, and not the one that was refused."""
        return self._token is not None and (refused is None or self._token.round > refused.round)

    def _share_failure(self, seen: int) -> None:
        """Raise what the fetch that we waited for raised, instead of asking the provider once per waiter."""
        if self._failure is not None and self._failure[0] > seen:
            problem = CredentialError(str(self._failure[1]))
            raise problem from self._failure[1].__cause__

    def _failed(self, error: BaseException) -> NoReturn:
        self._fetches += 1
        if isinstance(error, CredentialError):
            problem = error
        else:
            problem = CredentialError(f"The credential provider raised {type(error).__name__}.")
            problem.__cause__ = error
        self._failure = (self._fetches, problem)
        raise problem

    def _store(self, secret: object) -> Token:
        if not isinstance(secret, str):
            raise CredentialError(f"The credential provider gave {type(secret).__name__}, not a str.")
        text = secret.strip()  # keys read from a file end with a line break
        if not text:
            raise CredentialError("The credential is empty.")
        if not (text.isascii() and text.isprintable()):
            raise CredentialError("The credential has characters that cannot stand in an HTTP header.")
        self._fetches += 1
        self._token = Token(text, self._fetches)
        return self._token


class ThreadVault(_Vault):
    """For threads: one of them fetches, the others wait for it."""

    def __init__(self, credential: str | Provider | None) -> None:
        super().__init__(credential)
        self._lock = threading.Lock()

    def get(self, *, refused: Token | None, wait: float) -> Token | None:
        """The current token.

        Args:
            refused: the token that was answered with 401; a newer one is fetched unless there is one already.
            wait: seconds to wait at most for a fetch of another thread.

        Raises:
            CredentialError: the provider raised, gave nothing usable, or took too long.
            ServiceNotFoundError: the provider says that the service is gone.
        """
        provider = self._provider
        if provider is None or self._fresh(refused):
            return self._token
        seen = self._fetches
        if not self._lock.acquire(timeout=wait):
            raise CredentialError("The credential provider gave nothing before the deadline.")
        try:
            if self._fresh(refused):
                return self._token
            self._share_failure(seen)
            try:
                return self._store(provider())
            except ServiceNotFoundError:
                raise  # it is not the key that is missing
            except Exception as error:  # noqa: BLE001  (foreign code may raise anything)
                self._failed(error)
        finally:
            self._lock.release()


class TaskVault(_Vault):
    """For tasks of one event loop: one of them fetches, the others wait for it.

    A provider that is no coroutine function runs in a thread, since it may block.
    """

    def __init__(self, credential: str | Provider | AsyncProvider | None) -> None:
        super().__init__(credential)
        self._lock = asyncio.Lock()

    def new_loop(self) -> None:
        """Forget the event loop that waited here last; the token stays."""
        self._lock = asyncio.Lock()

    async def get(self, *, refused: Token | None) -> Token | None:
        """The current token; as :meth:`ThreadVault.get`, with the deadline that the caller's own time-out sets.

        Raises:
            CredentialError: the provider raised, or gave nothing usable.
            ServiceNotFoundError: the provider says that the service is gone.
        """
        provider = self._provider
        if provider is None or self._fresh(refused):
            return self._token
        seen = self._fetches
        async with self._lock:
            if self._fresh(refused):
                return self._token
            self._share_failure(seen)
            try:
                return self._store(await _call(provider))
            except ServiceNotFoundError:
                raise  # it is not the key that is missing
            except Exception as error:  # noqa: BLE001  (foreign code may raise anything)
                self._failed(error)


async def _call(provider: Callable[[], Any]) -> object:
    if inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(getattr(provider, "__call__", None)):  # noqa: B004
        return await cast("AsyncProvider", provider)()
    result = await asyncio.to_thread(provider)
    return await cast("Awaitable[object]", result) if inspect.isawaitable(result) else result
