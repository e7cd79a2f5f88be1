"""``gpu-infer score``: a few files, each shown at length; or any number of items, into a file or onto the screen."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_infer.cli import options, screen
from gpu_infer.errors import AuthenticationError, ScoringConnectionError, ScoringError, UnsupportedError
from gpu_infer.spec import seconds_of

if TYPE_CHECKING:
    from gpu_infer.cli.score_inputs import Takes
    from gpu_infer.cli.score_run import Asked
    from gpu_infer.client import ScoringClient

__all__ = ["score"]

AT_ONCE = 8
"""Requests in flight for a few files: enough for the service to make batches of them."""

FEW = 32
"""Files that are shown with device and time. Of more, and of rows, only the results are told."""

CODECS = ("json", "npy", "bytes", "kserve")

ASKING = 10.0
"""Seconds for the question what a service takes, where it may be one that does not know the question."""

_ITEMS, _RESULTS, _SENDING = "Items", "Results", "Sending"


def score(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a service, or its scoring URI.", show_default=False)
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, .npy, .json, any bytes; a folder of images, a 'pattern/**/*.jpg'; .csv, .tsv, .parquet, "
            ".npz, .jsonl; - for standard input.",
            show_default=False,
        ),
    ],
    *,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of a table: several with numbers make a row ('p*' takes all that fit); one of files or of lists is "
            "an item each. All with numbers without it.",
            rich_help_panel=_ITEMS,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Columns of a table that are left out.", rich_help_panel=_ITEMS),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line is a path or JSON, an item each.", rich_help_panel=_ITEMS)
    ] = False,
    rows: Annotated[
        bool,
        typer.Option(
            "--rows", help="Each row of an array is an item, where the service does not tell.", rich_help_panel=_ITEMS
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=".jsonl, .csv, .parquet or .npy.", rich_help_panel=_RESULTS),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the N classes with the largest scores, by name where the service has labels.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an interrupted run stopped.", rich_help_panel=_RESULTS),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keeps the results while it runs, and later runs go on with it.",
            show_default="the file of --out with .checkpoint",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Requests under way at once.",
            show_default="up to 64, as the service takes them",
            rich_help_panel=_SENDING,
        ),
    ] = None,
    items_per_request: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Items in a request.", show_default="found out", rich_help_panel=_SENDING
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="For each request, retries included, such as 30s.",
            callback=options.duration,
            rich_help_panel=_SENDING,
        ),
    ] = None,
    key_from: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Environment variable that holds the key or token for a scoring URI.",
            rich_help_panel=_SENDING,
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC",
            help="json, npy, bytes or kserve, for a scoring URI of another make.",
            rich_help_panel=_SENDING,
        ),
    ] = None,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Send files, or the rows of tables and arrays, to a service; show its results, or write them to a file."""
    from gpu_infer.cli.score_inputs import Takes
    from gpu_infer.cli.score_outputs import check_out
    from gpu_infer.cli.score_run import Asked, run

    check_out(out, top=top)
    asked = Asked(
        name=name,
        inputs=inputs,
        columns=column or [],
        without=without or [],
        lines=lines,
        rows=rows,
        top=top,
        out=out,
        checkpoint=_checkpoint(out, checkpoint, resume=resume),
        own_checkpoint=checkpoint is None,
        concurrency=concurrency,
        items_per_request=items_per_request,
        timeout=None if timeout is None else seconds_of(timeout),
        workspace=options.place(workspace, online=online),
        as_json=as_json,
    )
    with _client(asked, key_from=key_from, codec=codec) as (client, describe):
        takes = _takes(describe) if _needs_takes(asked) else Takes()
        if _is_few(asked, takes):
            _score_few(asked, client)
        else:
            run(asked, client, takes)


# --- before anything is sent ------------------------------------------------------------------------------------------


def _checkpoint(out: Path | None, named: Path | None, *, resume: bool) -> Path | None:
    """The file that keeps results while it runs.

    Raises:
        typer.BadParameter: ``--resume`` with nothing to go on with.
        ValueError: an earlier run has left one, and nothing says whether to use it.
    """
    if named is not None:
        return named
    if out is None:
        if resume:
            raise typer.BadParameter("needs --out FILE, or --checkpoint FILE.", param_hint="--resume")
        return None
    path = out.with_name(f"{out.name}.checkpoint")
    if path.exists() and not resume:
        raise ValueError(
            f"An earlier run was interrupted, or had items that failed; {str(path)!r} has its results. Add --resume to "
            "go on with them, or remove that file to begin anew."
        )
    return path


@contextmanager
def _client(
    asked: Asked, *, key_from: str | None, codec: str | None
) -> Generator[tuple[ScoringClient, Callable[[], dict[str, Any]]]]:
    """The client for a service or an address, and what asks it what it takes."""
    if not asked.name.startswith(("http://", "https://")):
        for option, value in (("--key-from", key_from), ("--codec", codec)):
            if value is not None:
                raise typer.BadParameter("is for a scoring URI; of a service it is known.", param_hint=option)
        service = options.attached(asked.name, asked.workspace)
        with service:
            yield service.client, service.describe
        return
    from gpu_infer.client import ScoringClient

    key = None
    if key_from is not None and not (key := os.environ.get(key_from)):
        # The value is not repeated: it may be the key itself, put there by mistake.
        message = "names no environment variable that is set. The key itself never stands on the command line."
        raise typer.BadParameter(message, param_hint="--key-from")
    known: Any = codec
    if codec not in (None, *CODECS):
        raise typer.BadParameter(f"{codec!r} is none of {', '.join(CODECS)}.", param_hint="--codec")
    with ScoringClient(asked.name, key, codec=known) as client:
        # A codec says that the service is of another make, and those are not asked.
        yield client, dict if codec else functools.partial(client.describe, timeout=ASKING)


def _needs_takes(asked: Asked) -> bool:
    """Whether it matters what the service takes: for arrays and tables, and for labels as columns."""
    from gpu_infer.cli.score_inputs import ARRAYS, LINES, TABLES, has_pattern

    if asked.lines or (asked.out is not None and asked.out.suffix.lower() == ".csv"):
        return True
    telling = ARRAYS | TABLES | LINES
    return any(has_pattern(one) or Path(one).suffix.lower() in telling for one in asked.inputs)


def _takes(describe: Callable[[], dict[str, Any]]) -> Takes:
    """What the service says that it takes; nothing, where it is none that tells.

    Raises:
        ScoringConnectionError: there is no service.
        AuthenticationError: the key or token was refused.
    """
    from gpu_infer.cli.score_inputs import Takes
    from gpu_infer.client import Signature

    try:
        told = describe()
        axes = told["input"].get("item_ndim")
        return Takes(Signature.from_description(told), axes if isinstance(axes, int) else None)
    except (ScoringConnectionError, AuthenticationError):
        raise
    except (ScoringError, UnsupportedError, ValueError, LookupError, TypeError, AttributeError):
        return Takes()


def _is_few(asked: Asked, takes: Takes) -> bool:
    """Whether these are a few files, each a request of its own."""
    from gpu_infer.cli.score_inputs import ARRAYS, LINES, TABLES, has_pattern, holds_rows

    special = (asked.out, asked.checkpoint, asked.concurrency, asked.items_per_request)
    if asked.lines or any(one is not None for one in special) or len(asked.inputs) > FEW:
        return False
    for name in asked.inputs:
        suffix = Path(name).suffix.lower()
        if Path(name).is_dir() or has_pattern(name) or suffix in TABLES or suffix in LINES or suffix == ".npz":
            return False
        if suffix in ARRAYS and Path(name).exists() and holds_rows(name, takes=takes, rows=asked.rows):
            return False
    return True


# --- a few files ------------------------------------------------------------------------------------------------------


def _score_few(asked: Asked, client: ScoringClient) -> None:
    from gpu_infer.cli import results
    from gpu_infer.cli.score_run import check_columns

    check_columns(asked, asked.inputs)
    files = asked.inputs
    answers: list[results.Answer] = []
    pool = ThreadPoolExecutor(min(AT_ONCE, len(files)))
    try:
        with screen.progress(f"scoring {files[0]}" if len(files) == 1 else f"scoring {len(files)} files") as shown:
            ask = functools.partial(results.ask, client, timeout=asked.timeout, top=asked.top)
            for answer in pool.map(ask, files):
                answers.append(answer)
                if len(files) > 1:
                    shown.count(len(answers), len(files))
    except KeyboardInterrupt:
        screen.given_up.set()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if asked.as_json:
        screen.print_json([answer.to_dict() for answer in answers], indent=None)
    else:
        results.show(answers)
    for answer in answers:
        if answer.error:
            screen.complain(f"{answer.file}: {answer.error}")
    if any(answer.error for answer in answers):
        raise typer.Exit(1)
    if not asked.as_json and asked.hint:
        screen.hint(asked.hint)
