"""The demo, once, as `make demo` runs it, and what it says where it cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gpu_infer
from gpu_infer import demo
from gpu_infer.cli import main


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("GPU_INFER_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_the_demo(state: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tensorflow")
    assert main(["demo", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["items"] == 2000
    assert told["training_items"] == 8000
    assert told["accuracy"] > 0.9
    assert told["correct"] == round(told["accuracy"] * 2000)
    assert told["device"] == "cpu" or told["device"].startswith("cuda:0 ")
    assert told["throughput"] > 0
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert told["mean_batch"] >= 1
    assert len(told["digits"]) == 4
    assert "WARNING" not in err  # TensorFlow's noise
    assert gpu_infer.services() == []
    assert list((state / "services").iterdir()) == []


def test_the_report_is_drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from gpu_infer.cli import show

    monkeypatch.setenv("COLUMNS", "100")
    images, labels = demo.read_idx(demo.find_digits(), "t10k")
    digits = tuple(
        demo.Digit(images[at].tolist(), int(labels[at]), int(labels[at]) if at else 9 - int(labels[at]), 0.5)
        for at in range(4)
    )
    report = demo.DemoReport(
        device="cuda:0 NVIDIA H200",
        items=2000,
        correct=1900,
        concurrency=16,
        seconds=4.0,
        p50_ms=10.0,
        p99_ms=20.0,
        mean_batch=3.0,
        training_items=8000,
        training_seconds=10.0,
        deploy_seconds=5.0,
        total_seconds=20.0,
        digits=digits,
    )
    show.demo(report)
    out = capsys.readouterr().out
    assert "95.00%  (1,900 right)" in out
    assert "500 digits per second" in out
    assert "cuda:0 NVIDIA H200" in out
    assert f"wrong: {labels[0]}" in out
    assert max(map(len, out.splitlines())) <= 100
    assert sum("█" in line or "▀" in line for line in out.splitlines()) >= 8


def test_the_digits_are_all_there():
    for part, count in (("train", 8000), ("t10k", 2000)):
        images, labels = demo.read_idx(demo.find_digits(), part)
        assert images.shape == (count, 28, 28)
        assert labels.shape == (count,)
        assert set(labels.tolist()) == set(range(10))


def test_outside_of_a_checkout_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "site-packages" / "gpu_infer" / "demo.py"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 1
    assert "Clone the gpu_infer repository and run `make demo` there" in capsys.readouterr().err


def test_without_tensorflow_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "Run: pip install 'gpu-infer[local,tensorflow]'" in capsys.readouterr().err


def test_a_training_that_fails_shows_its_log(tmp_path: Path):
    with pytest.raises(gpu_infer.errors.GpuInferError, match=r"(?s)Training failed.*No such file or directory"):
        demo.run_demo(data=tmp_path)
