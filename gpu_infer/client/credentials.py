"""Keys and tokens: fetched once, renewed once for everybody before they expire, and shown to nobody.

:class:`ThreadVault` and :class:`TaskVault` differ only in the lock and in how the provider is called.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, cast

from ..blotting import blotted
from ..errors import GpuInferError, ServiceNotFoundError
from .timing import Timing
from .tokens import HIDDEN, AsyncProvider, Provider, Sealed, Token, renewal_time

__all__ = ["AsyncProvider", "CredentialError", "Provider", "TaskVault", "ThreadVault", "Token"]

_log = logging.getLogger("gpu_infer.client")

RENEWAL_PAUSE = 30.0
"""Seconds until the next attempt, where a token could not be renewed and is still valid; half to all of it by lot."""

RENEWAL_WAIT = 10.0
"""Seconds that one call waits for the renewal of a token that is still valid, while the others go on with it."""

SHOWN_REASON = 300
"""Characters of what Microsoft Entra says that a message repeats."""

REMEMBERED = 6
"""Keys that are blotted out of what a service says: those of now, and of requests that are still under way."""

_REAL = Timing()
_TOO_LATE = "The credential provider gave nothing before the deadline."


class CredentialError(Exception):
    """No credential could be had; the message says why, never what it is. Becomes an ``AuthenticationError``."""


class _Vault:
    """What both vaults share: which key or token is in use, until when, and what comes after it.

    Args:
        credential: what the user has handed in.

    Raises:
        TypeError: something of another type.
        ValueError: a key or token that cannot be sent.
    """

    # For the repr of a half-made one, which stands in the traceback of what is raised below.
    _source: Sealed | None = None
    _token: Token | None = None

    def __init__(self, credential: Sealed) -> None:
        if not (credential.absent or credential.is_fixed or credential.issues_tokens or credential.is_provider):
            raise TypeError(f"credential must be a key, a token or a callable, not {credential.kind}.")
        self._source = None if credential.absent or credential.is_fixed else credential
        self._keys: tuple[Token, ...] = ()
        self._renew_at = math.inf
        self._switched = False
        self._known: tuple[Token, ...] = ()
        self._rounds = 0
        self._fetches = 0
        self._failure: tuple[int, CredentialError] | None = None
        if credential.is_fixed:
            # Whether it has expired is seen when it is used: a client may be made for later, or by a clock set wrong.
            if flaw := credential.problem(-math.inf):
                raise ValueError(f"The credential is {flaw}.")
            if flaw := credential.flaw():
                raise ValueError(flaw)
            self._begin(credential.tokens(1))

    @property
    def renewable(self) -> bool:
        """Whether another credential can be fetched when one is refused."""
        return self._source is not None

    @property
    def keys(self) -> int:
        """How many there are at the moment to choose from: 2 of a pair. Each may be refused once in a call."""
        return max(1, len(self._keys))

    @property
    def empty(self) -> bool:
        """Whether requests are sent without a credential."""
        return self._source is None and self._token is None

    def __repr__(self) -> str:
        if self._source is None:
            return "None" if self.empty else HIDDEN
        return self._source.kind if self._source.issues_tokens else "provider"

    def hide_in(self, text: str) -> str:
        """The text with the secrets blotted out: those in use, and those that were until lately."""
        for token in self._known:
            text = token.hide_in(text)
        return text

    def portable(self) -> Callable[[], Any] | None:
        """What may be pickled: the provider, never what it gave.

        Raises:
            TypeError: the credential is a fixed key or token, or a Microsoft Entra credential.
        """
        if self._source is not None and self._source.is_provider:
            return self._source.value()
        if self.empty:
            return None
        what = "a Microsoft Entra credential" if self._source else "a fixed key"
        raise TypeError(
            f"A client with {what} cannot be pickled, since the key would be written out. Give it a provider (a "
            "function that fetches the key where it is called), or make the client in the other process."
        )

    # --- which one to use ---------------------------------------------------------------------------------------------

    def _usable(self, refused: Token | None, now: float) -> Token | None:
        """The one in use, if it has not expired and is newer than the one that was refused."""
        token = self._token
        if token is None or now >= token.expires_on or (refused is not None and token.round <= refused.round):
            return None
        return token

    def _settled(self, refused: Token | None, now: float) -> Token | None:
        """The one to use without more ado: it is usable, and not due for renewal."""
        return self._usable(refused, now) if now < self._renew_at else None

    def _other(self, refused: Token | None) -> Token | None:
        """The other key of the pair, from now on for everybody, where this one was refused.

        Of a pair that can be fetched again, each key is tried once; of a fixed one they are tried in turns.
        """
        if refused is None or self._token is None or len(self._keys) < 2 or (self._source and self._switched):
            return None
        self._switched = True
        self._rounds += 1
        other = self._keys[1] if self._token.is_one_of(self._keys[:1]) else self._keys[0]
        self._token = other.anew(self._rounds)
        _log.info("a key was refused, the other key of the pair is used from now on")
        return self._token

    def _begin(self, keys: tuple[Token, ...], refused: tuple[Token, ...] = ()) -> Token:
        """Take new keys into use: the first that was not refused lately."""
        self._rounds = keys[0].round
        self._keys, self._switched = keys, False
        self._known = (*keys, *self._known)[:REMEMBERED]
        self._token = next((key for key in keys if not key.is_one_of(refused)), keys[0])
        return self._token

    def _without_source(self, now: float) -> NoReturn:
        token = self._token
        ago = f", {now - token.expires_on:,.0f} s ago by this machine's clock" if token else ""
        raise CredentialError(
            f"The token has expired{ago}, and nothing is known that gives another: pass a function that fetches "
            "tokens, or a Microsoft Entra credential, as credential."
        )

    # --- what was fetched, or was not ---------------------------------------------------------------------------------

    def _store(self, given: Sealed, refused: Token | None, timing: Timing) -> Token:
        now = timing.seconds()
        if problem := given.problem(now):
            raise CredentialError(f"{self._named} gave {problem}{'' if problem.endswith('?') else '.'}")
        if problem := given.flaw():
            raise CredentialError(problem)
        self._fetches += 1
        self._renew_at = math.inf
        if given.expires_on < math.inf:
            random, wanted = timing.random(), given.refresh_on
            self._renew_at = renewal_time(now=now, expires_on=given.expires_on, refresh_on=wanted, random=random)
        return self._begin(given.tokens(self._rounds + 1), self._keys if refused else ())

    def _share_failure(self, seen: int) -> None:
        """Raise what the fetch that we waited for raised, instead of asking the provider once per waiter."""
        if self._failure is not None and self._failure[0] > seen:
            problem = CredentialError(str(self._failure[1]))
            raise problem from self._failure[1].__cause__

    def _failed(self, error: Exception, refused: Token | None, timing: Timing, handled: BaseException | None) -> Token:
        """What to use although the fetch has failed: the one before while it is valid.

        Args:
            error: why it failed.
            refused: the token that a service has refused.
            timing: when the next attempt is made.
            handled: what the caller was handling when it called us; that is not touched.

        Raises:
            CredentialError: there is none.
        """
        _forget_variables(error, handled)
        now = timing.seconds()
        problem = self._described(error)
        self._fetches += 1
        if (kept := self._usable(refused, now)) is not None:
            self._renew_at = now + RENEWAL_PAUSE * (0.5 + timing.random() / 2)
            left = kept.expires_on - now
            _log.warning("the token could not be renewed, and is used on for at most %.0f s: %s", left, problem)
            return kept
        problem = self._in_context(problem, refused, now)
        self._failure = (self._fetches, problem)
        raise problem

    def _in_context(self, problem: CredentialError, refused: Token | None, now: float) -> CredentialError:
        """The problem, behind the reason why another credential was needed."""
        if self._token is None:
            return problem
        if now >= self._token.expires_on:
            why = f"The token expired {now - self._token.expires_on:,.0f} s ago, and no other could be had"
        elif refused is not None:
            why = "The service refused the credential, and no other could be had"
        else:
            return problem
        whole = CredentialError(f"{why}: {problem}")
        whole.__cause__ = problem.__cause__
        return whole

    def _described(self, error: Exception) -> CredentialError:
        if isinstance(error, CredentialError):
            return error
        # Of a function nobody knows what its exceptions repeat; those of Entra say what to do, and are long. Ours say
        # what to do, too, and repeat no secret.
        ours = isinstance(error, GpuInferError)
        said = " ".join(self.hide_in(blotted(str(error))).split()) if ours or self._issues_tokens else ""
        said = said if ours else said[:SHOWN_REASON]
        problem = CredentialError(f"{self._named} raised {type(error).__name__}{': ' + said if said else '.'}")
        # What repeats a key of ours goes no further, not even as a cause.
        whole = "".join(traceback.format_exception(error))
        problem.__cause__ = error if self.hide_in(whole) == whole else None
        return problem

    @property
    def _issues_tokens(self) -> bool:
        return self._source is not None and self._source.issues_tokens

    @property
    def _named(self) -> str:
        return "The Microsoft Entra credential" if self._issues_tokens else "The credential provider"


class ThreadVault(_Vault):
    """For threads: one of them fetches, the others wait for it, or go on with what is still valid."""

    def __init__(self, credential: Sealed) -> None:
        super().__init__(credential)
        if self._source is not None and self._source.is_async:
            raise TypeError(
                "credential gives something to be awaited, which only AsyncScoringClient does; take that client, or a "
                "credential that is not async."
            )
        self._lock = threading.Lock()

    def get(self, *, refused: Token | None, wait: float, timing: Timing = _REAL) -> Token | None:
        """The key or token to send.

        Args:
            refused: the token that was answered with 401; a newer one is taken, or fetched unless there is one already.
            wait: seconds to wait at most for a fetch of another thread.
            timing: the time of day, and the lot that spreads renewals.

        Raises:
            CredentialError: the provider raised, gave nothing usable, or took too long; or a fixed token has expired.
            ServiceNotFoundError: the provider says that the service is gone.
        """
        if self.empty:
            return None
        handled = sys.exception()
        now = timing.seconds()
        if (settled := self._settled(refused, now)) is not None:
            return settled
        seen, kept = self._fetches, self._usable(refused, now)
        # Who has a valid token waits for nobody.
        if not self._lock.acquire(timeout=0 if kept else min(wait, threading.TIMEOUT_MAX)):
            if kept is None:
                raise CredentialError(_TOO_LATE)
            return kept
        try:
            now = timing.seconds()
            if (token := self._settled(refused, now) or self._other(refused)) is not None:
                return token
            if self._source is None:
                self._without_source(now)
            if kept is None:
                self._share_failure(seen)
            try:
                return self._store(Sealed(self._source.ask()), refused, timing)
            except ServiceNotFoundError:
                raise  # it is not the key that is missing
            except Exception as error:  # noqa: BLE001  (foreign code may raise anything)
                return self._failed(error, refused, timing, handled)
        finally:
            self._lock.release()


class TaskVault(_Vault):
    """For tasks of one event loop: one of them fetches, the others wait for it, or go on with what is still valid.

    A provider that is no coroutine function runs in a thread, since it may block.
    """

    def __init__(self, credential: Sealed) -> None:
        super().__init__(credential)
        self._lock = asyncio.Lock()

    def new_loop(self) -> None:
        """Forget the event loop that waited here last; the token stays."""
        self._lock = asyncio.Lock()

    async def get(self, *, refused: Token | None, wait: float, timing: Timing = _REAL) -> Token | None:
        """The key or token to send; as :meth:`ThreadVault.get`, but that the caller's own time-out ends it.

        Args:
            refused: the token that was answered with 401.
            wait: seconds until then; half of them are kept for the request where there is a token that is still valid.
            timing: the time of day, and the lot that spreads renewals.

        Raises:
            CredentialError: the provider raised, or gave nothing usable; or a fixed token has expired.
            ServiceNotFoundError: the provider says that the service is gone.
        """
        if self.empty:
            return None
        handled = sys.exception()
        now = timing.seconds()
        if (settled := self._settled(refused, now)) is not None:
            return settled
        seen, kept = self._fetches, self._usable(refused, now)
        if kept is not None and self._lock.locked():
            return kept  # who has a valid token waits for nobody
        async with self._lock:
            now = timing.seconds()
            if (token := self._settled(refused, now) or self._other(refused)) is not None:
                return token
            if self._source is None:
                self._without_source(now)
            if kept is None:
                self._share_failure(seen)
            try:
                async with asyncio.timeout(None if kept is None else min(RENEWAL_WAIT, wait / 2)):
                    given = Sealed(await _ask(self._source))
                return self._store(given, refused, timing)
            except ServiceNotFoundError:
                raise  # it is not the key that is missing
            except Exception as error:  # noqa: BLE001  (foreign code may raise anything)
                return self._failed(error, refused, timing, handled)


async def _ask(source: Sealed) -> object:
    if source.is_async:
        return await cast("Awaitable[object]", source.ask())
    # In the box on its way from thread to thread: what is not awaited is a key.
    sealed = Sealed(await asyncio.to_thread(source.ask))
    return await sealed.value() if sealed.awaitable else sealed.value()


def _forget_variables(error: BaseException, handled: BaseException | None = None) -> None:
    """Empty the variables of the functions that an exception has come through, and those that it came from.

    They hold keys on their way to the wire, or from a vault, and tools that report errors show them. Files and lines
    stay.

    Args:
        error: it is about to become the cause of an error of ours.
        handled: what the caller was handling when it called us, which is nobody's business here.
    """
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is None or current is handled or current in seen:
            continue
        seen.append(current)
        traceback.clear_frames(current.__traceback__)
        todo += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            todo += cast("BaseExceptionGroup[BaseException]", current).exceptions
