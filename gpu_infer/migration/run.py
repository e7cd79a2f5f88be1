"""``migrate()``: deploy, compare, and only then let go of the old service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from gpu_infer.blotting import blotted
from gpu_infer.deployment import attach, deploy
from gpu_infer.errors import AnswersDifferError, DeploymentError, Finding, PreflightError, ScoringError
from gpu_infer.migration.comparing import Comparison, asking, compare
from gpu_infer.migration.plan import MigrationPlan, migrate_plan
from gpu_infer.progress import Event, emit
from gpu_infer.samples import made_up
from gpu_infer.service import Service
from gpu_infer.targets.choice import target_for

__all__ = ["DEFAULT_TOLERANCE", "Migration", "migrate"]

DEFAULT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Migration:
    """What ``migrate()`` has done.

    Args:
        plan: what maps to what.
        service: the handle of the new one, which is kept.
        comparison: of the answers of both.
        old_deleted: whether the web service was deleted; its cluster stays, and is billed.
    """

    plan: MigrationPlan
    service: Service
    comparison: Comparison
    old_deleted: bool

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "plan": self.plan.to_dict(),
            "endpoint": self.service.name,
            "scoring_uri": self.service.scoring_uri,
            "price_per_hour": self.service.price_per_hour,
            "comparison": self.comparison.to_dict(),
            "old_deleted": self.old_deleted,
        }

    def __str__(self) -> str:
        old = "is deleted" if self.old_deleted else "serves on"
        return (
            f"{self.service.name} answers at {self.service.scoring_uri}. {self.comparison}. Web service "
            f"{self.plan.service} {old}."
        )


def migrate(
    workspace: Any,
    ml_client: Any,
    name: str,
    *,
    vm_size: str | None = None,
    new_name: str | None = None,
    golden: Sequence[Any] = (),
    tolerance: float = DEFAULT_TOLERANCE,
    delete_old: bool = False,
    ttl: float | str | timedelta | None = None,
    **changes: Any,
) -> Migration:
    """Serve on a managed online endpoint what an AKS web service serves, once both give the same answers.

    Where they do not, or anything else fails, the new endpoint is removed again; the old service is left as it is, and
    serves all the while.

    Args:
        workspace: ``azureml.core.Workspace`` that has the service.
        ml_client: ``azure.ai.ml.MLClient`` of the same workspace.
        name: of the service.
        vm_size: of the instances; by the nodes of the cluster where ``None``.
        new_name: of the endpoint; that of the service where ``None``.
        golden: what both are asked: for a service of ours items as ``score()`` takes them, one is made up where there
            are none; for a script of the user's files, whose bytes go as they are (a ``.json`` file as JSON), bytes,
            or values, which go as ``{"data": ...}``.
        tolerance: the largest absolute difference of two numbers that is let pass.
        delete_old: delete the web service when all is well; its cluster stays.
        ttl: how long the new one lives; for good where ``None``.
        changes: as for ``migrate_plan()``; ``wait=`` as for ``deploy()``.

    Raises:
        PreflightError: something has to be given first, or a check of the new deployment failed; nothing was created.
        ScoringError: the old service does not answer a golden item; nothing was created.
        DeploymentError: the new one does not start, or does not answer.
        AnswersDifferError: their answers differ by more than ``tolerance``.
        TeardownError: the new one could not be removed again, or the old one not be deleted.
    """
    wait = changes.pop("wait", True)
    made = migrate_plan(workspace, ml_client, name, vm_size=vm_size, new_name=new_name, **changes)
    if made.errors:
        raise PreflightError(list(made.findings))
    items, before = _asked(workspace, made, golden)
    arguments = dict(made.arguments)
    # In a block, so that the new one goes where the answers differ, or this process ends before they are known.
    with deploy(arguments.pop("model"), ml_client, wait=wait, dry_run=False, **arguments) as service:
        comparison = _compared(ml_client, service.name, items, before, tolerance=tolerance)
        if not comparison.agree:
            raise _differ(made, comparison)
        service.keep(ttl)
    if delete_old:
        attach(name, workspace).delete()
    return Migration(made, service, comparison, delete_old)


# --- inside -----------------------------------------------------------------------------------------------------------


def _asked(workspace: Any, made: MigrationPlan, golden: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The golden items, and what the old service answers: before anything is created.

    Raises:
        PreflightError: there are none, and none can be made up.
        ScoringError: it does not answer one of them.
    """
    items = list(golden) or [_made_up(workspace, made)]
    missing = [str(item) for item in items if isinstance(item, str | Path) and not Path(item).is_file()]
    if missing:
        message = f"There is no file {', '.join(missing)}."
        raise PreflightError([Finding("error", "golden", message, "Golden texts are the paths of files.")])
    emit(Event(made.service, "ask_the_old_one", "start"))
    answers: list[Any] = []
    with asking(target_for(None, workspace).find(made.service)) as ask:
        for at, item in enumerate(items):
            try:
                answers.append(ask(item))
            except ScoringError as error:
                error.add_note(f"Golden item {at} is asked of web service {made.service!r} first; nothing was created.")
                raise
    emit(Event(made.service, "ask_the_old_one", "ok", f"{len(items)} requests"))
    return items, answers


def _made_up(workspace: Any, made: MigrationPlan) -> Any:
    why = "it answers with a script of its own, and what that takes is not known"
    if made.old.ours:
        with attach(made.service, workspace) as service:
            try:
                return [made_up(service.describe())]  # a list: behind a hook, one item may look as many do
            except ValueError as error:
                why = str(error).rstrip(".")
    message = f"There is nothing to ask web service {made.service!r} and the new one, to compare their answers: {why}."
    raise PreflightError([Finding("error", "golden", message, "Give golden= files or items, such as real requests.")])


def _compared(
    ml_client: Any, name: str, items: Sequence[Any], before: Sequence[Any], *, tolerance: float
) -> Comparison:
    """Ask the new one the same.

    Raises:
        DeploymentError: it does not answer one of them.
    """
    emit(Event(name, "compare", "start"))
    after: list[Any] = []
    with asking(target_for(None, ml_client).find(name)) as ask:
        for at, item in enumerate(items):
            try:
                after.append(ask(item))
            except ScoringError as error:
                message = (
                    f"The new endpoint {name!r} does not answer golden item {at}, which the old service does. {error}"
                )
                raise DeploymentError(blotted(message)) from error
    found = compare(before, after, tolerance=tolerance)
    emit(Event(name, "compare", "ok" if found.agree else "failed", str(found)))
    return found


def _differ(made: MigrationPlan, found: Comparison) -> AnswersDifferError:
    apart = found.what or f"{found.largest:.3g}"
    message = (
        f"Web service {made.service!r} and the new endpoint {made.endpoint!r} answer golden item {found.at} "
        f"differently: {apart}, where {found.tolerance:g} is let pass. The new one is removed again, and the old one "
        "serves on. Another version of a package or another GPU may be why: compare the packages, or raise tolerance=."
    )
    return AnswersDifferError(blotted(message), largest=found.largest, at=found.at)
