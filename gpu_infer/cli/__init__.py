"""The command line: ``gpu-infer``. No logic of its own, only calls into the library.

::

    app        the commands, in the order of `--help`
    start      ``demo``, ``plan``, ``deploy``
    migrate    ``migrate``: from a web service on AKS to an online endpoint
    use        ``ls``, ``logs``, ``stats``, ``down``, ``sweep``
    score      ``score``: a few files, or any number of items; score_inputs and score_tables read them, score_outputs
               writes results to files
    bench      ``bench``: load on a service, its figures and their picture
    prepare    ``doctor``, ``init``: what is missing, and files to start from
    options    the options that several commands share
    deployment what `deploy` and `plan` make of theirs
    words      messages of the library in the words of the command line
    screen     what goes to standard output, what to standard error; progress; hints
    results    results of a model, as people read them
    doctor     what is installed, what is missing, what fixes it
    emulate    ``emulator``: an Azure ML workspace on this machine
    project    ``init``: a folder to start from
    show       the tables of services, plans, counters and of the demo
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from gpu_infer.cli.words import typed
from gpu_infer.errors import DeploymentError, GpuInferError, ScoringError

__all__ = ["main"]

INTERRUPTED = 130
"""What a shell makes of a program that Ctrl-C ended."""

_NEEDED = ("typer", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line, without the program's name; those of this process where ``None``.

    Returns:
        the exit code: 0; 1 for an error, told on standard error; 2 for a wrong command line; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, debug = _without_debug(words)
    try:
        from gpu_infer.cli import screen
        from gpu_infer.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        print("The command line needs typer and rich. Run: pip install 'gpu-infer[cli]'", file=sys.stderr)
        return 1
    screen.taken_back.clear()
    screen.given_up.clear()
    try:
        app(words, prog_name="gpu-infer")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _tell_interrupted(end, leave=arguments is None)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt as end:
        _tell_interrupted(end, leave=arguments is None)
        return INTERRUPTED
    except (GpuInferError, ValueError, OSError) as error:  # ours, a wrong argument, or the operating system's no
        if debug:
            traceback.print_exc()
        else:
            screen.complain("\n".join([_said(error), *map(typed, getattr(error, "__notes__", []))]))
        return 1
    return 0


def _tell_interrupted(end: BaseException, *, leave: bool) -> None:
    """Say what the command has taken back before it ended, and what it could not.

    Args:
        end: how it ended.
        leave: end the process, where requests are under way that were given up: Python would wait for their threads,
            and those for their answers, up to the time-out.
    """
    from gpu_infer.cli import screen

    print("\nInterrupted.", file=sys.stderr)
    if screen.taken_back:
        print(f"Removed: {', '.join(screen.taken_back)}.", file=sys.stderr)
    error: BaseException | None = end
    while error is not None:
        for note in getattr(error, "__notes__", []):
            print(typed(note), file=sys.stderr)
        error = error.__cause__ or error.__context__
    if leave and screen.given_up.is_set():
        with contextlib.suppress(OSError):  # a reader that went away
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(INTERRUPTED)


def _said(error: BaseException) -> str:
    """What an error says, with options in the place of arguments: not where a script's own code may be in it."""
    text = str(error) or type(error).__name__
    return text if isinstance(error, DeploymentError | ScoringError) or "Traceback (most" in text else typed(text)


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out, wherever it stands: people add it at the end of the line that failed."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for at, word in enumerate(words) if word != "--debug" or at > end]
    return kept, len(kept) < len(words)
