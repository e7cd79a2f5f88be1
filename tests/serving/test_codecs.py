"""From bytes to items and from results to bytes: every row of docs/serving.md, and hostile bodies."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gpu_infer.serving.codecs import npy
from gpu_infer.serving.codecs.decode import Items, Part, decode_body, decode_parts, parse_accept, parse_items_header
from gpu_infer.serving.codecs.encode import encode_results, to_json
from gpu_infer.serving.codecs.images import ImageOptions, decode_image, image_to_array
from gpu_infer.serving.failures import BadInput, ModelFailure, RequestFailure, UnsupportedContentType

PLAIN_DTYPES = [*"?bhilqBHILQefdFD", "S3", "U3", ">f4", ">i8"]


def picture(format_: str = "JPEG", size: tuple[int, int] = (20, 10)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(stream, format_)
    return stream.getvalue()


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def read(content_type: str, body: bytes, *, item_ndim: int | None = 1, many: bool | None = None) -> Items:
    return decode_body(content_type, body, item_ndim=item_ndim, many=many)


# --- .npy -------------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(PLAIN_DTYPES).flatmap(lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, min_side=0))),
    st.booleans(),
)
def test_npy_survives_the_way_there_and_back(array: np.ndarray, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    result = npy.decode(npy.encode(array))
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    np.testing.assert_array_equal(result, array)


def test_bfloat16_is_widened() -> None:
    array = np.array([1.5, math.nan, -3], ml_dtypes.bfloat16)
    result = npy.decode(npy.encode(array))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, array.astype(np.float32))


def hostile_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return npy.MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\x93NUMPY", "not a .npy array"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 100, "not a .npy array"),
        (saved(np.arange(4.0))[:-3], "cut short: float64 [4] takes 32 bytes, 29 are there"),
        (saved(np.arange(4.0)) + b"x", "longer than it says"),
        (hostile_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"), "cut short"),
        (
            hostile_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"x" * 8),
            "dtype object is not accepted",
        ),
        (
            hostile_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"x" * 4),
            "is not accepted",
        ),
        (hostile_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "cannot have the shape"),
        (
            hostile_header("{'descr': '<f4', 'fortran_order': False, 'shape': " + str((1,) * 80) + "}", b"1234"),
            "cannot be used",
        ),
        (hostile_header("(" * 9000), "not a .npy array"),
        (hostile_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 0)}"), "holds no value"),
        (
            hostile_header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\x00\xd8\x00\x00"),
            "cannot be used",
        ),
        (
            hostile_header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff\xff\xff\x7f"),
            "cannot be used",
        ),
        (hostile_header("__import__('os').abort()"), "not a .npy array"),
        (hostile_header("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}", b"x" * 8), "is not accepted"),
    ],
)
def test_hostile_npy_is_refused_with_a_reason(body: bytes, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        npy.decode(body)
    assert says in caught.value.message


@given(st.binary(max_size=300))
@example(b"\x01\x00\x10\x00{'descr': 1}")
def test_no_bytes_after_the_magic_do_harm(rest: bytes) -> None:
    try:
        npy.decode(npy.MAGIC + rest)
    except BadInput:
        return


# --- JSON in ----------------------------------------------------------------------------------------------------------


def test_the_tutorials_form_is_many_items() -> None:
    items = read("application/json", b'{"data": [[1, 2], [3, 4]]}')
    assert items.many
    np.testing.assert_array_equal(items.values, [[1, 2], [3, 4]])


def test_data_of_the_rank_of_an_item_is_one_item() -> None:
    items = read("application/json", b'{"data": [1, 2]}')
    assert not items.many
    np.testing.assert_array_equal(items.values[0], [1, 2])


def test_keys_beside_the_data_change_nothing() -> None:
    items = read("application/json", b'{"data": [[1, 2]], "method": "predict", "labels": ["a"]}')
    assert items.many
    np.testing.assert_array_equal(items.values, [[1, 2]])


def test_a_bare_list_will_do() -> None:
    assert read("application/json", b"[[1.5]]").many


def test_null_is_nan() -> None:
    np.testing.assert_array_equal(read("application/json", b'{"data": [[1, null]]}').values, [[1, math.nan]])


def test_base64_is_bytes() -> None:
    encoded = base64.b64encode(b"\xff\x00").decode()
    body = json.dumps({"data": [{"b64": encoded}, {"b64": encoded}]}).encode()
    items = read("application/json", body, item_ndim=0)
    assert items == Items([b"\xff\x00", b"\xff\x00"], many=True)
    one = read("application/json", json.dumps({"data": {"b64": encoded}}).encode(), item_ndim=0)
    assert one == Items([b"\xff\x00"], many=False)


def test_text_stays_text() -> None:
    assert read("application/json", b'{"data": ["a", "b"]}', item_ndim=0) == Items(["a", "b"], many=True)


def test_items_of_different_lengths_stay_apart() -> None:
    items = read("application/json", b'{"data": [[1, 2], [3]]}', item_ndim=None)
    assert items.many
    assert [list(value) for value in items.values] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "The body is empty"),
        (b"{", "The body is not JSON"),
        (b'{"data": [NaN]}', "NaN and Infinity are not JSON: send null"),
        (b'{"rows": [1]}', 'has no "data". Send {"data": [...]}; its keys are: rows'),
        (b"{}", "its keys are: none"),
        (b'{"data": [[[1]]]}', "An item has 1 axis, so a request has 1 or 2; got 3: int64 [1, 1, 1]"),
        (b'{"data": {"b64": "!"}}', '"b64" does not hold base64'),
        (b'{"data": {"b64": 3}}', '"b64" does not hold base64'),
        (b"[" * 5000 + b"]" * 5000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_wrong_json_is_refused_with_a_reason(body: bytes, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read("application/json", body)
    assert says in caught.value.message


def test_deep_nesting_is_refused_not_a_crash() -> None:
    for body in (b"[" * 1000 + b"1" + b"]" * 1000, b"[" * 2000 + b'"x"' + b"]" * 2000):
        with pytest.raises(BadInput):
            read("application/json", body)


def test_texts_are_never_padded_to_one_length() -> None:
    """As an array, a text of 100,000 characters among 10,000 short ones would take 4 GB."""
    texts = [["a" * 100_000], *[["b"]] * 10_000]
    items = read("application/json", json.dumps({"data": texts}).encode(), item_ndim=None)
    assert list(items.values) == texts


def test_many_small_ragged_items_are_refused_at_once() -> None:
    with pytest.raises(BadInput, match=r"may differ in length; got 1,000,001"):
        read("application/json", b"[" + b"[]," * 1_000_000 + b"[1]]", item_ndim=None)


# --- one or many ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("many", "count"), [(True, 3), (False, 1)])
def test_the_header_decides_over_the_rank(many: bool, count: int) -> None:
    items = read("application/x-npy", saved(np.zeros((3, 2))), item_ndim=None, many=many)
    assert items.many is many
    assert len(items.values) == count


def test_an_array_of_unknown_rank_is_not_guessed() -> None:
    with pytest.raises(BadInput, match="x-gpu-infer-items: one or many"):
        read("application/x-npy", saved(np.zeros((3, 2))), item_ndim=None)
    assert read("application/json", b'{"data": [[1], [2]]}', item_ndim=None).many


@pytest.mark.parametrize(("text", "many"), [("", None), ("one", False), (" Many ", True)])
def test_items_header(text: str, many: bool | None) -> None:
    assert parse_items_header(text) == (many, "")
    assert "takes one or many" in parse_items_header("several")[1]


# --- bytes, images, parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded", "text/plain"])
def test_bodies_without_a_useful_type_are_recognised(content_type: str) -> None:
    assert read(content_type, picture()).values[0] == picture()
    assert read(content_type, saved(np.zeros(3))).values[0].shape == (3,)
    assert read(content_type, b' {"data": [1]}').values[0].tolist() == [1]
    assert read(content_type, b"whatever").values[0] == b"whatever"


def test_an_image_type_wants_an_image() -> None:
    with pytest.raises(BadInput, match="not an image that can be read, although its type is image/jpeg"):
        read("image/jpeg", b"not a picture")


def test_other_types_are_refused() -> None:
    with pytest.raises(UnsupportedContentType, match="'text/html' is not accepted; send image"):
        read("text/html", b"<p>")


def test_parts_are_items_and_name_the_bad_one() -> None:
    items = decode_parts([Part("image/png", picture("PNG")), Part("application/x-npy", saved(np.ones(2)))])
    assert items.many
    assert items.values[0] == picture("PNG")
    with pytest.raises(BadInput) as caught:
        decode_parts([Part("image/png", picture("PNG")), Part("image/png", b"x")])
    assert caught.value.item == 1
    with pytest.raises(BadInput, match="no file part"):
        decode_parts([])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_image_formats(format_: str) -> None:
    array = image_to_array(picture(format_), ImageOptions(8, 4))
    assert array.shape == (4, 8, 3)
    np.testing.assert_allclose(array[0, 0], (200, 100, 50), atol=8)


def tiff_of_12_bits(values: tuple[int, int]) -> bytes:
    """A picture of two grey pixels; Pillow reads such files and does not write them."""
    left, right = values
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    whole = (head + entries + bytes(4)).ljust(122, b"\0")
    return whole + ((left << 12) | right).to_bytes(3, "big")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF of big-endian numbers"])
def test_grey_pictures_of_16_bits(kind: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], ">u2" if "big" in kind else "<u2")
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind[:4].strip())
    for mode, channels in (("L", 1), ("RGB", 3)):
        array = image_to_array(stream.getvalue(), ImageOptions(5, 1, mode=mode))
        assert array.tolist() == [[[value] * channels for value in (0, 0, 1, 128, 255)]]


def test_grey_pictures_of_12_bits() -> None:
    assert np.asarray(decode_image(tiff_of_12_bits((4095, 2048)), "L")).tolist() == [[255, 128]]


def test_pictures_of_16_bits_in_older_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 32768, 65535]], np.int32)).save(stream, "TIFF")
    image = Image.open(stream)
    image.format = "PNG"
    monkeypatch.setattr("gpu_infer.serving.codecs.images._open", lambda _: image)
    assert np.asarray(decode_image(b"", "L")).tolist() == [[0, 128, 255]]


def test_truncated_and_bomb_images_are_refused() -> None:
    with pytest.raises(BadInput, match="cut short"):
        decode_image(picture(size=(300, 300))[:-400])
    huge = bytearray(picture("PNG"))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(BadInput, match=r"pixels|Not an image"):
        decode_image(bytes(huge))


def test_postscript_is_never_run() -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(BadInput, match=r"JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        decode_image(script)
    with pytest.raises(BadInput, match="not an image"):
        read("image/x-eps", script)


def test_an_image_far_larger_than_wanted_is_averaged_down_first() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8)
    array = image_to_array(noise, ImageOptions(100, 50))
    assert array.shape == (50, 100, 3)
    np.testing.assert_allclose(array, 127.5, atol=25)


def test_image_options() -> None:
    array = image_to_array(picture(), ImageOptions(4, 4, layout="nchw", mean=(200, 100, 50), std=(2.0,), crop="center"))
    assert array.shape == (3, 4, 4)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, 0, atol=4)
    pixels = np.full((10, 20, 3), 7, np.uint8)
    np.testing.assert_array_equal(image_to_array(pixels, ImageOptions(5, 5)), np.full((5, 5, 3), 7.0))
    assert image_to_array(pixels, ImageOptions(5, 5, mode="L")).shape == (5, 5, 1)
    with pytest.raises(BadInput, match=r"uint8 \[height, width, 3\]; got float64 \[2\]"):
        image_to_array(np.zeros(2), ImageOptions(5, 5))


# --- results out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([1.5, math.nan, math.inf], np.float32), "[1.5,null,null]"),
        (math.nan, "null"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (np.array(4), "4"),
        (np.array([1, 2], np.float16), "[1.0,2.0]"),
        (np.array([1.5], ml_dtypes.bfloat16), "[1.5]"),
        (ml_dtypes.bfloat16(1.5), "1.5"),
        (np.longdouble(2.5), "2.5"),
        (np.array([[1, 2], [3, 4]])[:, ::-1], "[[2,1],[4,3]]"),
        (np.array(["a", "b"]), '["a","b"]'),
        (np.array([b"a", b"\xff"], object), '["a",{"b64":"/w=="}]'),
        (b"text", '"text"'),
        (1 + 2j, "[1.0,2.0]"),
        ({1: {"x": {2, 1}}}, '{"1":{"x":[1,2]}}'),
        ((1, None, "é"), '[1,null,"é"]'),
        (np.array([], np.float32), "[]"),
    ],
)
def test_json_of_every_value(value: object, text: str) -> None:
    assert to_json(value).decode() == text


def test_a_value_without_json_is_the_hooks_fault() -> None:
    with pytest.raises(ModelFailure, match=r"not JSON serializable: object\. Let postprocess"):
        to_json({"x": object()})


@given(hnp.arrays(hnp.floating_dtypes(endianness="=", sizes=(32, 64)), hnp.array_shapes(max_dims=3)))
def test_json_numbers_survive(array: np.ndarray) -> None:
    result = np.array(json.loads(to_json(array)), dtype=array.dtype)
    expected = np.where(np.isfinite(array), array, np.nan)
    np.testing.assert_array_equal(result, expected)


def test_one_result_has_no_batch_axis_and_many_have() -> None:
    row = np.arange(3, dtype=np.float32)
    body, kind = encode_results([row, row], many=True, accept_npy=True)
    assert kind == "application/x-npy"
    assert npy.decode(body).shape == (2, 3)
    assert npy.decode(encode_results([row], many=False, accept_npy=True)[0]).shape == (3,)
    assert encode_results([row], many=False, accept_npy=False) == (b"[0.0,1.0,2.0]", "application/json")
    assert npy.decode(encode_results([1, 2], many=True, accept_npy=True)[0]).tolist() == [1, 2]
    assert encode_results([], many=True, accept_npy=False)[0] == b"[]"
    assert npy.decode(encode_results([], many=True, accept_npy=True)[0]).shape == (0,)


def test_results_that_are_no_array_come_as_json_whatever_was_asked() -> None:
    for results in ([{"a": 1}], [np.zeros(2), np.zeros(3)], ["x"]):
        assert encode_results(results, many=True, accept_npy=True)[1] == "application/json"


@pytest.mark.parametrize(
    ("accept", "takes"),
    [
        ("", False),
        ("*/*", False),
        ("application/x-npy", True),
        ("application/json, application/x-npy;q=0.5", True),
        ("application/x-npy; q=0", False),
        (";;,,=", False),
    ],
)
def test_accept(accept: str, takes: bool) -> None:
    assert parse_accept(accept) is takes


@given(
    st.sampled_from(["", "application/json", "application/x-npy", "image/png", "application/octet-stream", "x"]),
    st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789.eNnaull -b64dt', max_size=80).map(str.encode),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from([None, True, False]),
)
def test_no_body_does_harm(content_type: str, body: bytes, item_ndim: int | None, many: bool | None) -> None:
    status = 200
    with contextlib.suppress(RequestFailure):
        try:
            decode_body(content_type, body, item_ndim=item_ndim, many=many)
        except RequestFailure as failure:
            status = failure.status
            raise
    assert status in (200, 400, 415)
