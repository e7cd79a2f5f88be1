"""What the handle of a service gives its clients to score with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.client import AccessToken, KeyPair
from gpu_infer.emulator import Emulator
from gpu_infer.errors import ServiceNotFoundError

T4 = "Standard_NC4as_T4_v3"


def test_both_keys_as_they_are_now(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    with gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4)) as service:
        provider = service._credential
        assert provider is not None
        before = provider()
        assert before == KeyPair(*service.raw.get_keys())
        gpu_infer.attach("svc", workspace).rotate_keys()  # as another process would
        after = provider()
        assert after == KeyPair(*service.raw.get_keys())
        assert isinstance(before, KeyPair)
        assert isinstance(after, KeyPair)
        assert len({before.primary, before.secondary, after.primary, after.secondary}) == 4
        assert "credential=provider" in repr(service.client)
        assert [key for key in (after.primary, after.secondary) if key in repr(service) + repr(vars(service))] == []
    with pytest.raises(ServiceNotFoundError, match="Service 'svc' is gone"):
        provider()


def test_a_token_with_its_times(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    with gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4), auth="token") as service:
        assert service._credential is not None
        token = service._credential()
    assert isinstance(token, AccessToken)
    assert token.refresh_on is not None
    assert time.time() < token.refresh_on < token.expires_on < time.time() + 366 * 86_400
