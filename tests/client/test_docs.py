"""``docs/client.md`` is run: every block of Python, against a service that always gives the same scores."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_infer

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def triton(steps: Any) -> Any:
    """Answers as Triton does: one input, and an output of two numbers for it."""
    model = {"name": "resnet50", "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 224, 224]}]}
    output = {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.9]}
    replies = {"GET": steps.answer(200, model), "POST": steps.answer(200, {"outputs": [output]})}
    return lambda connection, seen: replies[seen.method](connection, seen)


def scores_for(steps: Any, seen: Any) -> Any:
    """The same two scores for each item of a request."""
    scores = np.array([0.1, 0.9])
    if seen.method == "GET":
        body = {"input": {"name": "image"}, "outputs": [], "requests": {"200": 1}, "device": "cuda:0 NVIDIA H200"}
        return steps.answer(200, body, steps.ours)
    if seen.headers.get("x-gpu-infer-items") == "many" and seen.headers["content-type"] == "application/x-npy":
        scores = np.tile(scores, (len(np.load(io.BytesIO(seen.body))), 1))
    elif seen.headers["content-type"].startswith("multipart/"):
        scores = np.tile(scores, (seen.body.count(b"filename="), 1))
    stream = io.BytesIO()
    np.save(stream, scores)
    return steps.answer(200, stream.getvalue(), steps.ours, "application/x-npy")


@pytest.fixture
def names(server, steps, tmp_path, monkeypatch) -> dict[str, Any]:
    """What the page takes for granted."""
    image = pytest.importorskip("PIL.Image")
    for name in ("lynx.jpg", "cat.jpg"):
        image.new("RGB", (8, 8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCORING_KEY", "a key")
    monkeypatch.setenv("SCORING_KEY_2", "another key")
    server.default = server.describes = lambda connection, seen: scores_for(steps, seen)(connection, seen)
    return {"uri": server.uri, "gpu_infer": gpu_infer, "np": np, "photos": ["lynx.jpg", "missing.jpg"]}


def test_the_page_has_examples():
    assert len(BLOCKS) >= 7


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the page opens files as its readers do
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_runs(block, names, capsys, server, steps):
    if "/v2/models/" in block:
        server.default = triton(steps)
        block = block.replace("http://127.0.0.1:8000", server.uri.removesuffix("/score"))
    exec(compile(block, str(PAGE), "exec"), names)
    if "failed = " in block:
        assert names["failed"] == [1]
    if "/v2/models/" in block:
        assert names["scores"].shape == (2,)
    if "print(client)" in block:
        assert "credential=provider" in capsys.readouterr().out
