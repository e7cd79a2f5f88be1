"""Keys, key pairs and tokens of both clients: renewed in time and once for all, shown to nobody."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import pickle
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import ANY, Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpu_infer.client
from gpu_infer import errors
from gpu_infer.client import AccessToken, AsyncScoringClient, KeyPair, ScoringClient, connections, credentials, session
from gpu_infer.client.credentials import CredentialError, TaskVault, ThreadVault
from gpu_infer.client.messages import Response
from gpu_infer.client.timing import Timing
from gpu_infer.client.tokens import SCOPE, Sealed, Token, renewal_time

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.credentials_async import AsyncTokenCredential

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC).timestamp()
"""What the clients' clock shows when a test begins, in seconds since 1970."""

HOUR = 3600.0
SECRETS = [f"hush-{name}-0123456789abcdef" for name in ("primary", "secondary", "token", "next")]
"""What must stand nowhere. Tests take them from here, since their own variables stand in tracebacks too."""


class Azure(NamedTuple):
    """As ``azure.core.credentials.AccessToken``."""

    token: str
    expires_on: int


class Issuer:
    """Hands out keys or tokens, and knows which of them are good at the moment."""

    def __init__(self, *first: str, wrap: Callable[..., Any] | None = None) -> None:
        self.good = set(first)
        self.fetches = 0
        self.broken: Exception | None = None
        self._newest = first
        self._wrap = wrap or (lambda *keys: keys[0])

    def __call__(self) -> Any:
        self.fetches += 1
        if self.broken is not None:
            raise self.broken
        return self._wrap(*self._newest)

    def replace(self, *, index: int = 0) -> None:
        """Rotate one key: the old one is good no longer."""
        keys = list(self._newest)
        self.good.discard(keys[index])
        keys[index] = f"{keys[index].partition('/')[0]}/{len(keys[index])}{'x' * len(keys[index])}"
        self._newest = tuple(keys)
        self.good.add(keys[index])

    def guard(self, server: Any, steps: Any) -> None:
        """Have the server answer 401 to all but the good ones."""

        def step(connection: Any, seen: Any) -> bool:
            given = seen.headers.get("authorization", "").removeprefix("Bearer ")
            return (steps.answer(200, [1]) if given in self.good else steps.answer(401))(connection, seen)

        server.default = step


class Entra:
    """A Microsoft Entra credential that has what azure-core asks for at least."""

    def __init__(self, *tokens: Any) -> None:
        self.tokens = list(tokens)
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> Any:
        self.scopes += scopes
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, Exception):
            raise token
        return token


class EntraWithInformation(Entra):
    """One of today's azure-identity, which has both methods."""

    def get_token(self, *scopes: str, **_: Any) -> Any:
        raise AssertionError("get_token_info knows more")

    def get_token_info(self, *scopes: str, options: Any = None) -> Any:
        return super().get_token(*scopes)


class AsyncEntra(Entra):
    """One of ``azure.identity.aio``."""

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        await asyncio.sleep(0)
        return super().get_token(*scopes)


def sent(server: Any) -> list[str]:
    return [seen.headers.get("authorization", "").removeprefix("Bearer ") for seen in server.seen]


# --- what a credential may be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "credential",
    [
        "the-key",
        "the-key\n",
        KeyPair("the-key", "another"),
        AccessToken("the-key", NOON + HOUR),
        Azure("the-key", int(NOON + HOUR)),
        Entra(Azure("the-key", int(NOON + HOUR))),
        EntraWithInformation(AccessToken("the-key", NOON + HOUR, NOON + 60)),
        lambda: "the-key",
        lambda: KeyPair("the-key\r\n", "another"),
        lambda: AccessToken("the-key", NOON + HOUR),
        lambda: Azure("the-key", int(NOON + HOUR)),
    ],
    ids=range(11),
)
def test_every_kind_of_credential_is_sent_as_bearer(make, server, steps, credential):
    server.default = steps.answer(200, [1])
    assert make(credential).score(b"x") == [1]
    assert sent(server) == ["the-key"]


def test_an_entra_credential_is_asked_for_the_scope_of_azure_ml(make, server, steps):
    server.default = steps.answer(200, [1])
    credential = Entra(Azure("the-key", int(NOON + HOUR)))
    face = make(credential)
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert credential.scopes == [SCOPE] == ["https://ml.azure.com/.default"]
    assert "credential=Entra," in repr(face.client)


async def coroutine() -> str:
    await asyncio.sleep(0)
    return "the-key"


@pytest.mark.parametrize(
    "credential", [coroutine, partial(coroutine), AsyncEntra(Azure("the-key", int(NOON + HOUR)))], ids=range(3)
)
def test_what_must_be_awaited_is_for_the_async_client(make, kind, server, steps, credential):
    server.default = steps.answer(200, [1])
    if kind == "async":
        assert make(credential).score(b"x") == [1]
        assert sent(server) == ["the-key"]
    else:
        with pytest.raises(TypeError, match="to be awaited, which only AsyncScoringClient does; take that client"):
            make(credential)


def test_a_function_that_turns_out_to_be_async(make, kind, server, steps):
    server.default = steps.answer(200, [1])
    face = make(lambda: coroutine())  # noqa: PLW0108 - so that it does not show
    if kind == "async":
        assert face.score(b"x") == [1]
    else:
        with pytest.raises(errors.AuthenticationError, match="to be awaited, which only AsyncScoringClient does"):
            face.score(b"x")


def test_mocks_stand_for_what_they_were_made_for(make, server, steps):
    server.default = steps.answer(200, [1])
    function, entra = Mock(return_value="a-function"), Mock(spec=["get_token"])
    entra.get_token.return_value = Azure("an-entra", int(NOON + HOUR))
    assert [make(credential).score(b"x") for credential in (function, entra)] == [[1]] * 2
    assert sent(server) == ["a-function", "an-entra"]


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (7, "gave int, not a str, an AccessToken or a KeyPair"),
        (KeyPair("the-key", None), "gave NoneType, not a str"),  # type: ignore[arg-type]
        (KeyPair("the-key", " \n"), "The credential is empty"),
        (KeyPair("the-key", "two\nlines"), "characters that cannot stand in an HTTP header"),
        (AccessToken("the-key", math.inf), "a token whose expires_on is not a number of seconds since 1970"),
        (AccessToken("the-key", "soon"), "a token whose expires_on is not a number of seconds since 1970"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_cannot_be_sent_is_refused(make, kind, server, gives, message):
    with pytest.raises(errors.AuthenticationError, match=message):
        make(lambda: gives).score(b"x")
    if not isinstance(gives, int):
        client: Any = ScoringClient if kind == "sync" else AsyncScoringClient
        with pytest.raises(ValueError, match=message.removeprefix("gave ")):
            client(server.uri, gives)
    assert server.seen == []


# --- in time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refresh_on", "die", "due"), [(None, 0.0, 0.8), (None, 0.5, 0.85), (0.5, 0.0, 0.5), (0.5, 0.5, 0.525)]
)
def test_a_token_is_renewed_before_it_expires(make, server, steps, refresh_on, die, due):
    server.default = steps.answer(200, [1])
    issuer = Issuer("a", wrap=lambda key: AccessToken(key, NOON + HOUR, refresh_on and NOON + refresh_on * HOUR))
    face = make(issuer)
    face.outside.die = die
    for share, fetches in ((0.0, 1), (due - 0.001, 1), (due + 0.001, 2)):
        face.outside.wall = share * HOUR
        assert face.score(b"x") == [1]
        assert issuer.fetches == fetches


def test_a_token_that_is_given_out_again_is_asked_for_ever_more_often(make, server, steps):
    """azure-identity has a cache of its own, and fetches another only five minutes before the end."""
    server.default = steps.answer(200, [1])
    credential = Entra(Azure("the-key", int(NOON + HOUR)))
    face = make(credential)
    for second in range(0, 3600, 10):
        face.outside.wall = second
        face.score(b"x")
    assert len(credential.scopes) == 4  # the first, and after 85 % of what was left: at 3060, 3519, 3588 s
    assert len(server.seen) == 360


def test_one_renews_while_the_others_go_on(make, server, steps):
    others_are_done = threading.Event()
    done = itertools.count(1)
    issuer = Issuer("old", wrap=lambda key: AccessToken(key, NOON + HOUR + 60 * issuer.fetches))

    def provider() -> Any:
        if issuer.fetches:
            assert others_are_done.wait(5), "the others wait for the renewal of a token that is still valid"
            issuer.replace()
            issuer.good.add("old")
        return issuer()

    def step(connection: Any, seen: Any) -> bool:
        if next(done) == 8:  # the first call, and seven of the eight at once
            others_are_done.set()
        return steps.answer(200, [1])(connection, seen)

    server.default = step
    face = make(provider)
    face.score(b"x")
    face.outside.wall += 0.95 * HOUR
    assert face.at_once(8, b"x") == [[1]] * 8
    assert issuer.fetches == 2
    assert sorted(set(sent(server)[:8])) == ["old"]
    assert sent(server)[8] != "old"


@pytest.mark.parametrize("count", [64])
def test_an_expired_token_is_fetched_once_for_all(make, server, steps, count):
    server.default = steps.answer(200, [1])
    issuer = Issuer("a", wrap=lambda key: AccessToken(key, NOON + issuer.fetches * HOUR))
    face = make(issuer)
    assert face.at_once(count, b"x") == [[1]] * count
    assert issuer.fetches == 1
    face.outside.wall += HOUR
    issuer.replace()
    assert face.at_once(count, b"x") == [[1]] * count
    assert issuer.fetches == 2
    assert len(set(sent(server)[:count])) == len(set(sent(server)[count:])) == 1


def test_a_valid_token_outlasts_renewals_that_fail(make, server, steps, caplog):
    server.default = steps.answer(200, [1])
    issuer = Issuer(SECRETS[2], wrap=lambda key: AccessToken(key, NOON + HOUR))
    face = make(issuer)
    face.score(b"x")
    issuer.broken = OSError("no way")
    with caplog.at_level(logging.WARNING, "gpu_infer.client"):
        for second, fetches in ((3240, 2), (3241, 2), (3262, 2), (3264, 3), (3599, 4)):
            face.outside.wall = second
            assert face.score(b"x") == [1]
            assert issuer.fetches == fetches, "a pause of 22.5 s by this die"
    assert [record.message for record in caplog.records] == [
        f"the token could not be renewed, and is used on for at most {left} s: The credential provider raised OSError."
        for left in (360, 336, 1)
    ]
    face.outside.wall = 3612
    with pytest.raises(
        errors.AuthenticationError,
        match="The token expired 12 s ago, and no other could be had: The credential provider raised OSError",
    ) as caught:
        face.score(b"x")
    assert caught.value.__cause__ is issuer.broken
    assert len(server.seen) == 6
    issuer.broken = None
    issuer._wrap = lambda key: AccessToken(key, NOON + 3 * HOUR)
    assert face.score(b"x") == [1]


def test_what_entra_says_is_the_reason(make, server, steps):
    credential = Entra(Azure(SECRETS[2], int(NOON + HOUR)), OSError(f"AADSTS700082: expired.\nBearer {SECRETS[2]}"))
    server.default = steps.answer(200, [1])
    face = make(credential)
    face.score(b"x")
    face.outside.wall += HOUR
    with pytest.raises(
        errors.AuthenticationError, match="Entra credential raised OSError: AADSTS700082: expired. Bearer [*]{3}"
    ) as caught:
        face.score(b"x")
    assert [secret for secret in SECRETS if secret in "".join(traceback.format_exception(caught.value))] == []


@pytest.mark.parametrize("fixed", [True, False])
def test_a_token_that_has_expired_already_is_not_sent(make, server, fixed):
    token = AccessToken("the-key", NOON - 5)
    message = "The token has expired, 5 s ago.*pass a function" if fixed else "expired, 5 s ago.*Is the clock right"
    with pytest.raises(errors.AuthenticationError, match=message):
        make(token if fixed else lambda: token).score(b"x")
    assert server.seen == []


@pytest.mark.parametrize(("wait", "timeout"), [(0.05, 60.0), (60.0, 2.0)])
def test_a_renewal_that_hangs_is_not_waited_for(server, steps, monkeypatch, wait, timeout):
    """In the async client; a thread cannot be called back. No call of a client with a short time-out is lost either."""
    monkeypatch.setattr(credentials, "RENEWAL_WAIT", wait)
    server.default = steps.answer(200, [1])
    fetches: list[int] = []

    async def provider() -> AccessToken:
        fetches.append(1)
        if len(fetches) > 1:
            await asyncio.Event().wait()
        return AccessToken("the-key", NOON + HOUR)

    face = steps.face("async", server.uri, provider, timeout=timeout)
    face.score(b"x")
    face.outside.wall += 0.95 * HOUR
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert len(fetches) == 2
    face.finish()


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_the_other_key_of_a_pair_is_used_from_then_on(make, server, steps):
    issuer = Issuer("p", "s")
    issuer.guard(server, steps)
    issuer.good.discard("p")
    face = make(KeyPair("p", "s"), retries=0)
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert sent(server) == ["p", "s", "s", "s"]
    assert face.outside.sleeps == []
    issuer.good = {"p"}  # a key may come back, as the one that somebody sets by hand
    assert face.score(b"x") == [1]
    issuer.good = set()
    with pytest.raises(errors.AuthenticationError, match="Both keys may have been regenerated") as caught:
        face.score(b"x")
    assert caught.value.attempts == 2


@pytest.mark.parametrize("count", [64])
def test_a_pair_is_switched_once_for_all(make, server, steps, caplog, count):
    gate = threading.Barrier(count)

    def step(connection: Any, seen: Any) -> bool:
        if seen.headers["authorization"] == "Bearer p":
            gate.wait(20)  # all of them hold the first key when the first of them is refused
            return steps.answer(401)(connection, seen)
        return steps.answer(200, [1])(connection, seen)

    server.default = step
    face = make(KeyPair("p", "s"))
    with caplog.at_level(logging.INFO, "gpu_infer.client"):
        assert face.at_once(count, b"x") == [[1]] * count
    assert sorted(sent(server)) == ["p"] * count + ["s"] * count
    assert caplog.text.count("the other key of the pair is used from now on") == 1


def test_a_pair_from_a_function_is_fetched_when_both_are_refused(make, server, steps):
    issuer = Issuer("p", "s", wrap=KeyPair)
    issuer.guard(server, steps)
    face = make(issuer, retries=0)

    def attempts() -> int:
        before = len(server.seen)
        assert face.score(b"x") == [1]
        return len(server.seen) - before

    assert (attempts(), issuer.fetches) == (1, 1)
    issuer.replace(index=0)
    assert [(attempts(), issuer.fetches) for _ in range(2)] == [(2, 1), (1, 1)]  # the secondary key
    issuer.replace(index=1)
    assert [(attempts(), issuer.fetches) for _ in range(2)] == [(2, 2), (1, 2)]  # both new
    issuer.replace(index=0)
    issuer.replace(index=1)
    assert [(attempts(), issuer.fetches) for _ in range(2)] == [(3, 3), (1, 3)]
    issuer.good = set()
    with pytest.raises(errors.AuthenticationError, match="fetched again and is still refused") as caught:
        face.score(b"x")
    assert caught.value.attempts == 3


def test_of_new_keys_the_one_that_was_not_refused_comes_first(make, server, steps):
    """The vault that the function reads may know only one of the new keys yet."""
    pairs = [KeyPair("p", "s"), KeyPair("p", "s2")]
    issuer = Issuer("s2", wrap=lambda *_: pairs[issuer.fetches - 1])
    issuer.guard(server, steps)
    assert make(issuer).score(b"x") == [1]
    assert sent(server) == ["p", "s", "s2"]


def test_refused_and_nothing_else_to_be_had(make, server, steps):
    issuer = Issuer("a")
    issuer.guard(server, steps)
    face = make(issuer)
    face.score(b"x")
    issuer.replace()
    issuer.broken = OSError()
    with pytest.raises(errors.AuthenticationError, match="The service refused the credential, and no other could be h"):
        face.score(b"x")


def test_a_client_that_measures_survives_a_rotation_of_both(server, steps):
    issuer = Issuer("p", "s", wrap=KeyPair)
    issuer.guard(server, steps)
    with ScoringClient(server.uri, issuer) as client:
        line = client.repeated(b"x").line()
        assert line.send() == Response(200, ANY)
        issuer.replace(index=0)
        issuer.replace(index=1)
        assert line.send() == Response(200, ANY)
        issuer.good = set()
        assert line.send() == Response(401, ANY)
        line.close()
    assert issuer.fetches == 3
    assert len(server.seen) == 1 + 3 + 3


# --- all of it at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pair", [False, True], ids=["token", "pair"])
def test_changes_in_the_middle_of_a_run_are_not_noticed(make, server, steps, count, pair):
    """Two rotations, and where there is a token, its end: by the clock, and at the service."""
    lock = threading.Lock()
    numbers = itertools.count(1)
    if pair:
        issuer = Issuer("p", "s", wrap=KeyPair)
    else:
        issuer = Issuer("t", wrap=lambda key: AccessToken(key, NOON + HOUR + face.outside.wall))
    face = make(issuer)

    def expire() -> None:
        face.outside.wall += 5 * HOUR
        issuer.replace()

    changes: dict[int, Callable[[], None]] = {
        count // 4: issuer.replace,
        count // 2: partial(issuer.replace, index=1) if pair else issuer.replace,
        3 * count // 4: issuer.replace if pair else expire,
    }

    def step(connection: Any, seen: Any) -> bool:
        with lock:
            changes.get(next(numbers), bool)()
            good = seen.headers["authorization"].removeprefix("Bearer ") in issuer.good
        return (steps.answer(200, [1]) if good else steps.answer(401))(connection, seen)

    server.default = step
    results = list(face.score_many((b"x" for _ in range(count)), concurrency=64))
    assert results == [[1]] * count
    assert issuer.fetches == (2 if pair else 4), "the first, and one for each change that needs one"
    assert face.outside.sleeps == []
    # Those that were under way at a change were refused once each, or twice where both keys of a pair had changed.
    assert count < len(server.seen) <= count + 3 * 64


class Faces:
    """Either vault, without a service: asked for a key as a call would, with a clock that the test moves."""

    def __init__(self, kind: str, credential: Any) -> None:
        self.time = NOON
        self._timing = Timing(random=lambda: 0.5, now=lambda: datetime.fromtimestamp(self.time, UTC))
        self._runner = asyncio.Runner() if kind == "async" else None
        self.vault: Any = (TaskVault if self._runner else ThreadVault)(Sealed(credential))

    def get(self, refused: Token | None = None) -> Token:
        if self._runner is None:
            return self.vault.get(refused=refused, wait=1.0, timing=self._timing)
        return self._runner.run(self.vault.get(refused=refused, wait=1.0, timing=self._timing))

    def call(self, good: set[str]) -> int:
        """Score as the protocol does: returns how many attempts it took, 0 where the service refused the last."""
        token, attempts = self.get(), 1
        while (refused := self.text(token) not in good) and attempts < self.vault.keys + self.vault.renewable:
            token, attempts = self.get(token), attempts + 1
        return 0 if refused else attempts

    @staticmethod
    def text(token: Token) -> str:
        return token.header().removeprefix("Bearer ")

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()


@given(st.lists(st.sampled_from(["call", "primary", "secondary"]), max_size=40))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_pair_survives_rotations_in_any_order(kind, events):
    issuer = Issuer("p", "s", wrap=KeyPair)
    face = Faces(kind, issuer)
    rotations = 0
    for event in [*events, "call"]:
        if event == "call":
            assert 1 <= face.call(issuer.good) <= 3
        else:
            issuer.replace(index=("primary", "secondary").index(event))
            rotations += 1
        assert issuer.fetches <= 1 + rotations
    assert face.call(issuer.good) == 1
    face.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 7200), st.sampled_from(["works", "fails", "gives a key", "gives what has expired"])),
        max_size=30,
    ),
    st.one_of(st.none(), st.integers(-3600, 7200)),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_is_valid_is_used_and_what_has_expired_never(kind, events, refresh_in):
    """Fails only where the provider does and nothing is valid any more; asks only when something is due."""
    fetches: list[float] = []
    expires: dict[str, float] = {}
    behaviour = "works"

    def provider() -> Any:
        fetches.append(face.time)
        if behaviour == "fails":
            raise OSError
        name = f"key-{len(fetches)}"
        expires[name] = {"gives a key": math.inf, "gives what has expired": face.time}.get(behaviour, face.time + HOUR)
        if behaviour == "gives a key":
            return name
        return AccessToken(name, expires[name], None if refresh_in is None else face.time + refresh_in)

    face = Faces(kind, provider)
    last = ""
    for seconds, behaviour in events:
        face.time += seconds
        before = len(fetches)
        try:
            token = face.get()
        except CredentialError:
            assert len(fetches) == before + 1
            assert behaviour in ("fails", "gives what has expired")
            assert face.time >= expires.get(last, -math.inf)
            continue
        used = face.text(token)
        assert face.time < expires[used]
        if len(fetches) == before:
            assert used == last
        elif last and refresh_in is None and face.time < expires[last]:
            assert face.time >= expires[last] - 0.2 * HOUR, "asked before it was due"
        last = used
    face.close()


@given(
    st.floats(0, 4e9),
    st.floats(1.0, 1e8),
    st.one_of(st.none(), st.floats(-1.0, 2.0)),
    st.floats(0, 1, exclude_max=True),
)
def test_a_renewal_lies_between_now_and_the_end(now, life, refresh, random):
    expires_on = now + life
    wanted = None if refresh is None else now + refresh * life
    at = renewal_time(now=now, expires_on=expires_on, refresh_on=wanted, random=random)
    assert now < at < expires_on
    if wanted is not None and now < wanted < expires_on:
        assert wanted <= at <= wanted + 0.1 * (expires_on - wanted) + 1e-6
    else:
        assert 0.8 * life - 1e-5 * life - 1e-6 <= at - now <= 0.9 * life + 1e-5 * life + 1e-6


# --- shown to nobody --------------------------------------------------------------------------------------------------


def reads_a_vault() -> str:
    found = SECRETS[3]
    return {}[len(found)]  # raises, with the key among its variables


def gives_a_bad_key() -> KeyPair:
    return KeyPair(SECRETS[0], SECRETS[1] + "\nü")


KINDS: dict[str, Callable[[], Any]] = {
    "key": lambda: SECRETS[0],
    "pair": lambda: KeyPair(SECRETS[0], SECRETS[1]),
    "token": lambda: AccessToken(SECRETS[2], NOON + HOUR),
    "expired": lambda: AccessToken(SECRETS[2], NOON),
    "azure": lambda: Azure(SECRETS[2], int(NOON + HOUR)),
    "entra": lambda: Entra(AccessToken(SECRETS[2], NOON + HOUR)),
    "function": lambda: partial(str, SECRETS[0]),
    "of a pair": lambda: partial(KeyPair, SECRETS[0], SECRETS[1]),
    "broken": lambda: reads_a_vault,
    "bad": lambda: gives_a_bad_key,
}


def told(error: BaseException) -> str:
    """All that tools which report errors may show of it, variables included."""
    with_variables = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "\n".join([repr(error), *traceback.format_exception(error), *with_variables.format()])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("trouble", ["echo", "refused", "closed", "broken", "silent"])
def test_no_secret_is_shown_by_an_error(make, server, steps, caplog, name, trouble):
    echo = {"message": f"who is {' or '.join(SECRETS)}?"}
    nowhere = steps.server()
    nowhere.close()
    server.default = {
        "echo": steps.answer(400, echo),
        "refused": steps.answer(401, echo),
        "closed": steps.raw(b""),
        "broken": steps.raw(b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nxx", reset=True),
        "silent": lambda *_: server.closing.wait(5) and False,
    }[trouble]
    face = make(
        KINDS[name](), uri=nowhere.uri if trouble == "closed" else None, timeout=0.2 if trouble == "silent" else 9
    )
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            error = failure_of(face)
            shown = told(error) + caplog.text + repr(face.client) + repr(vars(face.client))
            shown += pickle.dumps(error).decode("latin-1")
            # What the server says of keys that this client has never had, nobody can know to be one.
            hidden = known_by(face) if trouble in ("echo", "refused") else SECRETS
            assert [secret for secret in hidden if secret in shown] == []


def failure_of(face: Any) -> errors.ScoringError:
    """Caught here, where no variable holds a secret: this function stands in the traceback too."""
    with pytest.raises(errors.ScoringError) as caught:
        face.score(b"x")
    return caught.value


def known_by(face: Any) -> list[str]:
    vault = face.client._vault
    return [secret for secret in SECRETS if vault.hide_in(secret) != secret]


def test_a_key_of_before_is_not_shown_either(make, server, steps):
    """An answer to a request that was under way during a rotation may echo the key that it came with."""
    server.plays(steps.answer(401), steps.answer(400, {"message": f"who were {SECRETS[0]} and {SECRETS[1]}?"}))
    keys = SECRETS[:2]
    face = make(lambda: keys.pop(0))
    with pytest.raises(errors.BadInputError, match="who were [*]{3} and [*]{3}") as caught:
        face.score(b"x")
    assert caught.value.attempts == 2


@pytest.mark.parametrize("module", [session, connections])
def test_what_an_http_library_had_in_its_variables_is_forgotten(module):
    """As when a request is written to a connection that has just been closed: its bytes hold the key."""

    def writes() -> None:
        written = f"Authorization: Bearer {SECRETS[0]}"
        raise BrokenPipeError(len(written))

    def wraps() -> None:
        try:
            writes()
        except OSError as error:
            raise ConnectionError("it is closed") from error

    with pytest.raises(ConnectionError) as caught:
        wraps()
    assert count_secrets(caught.value) == 1
    module.forget_request(caught.value)
    assert count_secrets(caught.value) == 0
    assert "in writes" in told(caught.value), "files and lines stay"


def count_secrets(error: BaseException) -> int:
    """A function of its own, since pytest keeps what it compares in variables."""
    return sum(secret in told(error) for secret in SECRETS)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("function", "of a pair", "broken", "bad")])
def test_a_client_with_secrets_of_its_own_is_not_pickled(make, name):
    with pytest.raises(TypeError, match="cannot be pickled.*Give it a provider") as caught:
        pickle.dumps(make(KINDS[name]()).client)
    assert [secret for secret in SECRETS if secret in told(caught.value)] == []


@pytest.mark.parametrize("name", ["pair", "token"])
def test_the_types_show_and_write_nothing(name):
    assert "***" in repr(KINDS[name]())
    assert "***" in repr(Sealed(SECRETS[0])) + f"{KINDS[name]()}"
    assert [secret for secret in SECRETS if secret in f"{KINDS[name]()!r} {KINDS[name]()}"] == []
    for hidden in (KINDS[name], lambda: Sealed(KINDS[name]())):
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(hidden())


@pytest.mark.parametrize("client", [ScoringClient, AsyncScoringClient])
@pytest.mark.parametrize(
    "bad",
    [
        lambda: {"credential": SECRETS[0] + "ü"},
        lambda: {"credential": SECRETS[0].encode()},
        lambda: {"credential": gives_a_bad_key()},
        lambda: {"credential": SECRETS[0], "timeout": -1},
        lambda: {"credential": SECRETS[0], "codec": "pickle"},
    ],
)
def test_a_client_that_cannot_be_made_shows_no_key(client, bad):
    with pytest.raises((TypeError, ValueError)) as caught:
        client("http://127.0.0.1/score", **bad())
    assert [secret for secret in SECRETS if secret in told(caught.value)] == []


def test_what_the_caller_was_handling_keeps_its_variables(make):
    def breaks(found: str) -> None:
        raise ValueError(found)

    def handles(face: Any) -> None:
        try:
            breaks("mine")
        except ValueError:
            with pytest.raises(errors.AuthenticationError) as caught:
                face.score(b"x")
            assert "reads_a_vault" in told(caught.value), "files and lines stay"
            raise

    with pytest.raises(ValueError, match="mine") as mine:
        handles(make(reads_a_vault))
    assert mine.traceback[-1].frame.f_locals == {"found": "mine"}


# --- names ------------------------------------------------------------------------------------------------------------


def test_every_public_name_is_there():
    assert sorted(gpu_infer.client.__all__) == dir(gpu_infer.client) == gpu_infer.client.__all__
    for name in gpu_infer.client.__all__:
        assert getattr(gpu_infer.client, name) is not None


def test_the_credentials_of_azure_fit_the_annotations():
    """pyright reads this; at run time the real classes are what the clients take them for."""
    azure = pytest.importorskip("azure.core.credentials")

    def annotated(one: TokenCredential, other: AsyncTokenCredential) -> tuple[Any, Any]:
        return ScoringClient("http://127.0.0.1/score", one), AsyncScoringClient("http://127.0.0.1/score", other)

    one: Any = Entra(azure.AccessToken("the-key", 1))
    other: Any = AsyncEntra(azure.AccessToken("the-key", 1))
    clients = annotated(one, other)
    assert ["credential=Entra," in repr(clients[0]), "credential=AsyncEntra," in repr(clients[1])] == [True, True]
    clients[0].close()
    given_out = Sealed(azure.AccessTokenInfo("the-key", int(NOON + HOUR), refresh_on=int(NOON + 60)))
    assert (given_out.expires_on, given_out.refresh_on, given_out.problem(NOON)) == (NOON + HOUR, NOON + 60, "")


def test_a_real_entra_credential_that_cannot_sign_in(make, server):
    identity = pytest.importorskip("azure.identity")
    nobody = "00000000-0000-0000-0000-000000000001"
    options = {"authority": "127.0.0.1:9", "disable_instance_discovery": True, "retry_total": 0}
    face = make(identity.ClientSecretCredential(nobody, nobody, SECRETS[3], **options))
    error = failure_of(face)
    assert isinstance(error, errors.AuthenticationError)
    assert "The Microsoft Entra credential raised ClientAuthenticationError: Authentication failed" in str(error)
    assert type(error.__cause__).__name__ == "ClientAuthenticationError"
    assert count_secrets(error) == 0
    assert server.seen == []
