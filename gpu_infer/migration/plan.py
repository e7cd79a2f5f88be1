"""What a migration would do: what maps to what, what does not, and what both cost."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpu_infer.bundle import bare_template
from gpu_infer.deployment import attach, plan
from gpu_infer.errors import Finding, GpuInferError
from gpu_infer.migration.mapping import Mapped, mapped, own_variables
from gpu_infer.notebook import html_table
from gpu_infer.plans import HOURS_PER_MONTH, LINE, Plan, size_in_words, wrapped
from gpu_infer.spec import Scale, seconds_of
from gpu_infer.targets.aks import WebService, read_web_service

__all__ = ["MigrationPlan", "Move", "migrate_plan"]


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that a service has, and what it becomes.

    Args:
        what: it is.
        before: on AKS.
        after: on the online endpoint.
    """

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class MigrationPlan:
    """What becomes of an AKS web service on an online endpoint. ``print()`` shows it as a table.

    Args:
        service: name of the web service.
        endpoint: name of the online endpoint.
        moves: what maps to what.
        findings: what does not map and what to do about it, then what the checks of the new deployment have found.
        price_before: US dollars per hour of the cluster, which other services may share; 0 where that is not known.
        price_after: US dollars per hour of the new deployment's instances; 0 where that is not known.
        arguments: of ``deploy()``, the model included.
        deployment: the plan of the new deployment; ``None`` where it cannot be made yet.
        old: the web service as it was read.
    """

    service: str
    endpoint: str
    moves: tuple[Move, ...]
    findings: tuple[Finding, ...]
    price_before: float
    price_after: float
    arguments: Mapping[str, Any] = field(repr=False)
    deployment: Plan | None = field(repr=False)
    old: WebService = field(repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stand in the way."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def to_dict(self) -> dict[str, object]:
        """The plan as plain values, for JSON; values of environment variables are not among them."""
        return {
            "service": self.service,
            "endpoint": self.endpoint,
            "moves": [{"what": move.what, "before": move.before, "after": move.after} for move in self.moves],
            "price_per_hour": {"before": self.price_before, "after": self.price_after},
            "findings": [
                {"level": found.level, "code": found.code, "message": found.message, "fix": found.fix}
                for found in self.findings
            ],
            "ok": not self.errors,
        }

    def __str__(self) -> str:
        width = max(len(move.what) for move in self.moves)
        column = (LINE - width - 4) // 2
        shown = (Move("", "AKS web service", "online endpoint"), *self.moves)
        lines = [line for move in shown for line in _row(move, width, column)]
        for found in self.findings:
            lines += ["", *wrapped(found.level.upper(), found.message, width), *wrapped("", found.fix, width)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        pairs = [(move.what, f"{move.before} → {move.after}") for move in self.moves]
        pairs += [(finding.level.upper(), str(finding)) for finding in self.findings]
        return html_table(f"Migration of {self.service}", pairs)


def migrate_plan(
    workspace: Any,
    ml_client: Any,
    name: str,
    *,
    vm_size: str | None = None,
    new_name: str | None = None,
    **changes: Any,
) -> MigrationPlan:
    """What it takes to serve on a managed online endpoint what an AKS web service serves. Nothing is created.

    Everything is read that ``azureml-core`` lets one read: models, environment, variables, resources, scale, time-out,
    authentication, tags, the cluster, and the uploaded code, which is downloaded.

    Args:
        workspace: ``azureml.core.Workspace`` that has the service.
        ml_client: ``azure.ai.ml.MLClient`` of the same workspace.
        name: of the service, whether this library has deployed it or not.
        vm_size: of the instances; by the nodes of the cluster where ``None``: the successor of a retired size, and no
            more GPUs than a replica uses.
        new_name: of the endpoint; that of the service where ``None``.
        changes: arguments of ``deploy()`` that go before what is read, such as ``entry_script=`` where the code cannot
            be read, or ``replicas=``.

    Returns:
        the plan; with errors where something has to be given first.

    Raises:
        ServiceNotFoundError: there is no service of that name.
        UnsupportedError: it is not one on AKS.
        WorkspaceError: the workspace refused or did not answer.
        TypeError: ``changes`` that ``deploy()`` does not take.
    """
    if changes.get("overwrite") or changes.get("keep"):
        message = (
            "A migration makes an endpoint of its own, and keeps it once the answers agree: no overwrite=, no keep=."
        )
        raise TypeError(message)
    old = read_web_service(workspace, name)
    if new_name is not None:
        changes["name"] = new_name
    described = _described(workspace, old) if old.ours and old.code is None else None
    found = mapped(old, described, vm_size=vm_size, changes=changes)
    findings = list(found.findings)
    made: Plan | None = None
    if not any(finding.level == "error" for finding in findings):
        arguments = dict(found.arguments)
        made = plan(arguments.pop("model"), ml_client, **arguments)
        findings += [_renamed(one) if one.code == "name-taken" else one for one in made.findings]
    findings.append(_cluster(old))
    return MigrationPlan(
        service=old.name,
        endpoint=found.arguments["name"],
        moves=tuple(_moves(old, found, made)),
        findings=tuple(sorted(findings, key=lambda one: ("error", "warning", "info").index(one.level))),
        price_before=old.cluster.price_per_hour,
        price_after=made.price_per_hour if made else 0.0,
        arguments=found.arguments,
        deployment=made,
        old=old,
    )


# --- inside -----------------------------------------------------------------------------------------------------------


def _renamed(finding: Finding) -> Finding:
    """What to do where the endpoint is there: what it serves is not to be lost for answers that may differ."""
    return replace(finding, fix="Give new_name=, or delete that endpoint first.")


def _described(workspace: Any, old: WebService) -> Mapping[str, Any] | None:
    """What a service of ours says of itself; ``None`` where it does not answer."""
    with attach(old.name, workspace) as service:
        try:
            return service.describe()
        except GpuInferError:
            return None


def _cluster(old: WebService) -> Finding:
    others = [one for one in old.cluster.services if one != old.name]
    name, price = old.cluster.name, old.cluster.price_per_hour
    billed = f"costs ${price:.2f} per hour" if price else "is billed"
    if others:
        run = "runs" if len(others) == 1 else "run"
        message = f"Cluster {name!r} {billed} for as long as it exists, and {', '.join(others)} {run} on it, too."
        return Finding("info", "cluster", message, "Migrate those as well, then delete it.")
    how = (
        f"gpu_infer.attach({old.name!r}, workspace).delete(cluster=True)"
        if old.cluster.ours
        else "Whoever made it deletes"
    )
    message = f"Cluster {name!r} {billed} for as long as it exists, and no other service runs on it."
    return Finding("info", "cluster", message, f"{how} removes both." if old.cluster.ours else f"{how} it.")


def _moves(old: WebService, found: Mapped, made: Plan | None) -> list[Move]:
    arguments = found.arguments
    size, model = str(arguments["vm_size"]), arguments.get("model")
    scale = Scale.of(arguments["replicas"])
    given = arguments["environment_variables"]
    after = made.price_per_hour if made else 0.0
    moves = [
        Move("service", f"{old.name}, {old.state}", f"{arguments['name']}, a managed endpoint"),
        Move("model", ", ".join(map(str, old.models)) or "none", _same(old.models[:1] == (model,), str(model or ""))),
        Move("code", _old_code(old), found.code),
        Move("packages", "its conda file" if old.conda_file else "of its image", _packages(old, arguments)),
        Move("image", _image(old.base_image) or "its own", _image(bare_template().base_image)),
        Move("machines", _nodes(old), f"{_count(scale, 'instance')}, each {size_in_words(size)}"),
        Move(
            "replicas",
            f"{_count(old.scale, 'replica')}, each {_share(old)}",
            "an instance each, with all that is in it",
        ),
        Move("variables", ", ".join(sorted(own_variables(old))) or "none", ", ".join(sorted(given)) or "none"),
        Move(
            "scored with", _auth(old.auth), f"{_auth(arguments['auth'])}, {'' if old.auth == 'token' else 'new ones'}"
        ),
        Move("address", old.scoring_uri.partition("://")[2], _new_address(old, arguments["name"])),
        Move("balancer", _balancer(old), "Azure's own"),
        Move("time-out", f"{old.timeout:g} s, then 504", f"{seconds_of(arguments['timeout']):g} s, then 408"),
        Move("when busy", f"waits {old.queue_ms:,} ms, then 503", "429 above twice what runs at once"),
        Move("script fails", "502", "424"),
        Move("tags", ", ".join(old.tags) or "none", _same(arguments["tags"] == old.tags, ", ".join(arguments["tags"]))),
        Move("price", _old_price(old), f"{_price(after)} for the instances"),
    ]
    return [Move(one.what, one.before.rstrip(", "), one.after.rstrip(", ")) for one in moves if _says(one)]


def _says(move: Move) -> bool:
    return (move.before, move.after) not in (("none", "none"), ("none", "the same"))


def _same(is_same: bool, otherwise: str) -> str:  # noqa: FBT001 - a row of the table reads so
    return "the same" if is_same else otherwise or "to be given"


def _old_code(old: WebService) -> str:
    if old.ours:
        return "the library's bundled runtime"
    return f"{old.entry_script or 'an entry script'}{'' if old.code else ', not readable'}"


def _packages(old: WebService, arguments: Mapping[str, Any]) -> str:
    conda: Path | None = arguments.get("conda_file")
    if conda is None:
        return "of the framework's template"
    return "the same" if conda == old.conda_file else str(conda) if not old.ours else "its own conda file"


def _image(name: str) -> str:
    """An image without its registry."""
    return name.rpartition("/")[2]


def _nodes(old: WebService) -> str:
    cluster = old.cluster
    others = len([one for one in cluster.services if one != old.name])
    shared = f", shared with {others} other service{'' if others == 1 else 's'}" if others else ""
    size = size_in_words(cluster.vm_size) or "of unknown size"
    return f"cluster {cluster.name}: {cluster.nodes or '?'} nodes, each {size}{shared}"


def _new_address(old: WebService, name: str) -> str:
    return f"{name}.{old.location or 'REGION'}.inference.ml.azure.com/score"


def _balancer(old: WebService) -> str:
    """The load balancer; that Azure ML makes Basic ones is in azure-ai-docs (v1, how-to-create-attach-kubernetes)."""
    if old.cluster.attached:
        return "the cluster's"
    return "Basic, as Azure ML makes it; Azure has retired those on 2025-09-30"


def _share(old: WebService) -> str:
    parts = [f"{old.gpus} GPU{'' if old.gpus == 1 else 's'}"]
    parts += [f"{old.cpu_cores:g} cores"] if old.cpu_cores else []
    parts += [f"{old.memory_gb:g} GB"] if old.memory_gb else []
    return ", ".join(parts)


def _count(scale: Scale, what: str) -> str:
    if scale.max_replicas is not None:
        return f"{scale.replicas} to {scale.max_replicas} {what}s by load"
    return f"{scale.replicas} {what}{'' if scale.replicas == 1 else 's'}"


def _auth(auth: str) -> str:
    return {"key": "two keys", "token": "tokens of Azure ML", "none": "nothing"}[auth]


def _price(per_hour: float) -> str:
    return f"${per_hour:.2f} per hour, ${per_hour * HOURS_PER_MONTH:,.0f} per month" if per_hour else "unknown"


def _old_price(old: WebService) -> str:
    count = len(old.cluster.services)
    return f"{_price(old.cluster.price_per_hour)} for the cluster{f' of {count} services' if count > 1 else ''}"


def _row(move: Move, width: int, column: int) -> Sequence[str]:
    left, right = (textwrap.wrap(text, column, break_on_hyphens=False) for text in (move.before, move.after))
    lines = itertools.zip_longest([move.what], left, right, fillvalue="")
    return [f"{head:<{width}}  {before:<{column}}  {after}".rstrip() for head, before, after in lines]
