"""``doctor`` and ``init``: what is missing on this machine, and files to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gpu_infer.cli import options, screen

__all__ = ["doctor", "init"]


def doctor(*, as_json: options.Json = False) -> None:
    """Look at Python, the installed extras and the GPU; say what is missing and how to fix it."""
    from gpu_infer.cli import show
    from gpu_infer.cli.doctor import examine

    with screen.progress("looking at this machine"):
        checks = examine()
    broken = any(check.state == "error" for check in checks)
    if as_json:
        screen.print_json({"ok": not broken, "checks": [check.to_dict() for check in checks]})
    else:
        show.checks(checks)
        first = next((check.fix for check in checks if check.state in ("error", "warning") and check.fix), "")
        screen.hint(first or "gpu-infer demo")
    if broken:
        raise typer.Exit(1)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it does not exist.", show_default=False)],
    *,
    template: Annotated[
        str, typer.Option(help="Whose conda file: tensorflow, torch or onnx.", callback=options.template_name)
    ] = "tensorflow",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Write hooks.py, deploy.py and conda.yml into a folder, to edit."""
    from gpu_infer.cli import show
    from gpu_infer.cli.project import write_project

    written = write_project(folder, template=template, overwrite=overwrite)
    if as_json:
        screen.print_json({"files": [str(file.path) for file in written]})
        return
    show.files(written)
    screen.hint(f"python {shlex.quote(str(folder / 'deploy.py'))} MODEL FILE", because="after editing hooks.py")
