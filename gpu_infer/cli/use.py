"""``ls``, ``logs``, ``stats``, ``down``, ``sweep``: what runs, used and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import gpu_infer
from gpu_infer.cli import options, screen
from gpu_infer.spec import seconds_of

if TYPE_CHECKING:
    from gpu_infer.teardown import TakenDown

__all__ = ["down", "logs", "ls", "stats", "sweep"]


def _age(text: str | None) -> str | None:
    return text if text == "0" else options.duration(text)


def ls(*, workspace: options.Workspace = None, online: options.Online = False, as_json: options.Json = False) -> None:
    """List the services on this machine, or of a workspace."""
    workspace = options.place(workspace, online=online)
    from gpu_infer.cli import show

    with screen.progress("looking"):
        found = gpu_infer.services(options.open_workspace(workspace))
    if as_json:
        screen.print_json([show.service_dict(service) for service in found])
        return
    if not found:
        screen.out().print(_none(workspace))
        screen.hint(f"gpu-infer deploy MODEL{options.again(workspace)}")
        return
    show.services(found)
    failed = next((service for service in found if service.state == "Failed"), None)
    hint = f"gpu-infer logs {failed.name}" if failed else f"gpu-infer score {found[0].name} FILE"
    screen.hint(hint + options.again(workspace))


def logs(
    name: options.ServiceName,
    *,
    tail: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N lines.")] = None,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Print what a service has written."""
    workspace = options.place(workspace, online=online)
    lines = options.attached(name, workspace).logs().splitlines()
    shown = lines if tail is None else lines[-tail:]
    if as_json:
        screen.print_json({"name": name, "lines": shown})
        return
    for line in shown:
        typer.echo(line)
    screen.hint(f"gpu-infer stats {name}{options.again(workspace)}")


def stats(
    name: options.ServiceName,
    *,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Show the counters of a service and the device that does its work."""
    workspace = options.place(workspace, online=online)
    with screen.progress(f"asking {name}"):
        service = options.attached(name, workspace)
        counters = service.stats()
        device = service.gpu_report()
    if as_json:
        screen.print_json({"name": name, "stats": counters, "device": device})
        return
    from gpu_infer.cli import show

    show.stats(counters, device)
    screen.hint(f"gpu-infer down {name}{options.again(workspace)}", because="when it is not needed any more")


def down(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Names of services.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All services on this machine, or of the workspace.")] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also their cluster, where this library has created it.")
    ] = False,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Remove services. Removing one that is gone already succeeds."""
    workspace = options.place(workspace, online=online)
    if bool(names) == every:
        raise typer.BadParameter("give names of services, or --all.", param_hint="NAME")
    from gpu_infer.teardown import take_down

    with screen.progress("looking"):
        opened = options.open_workspace(workspace)
        done = take_down(gpu_infer.services(opened), opened, names=None if every else names, cluster=cluster)
    if as_json:
        report: dict[str, object] = {"removed": done.removed, "absent": done.absent}
        if opened is not None:
            report |= {"clusters": done.clusters, "clusters_left": [one.to_dict() for one in done.left]}
        screen.print_json(report)
        return
    which = "--all" if every else " ".join(names or [])
    _tell_down(done, which=which, workspace=workspace)


def sweep(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Also what is older than that and was not kept, such as 2h; or 0.", callback=_age
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Remove from a workspace what has expired or was abandoned, and show what is left on the bill."""
    workspace = options.place(workspace, online=online)
    from gpu_infer.cli import show

    age = None if older_than is None else 0.0 if older_than == "0" else seconds_of(older_than)
    with screen.progress("looking"):
        opened = options.open_workspace(workspace)
        removed = gpu_infer.sweep(opened, older_than=age, dry_run=dry_run or opened is None)
        found = gpu_infer.leftovers(opened)
    if as_json:
        screen.print_json(
            {
                "removed": [one.to_dict() for one in removed],
                "left": [one.to_dict() for one in found],
                "dry_run": dry_run,
            }
        )
        return
    if opened is not None and removed:
        screen.out().print("Would be removed:" if dry_run else "Removed:")
        show.leftovers(removed)
    if found:
        screen.out().print("Written down:" if opened is None else "There:" if dry_run else "Left:")
        show.leftovers(found)
    else:
        screen.out().print("Nothing that gpu_infer knows of is on the bill.")
    if opened is None and found:
        screen.hint("gpu-infer sweep -w CONFIG", because="asks Azure, and removes")


def _tell_down(done: TakenDown, *, which: str, workspace: str | None) -> None:
    """Say what ``down`` has removed, and which clusters go on costing money."""
    for name in done.removed:
        screen.out().print(f"{name} is removed.")
    for name in done.absent:
        screen.out().print(f"{name} was not there.")
    for name in done.clusters:
        screen.out().print(f"Cluster {name} is removed.")
    if not (done.removed or done.absent):
        screen.out().print(_none(workspace))
    again = options.again(workspace)
    for one in done.left:
        price = f"costing ${one.price_per_hour:.2f} per hour" if one.price_per_hour else "being billed"
        users = ", ".join(done.users[one.name])
        screen.out().print(f"Cluster {one.name} goes on {price}{f', with {users} on it' if users else ''}.")
        if not users:
            screen.hint(f"gpu-infer down {which} --cluster{again}", because=f"removes cluster {one.name}")
    if not done.left:
        screen.hint(f"gpu-infer {'sweep --dry-run' if workspace else 'ls'}{again}")


def _none(workspace: str | None) -> str:
    return "No services run on this machine." if workspace is None else "No services run in this workspace."
