"""Whatever is done in whatever order, and wherever it is cut off: no billed resource without a record.

And ``sweep(workspace)``, as it is called without more, removes all but what ``deploy()`` has handed over.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from clouds import AKS
from fault_matrix import CALL_SECONDS, Scene, Zygote
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpu_infer.emulator import Emulator, Fault, Transition

OPERATIONS = (
    "compute.get",
    "compute.create",
    "compute.delete",
    "compute.list",
    "artifacts.create",
    "services.create",
    "services.get",
    "services.list",
    "services.delete",
)
KINDS = ("status", "reset_before", "reset_after", "kill", "kill_after")


class Azure(RuleBasedStateMachine):
    """Deploys, deletes and sweeps, each in a process of its own, with and without something that goes wrong."""

    zygote: Zygote

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
        self.scene = Scene(self.zygote, self.folder)
        self.scene.emulator = Emulator(run_services=False, transitions={"compute.*": Transition.after_polls(1)})
        self.scene.emulator.start()
        AKS.register(self.scene.emulator)
        # What a sweep must leave: "nothing", the deployment that is "in use", or "part" of one: its cluster is in use
        # and its service was being replaced when that was cut off.
        self.stays = "nothing"

    def teardown(self) -> None:
        self.scene.emulator.clear_faults()
        options: dict[str, Any] = {} if self.stays == "nothing" else {"older_than": 0}
        swept = self.scene.run("sweep", **options)
        left = self.scene.there()
        self.scene.emulator.stop()
        shutil.rmtree(self.folder)
        assert swept["outcome"] == "ok", swept
        assert left == set()

    def job(self, action: str, **options: Any) -> dict[str, Any]:
        answer = self.scene.run(action, timeout=CALL_SECONDS, **options)
        self.scene.emulator.clear_faults()
        assert answer["outcome"] in ("ok", "typed", "killed"), answer
        if action == "deploy" and answer["outcome"] == "ok":
            self.stays = "in use"
        elif action == "deploy" and options.get("overwrite") and self.stays == "in use":
            self.stays = "part"
        elif action == "delete" and (self.folder / "begun").exists():
            self.stays = "nothing"
        return answer

    @rule(overwrite=st.booleans())
    def deploy(self, overwrite: bool) -> None:
        self.job("deploy", overwrite=overwrite)

    @rule()
    def deploy_in_block(self) -> None:
        self.job("deploy_in_block")

    @rule(
        action=st.sampled_from(["deploy", "overwrite", "delete", "sweep", "deploy_in_block"]),
        operation=st.sampled_from(OPERATIONS),
        kind=st.sampled_from(KINDS),
        skip=st.integers(0, 4),
        lasting=st.booleans(),
        status=st.sampled_from([401, 403, 404, 409, 429, 500, 503]),
    )
    def broken(self, action: str, operation: str, kind: str, skip: int, lasting: bool, status: int) -> None:
        times = None if lasting and not kind.startswith("kill") else 1
        if kind.startswith("kill"):
            when = "call_before" if kind == "kill" else "call_after"
            fault = Fault(operation=operation, kind=when, call=self.scene.kill, skip=skip)
        else:
            fault = Fault(operation=operation, kind=kind, status=status, skip=skip, times=times)  # type: ignore[arg-type]
        self.scene.emulator.add_fault(fault)
        if action == "overwrite":
            self.job("deploy", overwrite=True)
        else:
            self.job(action)

    @precondition(lambda self: self.stays == "in use")
    @rule()
    def delete(self) -> None:
        self.job("delete")

    @rule()
    def sweep(self) -> None:
        answer = self.job("sweep")
        assert answer["outcome"] == "ok", answer
        assert self.scene.there() >= {"nothing": set(), "part": {"gpus"}, "in use": {"gpus", "svc"}}[self.stays]
        assert self.stays != "nothing" or self.scene.there() == set()

    @rule()
    def sweep_all(self) -> None:
        assert self.job("sweep", older_than=0)["outcome"] == "ok"
        assert self.scene.there() == set()
        self.stays = "nothing"

    @invariant()
    def nothing_billed_is_unrecorded(self) -> None:
        assert set(self.scene.emulator.billed()) <= self.scene.recorded()


@pytest.fixture(scope="module", autouse=True)
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("machine"))
        patch.setenv("TMPDIR", str(Path.cwd()))
        Azure.zygote = Zygote()
        yield
        Azure.zygote.close()


class TestAFewSteps(Azure.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=3, stateful_step_count=5, deadline=None, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestManySteps(Azure.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=25, stateful_step_count=12, deadline=None, print_blob=True)
