"""Messages of the library in the words of the command line: it speaks of arguments, people here have typed options."""

from __future__ import annotations

import re

__all__ = ["typed"]

_ARGUMENTS = (
    "name|template|output|preprocess|postprocess|labels|entry_script|conda_file|workers|timeout|ttl|wait|overwrite|cluster|"
    "vm_size|nodes|replicas|cpu_cores|memory_gb|golden|tolerance"
)
"""Of ``deploy()`` and ``migrate()``; their options are called the same."""

_PHRASES = (
    (r'Cluster\(\.\.\., purpose="DevTest"\)|(?<!, )purpose="DevTest"', "--dev-test"),
    (r"Cluster\('([^']+)', vm_size=\"\"\)", r"--cluster \1 without --vm-size"),
    (r"Cluster\('([^']+)', nodes=(\d+)\)", r"--cluster \1 --nodes \2"),
    (r"the most of replicas=", "--max-replicas"),
    (r"\bnew_name=", "--name"),
    (r"(\w+)=True \(--\1\)", r"--\1"),
    (r"environment_variables=\{'SERVER_PORT': \.\.\.\}", "--port"),
    (r"environment_variables: SERVER_PORT=", "--port "),
    (r"environment_variables: SERVER_PORT", "--port"),
    (r"environment_variables=\{\.\.\.\}", "--env NAME=VALUE"),
    (r"environment_variables[=:]", "--env"),
    (r"(Service '([^']+)' is parked: .*?)unpark\(\)", r"\1gpu-infer unpark \2"),
    (
        r"deploy\(model, ml_client, name='([^']*)', overwrite=True\)",
        r"gpu-infer deploy MODEL -w WHERE --online --name \1 --overwrite",
    ),
    (r"gpu_infer\.sweep\(workspace\)", "gpu-infer sweep -w WHERE"),
    (r"gpu_infer\.leftovers\(workspace\)", "gpu-infer sweep -w WHERE --dry-run"),
    (r"gpu_infer\.attach\(('[^']*')(?:, workspace)?\)", r"gpu-infer score \1"),
    (r"a workspace as second argument", "the workspace with -w WHERE"),
)
_ARGUMENT = re.compile(rf"(?<![\w.(-])({_ARGUMENTS})=(?:True\b|('[^']*'|\"[^\"]*\"|\d[\w.]*\b|[A-Z]{{3,}}\b))?")
_CALL = re.compile(r"\b\w+\([^()]*\)")
"""Code in a message, which stays as it is."""


def typed(text: str) -> str:
    """A message with ``--conda-file`` where it says ``conda_file=``."""
    for pattern, phrase in _PHRASES:
        text = re.sub(pattern, phrase, text)
    pieces: list[str] = []
    at = 0
    for code in _CALL.finditer(text):
        pieces += [_ARGUMENT.sub(_option, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*pieces, _ARGUMENT.sub(_option, text[at:])])


def _option(found: re.Match[str]) -> str:
    option = f"--{found[1].replace('_', '-')}"
    return f"{option} {found[2]}" if found[2] else option
