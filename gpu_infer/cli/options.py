"""The options that several commands share, and what ``deploy()`` and ``plan()`` make of them."""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_infer.errors import ServiceNotFoundError
from gpu_infer.spec import seconds_of

if TYPE_CHECKING:
    from gpu_infer.service import Service

__all__ = [
    "ClusterName",
    "CondaFile",
    "CpuCores",
    "DevTest",
    "EntryScript",
    "Env",
    "Json",
    "Labels",
    "MaxReplicas",
    "MemoryGb",
    "Model",
    "Name",
    "Nodes",
    "Output",
    "Overwrite",
    "Port",
    "Postprocess",
    "Preprocess",
    "Replicas",
    "ServiceName",
    "Template",
    "Timeout",
    "Ttl",
    "VmSize",
    "Wait",
    "Workers",
    "Workspace",
    "again",
    "attached",
    "azure",
    "deployment",
    "duration",
    "ignored_here",
    "open_workspace",
    "template_name",
]

_MODEL, _SERVER, _AZURE = "The model", "The service", "In Azure"


def duration(text: str | None) -> str | None:
    """Check an option that is a time: what is wrong with it is the command line's fault, and exits with 2."""
    if text is not None:
        try:
            seconds_of(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return text


def _above_zero(number: float | None) -> float | None:
    if number is not None and not 0 < number < math.inf:
        message = f"{number:g} is not above 0."
        raise typer.BadParameter(message)
    return number


def template_name(name: str | None) -> str | None:
    """Check the name of a template."""
    from gpu_infer.bundle import TEMPLATES

    if name is not None and name not in TEMPLATES:
        message = f"{name!r} is none of {', '.join(TEMPLATES)}."
        raise typer.BadParameter(message)
    return name


Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Path of a model, or in Azure its registered name.", show_default=False),
]
ServiceName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of a service; `gpu-infer ls` shows them.", show_default=False),
]
DEFAULT_CLUSTER, DEFAULT_NODES = "aks-gpu", 3

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]

Template = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="tensorflow, torch or onnx; from the model's format without it.",
        callback=template_name,
        rich_help_panel=_MODEL,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which of several outputs to answer with; all, by name, without it.",
        rich_help_panel=_MODEL,
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="HOOK",
        help="Runs on each item before the model: image:224x224,layout=nchw, divide:255, flatten, or file.py:function.",
        rich_help_panel=_MODEL,
    ),
]
Postprocess = Annotated[
    str | None,
    typer.Option(
        metavar="HOOK",
        help="Runs on each output: argmax, softmax, sigmoid, top_k:5, or file.py:function.",
        rich_help_panel=_MODEL,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Names of the classes, one per line; labels.txt in the model's folder without it.",
        rich_help_panel=_MODEL,
    ),
]
EntryScript = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A score.py of your own instead of the bundled one.", rich_help_panel=_MODEL),
]
CondaFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Instead of the template's conda file.", rich_help_panel=_MODEL)
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Of the service; made from the model's name without it.", rich_help_panel=_SERVER
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Processes that read requests, with one model for all.", rich_help_panel=_SERVER
    ),
]
Timeout = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="How long one request may take, such as 90s or 5m.",
        callback=duration,
        rich_help_panel=_SERVER,
    ),
]
Ttl = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="How long it runs before it is removed, such as 30m, 8h or 2d.",
        callback=duration,
        rich_help_panel=_SERVER,
    ),
]
Wait = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long it may take to start, such as 30m.",
        show_default="10m, in Azure 45m",
        callback=duration,
        rich_help_panel=_SERVER,
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K=V", help="Environment variable of the service; may be given several times.", rich_help_panel=_SERVER
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, metavar="PORT", help="Instead of any free one.", rich_help_panel=_SERVER),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a service of this name.", rich_help_panel=_SERVER)
]


Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="WHERE",
        envvar="GPU_INFER_WORKSPACE",
        help="Workspace: its config.json, the folder of it, or an emulator's address; this machine without.",
        show_default=False,
        rich_help_panel=_AZURE,
    ),
]
ClusterName = Annotated[
    str,
    typer.Option("--cluster", metavar="NAME", help="AKS cluster; created where there is none.", rich_help_panel=_AZURE),
]
VmSize = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Of the nodes of a new cluster.", rich_help_panel=_AZURE)
]
Nodes = Annotated[int, typer.Option(min=1, metavar="N", help="Of a new cluster.", rich_help_panel=_AZURE)]
DevTest = Annotated[
    bool, typer.Option("--dev-test", help="A new cluster for tests: one node will do.", rich_help_panel=_AZURE)
]
Replicas = Annotated[int, typer.Option(min=1, metavar="N", help="Containers.", rich_help_panel=_AZURE)]
MaxReplicas = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Lets Azure choose by load, up to N.", rich_help_panel=_AZURE)
]
CpuCores = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Cores of each container.",
        callback=_above_zero,
        rich_help_panel=_AZURE,
        show_default="2",
    ),
]
MemoryGb = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        help="Memory of each container.",
        callback=_above_zero,
        rich_help_panel=_AZURE,
        show_default="4",
    ),
]


def open_workspace(where: str | None) -> Any:
    """The workspace that ``--workspace`` names; ``None`` for this machine.

    Raises:
        typer.BadParameter: there is no such file.
        MissingDependencyError: azureml-core is not installed.
    """
    if where is None:
        return None
    if where.startswith(("http://", "https://")):
        from gpu_infer.emulator import workspace

        return workspace(where)
    if not Path(where).exists():
        raise typer.BadParameter(f"there is no {where}.", param_hint="--workspace")
    from gpu_infer.targets.aks import workspace_from

    return workspace_from(Path(where))


def attached(name: str, where: str | None) -> Service:
    """The service of that name, there or on this machine.

    Raises:
        ServiceNotFoundError: there is none; on this machine, with how to look elsewhere.
    """
    import gpu_infer

    try:
        return gpu_infer.attach(name, open_workspace(where))
    except ServiceNotFoundError as error:
        if where is None:
            error.add_note("If it runs in Azure, name the workspace: -w WHERE, or the variable GPU_INFER_WORKSPACE.")
        raise


def again(where: str | None) -> str:
    """What the next command needs to find the same workspace."""
    if where is None or os.environ.get("GPU_INFER_WORKSPACE") == where:
        return ""
    return f" -w {shlex.quote(where)}"


def azure(
    *, cluster: str, vm_size: str | None, nodes: int, dev_test: bool, replicas: int, max_replicas: int | None
) -> dict[str, Any]:
    """The arguments for a deployment to Azure."""
    from gpu_infer.spec import Cluster

    _check_replicas(replicas, max_replicas)
    return {
        # Without a size an existing cluster is taken as it is.
        "cluster": Cluster(cluster, vm_size=vm_size or "", nodes=nodes, purpose="DevTest" if dev_test else "FastProd"),
        "replicas": replicas if max_replicas is None else (replicas, max_replicas),
    }


def ignored_here(
    *, cluster: str, vm_size: str | None, nodes: int, dev_test: bool, replicas: int, max_replicas: int | None
) -> dict[str, Any]:
    """The same for a deployment to this machine: only what was asked for, so that the checks say it means nothing."""
    _check_replicas(replicas, max_replicas)
    asked = cluster != DEFAULT_CLUSTER or nodes != DEFAULT_NODES or dev_test
    given = {
        "cluster": cluster if asked else None,
        "vm_size": vm_size,
        "replicas": replicas if max_replicas is None else (replicas, max_replicas),
    }
    return {what: value for what, value in given.items() if value is not None}


def _check_replicas(least: int, most: int | None) -> None:
    if most is not None and most < least:
        message = f"{most} is less than --replicas {least}."
        raise typer.BadParameter(message, param_hint="--max-replicas")


def deployment(*, env: list[str] | None, port: int | None, **options: Any) -> dict[str, Any]:
    """The arguments for ``gpu_infer.deploy`` and ``gpu_infer.plan``.

    Args:
        env: pairs of name and value, as typed.
        port: ``None`` for any.
        options: the others, under the names that ``deploy`` has for them.

    Raises:
        typer.BadParameter: ``--env`` without an equals sign.
    """
    variables: dict[str, str] = {}
    for pair in env or []:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair!r} is no K=V.", param_hint="--env")
        variables[key] = value
    if port is not None:
        variables["SERVER_PORT"] = str(port)
    # What the command line starts has to outlive it.
    return {**options, "environment_variables": variables, "keep": True}
