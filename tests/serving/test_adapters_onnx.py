"""The ONNX adapter: the real model, and small ones made here for each way in which a model can be odd."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpu_infer.serving.adapters.base import Adapter, ModelFormatError
from gpu_infer.serving.device import NoGpuError, gpu_report, require_gpu

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed")
ort: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

LoadModel = Callable[..., Adapter]
TYPES = onnx.TensorProto
HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()


def write(path: Path, inputs: Sequence[tuple[Any, ...]], outputs: Sequence[tuple[Any, ...]], *nodes: Any) -> Path:
    """A model of these nodes; inputs and outputs as ``(name, type, shape)``."""
    helper = onnx.helper
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def node(kind: str, source: str | list[str], target: str, **attributes: Any) -> Any:
    sources = source if isinstance(source, list) else [source]
    return onnx.helper.make_node(kind, sources, [target], **attributes)


def lite0_input(photo: Path) -> np.ndarray:
    """The photograph as EfficientNet-Lite0 takes it: resized in floats, since rounding in between costs 0.01 of p."""
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    small = [
        np.asarray(Image.fromarray(pixels[..., channel]).resize((224, 224), Image.Resampling.BILINEAR))
        for channel in range(3)
    ]
    return ((np.stack(small) - 127) / 128)[np.newaxis]


def test_the_real_model(shared_models: Path, snowleopard: Path, load_model: LoadModel) -> None:
    adapter = load_model(shared_models / "efficientnet_lite0.onnx")
    assert str(adapter.input) == "images: float32 [N, 3, 224, 224]"
    assert [str(spec) for spec in adapter.outputs] == ["probabilities: float32 [N, 1000]"]
    batch = np.repeat(lite0_input(snowleopard), 2, axis=0)
    seen: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: seen.extend(adapter.predict(batch, ["probabilities"]).values()))
    thread.start()
    thread.join(60)
    assert seen[0].argmax(axis=1).tolist() == [289, 289]
    assert seen[0][:, 289] == pytest.approx([0.837] * 2, abs=0.01)


def test_a_wrong_shape_is_the_inputs_fault(shared_models: Path, load_model: LoadModel) -> None:
    adapter = load_model(shared_models / "efficientnet_lite0.onnx")
    with pytest.raises(adapter.invalid_input_errors):
        adapter.predict(np.zeros((1, 5), np.float32), ["probabilities"])


def test_two_inputs(tmp_path: Path, load_model: LoadModel) -> None:
    sides = [("left", TYPES.FLOAT, ["n", 2]), ("right", TYPES.INT64, ["n", 2])]
    cast = node("Cast", "right", "r", to=TYPES.FLOAT)
    path = write(tmp_path / "m.onnx", sides, [("y", TYPES.FLOAT, None)], cast, node("Add", ["left", "r"], "y"))
    with pytest.raises(
        ModelFormatError, match=r"2 inputs \(left: float32 \[N, 2\]; right: int64 \[N, 2\]\).*entry_scr"
    ):
        load_model(path)


def test_float16_a_fixed_batch_and_unknown_axes(tmp_path: Path, load_model: LoadModel) -> None:
    path = write(
        tmp_path / "m.onnx", [("x", TYPES.FLOAT16, [4, "w"])], [("y", TYPES.FLOAT16, None)], node("Neg", "x", "y")
    )
    adapter = load_model(path)
    assert (str(adapter.input), adapter.input.fixed_batch) == ("x: float16 [4, N]", 4)
    assert adapter.predict(np.ones((4, 3), np.float16), ["y"])["y"].dtype == np.float16


def test_text(tmp_path: Path, load_model: LoadModel) -> None:
    path = write(
        tmp_path / "m.onnx", [("x", TYPES.STRING, ["n"])], [("y", TYPES.STRING, ["n"])], node("Identity", "x", "y")
    )
    adapter = load_model(path)
    assert (adapter.input.dtype, adapter.outputs[0].dtype) == ("bytes", "bytes")
    batch = np.empty(2, dtype=object)
    batch[:] = ["Grüße".encode(), b"b"]
    assert adapter.predict(batch, ["y"])["y"].tolist() == ["Grüße".encode(), b"b"]
    batch[:] = [b"\xff\xd8", b"b"]
    with pytest.raises(adapter.invalid_input_errors):
        adapter.predict(batch, ["y"])


def test_an_output_without_the_batch_axis(tmp_path: Path, load_model: LoadModel) -> None:
    path = write(
        tmp_path / "m.onnx",
        [("x", TYPES.FLOAT, ["n", 2])],
        [("total", TYPES.FLOAT, None), ("y", TYPES.FLOAT, ["n", 2])],
        node("ReduceSum", "x", "total", keepdims=0),
        node("Neg", "x", "y"),
    )
    adapter = load_model(path)
    batch = np.ones((3, 2), np.float32)
    assert adapter.predict(batch, ["y"])["y"].shape == (3, 2)
    with pytest.raises(ModelFormatError, match=r"'total' has the shape \[\] for a batch of 3"):
        adapter.predict(batch, ["total", "y"])
    with pytest.raises(ModelFormatError, match="no output z. It has: total, y"):
        load_model(path, output_names=("z",))


def test_outputs_that_numpy_cannot_hold(tmp_path: Path, load_model: LoadModel) -> None:
    brain = node("Cast", "x", "brain", to=TYPES.BFLOAT16)
    inputs = [("x", TYPES.FLOAT, ["n", 2])]
    both = [("brain", TYPES.BFLOAT16, ["n", 2]), ("y", TYPES.FLOAT, ["n", 2])]
    path = write(tmp_path / "both.onnx", inputs, both, brain, node("Neg", "x", "y"))
    assert [spec.name for spec in load_model(path).outputs] == ["y"]
    with pytest.raises(ModelFormatError, match=r"answers with brain: tensor\(bfloat16\)"):
        load_model(path, output_names=("brain",))
    with pytest.raises(ModelFormatError, match="no array of a dtype of NumPy"):
        load_model(write(tmp_path / "one.onnx", inputs, both[:1], brain))
    back = node("Cast", "x", "y", to=TYPES.FLOAT)
    with pytest.raises(ModelFormatError, match=r"input x of the ONNX model is tensor\(bfloat16\)"):
        load_model(write(tmp_path / "in.onnx", [("x", TYPES.BFLOAT16, ["n", 2])], both[1:], back))


def test_an_unknown_operation(tmp_path: Path, load_model: LoadModel) -> None:
    path = write(
        tmp_path / "m.onnx", [("x", TYPES.FLOAT, ["n"])], [("y", TYPES.FLOAT, ["n"])], node("Sparkle", "x", "y")
    )
    with pytest.raises(ModelFormatError, match="could not be loaded by ONNX Runtime.*Sparkle"):
        load_model(path)


def test_weights_beside_the_file(tmp_path: Path, load_model: LoadModel) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    helper = onnx.helper
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], "y")],
        "g",
        [helper.make_tensor_value_info("x", TYPES.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TYPES.FLOAT, ["n", 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    assert load_model(tmp_path).predict(np.ones((1, 2), np.float32), ["y"])["y"].tolist() == [[2, 2, 2]]
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelFormatError, match=r"\*.onnx.data\) must lie beside it"):
        load_model(tmp_path)


def test_no_gpu(shared_models: Path, load_model: LoadModel) -> None:
    if HAS_CUDA:
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(NoGpuError) as caught:
        load_model(shared_models / "efficientnet_lite0.onnx", allow_cpu=False)
    assert "onnxruntime.get_available_providers() is" in str(caught.value)
    assert "put onnxruntime-gpu into the conda file" in str(caught.value)
    assert str(require_gpu("onnxruntime", allow_cpu=True)) == "cpu"


def test_report_and_threads(shared_models: Path, load_model: LoadModel) -> None:
    report = gpu_report(load_model(shared_models / "efficientnet_lite0.onnx", threads=1))
    assert report["details"]["onnxruntime"] == ort.__version__
    assert "CPUExecutionProvider" in report["details"]["providers"]


def test_switches_of_other_frameworks(shared_models: Path, load_model: LoadModel, capsys: Any) -> None:
    load_model(shared_models / "efficientnet_lite0.onnx", precision="fp16", compile=True)
    said = capsys.readouterr().err
    assert "GPU_INFER_WARNING GPU_INFER_PRECISION does nothing for an ONNX model: convert it before" in said
    assert "GPU_INFER_WARNING GPU_INFER_COMPILE does nothing for an ONNX model" in said


@pytest.mark.parametrize(
    "device",
    [
        ("cpu", 0),
        pytest.param(("cuda", 0), marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="no CUDA")]),
    ],
)
def test_bound_runs_give_what_run_gives(shared_models: Path, device: tuple[str, int]) -> None:
    from gpu_infer.serving.adapters.onnx import MOST_SHAPES, BoundRun

    provider = "CUDAExecutionProvider" if device[0] == "cuda" else "CPUExecutionProvider"
    session = ort.InferenceSession(str(shared_models / "efficientnet_lite0.onnx"), providers=[provider])
    bound = BoundRun(session, "images", device)
    batches = [np.random.default_rng(rows).random((rows, 3, 224, 224), np.float32) for rows in (1, 2, 1, 3, 2)]
    results = [bound(batch, ["probabilities"])[0] for batch in batches]
    for batch, result in zip(batches, results, strict=True):
        assert result == pytest.approx(session.run(None, {"images": batch})[0], abs=1e-6)
    small = ort.InferenceSession(_doubling(), providers=["CPUExecutionProvider"])
    bound = BoundRun(small, "x", ("cpu", 0))
    for rows in range(1, MOST_SHAPES + 4):
        backwards = np.arange(2 * rows).reshape(rows, 2)[::-1, ::-1]
        assert bound(backwards, ["x2"])[0].tolist() == backwards.tolist()
        values = bound(np.full((rows, 2), rows, np.int64)[:, ::-1], ["y", "x2"])
        assert [value.tolist() for value in values] == [[[-rows] * 2] * rows, [[rows, rows]] * rows]


def _doubling() -> bytes:
    """Two outputs, of integers."""
    helper = onnx.helper
    shape = ["n", 2]
    graph = helper.make_graph(
        [node("Neg", "x", "y"), node("Identity", "x", "x2")],
        "g",
        [helper.make_tensor_value_info("x", TYPES.INT64, shape)],
        [helper.make_tensor_value_info(name, TYPES.INT64, shape) for name in ("y", "x2")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
