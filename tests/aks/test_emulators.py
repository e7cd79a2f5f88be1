"""Several emulators and one ledger: each workspace has its own rows, and they go with it."""

from __future__ import annotations

import uuid

import pytest

import gpu_infer
from gpu_infer.emulator import Emulator

T4 = "Standard_NC4as_T4_v3"

pytestmark = pytest.mark.usefixtures("home")


def recorded() -> list[str]:
    return [one.name for one in gpu_infer.leftovers()]


def test_the_rows_of_one_emulator_are_not_anothers() -> None:
    with Emulator(run_services=False) as first:
        gpu_infer.provision_cluster(first.workspace(), "gpus", T4, keep=True)
        with Emulator(run_services=False) as second:
            assert uuid.UUID(second.subscription_id) != uuid.UUID(first.subscription_id)
            assert gpu_infer.leftovers(second.workspace()) == []
            gpu_infer.provision_cluster(second.workspace(), "gpus", T4, keep=True)
            assert recorded() == ["gpus", "gpus"]
        assert recorded() == ["gpus"], "what has gone with its workspace is on no bill"
        assert [one.name for one in gpu_infer.leftovers(first.workspace())] == ["gpus"]
    assert recorded() == []


def test_an_emulator_that_starts_again_is_another_workspace() -> None:
    emulator = Emulator(run_services=False).start()
    before = emulator.subscription_id
    assert emulator.workspace().subscription_id == before
    emulator.stop()
    with emulator:
        assert emulator.workspace().subscription_id == emulator.subscription_id != before


def test_an_id_that_was_given_stays_and_so_do_its_rows() -> None:
    given = "00000000-0000-4000-8000-000000000001"
    emulator = Emulator(run_services=False, subscription_id=given)
    with emulator:
        gpu_infer.provision_cluster(emulator.workspace(), "gpus", T4, keep=True)
    assert recorded() == ["gpus"], "it may be the id of a subscription in which this cluster is billed"
    with emulator:
        assert emulator.workspace().subscription_id == given
