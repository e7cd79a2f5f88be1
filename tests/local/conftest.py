"""Small models and scripts for the local target, and a state folder that each test has to itself."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx_models import save_elementwise
from processes import supervisors

import gpu_infer

Script = Callable[[str], Path]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of the test's own; at the end nothing may run that was started from it."""
    home = tmp_path / "state"
    monkeypatch.setenv("GPU_INFER_HOME", str(home))
    yield home
    for service in gpu_infer.services():
        service.delete()
    left = supervisors(home)
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not left, f"left running: {left}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that doubles ``x`` float32 ``[N, 4]``."""
    return save_elementwise(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def square_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that squares ``x`` float32 ``[N, 4]``."""
    return save_elementwise(tmp_path_factory.mktemp("square") / "square.onnx", "Mul")


@pytest.fixture(scope="session")
def lookup_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that looks ``index`` int64 ``[N]`` up in a table of 5 rows, and raises on an index beyond it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = numpy_helper.from_array(np.arange(10, dtype=np.float32).reshape(5, 2), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["row"], axis=0)],
        "lookup",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["N", 2])],
        [table],
    )
    path = tmp_path_factory.mktemp("lookup") / "lookup.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes an entry script and returns its path."""

    def write(source: str) -> Path:
        path = tmp_path / "score_it.py"
        path.write_text(textwrap.dedent(source))
        return path

    return write


def environment(home: Path) -> dict[str, str]:
    """The environment of a child that shares the test's state folder."""
    return {**os.environ, "GPU_INFER_HOME": str(home)}
