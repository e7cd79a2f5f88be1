"""What makes models faster, compared with the plain form: on real models, and where it must be refused."""

from __future__ import annotations

import re
import shutil
import threading
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gpu_infer.serving.adapters.base import Adapter
from gpu_infer.serving.adapters.options import AdapterOptions
from gpu_infer.serving.adapters.switches import (
    TOLERANCE,
    Switch,
    difference,
    finite_share,
    noisy,
    settle,
    warn_of_unused,
)
from gpu_infer.serving.settings import Settings, SettingsError, load_settings

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_models import apart, export, images, used  # noqa: E402 - it imports PyTorch

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = torch.Tensor

LoadModel = Callable[..., Adapter]

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on a CPU"
)


class Net(torch.nn.Module):
    """Convolutions, normalisation and a head, with scores and the class as outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2, 1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU6(),
            torch.nn.Conv2d(16, 32, 3, 2, 1),
            torch.nn.ReLU6(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(32, 10),
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.body(x)
        return {"scores": scores, "best": scores.argmax(1)}


class Large(torch.nn.Module):
    """Numbers beyond what float16 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.linear.weight.data.fill_(30_000.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.abs())


def script(module: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path


# --- each switch on real models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "on"),
    [
        ({}, ["channels-last", "frozen"]),
        ({"precision": "bf16", "optimize": False}, ["bf16"]),
        pytest.param({"precision": "fp16"}, ["channels-last", "fp16", "frozen"], marks=pytest.mark.slow),
    ],
)
def test_the_real_torchscript_model(
    shared_models: Path, load_model: LoadModel, options: dict[str, Any], on: list[str]
) -> None:
    path = shared_models / "efficientnet_lite0.pt"
    plain, fast = load_model(path, optimize=False), load_model(path, **options)
    for adapter in (plain, fast):
        adapter.use_threads(1)  # more would wait for each other where tests run side by side
    batch = images(1, 224)
    assert apart(plain, fast, batch, "output") < TOLERANCE[options.get("precision", "fp32")]
    assert (used(plain), used(fast)) == ([], on)
    assert fast.predict(batch, ["output"])["output"].dtype == np.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_exported_program(tmp_path: Path, load_model: LoadModel, precision: str) -> None:
    path = export(Net(), torch.zeros(2, 3, 32, 32), tmp_path / "m.pt2")
    plain, fast = load_model(path, optimize=False), load_model(path, precision=precision)
    assert apart(plain, fast, images(3), "scores", "best") < TOLERANCE[precision]
    assert used(fast) == ["channels-last"] + [precision] * (precision != "fp32")
    kinds = [values.dtype.name for values in fast.predict(images(1), ["scores", "best"]).values()]
    assert kinds == [spec.dtype for spec in fast.outputs] == ["float32", "int64"]
    with pytest.raises(fast.invalid_input_errors):
        fast.predict(np.zeros((2, 4, 32, 32), np.float32), ["scores"])


@needs_compiler
@pytest.mark.slow
def test_compiled(tmp_path: Path, load_model: LoadModel) -> None:
    path = export(Net(), torch.zeros(2, 3, 32, 32), tmp_path / "m.pt2")
    plain, fast = load_model(path, optimize=False), load_model(path, compile=True)
    for rows in (1, 2, 7):
        assert apart(plain, fast, images(rows), "scores") < TOLERANCE["fp32"]
    assert used(fast) == ["channels-last", "compile"]
    with pytest.raises(fast.invalid_input_errors):
        fast.predict(np.zeros((2, 4, 32, 32), np.float32), ["scores"])
    assert apart(plain, fast, images(4), "scores") < TOLERANCE["fp32"]


def test_without_a_compiler(
    tmp_path: Path, load_model: LoadModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = pytest.importorskip("torch._inductor.config")
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/c++",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    path = export(Net(), torch.zeros(2, 3, 32, 32), tmp_path / "m.pt2")
    adapter = load_model(path, compile=True)
    assert apart(load_model(path, optimize=False), adapter, images(2), "scores") < TOLERANCE["fp32"]
    assert used(adapter) == ["channels-last"]
    assert re.search(r"GPU_INFER_WARNING compile is not used, .*No working C\+\+ compiler", capsys.readouterr().err)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["script", "export"])
def test_numbers_that_do_not_fit(
    tmp_path: Path, load_model: LoadModel, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    make = {"script": lambda: script(Large(), tmp_path / "m.pt")}.get(
        form, lambda: export(Large(), torch.zeros(2, 4), tmp_path / "m.pt2")
    )
    adapter = load_model(make(), precision="fp16")
    result = adapter.predict(np.ones((2, 4), np.float32), ["output"])["output"]
    assert result == pytest.approx(np.full((2, 3), 120_000.0), rel=1e-4)
    assert "fp16" not in used(adapter)
    said = capsys.readouterr().err
    assert "GPU_INFER_WARNING fp16 is not used, the model runs without it: its results differ by max abs inf" in said


def test_switches_that_mean_nothing(shared_models: Path, load_model: LoadModel, capsys: Any) -> None:
    adapter = load_model(shared_models / "efficientnet_lite0.pt", compile=True, cuda_graphs=True, optimize=False)
    adapter.predict(images(1, 224), ["output"])
    said = capsys.readouterr().err
    assert "GPU_INFER_COMPILE does nothing for a TorchScript model" in said
    if not torch.cuda.is_available():
        assert "GPU_INFER_WARNING cuda-graphs is not used, the model runs without it: " in said
        assert "CUDA graphs need a GPU" in said
    warn_of_unused(AdapterOptions(precision="bf16"), "an ONNX model: convert it.", "precision", "compile")
    assert (
        capsys.readouterr().err == "GPU_INFER_WARNING GPU_INFER_PRECISION does nothing for an ONNX model: convert it.\n"
    )


def test_a_first_batch_that_does_not_fit(tmp_path: Path, load_model: LoadModel) -> None:
    adapter = load_model(script(Net(), tmp_path / "m.pt"), item_shape=(3, 32, 32))
    with pytest.raises(adapter.invalid_input_errors):
        adapter.predict(np.zeros((1, 4, 32, 32), np.float32), ["scores"])
    assert used(adapter) == []
    assert adapter.predict(images(1), ["scores"])["scores"].shape == (1, 10)
    assert used(adapter) == ["channels-last", "frozen"]


def test_several_threads_begin_at_once(tmp_path: Path, load_model: LoadModel) -> None:
    adapter = load_model(script(Net(), tmp_path / "m.pt"), item_shape=(3, 32, 32), precision="bf16")
    seen: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: seen.append(adapter.predict(images(2), ["scores"])["scores"])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 4
    assert all((scores == seen[0]).all() for scores in seen)


class Positive(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("below zero")
        return x * 2


def test_a_model_that_takes_no_noise(tmp_path: Path, load_model: LoadModel, capsys: Any) -> None:
    adapter = load_model(script(Positive(), tmp_path / "m.pt"), item_shape=(40,))
    assert adapter.predict(np.ones((1, 40), np.float32), ["output"])["output"].tolist() == [[2] * 40]
    assert used(adapter) == ["frozen"]
    said = capsys.readouterr().err
    assert "GPU_INFER_NOTE only the sample is compared, the model takes no noise: " in said


class InPlace(torch.nn.Module):
    """Writes to its input, for some values only."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.max() > 10):
            x.sub_(100).div_(50)
        return x * 1


@pytest.mark.parametrize("shape", [(6,), (3, 4, 4)])
def test_a_model_that_writes_to_its_input(tmp_path: Path, load_model: LoadModel, shape: tuple[int, ...]) -> None:
    body = torch.nn.Sequential(InPlace(), torch.nn.Conv2d(3, 2, 1)) if len(shape) == 3 else InPlace()
    adapter = load_model(script(body, tmp_path / "m.pt"), item_shape=shape)
    batch = np.full((2, *shape), 150, np.float32)
    seen = [adapter.predict(batch, ["output"])["output"] for _ in range(3)]
    assert (batch == 150).all()
    assert np.ptp(seen, axis=0).max() == 0
    assert used(adapter) == ["channels-last"] * (len(shape) == 3) + ["frozen"]
    adapter.predict(batch[:, ::-1], ["output"])
    assert (batch == 150).all()


class OneRow(torch.nn.Module):
    """Exported for a batch of one, it says."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(40, 3)
        self.largest = torch.nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(1, 40)
        self.largest.copy_(torch.maximum(self.largest, x.abs().max()))
        return self.linear(x)


def test_a_model_of_one_row_is_compared_on_noise(tmp_path: Path, load_model: LoadModel, capsys: Any) -> None:
    adapter = load_model(script(OneRow(), tmp_path / "m.pt"), item_shape=(40,))
    runner = getattr(adapter, "_runner")  # noqa: B009  what the model saw is nowhere else
    original = runner.module
    adapter.predict(np.zeros((1, 40), np.float32), ["output"])
    assert "only the sample" not in capsys.readouterr().err
    assert float(original.largest) > 1


class Ratio(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(-x.abs() - 1) if bool(x.std() > 0.1) else x + 1


class Ids(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x)


@pytest.mark.parametrize(
    ("module", "dtype", "why"),
    [
        (Ratio(), np.float32, "the model answers noise with NaN or infinity"),
        (Ids(), np.int64, "the model takes int64, of which any value may be wrong"),
    ],
)
def test_where_noise_says_nothing(
    tmp_path: Path, load_model: LoadModel, capsys: Any, module: Any, dtype: Any, why: str
) -> None:
    adapter = load_model(script(module, tmp_path / "m.pt"), item_shape=(4,))
    assert np.isfinite(adapter.predict(np.ones((1, 4), dtype), ["output"])["output"]).all()
    assert used(adapter) == ["frozen"]
    assert f"GPU_INFER_NOTE only the sample is compared, {why}." in capsys.readouterr().err


# --- comparing --------------------------------------------------------------------------------------------------------


def test_difference() -> None:
    scores, ranks = np.array([[1.0, -4.0]], np.float32), np.array([3])
    near = difference({"s": scores, "r": ranks}, {"s": scores + np.float32(0.5), "r": ranks + 1})
    assert (near.absolute, near.relative) == (0.5, 0.125)
    assert difference({"r": ranks}, {"r": ranks}).relative == 0
    assert difference({"r": ranks}, {"r": ranks + 1}).relative == np.inf
    assert difference({"s": scores * 0}, {"s": scores * 0}).relative == 0
    assert difference({"s": scores * 0}, {"s": scores}).relative == np.inf
    assert difference({"s": scores}, {"s": scores[:, :1]}).relative == np.inf
    odd = np.array([np.nan, np.inf, 2.0])
    assert difference({"s": odd}, {"s": odd}).relative == 0
    assert difference({"s": odd}, {"s": np.array([np.nan, 1.0, 2.0])}).relative == np.inf
    assert difference({"s": scores[0]}, {"s": np.array([np.nan, -4.0])}).relative == np.inf
    assert difference({"s": scores[:0]}, {"s": scores[:0]}).relative == 0


def test_parts_of_an_output_that_are_small() -> None:
    random = np.random.default_rng(0)
    found = random.random((2, 84, 50)) * np.where(np.arange(84) < 4, 640.0, 0.9)[:, None]
    for plain, scores in ((found, np.s_[:, 4:]), (found.transpose(0, 2, 1), np.s_[:, :, 4:])):
        none = plain.copy()
        none[scores] = 0
        lost = difference({"y": plain}, {"y": none})
        assert lost.relative < TOLERANCE["fp32"]
        assert lost.of_parts == pytest.approx(1)
        assert lost.excess(TOLERANCE["bf16"]).startswith("a part of its results differs by rel 1 (all: max abs 0.9, ")
        near = difference({"y": plain}, {"y": plain * 1.001})
        assert near.of_parts == pytest.approx(0.001)
        assert near.excess(TOLERANCE["fp32"]) == ""
    rounded, zeros = found.copy(), found.copy()
    rounded[:, 4:], zeros[:, 4:] = 1e-5, 0
    assert difference({"y": rounded}, {"y": zeros}).excess(TOLERANCE["fp32"]) == ""
    rows = random.standard_normal((2, 1000))
    assert difference({"y": rows}, {"y": rows + 0.01}).of_parts == 0


def test_nothing_but_nan_compares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert finite_share({"y": np.array([1.0, np.nan]), "n": np.array([3])}) == 0.5
    assert finite_share({"n": np.array([3])}) == 1
    switch = Switch("fast", 0.01, lambda: None, lambda: None)
    assert settle([switch], lambda: {"y": np.full(3, np.nan)}) == []
    assert "fast is not used, the model runs without it: NaN or infinity is all" in capsys.readouterr().err


def test_noise() -> None:
    grey = noisy(np.full((1, 1000), 127, np.float16), 2)
    assert grey is not None
    assert (grey.shape, grey.dtype) == ((2, 1000), np.float16)
    assert 100 < grey.astype(float).std() < 150
    white = noisy(np.zeros((3, 1000), np.float32), 3)
    assert white is not None
    assert white.std() == pytest.approx(1, abs=0.1)
    pixels = noisy(np.zeros((1, 1000), np.uint8), 2)
    assert pixels is not None
    assert (pixels.shape, pixels.dtype, len(np.unique(pixels))) == ((2, 1000), np.uint8, 256)
    assert noisy(np.ones((1, 3), np.int64), 2) is None


def test_switches_are_kept_or_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    state = {"scale": 1.0, "off": ""}

    def switch(name: str, scale: float, *, asked: bool = False) -> Switch:
        def turn_on() -> None:
            if not scale:
                raise RuntimeError("no such thing\nand more")
            state["before"], state["scale"] = state["scale"], scale

        def turn_off() -> None:
            state.update(off=f"{state['off']}{name} ", scale=state.get("before", 1.0) if scale else state["scale"])

        return Switch(name, 0.01, turn_on, turn_off, asked)

    forms = [switch("near", 1.001), switch("far", 1.5, asked=True), switch("broken", 0.0), switch("nearer", 1.0005)]
    kept = settle(forms, lambda: {"y": np.array([2.0, 1.0]) * state["scale"]})
    assert kept == ["near (max abs 0.002, rel 0.001)", "nearer (max abs 0.001, rel 0.0005)"]
    assert state["off"] == "far broken "
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "GPU_INFER_WARNING far is not used, the model runs without it: "
        "its results differ by max abs 1, rel 0.5, and rel 0.01 is allowed."
    )
    assert said[1] == "GPU_INFER_NOTE broken is not used, the model runs without it: RuntimeError: no such thing."
    assert re.fullmatch(
        r"GPU_INFER_SPEED ok \d+\.\ds compared with the plain form: near \(.*\); nearer \(.*\)", said[2]
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings(tmp_path: Path) -> None:
    environ = {"GPU_INFER_PRECISION": "bf16", "GPU_INFER_COMPILE": "1", "GPU_INFER_CUDA_GRAPHS": "1"}
    settings = load_settings(tmp_path, {**environ, "GPU_INFER_OPTIMIZE": "0"})
    assert settings == Settings(precision="bf16", compile=True, cuda_graphs=True, optimize=False)
    with pytest.raises(SettingsError, match="precision must be one of fp32, bf16, fp16, got 'int8'"):
        load_settings(tmp_path, {"GPU_INFER_PRECISION": "int8"})


def test_all_settings_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    of_deploy = {"output", "preprocess", "postprocess"}
    names = {f"GPU_INFER_{field.name.upper()}" for field in fields(Settings) if field.name not in of_deploy}
    assert names - set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set()
