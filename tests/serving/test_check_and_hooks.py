"""Items against the model's input, hooks by name, and settings: what fits, and the sentence where it does not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_infer.serving.adapters.base import TensorSpec
from gpu_infer.serving.check import as_model_item
from gpu_infer.serving.failures import BadInput
from gpu_infer.serving.hooks import HookError, check_hook, load_hook
from gpu_infer.serving.settings import Settings, SettingsError, load_settings

ROW = TensorSpec("X", "float32", (None, 784))
OPEN = TensorSpec("X", "int32", (None, None, 2))
JPEG = TensorSpec("image_bytes", "bytes", (None,))


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int64", "float16", "bool", "float32"])
def test_numbers_of_the_same_kind_are_cast(dtype: str) -> None:
    item = as_model_item(np.ones(784, dtype), ROW)
    assert item.dtype == np.float32
    assert item.sum() == 784


def test_open_axes_take_any_length() -> None:
    assert as_model_item([[1, 2], [3, 4], [5, 6]], OPEN).shape == (3, 2)


def test_string_models_take_bytes_and_text() -> None:
    assert as_model_item(b"\xff", JPEG) == b"\xff"
    assert as_model_item("é", JPEG) == b"\xc3\xa9"
    assert as_model_item(np.array(b"x"), JPEG) == b"x"


@pytest.mark.parametrize(
    ("item", "spec", "says"),
    [
        (
            np.zeros((28, 28), np.uint8),
            ROW,
            "an item is float32 [784]; got uint8 [28, 28]. The number of values is right: reshape",
        ),
        (
            np.zeros((224, 224, 3)),
            TensorSpec("images", "float32", (None, 3, 224, 224)),
            "The axes stand in another order: send x.transpose([2, 0, 1]); do not reshape",
        ),
        (np.zeros(783), ROW, "The model takes X: float32 [N, 784], so an item is float32 [784]; got float64 [783]."),
        (np.zeros(784, complex), ROW, "that cast would lose values. Send x.astype('float32')"),
        (np.full(784, 1e300), ROW, "a value is too large for float32"),
        (b"jpeg", ROW, 'got encoded bytes (4 long). Send an array; or deploy with preprocess= ("image:224x224"'),
        ("text", ROW, "got text (4 long)"),
        (["a"] * 784, ROW, "The model takes X: float32 [N, 784], got <U1 values"),
        ({"a": 1}, ROW, "The model takes X: float32 [N, 784], got object values"),
        (np.full((1, 2), 1.5), OPEN, "got float64: that cast would lose values"),
        (np.full((1, 2), math.nan), OPEN, "null or NaN is no value of int32"),
        (np.full((1, 2), 2**40), OPEN, "the values 1099511627776 to 1099511627776 do not fit int32"),
        (np.zeros(3), JPEG, "one string of bytes per item, such as an encoded JPEG. Got float64 [3]"),
        (3, JPEG, "Got int"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(item: Any, spec: TensorSpec, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        as_model_item(item, spec)
    assert says in caught.value.message


def test_nan_and_infinity_pass_to_float_models() -> None:
    item = as_model_item(np.r_[np.nan, np.inf, np.zeros(782)], ROW)
    assert np.isnan(item[0])
    assert np.isinf(item[1])


# --- hooks ------------------------------------------------------------------------------------------------------------


def hook(text: str, role: str = "postprocess", folder: Path = Path()) -> Any:
    return load_hook(text, role=role, folder=folder)


def test_built_ins() -> None:
    logits = np.log(np.array([0.1, 0.7, 0.2], np.float32))
    assert hook("argmax")(logits) == 1
    assert hook("argmax")(np.eye(3)).tolist() == [0, 1, 2]
    np.testing.assert_allclose(hook("softmax")(logits), [0.1, 0.7, 0.2], rtol=1e-5)
    np.testing.assert_allclose(hook("sigmoid")(np.array([0.0, -1000.0])), [0.5, 0.0])
    best = hook("softmax | top_k:2")(logits)
    assert best["classes"] == [1, 2]
    assert best["scores"] == pytest.approx([0.7, 0.2])
    pixels = hook("divide:255|flatten", "preprocess")(np.full((2, 2), 255, np.uint8))
    assert pixels.tolist() == [1, 1, 1, 1]
    assert hook("") is None
    assert hook("top_k:1")(np.array([0, 5, 3], np.uint8)) == {"classes": [1], "scores": [5]}


@pytest.mark.parametrize(
    ("text", "role", "says"),
    [
        ("soft", "postprocess", "There are: argmax, softmax, sigmoid, top_k; or name a function as file.py:function"),
        ("top_k:", "postprocess", "as in top_k:5"),
        ("argmax:3", "postprocess", "takes no argument"),
        ("image:big", "preprocess", "the size comes first, as in image:224x224"),
        ("image:224,colour=red", "preprocess", "has no option 'colour'. It has: layout, mean"),
        ("image:224,layout=chw", "preprocess", "takes one of nchw, nhwc"),
        ("image:224,mean=1/2", "preprocess", "takes one number or three"),
        ("image:0", "preprocess", "must be above 0"),
        ("divide:0", "preprocess", "expected a number other than 0"),
        ("softmax", "preprocess", "There are: image, divide, flatten"),
    ],
)
def test_hooks_that_cannot_be_built(text: str, role: str, says: str) -> None:
    with pytest.raises(HookError) as caught:
        check_hook(text, role=role)
    assert says in str(caught.value)


def test_built_ins_refuse_what_they_cannot_take() -> None:
    with pytest.raises(HookError, match="name one with output="):
        hook("argmax")({"a": np.zeros(2), "b": np.zeros(2)})
    with pytest.raises(HookError, match="one row of scores"):
        hook("top_k:2")(np.eye(3))
    with pytest.raises(BadInput, match="takes arrays of numbers"):
        hook("divide:255", "preprocess")(b"jpeg")


def test_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("ITEM_NDIM = 2\ndef preprocess(x): return x + 1\ndef double(x): return x * 2\n")
    chain = hook("hooks.py|hooks.py:double", "preprocess", tmp_path)
    assert chain(1) == 4
    assert chain.item_ndim == 2
    with pytest.raises(HookError, match=r"has no function tripple. It has: double, preprocess"):
        hook("hooks.py:tripple", "preprocess", tmp_path)
    with pytest.raises(HookError, match=r"there is no file nix\.py"):
        hook("nix.py", "preprocess", tmp_path)


def test_an_image_hook_knows_the_rank_of_pixels() -> None:
    assert hook("image:8x8", "preprocess").item_ndim == 3
    assert hook("divide:2", "preprocess").keeps_rank
    assert not hook("divide:2|flatten", "preprocess").keeps_rank


# --- settings ---------------------------------------------------------------------------------------------------------


def write(folder: Path, settings: object) -> None:
    (folder / "gpu_infer.json").write_text(json.dumps({"settings": settings}))


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"max_batch": 4, "output": "a"})
    environ = {
        "GPU_INFER_OUTPUT": "b",
        "GPU_INFER_ALLOW_CPU": "1",
        "GPU_INFER_ITEM_SHAPE": "3,224,224",
        "GPU_INFER_MAX_BODY_MB": "0.5",
        "GPU_INFER_MAX_QUEUE": " ",
    }
    settings = load_settings(tmp_path, environ)
    assert settings == Settings(max_batch=4, output="b", allow_cpu=True, item_shape=(3, 224, 224), max_body_mb=0.5)
    assert load_settings(tmp_path / "nowhere", {}) == Settings()


@pytest.mark.parametrize(
    ("settings", "environ", "says"),
    [
        ({"max_bach": 4}, {}, "settings that this version does not know: max_bach"),
        ({}, {"GPU_INFER_MAX_BATCH": "many"}, "GPU_INFER_MAX_BATCH='many': expected a whole number"),
        ({}, {"GPU_INFER_ALLOW_CPU": "maybe"}, "expected 1 or 0"),
        ({}, {"GPU_INFER_ITEM_SHAPE": "3xx"}, "expected numbers with commas"),
        ({"max_batch": 0}, {}, "max_batch must be a number above 0"),
        ({}, {"GPU_INFER_MAX_BODY_MB": "nan"}, "max_body_mb must be a number above 0"),
        ({}, {"GPU_INFER_THREADS": "-1"}, "threads must be 0"),
        ([1], {}, "cannot be read"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, settings: Any, environ: dict[str, str], says: str) -> None:
    write(tmp_path, settings)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, environ)
    assert says in str(caught.value)
