"""PyTorch adapters: the real model, and small ones made here for each way in which a model can be odd."""

from __future__ import annotations

import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from gpu_infer.serving.adapters.base import Adapter, ModelFormatError
from gpu_infer.serving.device import NoGpuError, gpu_report, require_gpu
from gpu_infer.serving.model_finder import ModelNotFoundError

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = torch.Tensor

LoadModel = Callable[..., Adapter]


def script(module: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path


def trace(module: Any, example: Any, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(module.eval(), example, **options).save(str(path))
    return path


def export(module: Any, args: tuple[Any, ...], path: Path, **options: Any) -> Path:
    torch.export.save(torch.export.export(module.eval(), args, **options), str(path))
    return path


def lite0_input(photo: Path) -> np.ndarray:
    """The photograph as EfficientNet-Lite0 takes it: resized in floats, since rounding in between costs 0.01 of p."""
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    small = [
        np.asarray(Image.fromarray(pixels[..., channel]).resize((224, 224), Image.Resampling.BILINEAR))
        for channel in range(3)
    ]
    return ((np.stack(small) - 127) / 128)[np.newaxis]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# --- TorchScript ------------------------------------------------------------------------------------------------------


def test_the_real_model(shared_models: Path, snowleopard: Path, load_model: LoadModel) -> None:
    adapter = load_model(shared_models / "efficientnet_lite0.pt")
    assert (str(adapter.input), [spec.name for spec in adapter.outputs]) == ("inputs: float32 [?]", ["output"])
    batch = np.repeat(lite0_input(snowleopard), 2, axis=0)
    batch.flags.writeable = False
    seen: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: seen.append(softmax(adapter.predict(batch, ["output"])["output"])))
    thread.start()
    thread.join(60)
    assert seen[0].argmax(axis=1).tolist() == [289, 289]
    assert seen[0][:, 289] == pytest.approx([0.837] * 2, abs=0.01)


def test_the_shape_of_an_item(shared_models: Path, load_model: LoadModel) -> None:
    adapter = load_model(shared_models / "efficientnet_lite0.pt", item_shape=(3, 224, 224))
    assert adapter.input.shape == (None, 3, 224, 224)


@pytest.mark.parametrize("shape", [(2, 5), (1, 4, 224, 224), (1, 3, 1, 1)])
def test_a_wrong_shape_is_the_inputs_fault(shared_models: Path, load_model: LoadModel, shape: tuple[int, ...]) -> None:
    adapter = load_model(shared_models / "efficientnet_lite0.pt")
    with pytest.raises(adapter.invalid_input_errors):
        adapter.predict(np.zeros(shape, np.float32), ["output"])


class Half(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), x.sum()


def test_bfloat16_two_outputs_and_one_without_rows(tmp_path: Path, load_model: LoadModel) -> None:
    adapter = load_model(script(Half(), tmp_path / "m.pt"))
    assert adapter.input.dtype == "float32"
    assert [spec.name for spec in adapter.outputs] == ["output_0", "output_1"]
    batch = np.ones((2, 4), np.float32)
    result = adapter.predict(batch, ["output_0"])["output_0"]
    assert (result.dtype, result.shape) == (np.float32, (2, 3))
    with pytest.raises(ModelFormatError, match=r"'output_1' has the shape \[\] for a batch of 2.*there is output_0"):
        adapter.predict(batch, ["output_0", "output_1"])


class Scores(torch.nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if bool((x < 0).any()):
            raise ValueError("below zero")
        return {"score": x.half(), "rank": x.argsort(1)}


def test_a_dict_of_outputs(tmp_path: Path, load_model: LoadModel) -> None:
    path = script(Scores(), tmp_path / "m.pt")
    with pytest.raises(ModelFormatError, match="GPU_INFER_ITEM_SHAPE.*output="):
        load_model(path)
    adapter = load_model(path, item_shape=(4,))
    assert [(spec.name, spec.dtype) for spec in adapter.outputs] == [("score", "float16"), ("rank", "int64")]
    assert adapter.predict(np.ones((2, 4), np.float32), ["rank"])["rank"].tolist() == [[0, 1, 2, 3]] * 2
    assert [spec.name for spec in load_model(path, output_names=("score",)).outputs] == ["score"]
    with pytest.raises(ModelFormatError, match="no output scores. It has: score, rank"):
        load_model(path, item_shape=(4,), output_names=("scores",))


def test_what_a_model_raises_itself_stays_its_own(tmp_path: Path, load_model: LoadModel) -> None:
    adapter = load_model(script(Scores(), tmp_path / "m.pt"), item_shape=(4,))
    with pytest.raises(torch.jit.Error) as caught:
        adapter.predict(-np.ones((1, 4), np.float32), ["rank"])
    assert not isinstance(caught.value, adapter.invalid_input_errors)


class Named(NamedTuple):
    low: Tensor
    high: Tensor


class Bounds(torch.nn.Module):
    def forward(self, x: Tensor) -> Named:
        return Named(x - 1, x + 1)


def test_a_named_tuple(tmp_path: Path, load_model: LoadModel) -> None:
    path = script(Bounds(), tmp_path / "m.pt")
    assert [spec.name for spec in load_model(path, item_shape=(2,)).outputs] == ["low", "high"]


def test_an_embedding_takes_integers(tmp_path: Path, load_model: LoadModel) -> None:
    path = trace(torch.nn.Embedding(5, 2), torch.zeros(1, 3, dtype=torch.int64), tmp_path / "m.pt")
    adapter = load_model(path, item_shape=(3,))
    assert (adapter.input.dtype, adapter.predict(np.ones((2, 3), np.int64), ["output"])["output"].shape) == (
        "int64",
        (2, 3, 2),
    )
    with pytest.raises(adapter.invalid_input_errors, match="out of range"):
        adapter.predict(np.full((1, 3), 99, np.int64), ["output"])


class Two(torch.nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Listed(torch.nn.Module):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return parts[0]


def test_inputs_that_cannot_be_served(tmp_path: Path, load_model: LoadModel) -> None:
    with pytest.raises(ModelFormatError, match=r"2 inputs \(left: float32 \[\?\]; right: .*entry_script="):
        load_model(script(Two(), tmp_path / "two.pt"))
    with pytest.raises(ModelFormatError, match=r"takes parts: List\[Tensor\], and a batch is one tensor"):
        load_model(script(Listed(), tmp_path / "list.pt"))


def test_dropout_is_off(tmp_path: Path, load_model: LoadModel) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.9))
    path = tmp_path / "m.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.train()).save(str(path))
    adapter = load_model(path)
    batch = np.ones((2, 4), np.float32)
    first, second = (adapter.predict(batch, ["output"])["output"] for _ in range(2))
    assert (first == second).all()
    assert (first != 0).all()


def test_a_state_dict_is_not_unpickled(tmp_path: Path, load_model: LoadModel) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "zip.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("zip.pt", "module.pth", "old.pt"):
        with pytest.raises(ModelNotFoundError, match="a pickled PyTorch file.*so it is never opened"):
            load_model(tmp_path / name)


def test_a_damaged_file(tmp_path: Path, load_model: LoadModel) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/version"):
            file.writestr(name, "3")
    with pytest.raises(ModelFormatError, match="could not be loaded by PyTorch"):
        load_model(tmp_path)


# --- torch.export -----------------------------------------------------------------------------------------------------


def test_a_dynamic_batch(tmp_path: Path, load_model: LoadModel) -> None:
    batch_axis = torch.export.Dim("n")
    path = export(torch.nn.Linear(4, 3), (torch.zeros(2, 4),), tmp_path / "m.pt2", dynamic_shapes=({0: batch_axis},))
    adapter = load_model(path)
    assert str(adapter.input) == "input: float32 [N, 4]"
    assert [str(spec) for spec in adapter.outputs] == ["output: float32 [N, 3]"]
    for rows in (1, 2, 7):
        assert adapter.predict(np.ones((rows, 4), np.float32), ["output"])["output"].shape == (rows, 3)


def test_a_fixed_batch(tmp_path: Path, load_model: LoadModel) -> None:
    adapter = load_model(export(torch.nn.Linear(4, 3), (torch.zeros(5, 4),), tmp_path / "m.pt2"))
    assert adapter.input.fixed_batch == 5
    assert adapter.predict(np.ones((5, 4), np.float32), ["output"])["output"].shape == (5, 3)


def test_a_batch_within_bounds(tmp_path: Path, load_model: LoadModel) -> None:
    batch_axis = torch.export.Dim("n", min=3, max=8)
    module = torch.nn.Linear(4, 3)
    path = export(module, (torch.zeros(4, 4),), tmp_path / "m.pt2", dynamic_shapes=({0: batch_axis},))
    adapter = load_model(path)
    batch = np.random.default_rng(0).random((20, 4), np.float32)
    for rows in (1, 3, 8, 9, 20):
        result = adapter.predict(batch[:rows], ["output"])["output"]
        assert result == pytest.approx(module(torch.from_numpy(batch[:rows])).detach().numpy(), abs=1e-6)


class Nested(torch.nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        positions = torch.arange(x.shape[1], device=x.device)
        return {"sum": x + positions, "parts": [x, {"half": x.bfloat16()}], "norm": x.norm()}


def test_outputs_and_keywords(tmp_path: Path, load_model: LoadModel) -> None:
    kwargs = {"x": torch.zeros(2, 4)}
    dynamic = {"x": {0: torch.export.Dim("n")}}
    adapter = load_model(export(Nested(), (), tmp_path / "m.pt2", kwargs=kwargs, dynamic_shapes=dynamic))
    assert {spec.name: str(spec.dtype) for spec in adapter.outputs} == dict.fromkeys(
        ("sum", "parts_0", "parts_1.half", "norm"), "float32"
    )
    result = adapter.predict(np.ones((3, 4), np.float32), ["sum", "parts_1.half"])
    assert result["sum"].tolist() == [[1, 2, 3, 4]] * 3
    assert result["parts_1.half"].dtype == np.float32
    with pytest.raises(ModelFormatError, match=r"'norm' has the shape \[\]"):
        adapter.predict(np.ones((3, 4), np.float32), ["norm"])


def test_exported_with_two_inputs(tmp_path: Path, load_model: LoadModel) -> None:
    path = export(Two(), (torch.zeros(2, 4), torch.zeros(2, 4)), tmp_path / "m.pt2")
    with pytest.raises(ModelFormatError, match=r"2 inputs \(left: float32 \[2, 4\]; right"):
        load_model(path)


# --- device -----------------------------------------------------------------------------------------------------------


def test_no_gpu(shared_models: Path, load_model: LoadModel) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is visible")
    with pytest.raises(NoGpuError, match="torch.cuda.is_available\\(\\) is False"):
        load_model(shared_models / "efficientnet_lite0.pt", allow_cpu=False)
    assert str(require_gpu("torch", allow_cpu=True)) == "cpu"


def test_report_and_threads(tmp_path: Path, load_model: LoadModel) -> None:
    before = torch.get_num_threads()
    adapter = load_model(script(torch.nn.Linear(2, 2), tmp_path / "m.pt"), threads=1)
    try:
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    report = gpu_report(adapter)
    assert (report["framework"], report["details"]["torch"]) == ("torch", torch.__version__)
