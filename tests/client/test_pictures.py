"""Pictures that are scaled down on request, and limits on the size of a request."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from gpu_infer.client.inputs import encode
from gpu_infer.client.limits import AKS_ROUTER, known_limit, refuse_too_large
from gpu_infer.client.pictures import scaled_file
from gpu_infer.errors import BadInputError, MissingDependencyError

Image: Any = pytest.importorskip("PIL.Image")

ORIENTATION = 0x0112
PROFILE = b"a colour profile"
AKS = "http://10.0.0.1:80/api/v1/service/gpu-rn/score"


def drawing(width: int, height: int, mode: str = "RGB") -> Any:
    """Left half red (or dark), right half blue (or bright); smooth from top to bottom."""
    rows = np.linspace(0, 120, height)[:, None]
    red = np.where(np.arange(width) < width / 2, 250 - rows, 5 + rows)
    return Image.fromarray(np.stack([red, rows + 0 * red, 255 - red], axis=-1).astype(np.uint8)).convert(mode)


def file_of(image: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [((1000, 500), (128, 64)), ((300, 900), (43, 128)), ((5000, 2), (128, 1)), ((129, 129), (128, 128))],
)
def test_a_larger_picture_is_scaled_and_stays_what_it_is(kind, size, expected):
    data = file_of(drawing(*size), kind, icc_profile=PROFILE)
    payload = encode(data, max_side=128)
    found = opened(payload.body)
    assert payload.content_type == f"image/{kind.lower()}"
    assert (found.format, found.size, found.mode, found.info["icc_profile"]) == (kind, expected, "RGB", PROFILE)
    difference = np.abs(
        np.asarray(found, float) - np.asarray(drawing(*size).resize(expected, Image.Resampling.BOX), float)
    )
    assert difference.mean() < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_what_is_small_enough_or_of_another_kind_goes_byte_for_byte(kind):
    data = file_of(drawing(128, 64), kind)
    assert encode(data, max_side=128).body == data
    if kind not in ("JPEG", "PNG"):
        assert encode(data, max_side=16).body == data


def test_bytes_that_are_no_picture_and_arrays_are_left_alone():
    assert encode(b"anything", max_side=1).body == b"anything"
    array = np.zeros((40, 40, 3), np.uint8)
    assert encode(array, max_side=1) == encode(array)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_stays_a_tag_and_the_rest_of_exif_is_left_out(kind, orientation):
    image = drawing(400, 200)
    exif = image.getexif()
    exif[ORIENTATION], exif[0x010E] = orientation, "where it was taken"
    found = opened(scaled_file(file_of(image, kind, exif=exif), 100))
    assert found.size == (100, 50)
    assert dict(found.getexif()) == {ORIENTATION: orientation}
    wanted = np.asarray(image.resize(found.size, Image.Resampling.BOX), float)
    assert np.abs(np.asarray(found, float) - wanted).mean() < 8


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("L", "JPEG", "L"), ("CMYK", "JPEG", "CMYK"), ("L", "PNG", "L"), ("LA", "PNG", "LA"), ("RGBA", "PNG", "RGBA"),
        ("P", "PNG", "RGB"), ("1", "PNG", "L"),
    ],
)  # fmt: skip
def test_pictures_of_every_mode(mode, kind, expected):
    image = drawing(90, 60, mode)
    found = opened(scaled_file(file_of(image, kind), 30))
    assert (found.size, found.mode) == ((30, 20), expected)
    wanted = np.asarray(image.convert("RGB").resize((30, 20), Image.Resampling.BOX), float)
    assert np.abs(np.asarray(found.convert("RGB"), float) - wanted).mean() < 12


def test_a_palette_with_a_transparent_colour_keeps_it_and_16_bits_stay_16_bits():
    palette = Image.fromarray(np.repeat(np.array([0, 1], np.uint8), 45)[None].repeat(60, axis=0)).convert("P")
    found = opened(scaled_file(file_of(palette, "PNG", transparency=0), 30))
    assert (found.mode, found.getpixel((2, 2))[3], found.getpixel((27, 2))[3]) == ("RGBA", 0, 255)
    edge = np.zeros((60, 90), np.uint16)
    edge[:, 45:] = 65535
    found = opened(scaled_file(file_of(Image.fromarray(edge), "PNG"), 30))
    assert (found.size, found.mode) == ((30, 20), "I;16")
    assert (np.asarray(found)[:, 2] == 0).all()
    assert (np.asarray(found)[:, 27] == 65535).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_of_pillow(tmp_path, kind):
    path = tmp_path / "photo"
    path.write_bytes(file_of(drawing(200, 100), kind))
    with Image.open(path) as untouched:
        assert encode(untouched, max_side=50).body == encode(path, max_side=50).body
        untouched.load()
        found = opened(encode(untouched, max_side=50).body)
    assert (found.format, found.size) == ("PNG", (50, 25))
    image = drawing(40, 20)
    assert encode(image, max_side=40) == encode(image)
    assert encode(image, "npy", max_side=40) == encode(image, "npy")
    pixels = np.load(io.BytesIO(encode(image, "npy", max_side=20).body))
    assert pixels.shape == (10, 20, 3)


def test_a_list_of_pictures_and_forced_forms():
    data, small = file_of(drawing(200, 100), "JPEG"), file_of(drawing(20, 10), "JPEG")
    scaled = scaled_file(data, 50)
    assert encode([data, small], max_side=50).body.count(scaled) == 1
    assert small in encode([data, small], max_side=50).body
    assert encode(data, "bytes", max_side=50).body == scaled
    with pytest.raises(BadInputError, match="Item 1: .*cannot be scaled to max_side=50") as caught:
        encode([data, data[:300]], max_side=50)
    assert caught.value.item == 1


def test_a_picture_that_cannot_be_read_is_the_callers_fault():
    for data in (b"\xff\xd8\xff\xe0 photo", b"\x89PNG\r\n\x1a\n photo", file_of(drawing(200, 100), "PNG")[:300]):
        with pytest.raises(BadInputError, match="The image cannot be scaled to max_side=50"):
            encode(data, max_side=50)


def test_without_pillow_the_message_says_what_to_install(monkeypatch):
    data = file_of(drawing(8, 8), "JPEG")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert encode(data).body == data
    assert encode(b"text", max_side=4).body == b"text"
    with pytest.raises(MissingDependencyError, match="max_side= scales pictures with Pillow.*pip install pillow"):
        encode(data, max_side=4)


# --- the clients ------------------------------------------------------------------------------------------------------


def test_clients_scale_pictures(make, server, steps):
    server.plays(steps.answer(200, [1]), steps.answer(200, [1]))
    data = file_of(drawing(200, 100), "JPEG")
    face = make(max_side=50)
    face.score(data)
    assert list(face.score_many([data])) == [[1]]
    assert {seen.body for seen in server.seen} == {scaled_file(data, 50)}


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "512"])
def test_sides_and_sizes_that_cannot_be(make, value):
    with pytest.raises(ValueError, match="max_side must be a number of pixels above 0"):
        make(max_side=value)
    with pytest.raises(ValueError, match="max_body must be a number of bytes above 0"):
        make(max_body=value)


def test_a_body_over_the_callers_limit_is_not_sent(make, server, steps):
    server.plays(steps.answer(200, [1]))
    face = make(max_body=1000)
    with pytest.raises(
        BadInputError, match="The request has 1,001 bytes, and max_body= allows 1,000 at most"
    ) as caught:
        face.score(b"x" * 1001)
    assert (caught.value.attempts, server.seen) == (0, [])
    with pytest.raises(BadInputError, match="1,001 bytes"):
        list(face.score_many([b"x" * 1001]))
    assert face.score(b"x" * 1000) == [1]


def test_the_limit_of_the_router_on_aks_is_known_by_the_address(make):
    with pytest.raises(BadInputError, match="the router of Azure ML on AKS takes 104,857,600 at most"):
        make(uri=AKS).score(bytes(AKS_ROUTER + 1))
    assert known_limit(AKS) == known_limit(AKS + "/") == AKS_ROUTER
    for other in ("http://127.0.0.1:5001/score", "https://a.westeurope.inference.ml.azure.com/score", AKS + "/x"):
        assert known_limit(other) is None


def test_the_callers_limit_outranks_the_known_one():
    refuse_too_large(200, limit=300, known=100)
    refuse_too_large(100, limit=None, known=100)
    refuse_too_large(10**12, limit=None, known=None)
    with pytest.raises(BadInputError, match="101 bytes"):
        refuse_too_large(101, limit=None, known=100)
    with pytest.raises(BadInputError, match="max_body="):
        refuse_too_large(60, limit=50, known=100)
