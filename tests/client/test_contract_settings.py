"""What a client is made with, takes, and says of itself, over a real socket, sync and async alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import AsyncScoringClient, ScoringClient

KEY = "sesame-0123456789abcdef"


def hands_out() -> str:
    return KEY


def test_one_client_serves_many_callers_at_once(make, server, steps):
    def step(connection: Any, seen: Any) -> bool:
        return steps.answer(200, len(seen.body), steps.ours)(connection, seen)

    server.default = step
    assert make().at_once(32, b"12345") == [5] * 32


def test_a_closed_client_says_so(make, server):
    face = make()
    face.close()
    face.close()
    with pytest.raises(RuntimeError, match="client is closed"):
        face.score(b"x")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("127.0.0.1:5001/score", "whole scoring address"),
        ("ftp://host/score", "whole scoring address"),
        ("http:///score", "whole scoring address"),
        ("http://host:99999/score", "whole scoring address"),
        ("http://host/a b", "whole scoring address"),
        ("http://[::1/score", "whole scoring address"),
        ("https://me:secret@host/score", "user name or password"),
    ],
)
def test_an_address_that_cannot_be_is_refused(kind, uri, message):
    client = ScoringClient if kind == "sync" else AsyncScoringClient
    with pytest.raises(ValueError, match=message) as caught:
        client(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": 1e12}, "timeout must be"),
        ({"timeout": "60"}, "timeout must be"),
        ({"timeout": None}, "timeout must be"),
        ({"retries": None}, "retries must be a whole number"),
        ({"retries": "3"}, "retries must be a whole number"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"codec": "pickle"}, "codec must be one of json, npy, bytes, kserve or None"),
        ({"retries": -1}, "limit must be"),
        ({"credential": "two\nlines"}, "cannot stand in an HTTP header"),
        ({"credential": ""}, "credential is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, options, message):
    client = ScoringClient if kind == "sync" else AsyncScoringClient
    with pytest.raises(ValueError, match=message):
        client("http://127.0.0.1/score", **options)


def test_a_credential_of_another_type_is_refused_without_showing_it(kind):
    client: Any = ScoringClient if kind == "sync" else AsyncScoringClient
    with pytest.raises(TypeError, match="must be a key, a token or a callable, not bytes") as caught:
        client("http://127.0.0.1/score", KEY.encode())
    assert KEY not in str(caught.value)


def test_what_a_client_shows_of_itself(make, kind):
    name = "ScoringClient" if kind == "sync" else "AsyncScoringClient"
    for credential, shown in ((None, "None"), (KEY, "***"), (hands_out, "provider")):
        face = make(credential, uri="http://127.0.0.1:1/score?code=hush")
        expected = f"{name}('http://127.0.0.1:1/score', credential={shown}, timeout=60, codec=None)"
        assert repr(face.client) == expected


def test_bad_input_never_leaves(make, server):
    face = make()
    with pytest.raises(errors.BadInputError, match="There is no file 'lynx.jpg'") as caught:
        face.score("lynx.jpg")
    assert (caught.value.attempts, caught.value.status) == (0, None)
    assert server.seen == []


def test_files_are_read(make, server, steps, tmp_path):
    path = Path(tmp_path / "photo.jpg")
    path.write_bytes(b"\xff\xd8\xff photo")
    server.default = steps.answer(200, [1])
    face = make()
    with path.open("rb") as file:
        for x in (path, str(path), file):
            face.score(x)
    assert [seen.body for seen in server.seen] == [b"\xff\xd8\xff photo"] * 3
