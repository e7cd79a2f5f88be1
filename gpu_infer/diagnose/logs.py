"""Raw logs to one typed error: the cause in words, the script's own traceback, and what to do."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from gpu_infer.blotting import blotted
from gpu_infer.errors import InsufficientGpuError, ScoringInitError

__all__ = ["Stage", "current_stage", "hanging_stack", "init_failure", "last_traceback", "stages", "tail"]

TAIL_LINES = 60

_STAGE = re.compile(r"^GPU_INFER_STAGE (\w+) (start|ok|failed)(?: ([\d.]+s))?(?: (.*))?$", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"

_HALTED = re.compile(
    r"^Traceback \(most recent call last\):\n(?: .*\n)+gunicorn\.errors\.HaltServer: .*\n?", re.MULTILINE
)
"""gunicorn's own end, when a second worker fails while it halts for the first."""

_CAUSE_LINE = "The above exception was the direct cause of the following exception:"
_SERVER_FRAME = re.compile(r'  File "[^"]*azureml_inference_server_http[^"]*", line \d+, in \w+\n(?:    .*\n)+')
_LIBRARY_FRAME = re.compile(r'  File "<frozen [^"]*>", line \d+, in \w+\n(?:    .*\n)*')

_OWN_ERROR = re.compile(r"^gpu_infer_serving\.[\w.]*Error: (.*)", re.MULTILINE | re.DOTALL)
"""What the serving runtime raises on purpose, with a message for the user."""

CAUSES: tuple[tuple[str, str, str], ...] = (  # what is said, its pattern, the cause; the special before the general
    ("NoGpuError", r"NoGpuError: ", "A GPU is demanded and none is visible."),
    (
        "No module named 'pkg_resources'",
        r"No module named 'pkg_resources'",
        "setuptools 82 removed pkg_resources; pin setuptools<82 in the conda file.",
    ),
    (
        "cannot import name 'Markup' from 'jinja2'; cannot import name 'soft_unicode'; register() takes 3 positional",
        r"cannot import name '(?:Markup|escape|soft_unicode)'|register\(\) takes 3 positional",
        (
            "An old inference server met a newer Flask or Jinja2; write azureml-inference-server-http==1.5.1 in the "
            "conda file and leave Flask, Jinja2 and MarkupSafe out."
        ),
    ),
    (
        "CUDA out of memory; CUDA_ERROR_OUT_OF_MEMORY; ResourceExhaustedError",
        r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|ResourceExhaustedError",
        "The GPU has too little memory: another process holds it, or each worker of an entry_script= loads the model.",
    ),
    (
        "CUDA driver version is insufficient for CUDA runtime version",
        r"CUDA driver version is insufficient|driver on your system is too old",
        "The image has a newer CUDA than the driver of the node takes; the templates of this library use CUDA 12.",
    ),
    (
        "Cannot re-initialize CUDA in forked subprocess",
        r"Cannot re-initialize CUDA in forked subprocess",
        "The GPU was used before the server made its workers; leave WORKER_PRELOAD out, and load the model in init().",
    ),
    (
        "No module named 'azureml.contrib'",
        r"No module named 'azureml\.contrib'",
        "Raw requests moved: write from azureml_inference_server_http.api.aml_request import rawhttp.",
    ),
    (
        "Model not found in cache or in root",
        r"Model not found in cache|ModelNotFoundException",
        (
            "Model.get_model_path() found nothing under that name: it takes the registered name, and the model lies "
            "below AZUREML_MODEL_DIR."
        ),
    ),
    (
        "module 'tensorflow' has no attribute 'Session'",
        r"module 'tensorflow' has no attribute '(\w+)'",
        "The script uses tf.{0} of TensorFlow 1; write import tensorflow.compat.v1 as tf.",
    ),
    (
        "libGL.so.1: cannot open shared object file",
        r"libGL\.so",
        "OpenCV with windows needs libGL, which the image lacks; write opencv-python-headless in the conda file.",
    ),
    (
        "No module named 'gpu_infer_serving'",
        r"No module named 'gpu_infer_serving\b",
        "gpu_infer_serving lies beside the bundled score.py alone: an entry_script= of your own has to do without it.",
    ),
    (
        "No module named '...'",
        r"ModuleNotFoundError: No module named '(\w+)[\w.]*'",
        (
            "The script imports {0}, which is not installed where it runs. Add it to the conda file (conda_file=); for "
            "the local target run: pip install {0}"
        ),
    ),
    ("SystemExit", r"SystemExit", "The script ended the process itself (sys.exit). init() must return."),
    (
        "MemoryError; std::bad_alloc",
        r"MemoryError|std::bad_alloc|DefaultCPUAllocator: can't allocate",
        "The machine has too little memory for the model.",
    ),
    (
        "numpy.dtype size changed ... got 88 from PyObject",
        r"numpy\.dtype size changed|got \d+ from PyObject",
        "A package was built for another NumPy; install it again, in a container write numpy<2 in the conda file.",
    ),
    (
        "Descriptors cannot be created directly",
        r"Descriptors cannot (?:be|not be) created directly",
        "A package was made for an older protobuf; pin the protobuf that it names in the conda file.",
    ),
    (
        "FileNotFoundError",
        r"FileNotFoundError: ",
        "The script looks for a file that is not there; the model lies below AZUREML_MODEL_DIR.",
    ),
    (
        "UserScriptError: User script at ...",
        r"UserScriptError: User script at",
        "The script has no init() or no run().",
    ),
)
"""What ends a start, as it stands in the traceback."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage line of the log.

    Args:
        name: such as ``load_model``.
        state: ``start``, ``ok`` or ``failed``.
        text: seconds and note.
    """

    name: str
    state: str
    text: str = ""


def stages(log: str) -> list[Stage]:
    """All stage lines of a log, in order."""
    return [
        Stage(name, state, " ".join(piece for piece in (seconds, note) if piece))
        for name, state, seconds, note in _STAGE.findall(log)
    ]


def current_stage(log: str) -> str:
    """The stage that has begun and not ended well; empty where none has."""
    seen = stages(log)
    return seen[-1].name if seen and seen[-1].state != "ok" else ""


def tail(log: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, without the secrets in them."""
    return "\n".join(blotted(log).splitlines()[-lines:])  # blotted before it is cut, or half a key would stay


def last_traceback(log: str) -> str:
    """The script's own traceback out of the server's log; empty where there is none.

    The server wraps what the script raised in an exception of its own and logs both, one the cause of the other. The
    cause is what the user can act on, so the wrapper and the server's frames are cut away.
    """
    log = _HALTED.sub("", log)
    start = log.rfind(_TRACEBACK)
    if start < 0:
        return ""
    while True:  # back through the chain of causes to its first traceback
        cause = log.rfind(_CAUSE_LINE, 0, start)
        if cause < 0 or log[cause + len(_CAUSE_LINE) : start].strip():
            break
        start = log.rfind(_TRACEBACK, 0, cause)
    lines = log[start:].splitlines()
    end = next((at for at, line in enumerate(lines[1:], 1) if line and not line.startswith(" ")), len(lines) - 1)
    text = "\n".join(_with_message(lines, end)) + "\n"
    return _LIBRARY_FRAME.sub("", _SERVER_FRAME.sub("", text)).rstrip()


def hanging_stack(log: str) -> str:
    """Where the script hangs, out of the stacks that faulthandler has written; empty where no stack shows the script.

    Frames stand innermost first, so what is above the server's first frame is the script's own.
    """
    blocks = re.split(r"^.*\(most recent call first\):\n", log, flags=re.MULTILINE)[1:]
    for block in blocks:
        frames = [line for line in block.splitlines() if line.startswith("  File ")]
        at = next((i for i, frame in enumerate(frames) if "user_script.py" in frame), 0)
        if at:
            return "\n".join(frames[:at])
    return ""


def _with_message(lines: list[str], end: int) -> list[str]:
    """The lines up to the exception's and the rest of its message: up to a blank or a log line."""
    last = end
    while (
        last + 1 < len(lines)
        and lines[last + 1].strip()
        and not re.match(r"\d{4}-\d\d-\d\d |GPU_INFER_", lines[last + 1])
    ):
        last += 1
    return lines[: last + 1]


def init_failure(name: str, log: str, *, exit_code: int | None = None, doing: str = "") -> ScoringInitError:
    """The error for a service that died while it started.

    Args:
        name: of the service.
        log: everything that it wrote.
        exit_code: of the server, negative for a signal, where known.
        doing: what was being done to a service that ran before, such as ``updating service 'gpu-rn'``.
    """
    log = blotted(log)
    traceback = last_traceback(log)
    stage = current_stage(log)
    where = f" in stage {stage}" if stage else ""
    happened = f"{doing[:1].upper()}{doing[1:]} failed" if doing else f"Service {name!r} did not start"
    lines = [f"{happened}: its entry script failed{where}."]
    own = _OWN_ERROR.search(traceback)
    worker = _worker_exit(log)
    cause = _cause(traceback) or _cause_of_exit(exit_code if worker is None else worker, traceback)
    if cause:
        lines.append(cause)
    if own:
        lines.append(own[1])  # says itself what is wrong; the way there is in .traceback
    elif traceback:
        lines.append(traceback)
    elif log.strip():
        lines.append(f"The end of its log:\n{tail(log, 15)}")
    message = "\n".join(lines)
    error_type = _GpuInitError if "NoGpuError" in traceback else ScoringInitError
    return error_type(message, traceback=traceback, stage=stage, logs=tail(log))


class _GpuInitError(ScoringInitError, InsufficientGpuError):
    """``init()`` failed because it found no GPU: both of what it is."""


def _cause(traceback: str) -> str:
    for _, pattern, words in CAUSES:
        match = re.search(pattern, traceback)
        if match:
            return words.format(*match.groups())
    return ""


def _worker_exit(log: str) -> int | None:
    """How the last worker ended, as gunicorn tells it: its exit code, negative for a signal."""
    found = re.findall(r"Worker \(pid:\d+\) (?:was sent SIG(\w+)|exited with code (-?\d+))", log)
    if not found:
        return None
    name, code = found[-1]
    return int(code) if code else -getattr(signal, f"SIG{name}", signal.SIGKILL)


def _cause_of_exit(exit_code: int | None, traceback: str) -> str:
    if traceback:
        return ""
    if exit_code is None:
        return "The process ended without a traceback: the script may call os._exit()."
    if exit_code in (-9, 137):
        return "It was killed (signal 9), most often because the machine ran out of memory."
    if exit_code in (-11, 139):
        return "It crashed inside native code (segmentation fault): a framework built for another machine or library."
    return f"The process ended without a traceback (exit code {exit_code}): the script may call os._exit()."
