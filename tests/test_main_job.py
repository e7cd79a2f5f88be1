"""The main job on the real models: deploy, score through the client and through plain HTTP, the right answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gpu_infer

SNOW_LEOPARD = 289
LITE0_INPUT = "image:224x224,layout=nchw,mean=127,std=128"


def post(uri: str, body: bytes, **headers: str) -> tuple[bytes, dict[str, str]]:
    request = urllib.request.Request(uri, body, {key.replace("_", "-"): value for key, value in headers.items()})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), {key.lower(): value for key, value in answer.headers.items()}


@pytest.fixture(scope="module")
def lite0(shared_models: Path) -> Iterator[gpu_infer.Service]:
    """EfficientNet-Lite0 as a SavedModel that takes JPEG strings: the first tutorial's signature."""
    with gpu_infer.deploy(shared_models / "efficientnet_lite0_jpg_savedmodel", output="probabilities") as service:
        yield service


def assert_snow_leopard(probabilities: np.ndarray) -> None:
    assert probabilities.shape == (1000,)
    assert probabilities.argmax() == SNOW_LEOPARD
    assert probabilities[SNOW_LEOPARD] == pytest.approx(0.837, abs=0.01)


def test_the_photograph_is_a_snow_leopard(lite0: gpu_infer.Service, snowleopard: Path) -> None:
    assert_snow_leopard(lite0.score(snowleopard))
    assert_snow_leopard(lite0.score(snowleopard.read_bytes()))
    with snowleopard.open("rb") as file:
        assert_snow_leopard(lite0.score(file))


def test_a_list_of_photographs_gives_a_row_each(lite0: gpu_infer.Service, snowleopard: Path) -> None:
    rows = lite0.score([snowleopard] * 3)
    assert rows.shape == (3, 1000)
    for row in rows:
        assert_snow_leopard(row)
    assert lite0.score([snowleopard]).shape == (1, 1000)


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_a_plain_post_of_the_file(lite0: gpu_infer.Service, snowleopard: Path, content_type: str) -> None:
    body, headers = post(lite0.scoring_uri, snowleopard.read_bytes(), Content_Type=content_type)
    assert_snow_leopard(np.array(json.loads(body)))
    assert headers["content-type"] == "application/json"
    assert headers["x-gpu-infer-device"].split(":")[0] in ("cpu", "cuda")
    assert headers["x-gpu-infer-batch"] == "1"
    assert float(headers["x-gpu-infer-queue-ms"]) >= 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_the_readme_has_it(lite0: gpu_infer.Service, snowleopard: Path) -> None:
    command = ["curl", "--silent", "--data-binary", f"@{snowleopard}", lite0.scoring_uri]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert_snow_leopard(np.array(json.loads(answer)))
    form = ["curl", "--silent", "-F", f"a=@{snowleopard};type=image/jpeg", "-F", f"b=@{snowleopard}", lite0.scoring_uri]
    answer = subprocess.run(form, capture_output=True, check=True, timeout=60).stdout
    assert np.array(json.loads(answer)).shape == (2, 1000)


def test_a_get_is_not_supported(lite0: gpu_infer.Service) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(lite0.scoring_uri, timeout=10)
    assert caught.value.code == 405
    assert caught.value.read() == b"GET is not supported"


def test_a_photograph_that_is_cut_short_is_the_callers_mistake(lite0: gpu_infer.Service, snowleopard: Path) -> None:
    picture = snowleopard.read_bytes()
    with pytest.raises(gpu_infer.errors.BadInputError, match="The model refused the input") as caught:
        lite0.score([picture, picture[: len(picture) // 2]])
    assert caught.value.item == 1
    with pytest.raises(gpu_infer.errors.BadInputError, match="The model refused the input: Unknown image file format"):
        lite0.score(b"this is not an image")
    with pytest.raises(
        gpu_infer.errors.BadInputError,
        match=r"expected bytes, such as an encoded image, one for each item, got float64 \[224, 224, 3\]",
    ):
        lite0.score(np.zeros((224, 224, 3)), timeout=10)


@pytest.mark.parametrize(
    ("file", "postprocess"), [("efficientnet_lite0.onnx", None), ("efficientnet_lite0.pt", "softmax")]
)
def test_the_same_network_as_onnx_and_torchscript(
    shared_models: Path, snowleopard: Path, file: str, postprocess: str | None
) -> None:
    with gpu_infer.deploy(shared_models / file, preprocess=LITE0_INPUT, postprocess=postprocess) as service:
        assert_snow_leopard(service.score(snowleopard))
        rows = service.score([snowleopard, snowleopard])
        assert rows.shape == (2, 1000)
        assert_snow_leopard(rows[1])


@pytest.fixture(scope="module", params=["tf-dnn-mnist", "mnist_savedmodel"])
def digits(request: pytest.FixtureRequest, shared_models: Path) -> Iterator[gpu_infer.Service]:
    """The second tutorial's network, as its TF1 checkpoint and as a TF1-style SavedModel."""
    with gpu_infer.deploy(shared_models / request.param, postprocess="argmax") as service:
        yield service


def test_two_thousand_digits(digits: gpu_infer.Service, mnist_test: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = mnist_test
    body, _ = post(digits.scoring_uri, json.dumps({"data": images.tolist()}).encode(), Content_Type="application/json")
    answers = json.loads(body)
    assert all(type(answer) is int for answer in answers)
    through = {
        "json": np.array(answers),
        "npy": digits.score(images),
        "one by one": np.array(list(digits.score_many(images))),
    }
    accuracy = {way: float((predictions == labels).mean()) for way, predictions in through.items()}
    assert min(accuracy.values()) >= 0.96, accuracy
    assert digits.score(images[0]) == answers[0]
    assert digits.score(images[:2].tolist()).tolist() == answers[:2]


@pytest.mark.slow
def test_outputs_without_a_choice_come_by_name(shared_models: Path, snowleopard: Path) -> None:
    with gpu_infer.deploy(shared_models / "efficientnet_lite0_jpg_savedmodel", postprocess=None) as service:
        result = service.score(snowleopard)
        assert sorted(result) == ["classes", "probabilities"]
        assert result["classes"] == SNOW_LEOPARD
    with pytest.raises(gpu_infer.errors.ScoringInitError, match="takes one output, the model has"):
        gpu_infer.deploy(shared_models / "efficientnet_lite0_jpg_savedmodel", postprocess="argmax")


def test_top_five_in_one_call(shared_models: Path, snowleopard: Path) -> None:
    model = shared_models / "efficientnet_lite0.onnx"
    with gpu_infer.deploy(model, preprocess=LITE0_INPUT, postprocess="top_k:5") as service:
        best = service.score(snowleopard)
    assert best["classes"][0] == SNOW_LEOPARD
    assert len(best["scores"]) == 5
