"""``deploy()``, ``plan()``, ``attach()``, ``services()``: spec, preflight, bundle, target, service."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, overload

from gpu_infer.arguments import Hook, spec_from
from gpu_infer.bundle import Template, load_template
from gpu_infer.errors import Finding, GpuInferError, MissingDependencyError, PreflightError
from gpu_infer.plans import Plan
from gpu_infer.preflight import without_runtime
from gpu_infer.progress import Event, emit
from gpu_infer.service import Service, service_from
from gpu_infer.smoke import run_smoke_test
from gpu_infer.spec import (
    Batching,
    Cluster,
    Rollout,
    ServiceSpec,
    TargetName,
    seconds_of,
)
from gpu_infer.targets.base import Deployment, Target
from gpu_infer.targets.choice import local_copy, target_for
from gpu_infer.teardown import naming_what_is_left

__all__ = ["attach", "deploy", "plan", "services"]


@overload
def deploy(model: str | Path | Any, workspace: Any = None, *, dry_run: Literal[True], **arguments: Any) -> Plan: ...
@overload
def deploy(
    model: str | Path | Any,
    workspace: Any = None,
    *,
    name: str | None = None,
    target: TargetName | None = None,
    template: str | None = None,
    output: str | None = None,
    preprocess: Hook = None,
    postprocess: Hook = None,
    labels: str | Path | Sequence[str] | None = None,
    cluster: Cluster | str | Any | None = None,
    vm_size: str | None = None,
    replicas: int | tuple[int, int] = 1,
    gpus_per_replica: int = 1,
    cpu_cores: float | None = None,
    memory_gb: float | None = None,
    workers: int = 1,
    batching: Batching | bool = True,
    entry_script: str | Path | None = None,
    conda_file: str | Path | None = None,
    environment_variables: Mapping[str, str] | None = None,
    auth: Literal["key", "token"] = "key",
    tags: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    timeout: float | str | timedelta = 60.0,
    ttl: float | str | timedelta | None = None,
    wait: bool | float | str | timedelta = True,
    keep: bool = False,
    overwrite: bool = False,
    replace_retired: bool = True,
    smoke_test: Any = False,
    dry_run: Literal[False] = False,
) -> Service: ...
def deploy(  # pyright: ignore[reportInconsistentOverload] - the first overload leaves the rest out
    model: str | Path | Any,
    workspace: Any = None,
    *,
    name: str | None = None,
    target: TargetName | None = None,
    template: str | None = None,
    output: str | None = None,
    preprocess: Hook = None,
    postprocess: Hook = None,
    labels: str | Path | Sequence[str] | None = None,
    cluster: Cluster | str | Any | None = None,
    vm_size: str | None = None,
    replicas: int | tuple[int, int] = 1,
    gpus_per_replica: int = 1,
    cpu_cores: float | None = None,
    memory_gb: float | None = None,
    workers: int = 1,
    batching: Batching | bool = True,
    entry_script: str | Path | None = None,
    conda_file: str | Path | None = None,
    environment_variables: Mapping[str, str] | None = None,
    auth: Literal["key", "token"] = "key",
    tags: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    timeout: float | str | timedelta = 60.0,
    ttl: float | str | timedelta | None = None,
    wait: bool | float | str | timedelta = True,
    keep: bool = False,
    overwrite: bool = False,
    replace_retired: bool = True,
    smoke_test: Any = False,
    dry_run: bool = False,
) -> Service | Plan:
    """Take a model to a running inference service, in one call.

    Args:
        model: a local path; in Azure also a registered name (``"resnet50"``, ``"resnet50:3"``) or the SDK's own
            ``Model``. A path is registered first.
        workspace: ``None`` for this machine, ``azureml.core.Workspace`` for AKS, ``azure.ai.ml.MLClient`` for an online
            endpoint.
        name: of the service: 3 to 32 lower-case letters, digits and dashes. Made from the model's name where ``None``.
        target: what ``workspace`` implies where ``None``. ``"local"`` with a workspace runs a registered model on this
            machine.
        template: ``"tensorflow"``, ``"torch"`` or ``"onnx"``; from the model's format where ``None``.
        output: which of several model outputs to answer with; all, by name, where ``None``.
        preprocess: what turns a request's item into the model's input: a built-in (``"image:224x224,layout=nchw"``,
            ``"divide:255"``, ``"flatten"``), ``"file.py:function"``, a path (its function ``preprocess``), or a
            function defined in a file. Steps are joined with ``|``.
        postprocess: the same behind the model: ``"argmax"``, ``"softmax"``, ``"sigmoid"``, ``"top_k:5"``, or yours.
        labels: names of the classes, in their order: a text file in UTF-8 with one per line, or a list. Those in a
            ``labels.txt`` in the model's folder where ``None``. ``describe()`` tells them, and ``result=ClassScores``
            of ``score()`` uses them.
        cluster: on AKS: ``Cluster(...)``, created where it does not exist; the name of one; or what
            ``provision_cluster()`` gives. ``Cluster()`` where ``None``. With an ``MLClient`` the attached Kubernetes
            compute to run on, and a managed endpoint where ``None``. Has no effect on this machine, like all up to
            ``memory_gb``.
        vm_size: of its nodes, instead of the cluster's own; of the instances of a managed endpoint; the instance type
            on Kubernetes.
        replicas: containers, or instances; ``(least, most)`` lets Azure choose by load.
        gpus_per_replica: GPUs that each gets.
        cpu_cores: cores that each gets, 2 where ``None``.
        memory_gb: GB that each gets, 4 where ``None``.
        workers: processes per replica that read requests; they share one model, but for an ``entry_script``.
        batching: ``False`` keeps the items of different requests apart; ``Batching(...)`` sets sizes.
        entry_script: a whole ``score.py`` of your own instead of the bundled one.
        conda_file: instead of the template's.
        environment_variables: for the container. ``GPU_INFER_*`` set the runtime, see ``docs/settings.md``;
            ``{"GPU_INFER_ALLOW_CPU": "0"}`` demands a GPU on this machine, ``{"SERVER_PORT": "5001"}`` chooses the
            port.
        auth: in Azure, ``"key"`` or ``"token"``; the client fetches it, and a new one when it is refused.
        tags: in Azure, of the service, beside our own ``gpu-infer-*``.
        properties: in Azure, of the service; they cannot be changed later.
        timeout: how long one request may take: seconds, a ``timedelta``, or text as ``"90s"``.
        ttl: how long the service lives, in the same forms; 8 hours where ``None``. A local one that is kept ends by
            itself; what is in Azure then is deleted by the next ``sweep()``.
        wait: ``True`` waits for the service to be healthy (up to 10 minutes on this machine, 45 in Azure), a number
            that many seconds, ``False`` returns at once. A cluster is always waited for.
        keep: let it outlive this process; in Azure, for good unless ``ttl`` says otherwise.
        overwrite: replace a service of this name.
        dry_run: return the ``Plan`` instead.
        replace_retired: take the documented successor of a VM size that Azure has retired, with a warning; ``False``
            makes it an error.
        smoke_test: run the bundle on this machine first and score one item; ``True`` makes one up from what the model
            takes, anything else is scored itself. The probes of an online endpoint wait as long as it took to load.

    Returns:
        the service; the plan with ``dry_run=True``.

    Raises:
        PreflightError: a check failed; nothing was started or created.
        ProvisioningError: the cluster could not be made.
        ScoringInitError: the entry script or model failed to load, with its traceback.
        DeploymentTimeoutError: not healthy in time.
        DeploymentError: it failed otherwise. Whatever this call has created is removed again; its notes name what
            could not be.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("wait", "dry_run")}
    if dry_run:
        return plan(**arguments)
    on = target_for(target, workspace)
    made = _planned(on, arguments)
    if made.errors:
        _raise_findings(made.findings)
    for finding in made.findings:
        emit(Event(made.spec.name, finding.code, "warning" if finding.level == "warning" else "ok", str(finding)))
    if smoke_test is not False:
        seconds = run_smoke_test(_on_this_machine(made.spec, workspace), _template_of(made), sample=smoke_test)
        made = replace(made, spec=replace(made.spec, load_seconds=seconds))
    patience = seconds_of(wait) if wait and wait is not True else None
    with naming_what_is_left(on):
        deployment = _start(on, made, unnamed=name is None)
        service = service_from(deployment, on)
        try:
            known = _Known(_with_model(arguments, deployment), deployment.made)
            service.on_update(functools.partial(_redeploy, on, service.name, known), known.arguments)
            if wait:
                service.wait(timeout=patience)
            if deployment.hand_over is not None:
                deployment.hand_over()
        except BaseException as error:
            _remove_failed(service, deployment, error)
            raise
    return service


def plan(model: str | Path | Any, workspace: Any = None, **arguments: Any) -> Plan:
    """What ``deploy()`` would do with the same arguments: nothing is created. In Azure it looks at the workspace.

    Returns:
        what would run, every finding of the checks, and the price; ``print()`` shows it as a table.
    """
    for ignored in ("wait", "dry_run"):
        arguments.pop(ignored, None)
    accepted = inspect.signature(deploy).parameters
    unknown = sorted(set(arguments) - set(accepted))
    if unknown:
        message = f"plan() got arguments that deploy() does not have: {', '.join(unknown)}"
        raise TypeError(message)
    defaults = {
        key: parameter.default
        for key, parameter in accepted.items()
        if key not in ("model", "workspace", "wait", "dry_run")
    }
    given = {**defaults, **arguments}
    on = target_for(given["target"], workspace)
    return _planned(on, {"model": model, "workspace": workspace, **given})


def attach(name: str, workspace: Any = None) -> Service:
    """The handle of a service that runs already, also one that another process has deployed.

    Raises:
        ServiceNotFoundError: there is none of that name.
    """
    on = target_for(None, workspace)
    return service_from(on.find(name), on, attached=True)


def services(workspace: Any = None) -> list[Service]:
    """All services that run: on this machine, or in a workspace, whoever has deployed them.

    Returns:
        their handles. On AKS the cluster is paid for: its price stands at the first service on it, 0 at the others.
    """
    on = target_for(None, workspace)
    found: list[Service] = []
    for deployment in on.services():
        paid = deployment.cluster and any(one.cluster == deployment.cluster and one.price_per_hour for one in found)
        once = replace(deployment, price_per_hour=0.0) if paid else deployment
        found.append(service_from(once, on, attached=True))
    return found


# --- inside -----------------------------------------------------------------------------------------------------------

_LIFE = "keep() changes how long the service lives"
_ANOTHER = "the service stays on the machines that it has, and deploy() makes another one elsewhere"
_FIXED = {
    "name": "the service stays the same one",
    "target": "the service stays where it is",
    "workspace": "the service stays where it is",
    "cluster": _ANOTHER,
    "vm_size": _ANOTHER,
    "replace_retired": _ANOTHER,
    "smoke_test": "that is part of deploy() alone",
    "keep": _LIFE,
    "ttl": _LIFE,
    "overwrite": "the service is replaced anyway",
}
"""What ``update()`` does not take, and why."""


@dataclass(slots=True)
class _Known:
    """What a handle knows of its deployment: the arguments it was made with, and what tells it from the next one."""

    arguments: dict[str, Any]
    made: str


def _spec_of(on: Target, arguments: Mapping[str, Any]) -> ServiceSpec:
    """The spec that the arguments of ``deploy()`` ask for on a target."""
    rest = {key: value for key, value in arguments.items() if key not in ("model", "workspace", "target", "smoke_test")}
    spec = spec_from(arguments["model"], workspace=arguments["workspace"], target=on.name, **rest)
    return _on_this_machine(spec, arguments["workspace"]) if on.name == "local" else spec


def _planned(on: Target, arguments: Mapping[str, Any]) -> Plan:
    """The plan; a name that we made up gets a number where it is taken."""
    spec = _spec_of(on, arguments)
    for number in itertools.count(1):
        made = on.plan(spec if number == 1 else replace(spec, name=f"{spec.name}-{number}"))
        if arguments["name"] is not None or "name-taken" not in {finding.code for finding in made.errors}:
            break
    else:
        raise AssertionError("the count never ends")
    if made.spec.codeless and arguments["smoke_test"] is not False:
        return replace(made, findings=(*made.findings, without_runtime(["smoke_test"])))
    return made


def _on_this_machine(spec: ServiceSpec, workspace: Any) -> ServiceSpec:
    """The spec as the local target takes it: a registered model is downloaded."""
    if spec.model.path is None and workspace is not None:
        spec = replace(spec, model=local_copy(workspace, spec.model))
    return replace(spec, target="local")


def _template_of(made: Plan) -> Template | None:
    return None if made.template == "none" else load_template(made.template)


def _start(on: Target, made: Plan, *, unnamed: bool) -> Deployment:
    """Start; a name that we made up gets a number where somebody has taken it since the plan was made."""
    for number in itertools.count(1):
        spec = made.spec if number == 1 else replace(made.spec, name=f"{made.spec.name}-{number}")
        try:
            return on.start(spec, _template_of(made))
        except PreflightError as error:
            if not unnamed or [finding.code for finding in error.findings] != ["name-taken"]:
                raise
    raise AssertionError("the count never ends")


def _redeploy(
    on: Target,
    name: str,
    known: _Known,
    model: Any = None,
    /,
    *,
    rollout: Rollout | None = None,
    **changes: Any,
) -> Deployment:
    """``Service.update``: the arguments of the first deployment, with the changes."""
    if rollout is not None and not isinstance(rollout, Rollout):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"rollout is a gpu_infer.Rollout, such as Rollout(steps=(10, 100), pause=60), got {rollout!r}"
        raise TypeError(message)
    unknown = sorted(set(changes) - set(known.arguments))
    if unknown:
        message = f"update() got arguments that deploy() does not have: {', '.join(unknown)}"
        raise TypeError(message)
    fixed = sorted(set(changes) & set(_FIXED))
    if fixed:
        reasons = "; ".join(dict.fromkeys(_FIXED[what] for what in fixed))
        message = f"update() does not change {', '.join(fixed)}; {reasons}."
        raise ValueError(message)
    merged = {**known.arguments, **changes, "name": name}
    if model is not None:
        merged["model"] = model
    else:
        _check_unchanged(on.find(name), known)
    made = on.plan(_spec_of(on, {**merged, "overwrite": True}))  # its name is taken, by itself
    if made.errors:
        _raise_findings(made.findings)
    with naming_what_is_left(on):
        deployment = on.update(name, made.spec, _template_of(made), rollout=rollout)
    known.arguments.update(_with_model(merged, deployment))
    known.made = deployment.made
    return deployment


def _check_unchanged(now: Deployment, known: _Known) -> None:
    """Raise where somebody else has deployed meanwhile: the model of this handle would come back unasked."""
    if now.state == "Parked" or not known.made or now.made == known.made:
        return
    message = (
        f"Service {now.name!r} was deployed anew since this handle deployed {str(known.arguments['model'])!r}: it "
        f"serves {now.model!r} now, which update() without a model would replace by that."
    )
    fix = (
        f"Give update() the model, or look at what serves with gpu_infer.attach({now.name!r}, workspace), and replace "
        f"it with deploy(model, workspace, name={now.name!r}, overwrite=True)."
    )
    raise PreflightError([Finding("error", "changed-elsewhere", message, fix)])


def _with_model(arguments: dict[str, Any], deployment: Deployment) -> dict[str, Any]:
    """The arguments with the model as it is registered by now: the next update needs no other version of it."""
    return {**arguments, "model": deployment.model_ref or arguments["model"]}


def _raise_findings(findings: tuple[Finding, ...]) -> None:
    missing = [finding for finding in findings if finding.level == "error" and finding.code == "missing-extra"]
    errors = [finding for finding in findings if finding.level == "error"]
    raise (MissingDependencyError if len(missing) == len(errors) else PreflightError)(list(findings))


def _remove_failed(service: Service, deployment: Deployment, error: BaseException) -> None:
    """Remove a service that did not get healthy, and the cluster made for it; the error tells what could not be."""
    try:
        if deployment.give_up is not None:
            deployment.give_up()
        else:
            service.delete(cluster=deployment.cluster_created)
    except GpuInferError as problem:
        error.add_note(f"Something is left and may be billed; gpu_infer.sweep(workspace) removes it: {problem}")
