"""The examples, the notebook and the README's own lines are run, so that they stay true."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import gpu_infer

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_resnet50_jpeg(shared_models: Path, snowleopard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shared_models / "efficientnet_lite0_jpg_savedmodel"
    load("resnet50_jpeg").main([str(snowleopard), "--model", str(model)])
    printed = capsys.readouterr().out
    assert re.search(r"class  289  0\.83\d", printed)
    assert "two at once: [289, 289]" in printed


@pytest.mark.slow
def test_resnet50_itself_has_the_tutorials_signature(tmp_path: Path, snowleopard: Path) -> None:
    """With random weights, since the real ones are a download: shapes and serving are what is checked."""
    script = f"""
import sys; sys.path.insert(0, {str(EXAMPLES)!r})
from pathlib import Path
import resnet50_jpeg
resnet50_jpeg.export_resnet50(Path({str(tmp_path / "resnet50")!r}), weights=None)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200, capture_output=True)
    with gpu_infer.deploy(tmp_path / "resnet50", output="probabilities") as service:
        probabilities = service.score([snowleopard, snowleopard])
    assert probabilities.shape == (2, 1000)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1], abs=1e-3)


@pytest.mark.slow
def test_mnist_trained_here() -> None:
    command = [sys.executable, str(EXAMPLES / "mnist.py")]
    printed = subprocess.run(command, check=True, timeout=250, capture_output=True, text=True).stdout
    accuracies = [float(text) for text in re.findall(r"(?:accuracy|one by one): (0\.\d+)", printed)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.9, printed


def test_mnist_with_the_tutorials_checkpoint(shared_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("mnist").main(["--model", str(shared_models / "tf-dnn-mnist")])
    printed = capsys.readouterr().out
    assert "accuracy: 0.9625, one by one: 0.9625" in printed


def test_quickstart_notebook() -> None:
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(EXAMPLES)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(tables) == 2, "a plan and a service show themselves as tables"
    text = "".join(output.get("text", "") for output in outputs)
    accuracy = re.search(r"accuracy over 500 digits: (0\.\d+)", text)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
    assert "expected float32 [784] or [N, 784], got float64 [28, 28]: pass x.reshape(784)" in text
    assert not any(output.output_type == "error" for output in outputs)


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)


def test_the_readmes_python(readers_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third, *_ = readme_blocks("python")
    names: dict[str, Any] = {}
    exec(first, names)
    assert names["scores"].shape == (1000,)
    assert names["rows"].shape == (2, 1000)
    assert "http://127.0.0.1:" in capsys.readouterr().out
    image_line = next(line for line in second.splitlines() if "net.onnx" in line)
    with eval(image_line, {"gpu_infer": gpu_infer}) as service:
        assert service.score("lynx.jpg")["classes"][0] == 289
    (readers_folder / "hooks.py").write_text("def to_digit(output):\n    return int(output.argmax())\n")
    (readers_folder / "digits.keras").write_bytes(b"")
    hook_line = next(line for line in second.splitlines() if "digits.keras" in line)
    plan = eval(hook_line.replace("deploy", "plan"), {"gpu_infer": gpu_infer})
    assert [finding.code for finding in plan.findings] == ["model-format"], "all but the empty model is fine"
    (readers_folder / "photos").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (readers_folder / "photos" / name).symlink_to((readers_folder / "lynx.jpg").resolve())
    exec(third, {})
    table = pytest.importorskip("pyarrow.parquet").read_table("scores.parquet")
    assert [scores["classes"] for scores in table["result"].to_pylist()] == [289] * 3


def test_the_readmes_command_line(readers_folder: Path) -> None:
    block = next(block for block in readme_blocks("sh") if "gpu-infer deploy" in block)
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    assert len(lines) == 5
    printed = {
        line: subprocess.run(line, shell=True, check=True, capture_output=True, text=True, timeout=120).stdout
        for line in lines
    }
    assert "289" in printed["gpu-infer score gpu-rn lynx.jpg"]
    assert "gpu-rn" in printed["gpu-infer ls"]
    assert gpu_infer.services() == []
