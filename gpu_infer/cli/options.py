"""The options that several commands share, and what ``deploy()`` and ``plan()`` make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "CondaFile",
    "EntryScript",
    "Env",
    "Json",
    "Model",
    "Name",
    "Output",
    "Overwrite",
    "Port",
    "Postprocess",
    "Preprocess",
    "ServiceName",
    "Template",
    "Timeout",
    "Ttl",
    "Wait",
    "Workers",
    "deployment",
]

_MODEL, _SERVER = "The model", "The service"

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Path of a model file or folder.", show_default=False),
]
ServiceName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of a service; `gpu-infer ls` shows them.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]

Template = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="tensorflow, torch or onnx; from the model's format without it.", rich_help_panel=_MODEL
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
    int, typer.Option(min=1, metavar="N", help="Processes, each with a model of its own.", rich_help_panel=_SERVER)
]
Timeout = Annotated[
    str, typer.Option(metavar="TIME", help="How long one request may take, such as 90s or 5m.", rich_help_panel=_SERVER)
]
Ttl = Annotated[
    str,
    typer.Option(
        metavar="TIME", help="How long it runs before it is removed, such as 30m, 8h or 2d.", rich_help_panel=_SERVER
    ),
]
Wait = Annotated[
    str, typer.Option(metavar="TIME", help="How long it may take to start, such as 30m.", rich_help_panel=_SERVER)
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
