"""The application: its commands and the order in which ``--help`` shows them."""

from __future__ import annotations

from typing import Annotated

import typer

import gpu_infer
from gpu_infer.cli import bench, change, emulate, migrate, prepare, score, start, use

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

_PANELS = {
    "Start a service": (start.demo, start.plan, start.deploy, migrate.migrate),
    "Use a service": (use.ls, score.score, bench.bench, use.logs, use.stats, use.down, use.sweep),
    "Change what it costs": (change.scale, change.park, change.unpark),
    "Set up": (prepare.doctor, prepare.init, emulate.emulator),
}


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


for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
