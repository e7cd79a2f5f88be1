"""The user's own code: hooks, and a whole entry script, read and never run."""

from __future__ import annotations

from pathlib import Path

from gpu_infer.bundle import BUNDLE_FILES, hook_files
from gpu_infer.errors import Finding
from gpu_infer.serving.hooks import HookError, check_hook
from gpu_infer.sources import defined_functions, parse
from gpu_infer.spec import ServiceSpec

__all__ = ["check_entry_script", "check_hooks"]


def check_hooks(spec: ServiceSpec) -> list[Finding]:
    """Built-in hooks exist, and files define the functions that are asked of them."""
    findings: list[Finding] = []
    for role, hook in (("preprocess", spec.preprocess), ("postprocess", spec.postprocess)):
        if hook and spec.entry_script is not None:
            message = f"{role}= does nothing beside entry_script=: that script answers by itself."
            findings.append(Finding("error", "hook", message, "Give one of the two."))
            continue
        try:
            if hook:
                check_hook(hook, role=role)
        except HookError as error:
            findings.append(Finding("error", "hook", str(error)))
        for path, function in hook_files(hook):
            findings.extend(_check_function(path, function or role, role))
    return [*findings, *_check_hook_names(spec)]


def _check_hook_names(spec: ServiceSpec) -> list[Finding]:
    """The files lie beside score.py in the bundle, under their own names: two of one name cannot."""
    files = {path.resolve() for hook in (spec.preprocess, spec.postprocess) for path, _ in hook_files(hook)}
    names = [path.name for path in files]
    taken = sorted({name for name in names if names.count(name) > 1 or name in BUNDLE_FILES})
    message = f"The bundle cannot hold this hook file beside what it has of that name: {', '.join(taken)}."
    return [Finding("error", "hook", message, "Rename it.")] if taken else []


def _check_function(path: Path, function: str, role: str) -> list[Finding]:
    if not path.is_file():
        return [Finding("error", "hook", f"{role}: there is no file {path}.")]
    try:
        names = defined_functions(parse(path))
    except SyntaxError as error:
        return [Finding("error", "hook", f"{role}: {path} line {error.lineno}: {error.msg}.")]
    if function in names or "*" in names:
        return []
    has = ", ".join(sorted(name for name, node in names.items() if node is not None)) or "none"
    return [Finding("error", "hook", f"{role}: {path} defines no function {function}. It has: {has}.")]


def check_entry_script(spec: ServiceSpec) -> list[Finding]:
    """``init`` and ``run`` exist, and the stock server will accept the signature of ``run``."""
    path = spec.entry_script
    if path is None:
        return []
    if not path.is_file():
        return [Finding("error", "entry-script", f"There is no entry script at {path}.")]
    try:
        names = defined_functions(parse(path))
    except SyntaxError as error:
        return [Finding("error", "entry-script", f"{path} line {error.lineno}: {error.msg}.")]
    findings = [
        Finding("error", "entry-script", f"{path} has no {name}(): the server calls it.", f"Define def {name}(...).")
        for name in ("init", "run")
        if name not in names and "*" not in names
    ]
    run = names.get("run")
    if run is not None:
        arguments = run.args
        if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            message = f"{path}: the server refuses a run() with positional-only arguments, *args or **kwargs."
            findings.append(Finding("error", "entry-script", message, "Write def run(data):"))
        elif not {argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]} - {"request_headers"}:
            message = f"{path}: run() takes no argument for the data, so it cannot get the request."
            findings.append(Finding("error", "entry-script", message, "Write def run(data):"))
    return findings
