"""The commands. Each parses, calls the library, shows what came of it, and names the next command."""

from __future__ import annotations

import functools
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

import gpu_infer
from gpu_infer.cli import options, screen
from gpu_infer.errors import GpuInferError

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

_START, _USE, _SETUP = "Start a service", "Use a service", "Set up"

AT_ONCE = 8
"""Requests in flight for a list of files: enough for the service to make batches of them."""

_DEFAULT_TTL = "8h"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(gpu_infer.__version__)
        raise typer.Exit


# main() takes --debug out before this sees it; both stand here to be in the help.
@app.callback()
def everything(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, on any command.")] = False,
) -> None:
    """From a deep-learning model to an inference service, in one command."""


# --- start ------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_START)
def demo(*, as_json: options.Json = False) -> None:
    """Train on MNIST, deploy on this machine, score 2,000 digits. Takes about a minute."""
    from gpu_infer.cli import show
    from gpu_infer.demo import run_demo

    with screen.progress("looking for what the demo needs") as shown:

        def scored(done: int, total: int) -> None:
            shown.say("scoring digits, one per request")
            shown.count(done, total)

        report = run_demo(on_scored=scored)
    if as_json:
        screen.print_json(report.to_dict())
        return
    show.demo(report)
    screen.hint("gpu-infer init my-service", because="files to start your own from")


@app.command(rich_help_panel=_START)
def plan(
    model: options.Model,
    *,
    name: options.Name = None,
    template: options.Template = None,
    output: options.Output = None,
    preprocess: options.Preprocess = None,
    postprocess: options.Postprocess = None,
    entry_script: options.EntryScript = None,
    conda_file: options.CondaFile = None,
    workers: options.Workers = 1,
    timeout: options.Timeout = "60s",
    ttl: options.Ttl = _DEFAULT_TTL,
    env: options.Env = None,
    port: options.Port = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Show what `deploy` would do with the same options. Creates nothing."""
    arguments = options.deployment(
        env=env,
        port=port,
        name=name,
        template=template,
        output=output,
        preprocess=preprocess,
        postprocess=postprocess,
        entry_script=entry_script,
        conda_file=conda_file,
        workers=workers,
        timeout=timeout,
        ttl=ttl,
        overwrite=overwrite,
    )
    with screen.progress("checking"):
        made = gpu_infer.plan(model, **arguments)
    if as_json:
        screen.print_json(made.to_dict())
    else:
        from gpu_infer.cli import show

        show.plan(made)
        if not made.errors:
            screen.hint(f"gpu-infer deploy {shlex.quote(model)} ...", because="with the same options")
    if made.errors:
        raise typer.Exit(1)


@app.command(rich_help_panel=_START)
def deploy(
    model: options.Model,
    *,
    name: options.Name = None,
    template: options.Template = None,
    output: options.Output = None,
    preprocess: options.Preprocess = None,
    postprocess: options.Postprocess = None,
    entry_script: options.EntryScript = None,
    conda_file: options.CondaFile = None,
    workers: options.Workers = 1,
    timeout: options.Timeout = "60s",
    ttl: options.Ttl = _DEFAULT_TTL,
    env: options.Env = None,
    port: options.Port = None,
    overwrite: options.Overwrite = False,
    wait: options.Wait = "10m",
    as_json: options.Json = False,
) -> None:
    """Start a service on this machine. It runs on until `down`, or until its time is over."""
    from gpu_infer.spec import seconds_of

    arguments = options.deployment(
        env=env,
        port=port,
        name=name,
        template=template,
        output=output,
        preprocess=preprocess,
        postprocess=postprocess,
        entry_script=entry_script,
        conda_file=conda_file,
        workers=workers,
        timeout=timeout,
        ttl=ttl,
        overwrite=overwrite,
    )
    with screen.progress("checking"):
        service = gpu_infer.deploy(model, wait=seconds_of(wait), dry_run=False, **arguments)
        device = None if entry_script is not None else _device(service)
    from gpu_infer.cli import show

    if as_json:
        screen.print_json({**show.service_dict(service), "device": device})
        return
    show.service(service, device)
    screen.hint(f"gpu-infer score {service.name} FILE")


# --- use --------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_USE)
def ls(*, as_json: options.Json = False) -> None:
    """List the services on this machine."""
    from gpu_infer.cli import show

    with screen.progress("looking"):
        found = gpu_infer.services()
    if as_json:
        screen.print_json([show.service_dict(service) for service in found])
        return
    if not found:
        screen.out().print("No services run on this machine.")
        screen.hint("gpu-infer deploy MODEL")
        return
    show.services(found)
    failed = next((service for service in found if service.state == "Failed"), None)
    screen.hint(f"gpu-infer logs {failed.name}" if failed else f"gpu-infer score {found[0].name} FILE")


@app.command(rich_help_panel=_USE)
def score(
    name: options.ServiceName,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Images, .npy, .json, any bytes; - for standard input.", show_default=False
        ),
    ],
    *,
    timeout: Annotated[str | None, typer.Option(help="For each file, retries included, such as 30s.")] = None,
    as_json: options.Json = False,
) -> None:
    """Send files to a service and show its results; each file is one request."""
    from gpu_infer.cli import results
    from gpu_infer.spec import seconds_of

    seconds = None if timeout is None else seconds_of(timeout)
    service = gpu_infer.attach(name)
    answers: list[results.Answer] = []
    with (
        screen.progress(f"scoring {files[0]}" if len(files) == 1 else f"scoring {len(files)} files") as shown,
        ThreadPoolExecutor(min(AT_ONCE, len(files))) as pool,
    ):
        for answer in pool.map(functools.partial(results.ask, service, timeout=seconds), files):
            answers.append(answer)
            if len(files) > 1:
                shown.count(len(answers), len(files))
    if as_json:
        screen.print_json([answer.to_dict() for answer in answers], indent=None)
    else:
        results.show(answers)
    for answer in answers:
        if answer.error:
            screen.complain(f"{answer.file}: {answer.error}")
    if any(answer.error for answer in answers):
        raise typer.Exit(1)
    if not as_json:
        screen.hint(f"gpu-infer stats {name}")


@app.command(rich_help_panel=_USE)
def logs(
    name: options.ServiceName,
    *,
    tail: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N lines.")] = None,
    as_json: options.Json = False,
) -> None:
    """Print what a service has written."""
    lines = gpu_infer.attach(name).logs().splitlines()
    shown = lines if tail is None else lines[-tail:]
    if as_json:
        screen.print_json({"name": name, "lines": shown})
        return
    for line in shown:
        typer.echo(line)
    screen.hint(f"gpu-infer stats {name}")


@app.command(rich_help_panel=_USE)
def stats(name: options.ServiceName, *, as_json: options.Json = False) -> None:
    """Show the counters of a service and the device that does its work."""
    with screen.progress(f"asking {name}"):
        service = gpu_infer.attach(name)
        counters = service.stats()
        device = service.gpu_report()
    if as_json:
        screen.print_json({"name": name, "stats": counters, "device": device})
        return
    from gpu_infer.cli import show

    show.stats(counters, device)
    screen.hint(f"gpu-infer down {name}", because="when it is not needed any more")


@app.command(rich_help_panel=_USE)
def down(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Names of services.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All services on this machine.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove services. Removing one that is gone already succeeds."""
    if bool(names) == every:
        raise typer.BadParameter("give names of services, or --all.", param_hint="NAME")
    removed: list[str] = []
    with screen.progress("looking") as shown:
        running = {service.name: service for service in gpu_infer.services()}
        wanted = list(running) if every else list(dict.fromkeys(names or []))
        for name in wanted:
            if name in running:
                shown.say(f"removing {name}")
                running[name].delete()
                removed.append(name)
    absent = [name for name in wanted if name not in running]
    if as_json:
        screen.print_json({"removed": removed, "absent": absent})
        return
    for name in removed:
        screen.out().print(f"{name} is removed.")
    for name in absent:
        screen.out().print(f"{name} was not there.")
    if not wanted:
        screen.out().print("No services run on this machine.")
    screen.hint("gpu-infer ls")


# --- set up -----------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_SETUP)
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


@app.command(rich_help_panel=_SETUP)
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it does not exist.", show_default=False)],
    *,
    template: Annotated[str, typer.Option(help="Whose conda file: tensorflow, torch or onnx.")] = "tensorflow",
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


def _device(service: Any) -> str | None:
    """The device of a service; ``None`` where an entry script of the user's answers, which has no reports."""
    try:
        return str(service.gpu_report()["device"])
    except (GpuInferError, KeyError):
        return None
