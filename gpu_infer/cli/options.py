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
    "ImpliedOnline",
    "Json",
    "Labels",
    "MaxReplicas",
    "MemoryGb",
    "Model",
    "Name",
    "Nodes",
    "Online",
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
    "duration",
    "is_online",
    "open_workspace",
    "place",
    "template_name",
    "variables",
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
Online = Annotated[
    bool,
    typer.Option(
        "--online",
        envvar="GPU_INFER_ONLINE",
        help="The workspace's online endpoints, through azure-ai-ml, instead of AKS web services.",
        rich_help_panel=_AZURE,
    ),
]
ImpliedOnline = Annotated[
    bool,
    typer.Option(
        "--online",
        help="As on the other commands; implied, since only online endpoints can be parked.",
        show_default=False,
        rich_help_panel=_AZURE,
    ),
]
ClusterName = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="AKS cluster; created where there is none. With --online: Kubernetes compute.",
        rich_help_panel=_AZURE,
    ),
]
VmSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Of the nodes of a new cluster; with --online, of the instances.", rich_help_panel=_AZURE
    ),
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


_ONLINE = "online:"
"""What stands before a workspace whose online endpoints are meant, so that one text says where."""


def variables(env: list[str] | None) -> dict[str, str]:
    """The variables of ``--env``.

    Raises:
        typer.BadParameter: one without an equals sign.
    """
    pairs = [pair.partition("=") for pair in env or []]
    for key, equals, value in pairs:
        if not (key and equals):
            raise typer.BadParameter(f"{key + equals + value!r} is no K=V.", param_hint="--env")
    return {key: value for key, _, value in pairs}


def place(workspace: str | None, *, online: bool) -> str | None:
    """What ``--workspace`` and ``--online`` say together, as ``open_workspace()`` and ``again()`` take it.

    Raises:
        typer.BadParameter: ``--online`` without a workspace.
    """
    if not online:
        return workspace
    if workspace is None:
        raise typer.BadParameter("needs the workspace, with -w WHERE or GPU_INFER_WORKSPACE.", param_hint="--online")
    return _ONLINE + workspace


def is_online(where: str | None) -> bool:
    """Whether a place means online endpoints."""
    return where is not None and where.startswith(_ONLINE)


def open_workspace(where: str | None) -> Any:
    """The workspace that ``--workspace`` names, as the SDK has it that is asked for; ``None`` for this machine.

    Raises:
        typer.BadParameter: there is no such file.
        MissingDependencyError: azureml-core, or azure-ai-ml, is not installed.
    """
    if where is None:
        return None
    online, path = is_online(where), where.removeprefix(_ONLINE)
    if path.startswith(("http://", "https://")):
        from gpu_infer import emulator

        return emulator.ml_client(path) if online else emulator.workspace(path)
    if not Path(path).exists():
        raise typer.BadParameter(f"there is no {path}.", param_hint="--workspace")
    if online:
        from gpu_infer.targets.online import client_from

        return client_from(Path(path))
    from gpu_infer.targets.aks import workspace_from

    return workspace_from(Path(path))


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
    if where is None:
        return ""
    path = where.removeprefix(_ONLINE)
    named = "" if os.environ.get("GPU_INFER_WORKSPACE") == path else f" -w {shlex.quote(path)}"
    return named + (" --online" if is_online(where) and not os.environ.get("GPU_INFER_ONLINE") else "")
