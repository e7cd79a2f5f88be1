"""Raw logs to one error: the script's own traceback, the cause in words, the stage."""

from __future__ import annotations

import pytest

from gpu_infer.diagnose import Stage, init_failure, last_traceback, stages, tail
from gpu_infer.errors import InsufficientGpuError, ScoringInitError

SERVER = "/usr/lib/python3.11/site-packages/azureml_inference_server_http/server/user_script.py"


def wrapped(*script_lines: str) -> str:
    """What the stock server logs when ``init()`` raises."""
    return "\n".join(
        [
            "2026-11-23 04:00:00,000 E [12] azmlinfsrv - User's init function failed",
            "2026-11-23 04:00:00,001 E [12] azmlinfsrv - Encountered Exception Traceback (most recent call last):",
            f'  File "{SERVER}", line 133, in invoke_init',
            "    self._user_init()",
            '  File "/bundle/score.py", line 3, in init',
            "    load()",
            *script_lines,
            "",
            "The above exception was the direct cause of the following exception:",
            "",
            "Traceback (most recent call last):",
            f'  File "{SERVER.replace("user_script", "aml_blueprint")}", line 1, in setup',
            "    self.user_script.invoke_init()",
            f'  File "{SERVER}", line 135, in invoke_init',
            "    raise UserScriptException(ex) from ex",
            "azureml_inference_server_http.server.user_script.UserScriptException: Caught an unhandled exception",
            "",
            "2026-11-23 04:00:00,002 I [12] azmlinfsrv - Model Directory Contents:",
        ]
    )


def test_the_scripts_own_traceback_is_cut_out() -> None:
    text = last_traceback(wrapped("ValueError: no such layer", "  with a second line"))
    assert text.splitlines() == [
        "Traceback (most recent call last):",
        '  File "/bundle/score.py", line 3, in init',
        "    load()",
        "ValueError: no such layer",
        "  with a second line",
    ]
    assert last_traceback("all is well") == ""


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("pandas", "for the local target run: pip install pandas\n"),
        ("sklearn_extra.cluster.kmedoids", "for the local target run: pip install sklearn_extra\n"),
        ("gpu_infer_serving", "an entry_script= of your own has to do without it.\n"),
        ("gpu_infer_serving.batching", "an entry_script= of your own has to do without it.\n"),
    ],
)
def test_what_to_install_for_a_missing_module(module: str, says: str) -> None:
    message = str(init_failure("svc", wrapped(f"ModuleNotFoundError: No module named '{module}'")))
    assert says in message
    assert "pip install gpu_infer_serving" not in message


def test_a_chain_of_the_scripts_own_starts_at_its_first_cause() -> None:
    inner = [
        "KeyError: 'a'",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        '  File "/bundle/score.py", line 5, in init',
        "    raise RuntimeError from e",
        "RuntimeError: cannot load",
    ]
    assert last_traceback(wrapped(*inner)).splitlines()[-1] == "KeyError: 'a'"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ModuleNotFoundError: No module named 'cv2'", "imports cv2, which is not installed where it runs"),
        ("SystemExit: 1", "ended the process itself (sys.exit)"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "The GPU has too little memory"),
        ("MemoryError", "too little memory"),
        ("ValueError: numpy.dtype size changed", "built for another NumPy"),
        ("ModuleNotFoundError: No module named 'pkg_resources'", "pkg_resources"),
        ("FileNotFoundError: [Errno 2] No such file: 'x'", "below AZUREML_MODEL_DIR"),
    ],
)
def test_causes_in_words(line: str, says: str) -> None:
    error = init_failure("svc", "GPU_INFER_STAGE load_model start\n" + wrapped(line))
    assert isinstance(error, ScoringInitError)
    assert says in str(error)
    assert line in error.traceback
    assert error.stage == "load_model"
    assert "'svc' did not start: its entry script failed in stage load_model." in str(error)


def test_no_gpu_is_both_of_what_it_is() -> None:
    error = init_failure("svc", wrapped("gpu_infer_serving.device.NoGpuError: no GPU is visible"))
    assert isinstance(error, InsufficientGpuError)
    assert isinstance(error, ScoringInitError)


@pytest.mark.parametrize(
    ("code", "says"), [(-9, "out of memory"), (137, "out of memory"), (-11, "segmentation fault"), (0, "os._exit()")]
)
def test_a_death_without_a_traceback(code: int, says: str) -> None:
    error = init_failure("svc", "booting\nlast words", exit_code=code)
    assert says in str(error)
    assert "last words" in str(error)
    assert error.traceback == ""


def test_stage_lines() -> None:
    lines = ["noise", "GPU_INFER_STAGE find_model start", "GPU_INFER_STAGE find_model ok 0.1s onnx a.onnx"]
    log = "\n".join([*lines, "GPU_INFER_STAGE x failed 2.0s E", ""])
    assert stages(log) == [
        Stage("find_model", "start"),
        Stage("find_model", "ok", "0.1s onnx a.onnx"),
        Stage("x", "failed", "2.0s E"),
    ]
    assert tail("a\nb\nc", 2) == "b\nc"
