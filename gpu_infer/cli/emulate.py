"""``gpu-infer emulator``: an Azure ML workspace on 127.0.0.1, until Ctrl-C."""

from __future__ import annotations

import errno
import json
import re
import signal
import sys
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from gpu_infer.cli import options, screen
from gpu_infer.errors import GpuInferError

if TYPE_CHECKING:
    from gpu_infer.emulator import Emulator, LoggedRequest, Transition

__all__ = ["emulator"]

LOOK_SECONDS = 0.1
"""How often the request log is looked at."""

_SCOPE = re.compile(r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/[^/]+/workspaces/[^/]+")
"""The workspace's path in ARM: the same in all calls, and long."""

_FORMS = "at-once, polls:N or seconds:S"


def emulator(
    *,
    port: Annotated[int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Instead of any free one.")] = None,
    subscription_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Of the workspace, for code that has it written into it; else a new one."),
    ] = None,
    transition: Annotated[
        str, typer.Option(metavar="WHEN", help=f"When clusters and services are ready: {_FORMS}.")
    ] = "at-once",
    run_services: Annotated[
        bool,
        typer.Option("--run-services/--no-run-services", help="Really run what is deployed, or only keep its state."),
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Serve an Azure ML workspace on this machine, for azureml-core to talk to. It ends with Ctrl-C."""
    when = _transition(transition)
    from gpu_infer.emulator import Emulator

    with _until_told() as ended:
        with screen.progress("starting"):
            served = _started(
                Emulator(port=port or 0, subscription_id=subscription_id, transitions=when, run_services=run_services),
                port,
            )
        try:
            _announce(served, as_json=as_json)
            _follow(served, ended)
        finally:
            with screen.progress("ending services"):
                served.stop()
    screen.err().print("The emulator has ended, and its services with it.")


def _started(served: Emulator, port: int | None) -> Emulator:
    try:
        return served.start()
    except OSError as error:
        if port is None or error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "is taken" if error.errno == errno.EADDRINUSE else "may not be used"
        message = (
            f"Port {port} on 127.0.0.1 {reason}. Give another one as --port, or leave it out for any free one; if an "
            f"emulator runs there already, it can be used: -w http://127.0.0.1:{port}"
        )
        raise GpuInferError(message) from error


def _transition(text: str) -> Transition:
    from gpu_infer.emulator import Transition

    form, _, number = text.partition(":")
    with suppress(ValueError):
        if text == "at-once":
            return Transition.at_once()
        if form == "polls":
            return Transition.after_polls(int(number))
        if form == "seconds":
            return Transition.after_seconds(float(number))
    raise typer.BadParameter(f"{text!r} is none of {_FORMS}.", param_hint="--transition")


def _announce(served: Emulator, *, as_json: bool) -> None:
    """Where it is, and what to paste into Python."""
    if as_json:
        with urllib.request.urlopen(f"{served.url}/_emulator", timeout=10) as answer:  # noqa: S310 (our own address)
            screen.print_json(json.load(answer))
    else:
        screen.out().print(f'from gpu_infer.emulator import workspace\n\nws = workspace("{served.url}")\n')
        screen.hint(
            "paste this into Python", because="requests will show here; Ctrl-C ends the emulator and its services"
        )
    # Whoever reads it through a pipe waits for it.
    sys.stdout.flush()


def _follow(served: Emulator, ended: threading.Event) -> None:
    """One line per call on standard error, until it is told to end."""
    told, open_ = 0, set[int]()
    over = False
    while not over:
        over = ended.wait(LOOK_SECONDS)
        for request in served.requests:
            if request.number <= told and request.number not in open_:
                continue
            told = max(told, request.number)
            if request.status is None and not over:
                open_.add(request.number)
                continue
            open_.discard(request.number)
            screen.err().print(_line(request), soft_wrap=True)


def _line(request: LoggedRequest) -> Text:
    status = "---" if request.status is None else str(request.status)
    style = "red" if request.status is None or request.status >= 400 else "green"
    query = "&".join(f"{name}={value}" for name, value in request.query.items())
    return Text.assemble(
        (f"{datetime.now().astimezone():%H:%M:%S} ", "dim"),
        (f"{status} ", style),
        (f"{request.operation:<20} ", "bold"),
        f"{request.method:<6} {_SCOPE.sub('/...', request.path)}",
        (f"?{query}" if query else "", "dim"),
        (f"  fault: {request.fault}" if request.fault else "", "yellow"),
    )


@contextmanager
def _until_told() -> Generator[threading.Event, None, None]:
    """An event that Ctrl-C, SIGTERM and the end of the terminal set, instead of what they do else."""
    ended = threading.Event()

    def end(_signum: int, _frame: FrameType | None) -> None:
        ended.set()

    before: dict[Any, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None:
            before[number] = signal.signal(number, end)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
