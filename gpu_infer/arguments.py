"""The arguments of ``deploy()``, checked and brought into their types: a ``ServiceSpec``."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from gpu_infer.blotting import remember_secrets
from gpu_infer.errors import Finding, PreflightError
from gpu_infer.spec import (
    Batching,
    Cluster,
    ModelRef,
    Resources,
    Scale,
    ServiceSpec,
    labels_from,
    seconds_of,
    service_name_from,
)

__all__ = ["Hook", "spec_from"]

Hook = str | Path | Callable[..., Any] | None

_REGISTERED = re.compile(r"([A-Za-z0-9][\w.-]*)(?::([^:/\\]*))?")
"""What can be the name of a registered model, with its version; whether that is a number is seen there."""


_TEXTS = {
    "name": "the name of the service, a text",
    "template": "'tensorflow', 'torch' or 'onnx'",
    "output": "the name of one output",
    "vm_size": "the name of a VM size, such as 'Standard_NC4as_T4_v3'",
}
"""Arguments that are texts, and what each is."""


def spec_from(model: Any, **a: Any) -> ServiceSpec:
    """The checked and typed form of the arguments of ``deploy()``."""
    ref = _model_ref(model, a["workspace"])
    batching = a["batching"] if isinstance(a["batching"], Batching) else Batching(enabled=bool(a["batching"]))
    for what, meant in _TEXTS.items():
        if a[what] is not None and not isinstance(a[what], str):
            message = f"{what} is {meant}, got {a[what]!r}."
            raise TypeError(message)
    for what in ("cpu_cores", "memory_gb"):
        if a[what] is not None and (not isinstance(a[what], int | float) or isinstance(a[what], bool)):
            message = f"{what} is a number, got {a[what]!r}."
            raise TypeError(message)
    variables = _variables(a["environment_variables"])
    remember_secrets(variables)
    return ServiceSpec(
        name=a["name"] or service_name_from(ref.name),
        model=ref,
        target=a["target"],
        template=a["template"],
        output=a["output"] or "",
        preprocess=_hook_text(a["preprocess"], "preprocess"),
        postprocess=_hook_text(a["postprocess"], "postprocess"),
        labels=labels_from(a["labels"]),
        cluster=_cluster_of(a["cluster"]),
        resources=Resources(a["gpus_per_replica"], a["cpu_cores"], a["memory_gb"], a["vm_size"]),
        scale=Scale.of(a["replicas"], a["workers"]),
        batching=batching,
        entry_script=_file(a["entry_script"], "entry_script"),
        conda_file=_file(a["conda_file"], "conda_file"),
        environment_variables=variables,
        auth=a["auth"],
        tags=_variables(a["tags"], "tags"),
        properties=_variables(a["properties"], "properties"),
        replace_retired=a["replace_retired"],
        timeout=seconds_of(a["timeout"]),
        ttl=None if a["ttl"] is None else seconds_of(a["ttl"]),
        keep=a["keep"],
        overwrite=a["overwrite"],
    )


def _cluster_of(given: Any) -> Cluster | None:
    """The cluster that is asked for. One that is only named is taken as it is: a size is for one to be created."""
    if given is None or isinstance(given, Cluster):
        return given
    if isinstance(given, str):
        return Cluster(given, vm_size="")
    homes = {base.__module__.partition(".")[0] + "." + base.__name__ for base in type(given).__mro__}
    if "azureml.ComputeTarget" not in homes:  # the SDK is not imported to tell
        message = f"cluster is a name, a gpu_infer.Cluster or what provision_cluster() gives, got {given!r}."
        raise TypeError(message)
    if "azureml.AksCompute" not in homes:
        message = f"cluster={given.name!r} is {type(given).__name__}; services run on AksCompute."
        raise TypeError(message)
    return Cluster(given.name, vm_size="")


def _file(given: Any, what: str) -> Path | None:
    if given is not None and not isinstance(given, str | os.PathLike):
        message = f"{what} is the path of a file, got {given!r}."
        raise TypeError(message)
    return Path(cast("str", given)).expanduser() if given else None


def _variables(given: Mapping[str, Any] | None, what: str = "environment_variables") -> dict[str, str]:
    if given is not None and not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"{what} is a mapping of names to values, got {type(given).__name__}."
        raise TypeError(message)
    for name in given or {}:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            message = f"{what}: a name is a text, got {name!r}."
            raise TypeError(message)
    variables = {key: str(value) for key, value in (given or {}).items()}
    wrong = [name for name in variables if not name or "=" in name or "\0" in name]
    if wrong and what == "environment_variables":
        message = f"{what}: {wrong[0]!r} can be no name of a variable: a name is not empty and has no '='."
        raise ValueError(message)
    if "WORKER_COUNT" in variables:
        message = "environment_variables: WORKER_COUNT is set by workers=; use that."
        raise ValueError(message)
    return variables


def _model_ref(model: Any, workspace: Any) -> ModelRef:
    if workspace is not None:
        if not isinstance(model, str | Path) and hasattr(model, "name") and hasattr(model, "version"):
            return ModelRef(name=model.name, version=str(model.version))  # azureml.core.Model
        match = _REGISTERED.fullmatch(model) if isinstance(model, str) else None
        if match and not _only_here(match[0], workspace):
            return ModelRef(name=match[1], version=match[2])
    if not isinstance(model, str | Path):
        message = f"model is a path{' or a registered name' if workspace else ''}, got {type(model).__name__}."
        raise TypeError(message)
    path = Path(model).expanduser()
    return ModelRef(name=path.resolve().name or "model", path=path)


def _only_here(name: str, workspace: Any) -> bool:
    """Whether a text that may be both names a path of this machine, and no registered model."""
    if not Path(name).exists():
        return False
    from gpu_infer.targets.choice import is_registered

    return not is_registered(workspace, name)


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
