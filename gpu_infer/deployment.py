"""``deploy()``, ``plan()``, ``attach()``, ``services()``: spec, preflight, bundle, target, service."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, overload

from gpu_infer.bundle import Template, load_template
from gpu_infer.errors import Finding, MissingDependencyError, PreflightError, UnsupportedError
from gpu_infer.plans import Plan
from gpu_infer.preflight import check_local, choose_template, find_local_model
from gpu_infer.progress import Event, emit
from gpu_infer.service import Service, service_from
from gpu_infer.spec import (
    Batching,
    Cluster,
    ModelRef,
    Resources,
    Scale,
    ServiceSpec,
    TargetName,
    seconds_of,
    service_name_from,
)
from gpu_infer.targets.base import DEFAULT_WAIT, Deployment, Target
from gpu_infer.targets.local import LocalTarget

__all__ = ["attach", "deploy", "plan", "services"]

Hook = str | Path | Callable[..., Any] | None


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
    cluster: Cluster | str | None = None,
    vm_size: str | None = None,
    replicas: int = 1,
    gpus_per_replica: int = 1,
    cpu_cores: float | None = None,
    memory_gb: float | None = None,
    workers: int = 1,
    batching: Batching | bool = True,
    entry_script: str | Path | None = None,
    conda_file: str | Path | None = None,
    environment_variables: Mapping[str, str] | None = None,
    timeout: float | str | timedelta = 60.0,
    ttl: float | str | timedelta | None = None,
    wait: bool | float | str | timedelta = True,
    keep: bool = False,
    overwrite: bool = False,
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
    cluster: Cluster | str | None = None,
    vm_size: str | None = None,
    replicas: int = 1,
    gpus_per_replica: int = 1,
    cpu_cores: float | None = None,
    memory_gb: float | None = None,
    workers: int = 1,
    batching: Batching | bool = True,
    entry_script: str | Path | None = None,
    conda_file: str | Path | None = None,
    environment_variables: Mapping[str, str] | None = None,
    timeout: float | str | timedelta = 60.0,
    ttl: float | str | timedelta | None = None,
    wait: bool | float | str | timedelta = True,
    keep: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Service | Plan:
    """Take a model to a running inference service, in one call.

    Args:
        model: a local path.
        workspace: ``None`` for this machine.
        name: of the service: 3 to 32 lower-case letters, digits and dashes. Made from the model's name where ``None``.
        target: ``"local"``; what ``workspace`` implies where ``None``.
        template: ``"tensorflow"``, ``"torch"`` or ``"onnx"``; from the model's format where ``None``.
        output: which of several model outputs to answer with; all, by name, where ``None``.
        preprocess: what turns a request's item into the model's input: a built-in (``"image:224x224,layout=nchw"``,
            ``"divide:255"``, ``"flatten"``), ``"file.py:function"``, a path (its function ``preprocess``), or a
            function defined in a file. Steps are joined with ``|``.
        postprocess: the same behind the model: ``"argmax"``, ``"softmax"``, ``"sigmoid"``, ``"top_k:5"``, or yours.
        cluster: for Azure, as what follows up to ``memory_gb``; carried and without effect on this machine.
        vm_size: of the nodes, such as ``"Standard_NC4as_T4_v3"``.
        replicas: containers.
        gpus_per_replica: GPUs that each gets.
        cpu_cores: cores that each gets.
        memory_gb: GB that each gets.
        workers: processes per replica, each with a model of its own.
        batching: ``False`` keeps the items of different requests apart; ``Batching(...)`` sets sizes.
        entry_script: a whole ``score.py`` of your own instead of the bundled one.
        conda_file: instead of the template's.
        environment_variables: for the container. ``GPU_INFER_*`` set the runtime, see ``docs/settings.md``;
            ``{"GPU_INFER_ALLOW_CPU": "0"}`` demands a GPU on this machine, ``{"SERVER_PORT": "5001"}`` chooses the
            port.
        timeout: how long one request may take: seconds, a ``timedelta``, or text as ``"90s"``.
        ttl: how long a kept service lives, in the same forms; 8 hours where ``None``.
        wait: ``True`` waits up to 10 minutes for the service to be healthy, a number that many seconds, ``False``
            returns at once.
        keep: let it outlive this process.
        overwrite: replace a service of this name.
        dry_run: return the ``Plan`` instead.

    Returns:
        the service; the plan with ``dry_run=True``.

    Raises:
        PreflightError: a check failed; nothing was started.
        ScoringInitError: the entry script or model failed to load, with its traceback.
        DeploymentTimeoutError: not healthy in time.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("wait", "dry_run")}
    if dry_run:
        return plan(**arguments)
    made = _make_plan(**arguments)
    if made.errors:
        _raise_findings(made.findings)
    for finding in made.findings:
        emit(Event(made.spec.name, finding.code, "warning", str(finding)))
    on = _target_of(made.spec.target)
    deployment = _start(on, made, unnamed=name is None)
    service = service_from(deployment, on)
    service.on_update(functools.partial(_redeploy, on, service.name, arguments))
    if wait:
        try:
            service.wait(timeout=DEFAULT_WAIT if wait is True else seconds_of(wait))
        except BaseException:
            service.delete()
            raise
    return service


def plan(model: str | Path | Any, workspace: Any = None, **arguments: Any) -> Plan:
    """What ``deploy()`` would do with the same arguments: nothing is created.

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
    return _make_plan(model, workspace, **{**defaults, **arguments})


def attach(name: str, workspace: Any = None) -> Service:
    """The handle of a service that runs already, also one that another process has deployed.

    Raises:
        ServiceNotFoundError: there is none of that name.
    """
    _refuse_workspace(workspace)
    on = _target_of("local")
    return service_from(on.find(name), on, attached=True)


def services(workspace: Any = None) -> list[Service]:
    """All services that run."""
    _refuse_workspace(workspace)
    on = _target_of("local")
    return [service_from(deployment, on, attached=True) for deployment in on.services()]


# --- inside -----------------------------------------------------------------------------------------------------------


@functools.cache
def _target_of(name: TargetName) -> Target:
    if name == "local":
        return LocalTarget()
    message = f"target={name!r} is not part of this version; it deploys to this machine (target='local')."
    raise UnsupportedError(message)


def _make_plan(model: Any, workspace: Any = None, **arguments: Any) -> Plan:
    _refuse_workspace(workspace)
    spec = _spec(model, **arguments)
    _target_of(spec.target)
    found, findings = find_local_model(spec)
    template = choose_template(spec, found)
    findings += check_local(spec, found, template)
    return Plan(
        spec=spec,
        model_format=found.format if found else "",
        template=template.name if template else "none",
        findings=tuple(findings),
    )


def _spec(model: Any, **a: Any) -> ServiceSpec:
    """The checked and typed form of the arguments of ``deploy()``."""
    ref = _model_ref(model)
    batching = a["batching"] if isinstance(a["batching"], Batching) else Batching(enabled=bool(a["batching"]))
    if a["output"] is not None and not isinstance(a["output"], str):
        message = f"output is the name of one output, got {a['output']!r}."
        raise TypeError(message)
    for what in ("replicas", "workers"):
        if not isinstance(a[what], int) or isinstance(a[what], bool) or a[what] < 1:
            message = f"{what} must be a whole number from 1, got {a[what]!r}."
            raise ValueError(message)
    return ServiceSpec(
        name=a["name"] or service_name_from(ref.name),
        model=ref,
        target=a["target"] or "local",
        template=a["template"],
        output=a["output"] or "",
        preprocess=_hook_text(a["preprocess"], "preprocess"),
        postprocess=_hook_text(a["postprocess"], "postprocess"),
        cluster=Cluster(a["cluster"]) if isinstance(a["cluster"], str) else a["cluster"],
        resources=Resources(a["gpus_per_replica"], a["cpu_cores"], a["memory_gb"], a["vm_size"]),
        scale=Scale(a["replicas"], a["workers"]),
        batching=batching,
        entry_script=Path(a["entry_script"]).expanduser() if a["entry_script"] else None,
        conda_file=Path(a["conda_file"]).expanduser() if a["conda_file"] else None,
        environment_variables=_variables(a["environment_variables"]),
        timeout=seconds_of(a["timeout"]),
        ttl=None if a["ttl"] is None else seconds_of(a["ttl"]),
        keep=a["keep"],
        overwrite=a["overwrite"],
    )


def _variables(given: Mapping[str, Any] | None) -> dict[str, str]:
    if given is not None and not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"environment_variables is a mapping of names to values, got {type(given).__name__}."
        raise TypeError(message)
    variables = {key: str(value) for key, value in (given or {}).items()}
    if "WORKER_COUNT" in variables:
        message = "environment_variables: WORKER_COUNT is set by workers=; use that."
        raise ValueError(message)
    return variables


def _model_ref(model: Any) -> ModelRef:
    if not isinstance(model, str | Path):
        message = f"model is a path on the local target, got {type(model).__name__}."
        raise TypeError(message)
    path = Path(model).expanduser()
    return ModelRef(name=path.resolve().name or "model", path=path)


def _hook_text(hook: Hook, role: str) -> str:
    """A hook in the form the bundle takes: built-ins as they are, files and functions as ``path.py:function``."""
    if hook is None:
        return ""
    if isinstance(hook, str | Path):
        return str(hook)
    name, source = getattr(hook, "__qualname__", ""), inspect.getsourcefile(hook) if inspect.isfunction(hook) else None
    importable = source is not None and Path(source).is_file() and name.isidentifier()
    if not importable or getattr(hook, "__module__", "") == "__main__":
        message = (
            f"{role}={hook!r}: the function has to travel in a file, and this one is a lambda, an inner function, an "
            "object, or defined in another language, in a notebook or in the running script."
        )
        fix = f"Write it to a file and pass {role}='hooks.py:{name if name.isidentifier() else role}'."
        raise PreflightError([Finding("error", "hook", message, fix)])
    return f"{source}:{name}"


def _template_of(made: Plan) -> Template | None:
    return None if made.template == "none" else load_template(made.template)


def _start(on: Target, made: Plan, *, unnamed: bool) -> Deployment:
    """Start; a name that we made up gets a number where it is taken."""
    for number in itertools.count(1):
        spec = made.spec if number == 1 else replace(made.spec, name=f"{made.spec.name}-{number}")
        try:
            return on.start(spec, _template_of(made))
        except PreflightError as error:
            if not unnamed or [finding.code for finding in error.findings] != ["name-taken"]:
                raise
    raise AssertionError("the count never ends")


def _redeploy(on: Target, name: str, arguments: dict[str, Any], model: Any = None, /, **changes: Any) -> Deployment:
    """``Service.update``: the arguments of the first deployment, with the changes."""
    unknown = sorted(set(changes) - set(arguments))
    if unknown:
        message = f"update() got arguments that deploy() does not have: {', '.join(unknown)}"
        raise TypeError(message)
    fixed = sorted(set(changes) & {"name", "target", "keep", "ttl", "overwrite"})
    if fixed:
        message = f"update() does not change {', '.join(fixed)}; keep() changes how long the service lives."
        raise ValueError(message)
    merged = {**arguments, **changes, "name": name}
    if model is not None:
        merged["model"] = model
    made = _make_plan(**merged)
    if made.errors:
        _raise_findings(made.findings)
    deployment = on.update(name, made.spec, _template_of(made))
    arguments.update(merged)
    return deployment


def _raise_findings(findings: tuple[Finding, ...]) -> None:
    missing = [finding for finding in findings if finding.level == "error" and finding.code == "missing-extra"]
    errors = [finding for finding in findings if finding.level == "error"]
    raise (MissingDependencyError if len(missing) == len(errors) else PreflightError)(list(findings))


def _refuse_workspace(workspace: Any) -> None:
    if workspace is not None:
        message = (
            "This version deploys to this machine only; a workspace or MLClient as second argument is not taken yet. "
            "Leave it out to run the same bundle locally."
        )
        raise UnsupportedError(message)
