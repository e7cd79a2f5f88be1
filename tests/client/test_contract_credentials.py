"""When credentials are fetched, and that they never show, over a real socket, sync and async alike."""

from __future__ import annotations

import logging
import pickle
import threading
import traceback
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import RetryPolicy

KEY = "sesame-0123456789abcdef"
OTHER_KEY = "sesame-fedcba9876543210"


class Provider:
    """Gives the keys in order, the last for ever, and counts."""

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.calls = 0
        self.slow = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        key = self.keys.pop(0) if len(self.keys) > 1 else self.keys[0]
        if isinstance(key, Exception):
            raise key
        return key


def lock_for(server: Any, steps: Any, key: str) -> None:
    """The server takes this key and no other."""

    def step(connection: Any, seen: Any) -> bool:
        fits = seen.headers.get("authorization") == f"Bearer {key}"
        return (steps.answer(200, [1]) if fits else steps.answer(401, b"denied"))(connection, seen)

    server.default = step


def test_a_key_is_sent_as_bearer(make, server, steps):
    lock_for(server, steps, KEY)
    assert make(KEY + "\n").score(b"x") == [1]


def test_a_fixed_key_that_is_refused_is_not_tried_again(make, server, steps):
    lock_for(server, steps, OTHER_KEY)
    with pytest.raises(errors.AuthenticationError, match="denied.*regenerated.*callable as credential") as caught:
        make(KEY).score(b"x")
    assert caught.value.attempts == 1


def test_a_provider_is_asked_once_and_again_when_refused(make, server, steps):
    provider = Provider(KEY, OTHER_KEY)
    lock_for(server, steps, KEY)
    face = make(provider)
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert provider.calls == 1
    lock_for(server, steps, OTHER_KEY)
    assert [face.score(b"x") for _ in range(3)] == [[1]] * 3
    assert provider.calls == 2
    assert face.outside.sleeps == []


def test_a_provider_that_only_has_bad_keys_is_asked_twice(make, server, steps):
    provider = Provider(KEY)
    server.default = steps.answer(401, b"")
    with pytest.raises(errors.AuthenticationError, match="fetched again and is still refused") as caught:
        make(provider, retries=0).score(b"x")
    assert provider.calls == caught.value.attempts == 2


def test_a_renewal_does_not_use_up_retries(make, server, steps):
    server.plays(steps.answer(503), steps.answer(401), steps.answer(503), steps.answer(200, [1]))
    assert make(Provider(KEY), retries=2).score(b"x") == [1]


def test_a_rotated_key_is_fetched_once_for_all(make, server, steps):
    gate = threading.Barrier(16)
    provider = Provider(KEY, OTHER_KEY)

    def step(connection: Any, seen: Any) -> bool:
        if seen.headers["authorization"] == f"Bearer {KEY}":
            gate.wait(5)  # all sixteen hold the old key when the first of them is refused
            return steps.answer(401)(connection, seen)
        return steps.answer(200, [1])(connection, seen)

    server.default = step
    face = make(provider)
    assert face.at_once(16, b"x") == [[1]] * 16
    assert provider.calls == 2


def test_a_provider_that_fails_is_asked_once_by_those_who_wait_for_it(make, server, steps):
    calls: list[int] = []
    begun = threading.Barrier(9)

    def provider() -> str:
        calls.append(1)
        if len(calls) == 1:
            begun.wait(5)  # the others queue up meanwhile
        raise OSError("the vault is sealed")

    face = make(provider)
    begin = face.client._score_conversation

    def and_say_so(*arguments: Any, **options: Any) -> Any:
        threading.Thread(target=begun.wait, args=(5,)).start()
        return begin(*arguments, **options)

    face.client._score_conversation = and_say_so
    results = face.at_once(8, b"x")
    assert len(calls) < 8
    for error in results:
        assert isinstance(error, errors.AuthenticationError)
        assert "The credential provider raised OSError." in str(error)
        assert isinstance(error.__cause__, OSError)
    assert server.seen == []


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (None, "gave NoneType, not a str"),
        ("", "The credential is empty"),
        ("two\r\nlines", "characters that cannot stand in an HTTP header"),
        ("schlüssel", "characters that cannot stand in an HTTP header"),
    ],
)
def test_a_provider_that_gives_no_key_is_an_authentication_error(make, server, steps, gives, message):
    with pytest.raises(errors.AuthenticationError, match=message):
        make(Provider(gives)).score(b"x")
    assert server.seen == []


def test_a_failed_provider_may_succeed_the_next_time(make, server, steps):
    lock_for(server, steps, KEY)
    face = make(Provider(OSError("sealed"), KEY))
    with pytest.raises(errors.AuthenticationError):
        face.score(b"x")
    assert face.score(b"x") == [1]


# --- secrets ----------------------------------------------------------------------------------------------------------


def hands_out() -> str:
    return KEY


def told(error: BaseException) -> str:
    """All that an exception shows: text, repr, traceback with its causes, and what hangs on them."""
    shown = [repr(error), "".join(traceback.format_exception(error))]
    current: BaseException | None = error
    while current is not None:
        shown += [repr(vars(current)), repr(current.args)]
        request = getattr(current, "request", None)
        shown.append(repr(dict(request.headers)) if request is not None else "")
        current = current.__cause__ or current.__context__
    return "\n".join(shown)


@pytest.mark.parametrize("credential", [KEY, hands_out])
def test_a_key_is_never_shown(make, server, steps, credential, caplog):
    closed = steps.server()
    closed.close()
    echo = {"message": f"who are you, Bearer {KEY}?"}
    server.plays(
        steps.answer(503, echo),
        steps.answer(400, echo),
        steps.answer(302, f"to {KEY}"),
        steps.answer(200, KEY.encode(), content_type="text/plain"),
        steps.raw(b""),
    )
    with caplog.at_level(logging.DEBUG):
        face, unreachable = make(credential), make(credential, uri=closed.uri)
        for client in (face, face, face, face, unreachable):
            with pytest.raises(errors.ScoringError) as caught:
                client.score(b"x")
            assert KEY not in told(caught.value)
            assert KEY not in pickle.dumps(caught.value).decode("latin-1")
        assert KEY not in repr(face.client)
        assert KEY not in repr(vars(face.client))
    assert KEY not in caplog.text
    assert "gpu_infer.client" in caplog.text, "retries are told to the log"


def test_a_client_with_a_fixed_key_cannot_be_pickled(make):
    with pytest.raises(TypeError, match="fixed key cannot be pickled.*Give it a provider") as caught:
        pickle.dumps(make(KEY).client)
    assert KEY not in told(caught.value)


def test_a_client_with_a_provider_travels_without_the_key(make, server, steps, kind):
    lock_for(server, steps, KEY)
    face = make(hands_out, timeout=7, retries=RetryPolicy(limit=1), codec="json")
    face.score([1.0])
    copied = pickle.dumps(face.client)
    assert KEY not in copied.decode("latin-1")
    other = make(hands_out)
    other.client = pickle.loads(copied)
    assert (other.client.uri, other.client.timeout) == (server.uri, 7)
    assert other.client._policy == RetryPolicy(limit=1)
    assert other.score([1.0]) == [1]


def test_errors_keep_everything_when_pickled(make, server, steps):
    server.plays(steps.answer(400, {"message": "no", "item": 4}), steps.answer(429, b"", {"Retry-After": "99"}))
    face = make()
    for name, value in (("item", 4), ("retry_after", 99)):
        with pytest.raises(errors.ScoringError) as caught:
            face.score(b"x")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), str(copy), copy.status) == (type(caught.value), str(caught.value), caught.value.status)
        assert (copy.request_id, copy.attempts, getattr(copy, name)) == (caught.value.request_id, 1, value)


def test_netrc_cookies_and_proxies_stay_out_of_it(make, server, steps, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.plays(steps.answer(200, [1], {"Set-Cookie": "affinity=replica-1; Path=/"}), steps.answer(200, [1]))
    face = make()
    face.score(b"x")
    face.score(b"x")
    assert [set(seen.headers) & {"authorization", "cookie"} for seen in server.seen] == [set(), set()]
