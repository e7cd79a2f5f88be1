"""``gpu-infer migrate``: from a web service on AKS to a managed online endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import gpu_infer
from gpu_infer.cli import options, screen
from gpu_infer.spec import seconds_of

if TYPE_CHECKING:
    from gpu_infer.migration import Migration

__all__ = ["migrate"]

_NEW, _COMPARING = "The new endpoint", "Comparing"


def migrate(
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="Name of a web service on AKS.", show_default=False)],
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it: deploy, compare the answers, keep the new one where they agree.")
    ] = False,
    delete_old: Annotated[
        bool, typer.Option("--delete-old", help="With --apply: delete the web service when all is well.")
    ] = False,
    vm_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Of the instances.",
            show_default="by the nodes of the cluster",
            rich_help_panel=_NEW,
        ),
    ] = None,
    new_name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Of the endpoint.", show_default="SERVICE", rich_help_panel=_NEW),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Instances.", show_default="as on AKS", rich_help_panel=_NEW),
    ] = None,
    wait: options.Wait = None,
    entry_script: options.EntryScript = None,
    conda_file: options.CondaFile = None,
    template: options.Template = None,
    output: options.Output = None,
    preprocess: options.Preprocess = None,
    postprocess: options.Postprocess = None,
    golden: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="What both are asked, or a folder of such files; may be given several times.",
            show_default="made up, where the service is one of this library",
            rich_help_panel=_COMPARING,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, metavar="N", help="Largest difference that is let pass.", rich_help_panel=_COMPARING),
    ] = 1e-5,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show what a web service on AKS becomes as a managed online endpoint, and what does not map; --apply does it."""
    if delete_old and not apply:
        raise typer.BadParameter("goes with --apply.", param_hint="--delete-old")
    here = options.place(workspace, online=True)  # says where there is none
    given = {
        "replicas": replicas,
        "entry_script": entry_script,
        "conda_file": conda_file,
        "template": template,
        "output": output,
        "preprocess": preprocess,
        "postprocess": postprocess,
    }
    changes: dict[str, Any] = {what: value for what, value in given.items() if value is not None}
    options_of_both: dict[str, Any] = {"vm_size": vm_size, "new_name": new_name, **changes}
    files = _files(golden or [])
    with screen.progress(f"reading {name}"):
        old, new = options.open_workspace(workspace), options.open_workspace(here)
        if not apply:
            made = gpu_infer.migrate_plan(old, new, name, **options_of_both)
            done = None
        else:
            done = gpu_infer.migrate(
                old,
                new,
                name,
                golden=files,
                tolerance=tolerance,
                delete_old=delete_old,
                wait=True if wait is None else seconds_of(wait),
                **options_of_both,
            )
            made = done.plan
    if done is not None:
        _tell(done, workspace, as_json=as_json)
        return
    if as_json:
        screen.print_json(made.to_dict())
    else:
        from gpu_infer.cli import show

        show.migration(made)
        if not made.errors:
            screen.hint(f"gpu-infer migrate {name}{options.again(workspace)} --apply", because="with the same options")
    if made.errors:
        raise typer.Exit(1)


def _tell(done: Migration, workspace: str | None, *, as_json: bool) -> None:
    if as_json:
        screen.print_json(done.to_dict())
        return
    comparison = done.comparison
    rows = [
        ("endpoint", done.service.name),
        ("scoring URI", done.service.scoring_uri),
        ("compared", str(comparison)),
        ("price", f"${done.service.price_per_hour:.2f} per hour"),
        ("web service", f"{done.plan.service} {'is deleted' if done.old_deleted else 'serves on'}"),
        ("cluster", f"{done.plan.old.cluster.name} goes on costing ${done.plan.price_before:.2f} per hour"),
    ]
    screen.out().print(screen.rows_table(rows))
    if done.old_deleted:
        screen.hint(f"gpu-infer score {done.service.name} FILE{options.again(options.place(workspace, online=True))}")
        return
    because = "when nobody asks the old one any more"
    screen.hint(f"gpu-infer down {done.plan.service}{options.again(workspace)}", because=because)


def _files(golden: list[str]) -> list[str]:
    """Golden files, folders read.

    Raises:
        typer.BadParameter: there is no such file.
    """
    files: list[str] = []
    for one in golden:
        path = Path(one)
        if not path.exists():
            raise typer.BadParameter(f"there is no {one}.", param_hint="--golden")
        inside = sorted(str(file) for file in path.iterdir() if file.is_file()) if path.is_dir() else [one]
        files += inside
    return files
