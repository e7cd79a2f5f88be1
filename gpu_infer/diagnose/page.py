"""Writes ``docs/errors.md`` from the tables that the errors are made of."""

from __future__ import annotations

from collections.abc import Iterable

from gpu_infer import errors
from gpu_infer.diagnose.azure import azure_error
from gpu_infer.diagnose.logs import CAUSES
from gpu_infer.diagnose.meanings import LATE, TEXTS, Meaning
from gpu_infer.diagnose.statuses import KEYS, KINDS, STATUSES

__all__ = ["page"]

_HEAD = """\
# Errors

Every error of this library is a `GpuInferError` and says what happened, why, and what to do next; only an argument of a
wrong type or value is a `TypeError` or `ValueError` that names it, raised before anything is done. `__cause__` is the
exception of the layer below. Keys, tokens and signatures are blotted out of messages, tracebacks and `.logs` by their
shape; so are, wherever they stand, the values of `environment_variables=` whose names look secret (TOKEN, KEY, SECRET,
PASSWORD, CONN, SAS and their kin), from 6 characters on. `service.logs()` is the log as the service wrote it. This page
is made by `python -m gpu_infer.diagnose > docs/errors.md` from the tables that the messages are made of.
"""

_EXAMPLE = """\
WebserviceException: Service deployment polling reached non-successful terminal state, current service state: Failed
Operation ID: 6f2a
More information can be found using '.get_logs()'
Error:
{"code": "KubernetesError", "statusCode": 400, "message": "Kubernetes Deployment Error", "details": [
  {"code": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]}"""
_MADE = azure_error(None, doing="deploying service 'gpu-rn'", default=errors.DeploymentError, text=_EXAMPLE)

_DEFAULT = "what was being done"
_DEFAULT_WORDS = f"""\
Where a row says "{_DEFAULT}", that is `WorkspaceError` for asking, `ProvisioningError` for a cluster,
`DeploymentError` for a service and `TeardownError` for a deletion. The first row that fits counts.

What the SDK itself raised:

```
{_EXAMPLE}
```

and what you get:

```
{type(_MADE).__name__}: {_MADE}
```
"""

_LOG_WORDS = """\
The last traceback of the containers' logs is cut out and the cause read from it; all of these are a `ScoringInitError`
with the traceback in `.traceback`.
"""


def page() -> str:
    """The text of the page."""
    tree = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\nMessages say")[0]
    tree = "\n".join(line.removeprefix("    ") for line in tree.splitlines())
    statuses = list(STATUSES.values())
    families = [meaning for _, meaning in KINDS]
    parts = [
        _HEAD,
        f"```\n{tree}\n```\n",
        "## What Azure and its SDKs say\n",
        _DEFAULT_WORDS,
        _table(TEXTS),
        "## Where the text says no more\n",
        _table([*statuses, KEYS, *families, LATE]),
        "## What the log of a service says\n",
        _LOG_WORDS,
        _rows(
            ("In the traceback", "Cause, and what to do"),
            ((f"`{said}`", words.replace("{0}", "X")) for said, _, words in CAUSES),
        ),
    ]
    return "\n".join(parts)


def _table(meanings: Iterable[Meaning]) -> str:
    head = ("Azure or the SDK says", "You get", "Because", "What to do")
    return _rows(head, ((one.said, _becomes(one), one.because, one.do) for one in meanings))


def _becomes(meaning: Meaning) -> str:
    return f"`{meaning.error.__name__}`" if meaning.error else _DEFAULT


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)
