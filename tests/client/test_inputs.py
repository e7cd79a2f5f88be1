"""Every kind of input: what is sent for it, and what is said when it cannot be."""

from __future__ import annotations

import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_infer.client.inputs import encode, encodes_at_once
from gpu_infer.client.messages import Payload
from gpu_infer.errors import BadInputError

Image = pytest.importorskip("PIL.Image")

JPEG = b"\xff\xd8\xff\xe0 photo"
PNG = b"\x89PNG\r\n\x1a\n photo"


def array_in(payload: Payload) -> np.ndarray[Any, Any]:
    assert payload.content_type == "application/x-npy"
    return np.load(io.BytesIO(payload.body), allow_pickle=False)


def parts_in(payload: Payload) -> list[tuple[str, bytes]]:
    content_type, _, boundary = payload.content_type.partition("; boundary=")
    assert content_type == "multipart/form-data"
    pieces = payload.body.split(b"--" + boundary.encode())
    assert (pieces[0], pieces[-1]) == (b"", b"--\r\n")
    found = []
    for index, piece in enumerate(pieces[1:-1]):
        head, _, body = piece.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[1] == f'Content-Disposition: form-data; name="item"; filename="{index}"'
        found.append((lines[2].removeprefix("Content-Type: "), body.removesuffix(b"\r\n")))
    return found


def refusal(x: Any, codec: Any = None, *, one: bool = False) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        encode(x, codec, one=one)
    assert caught.value.attempts == 0
    return caught.value


class Owner:
    """Something of another library that turns itself into an array."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.ndim = getattr(array, "ndim", 1)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


# --- bytes, files, paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO])
@pytest.mark.parametrize(
    ("data", "content_type"), [(JPEG, "image/jpeg"), (PNG, "image/png"), (b"anything", "application/octet-stream")]
)
def test_bytes_and_files_by_their_first_bytes(wrap, data, content_type):
    assert encode(wrap(data)) == Payload(content_type, data)


def test_npy_bytes_are_an_array():
    stream = io.BytesIO()
    np.save(stream, np.arange(3))
    assert encode(stream.getvalue()) == Payload("application/x-npy", stream.getvalue())
    assert encode(b"\x93NUMPY is a word") == Payload("application/octet-stream", b"\x93NUMPY is a word")


def test_pickles_are_not_sent_even_as_bytes(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object))
    assert str(refusal(stream.getvalue())) == "The .npy data holds pickled Python objects, which are never sent"
    path = tmp_path / "x.npy"
    path.write_bytes(stream.getvalue())
    assert "pickled Python objects" in str(refusal(path))


@pytest.mark.parametrize("as_path", [str, Path, os.fspath])
def test_paths_are_read(tmp_path, as_path):
    photo = tmp_path / "photo"
    photo.write_bytes(JPEG)
    assert encode(as_path(photo)) == Payload("image/jpeg", JPEG)


def test_npy_files_are_loaded_and_json_files_sent_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    (tmp_path / "x.JSON").write_text('{"data": [1]}')
    assert array_in(encode(tmp_path / "x.npy")).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert encode(tmp_path / "x.JSON") == Payload("application/json", b'{"data": [1]}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lynx.jpg", "There is no file 'lynx.jpg'. A str is a path; for text pass bytes: x.encode()"),
        ("", "There is no file ''|a folder"),
        ('{"data": [1]}', "for JSON pass the object: json.loads(x)"),
        ("https://example.com/lynx.jpg", "a URL is not fetched: pass the bytes"),
        ("nul\0nul", "There is no file"),
        ("x" * 5000, "'...xxx"),
    ],
)
def test_a_text_that_is_no_path(text, message):
    found = str(refusal(text))
    assert any(part in found for part in message.split("|")), found
    assert len(found) < 250


def test_files_that_cannot_be_sent(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "bad.npy").write_bytes(b"no array")
    (tmp_path / "bad.json").write_text("{'single': 1}")
    assert str(refusal(tmp_path)).endswith("is a folder; pass one file, or score_many() over its files")
    assert str(refusal(tmp_path / "empty")).endswith("empty' is empty")
    assert "bad.npy' cannot be sent as an array: it does not begin as .npy data does" in str(
        refusal(tmp_path / "bad.npy")
    )
    assert "bad.json' is not JSON: " in str(refusal(tmp_path / "bad.json"))


def test_a_file_that_may_not_be_read(monkeypatch):
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert str(refusal("locked")) == "The file 'locked' may not be read: Permission denied"


def test_files_opened_the_wrong_way(tmp_path):
    assert str(refusal(io.StringIO("text"))) == 'The file was opened as text; open it with "rb"'
    used = io.BytesIO(b"x")
    used.read()
    assert "nothing left to read" in str(refusal(used))
    assert "there are no bytes in it" in str(refusal(b"")).lower()


# --- images -----------------------------------------------------------------------------------------------------------


def photo(form: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(("form", "content_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
def test_an_untouched_image_is_sent_as_the_file_it_was(form, content_type):
    original = photo(form)
    with Image.open(io.BytesIO(original)) as image:
        assert encode(image) == Payload(content_type, original)
        assert encode(image) == Payload(content_type, original), "reading it leaves it as it was"
        image.load()
        assert encode(image).content_type == "image/png", "pixels in memory may have been changed"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixels_arrive_as_they_are(mode):
    image = Image.new(mode, (5, 4), 1)
    payload = encode(image)
    assert payload.content_type == "image/png"
    with Image.open(io.BytesIO(payload.body)) as back:
        np.testing.assert_array_equal(np.asarray(back.convert(mode)), np.asarray(image))


@pytest.mark.parametrize(("mode", "becomes"), [("CMYK", "RGB"), ("YCbCr", "RGB"), ("RGBa", "RGBA"), ("HSV", "RGB")])
def test_other_ways_to_write_colours_become_rgb(mode, becomes):
    image = Image.new(mode, (5, 4))
    with Image.open(io.BytesIO(encode(image).body)) as back:
        assert back.mode == becomes
        np.testing.assert_array_equal(np.asarray(back), np.asarray(image.convert(becomes)))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_images_that_png_would_spoil_are_refused(mode):
    assert str(refusal(Image.new(mode, (2, 2)))) == (
        f"An image of mode '{mode}' has no lossless form as PNG; pass np.asarray(image)"
    )


def test_an_image_that_cannot_be_decoded_is_refused():
    with Image.open(io.BytesIO(photo("BMP")[:60])) as image:
        assert str(refusal(image)).startswith("The image cannot be read: ")


def test_as_npy_an_image_is_its_pixels():
    assert array_in(encode(Image.new("RGB", (5, 4)), "npy")).shape == (4, 5, 3)


def test_pillow_is_not_needed(monkeypatch):
    monkeypatch.delitem(sys.modules, "PIL.Image")
    assert encode(b"x").body == b"x"


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.float32(1.5),
        np.array(3),
        np.zeros((0, 4)),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([np.nan, np.inf, -0.0]),
        np.array([True, False]),
        np.array([1j]),
        np.arange(10)[::3],
        np.ma.array([1, 2], mask=[False, False]),
    ],
)
def test_arrays_travel_as_they_are(array):
    payload = encode(array)
    back = array_in(payload)
    np.testing.assert_array_equal(back, np.asarray(array))
    assert back.dtype == array.dtype
    assert payload.items is None, "the rank decides on the server"
    assert encode(array, one=True).items == "one"


@pytest.mark.parametrize("number", [3, 2.5, True, 1 + 2j])
def test_a_number_is_an_array_without_axes(number):
    assert array_in(encode(number)) == number
    assert array_in(encode(number)).shape == ()


def test_masked_values_are_not_dropped_silently():
    message = "The array has masked values, which cannot be sent; fill them first: x.filled(...)"
    assert str(refusal(np.ma.array([1, 2], mask=[True, False]))) == message


def test_text_goes_as_json_and_bytes_as_items():
    payload = encode(np.array([["a", "ü"]]))
    assert (payload.content_type, json.loads(payload.body)) == ("application/json", {"data": [["a", "ü"]]})
    for array in (np.array([JPEG, b"x"]), np.array([JPEG, b"x"], dtype=object)):
        assert parts_in(encode(array)) == [("image/jpeg", JPEG), ("application/octet-stream", b"x")]
    assert encode(np.array(b"x")) == encode(np.bytes_(b"x")) == Payload("application/octet-stream", b"x")
    assert "an array of bytes has one axis, this one has the shape [1, 1]" in str(refusal(np.array([[b"x"]]))).lower()


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 2 only")
def test_text_of_any_length_goes_as_json():
    array = np.array(["a", "longer"], dtype=np.dtypes.StringDType())  # pyright: ignore[reportAttributeAccessIssue]
    assert json.loads(encode(array).body) == {"data": ["a", "longer"]}


def test_objects_are_refused():
    assert str(refusal(np.array([1, "a", None], dtype=object))) == (
        "numpy.ndarray has dtype object (found: NoneType, int, str); only numbers, text and bytes can be sent. "
        "Choose the columns with numbers, or convert: x.astype('float32')"
    )


def test_whatever_turns_itself_into_an_array():
    assert array_in(encode(Owner(np.arange(3)))).tolist() == [0, 1, 2]
    error = refusal(Owner(RuntimeError("not now\nlater")))
    assert str(error).endswith("Owner cannot be turned into an array: not now")
    assert isinstance(error.__cause__, RuntimeError)


def test_bfloat16_is_widened():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    back = array_in(encode(np.array([0.5, 2], dtype=ml_dtypes.bfloat16)))
    assert (back.dtype, back.tolist()) == (np.float32, [0.5, 2.0])


def test_torch_tensors_are_detached():
    torch = pytest.importorskip("torch")
    assert array_in(encode(torch.ones(2, requires_grad=True) * 3)).tolist() == [3, 3]
    back = array_in(encode(torch.tensor([0.5, 2], dtype=torch.bfloat16)))
    assert (back.dtype, back.tolist()) == (np.float32, [0.5, 2.0])
    assert array_in(encode([torch.zeros(2), torch.ones(2, requires_grad=True)])).tolist() == [[0, 0], [1, 1]]
    assert array_in(encode([torch.tensor(1.0), torch.tensor(2.0)])).tolist() == [1, 2]
    assert array_in(encode(torch.tensor([1j]).conj())).tolist() == [-1j]


# --- nested lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "dtype", "shape"),
    [
        ([1, 2, 3], "int64", (3,)),
        ([1, 2.5], "float64", (2,)),
        ((True, False), "bool", (2,)),
        ([[1, 2], (3, 4)], "int64", (2, 2)),
        (range(4), "int64", (4,)),
        ([range(2), range(2)], "int64", (2, 2)),
        ([[[]]], "float64", (1, 1, 0)),
        ([np.float32(1), np.float32(2)], "float32", (2,)),
        ([[np.zeros(2), np.zeros(2)]], "float64", (1, 2, 2)),
        ([float("nan"), 1], "float64", (2,)),
    ],
)
def test_nested_lists_of_numbers_are_one_array(x, dtype, shape):
    payload = encode(x)
    assert (array_in(payload).dtype, array_in(payload).shape) == (dtype, shape)
    assert payload.items is None


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1, 2], [3]], "The nested list is ragged: element 1 has length 1, element 0 has length 2."),
        ([[1, 2], 3], "The nested list is ragged: element 1 is no list, element 0 is a list of length 2."),
        ([[[1, 2], [3, 4]], [[1, 2], [3]]], "inside element 1, element 1 has length 1, element 0 has length 2"),
        ([[1, "a"]], "A nested list holds numbers only (found: int, str)"),
        ([[b"a"]], "A nested list holds numbers only (found: bytes)"),
        ([[1, None]], "(found: NoneType, int); write float('nan') for None"),
        ([[2**70]], "The nested list holds integers of more than 64 bits"),
        ([1, "a"], "A list holds numbers or items, this one mixes them: element 0 is a number, element 1 is str"),
        ([b"a", 1], "element 1 is a number, element 0 is bytes"),
        ([1.5, None], "element 1 is NoneType; write float('nan') for None"),
        ([], "The list is empty: there is nothing to score"),
        ([[Owner(OSError("gone"))]], "The nested list cannot be turned into an array: gone"),
    ],
)
def test_lists_that_are_no_array_say_why(x, message):
    assert message in str(refusal(x))


# --- lists of items ---------------------------------------------------------------------------------------------------


def test_arrays_of_one_form_are_stacked():
    payload = encode([np.zeros(3), np.ones(3)])
    assert payload.items == "many"
    assert array_in(payload).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert array_in(encode([np.zeros(3)])).shape == (1, 3), "a list of one is many"


def test_items_of_different_forms_are_parts(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    np.save(tmp_path / "x.npy", np.arange(2))
    parts = parts_in(
        encode(
            [
                JPEG,
                tmp_path / "photo.jpg",
                io.BytesIO(PNG),
                Image.new("L", (2, 2)),
                tmp_path / "x.npy",
                [1.5],
                bytearray(b"x"),
            ]
        )
    )
    assert [content_type for content_type, _ in parts] == [
        "image/jpeg", "image/jpeg", "image/png", "image/png", "application/x-npy", "application/x-npy",
        "application/octet-stream",
    ]  # fmt: skip
    assert [body for _, body in parts[:3]] == [JPEG, JPEG, PNG]
    assert np.load(io.BytesIO(parts[5][1])).tolist() == [1.5]
    assert [kind for kind, _ in parts_in(encode([np.zeros(2), np.zeros(3)]))] == ["application/x-npy"] * 2
    assert [kind for kind, _ in parts_in(encode([np.zeros(2), np.zeros(2, "f4")]))] == ["application/x-npy"] * 2
    assert parts_in(encode([b"only"])) == [("application/octet-stream", b"only")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("no.jpg", "Item 1: There is no file 'no.jpg'"),
        (b"", "Item 1: There are no bytes in it"),
        ({"data": [1]}, 'Item 1: A dict cannot stand in a list of items; send JSON as one dict: {"data": [...]}'),
        (None, "Item 1: NoneType cannot be sent; score() takes bytes, a path"),
        ([[1], [2, 3]], "Item 1: The nested list is ragged"),
        (np.array(["text"]), "Item 1: An array of text or bytes cannot stand in a list of items; pass it alone"),
    ],
)
def test_the_bad_item_of_a_list_is_named(bad, message):
    error = refusal([b"good", bad])
    assert str(error).startswith(message)
    assert error.item == 1


def test_a_json_file_is_no_item_of_a_list(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    assert "is a whole request and cannot stand in a list" in str(refusal([b"x", tmp_path / "x.json"]))


def test_one_item_is_no_list():
    message = "One item is expected here, this is a list of items; score_many() takes them one by one"
    for x in ([b"a"], [np.zeros(2)], np.array([b"a"])):
        assert str(refusal(x, one=True)) == message
    assert encode([1.0, 2.0], one=True).items == "one"
    assert encode(b"x", one=True).items is None, "bytes are always one"


# --- dicts and the rest -----------------------------------------------------------------------------------------------


def test_a_dict_is_json_as_it_is():
    payload = encode({"data": np.eye(2), "method": "predict"}, one=True)
    assert payload == Payload("application/json", b'{"data":[[1.0,0.0],[0.0,1.0]],"method":"predict"}')
    assert (
        str(refusal({"a": {1}})) == "The input cannot be written as JSON: JSON has no form for it: objects of type set"
    )


@pytest.mark.parametrize("x", [None, {1}, object(), types.SimpleNamespace()])
def test_what_nobody_can_send(x):
    assert "cannot be sent; score() takes bytes, a path, a binary file, a PIL image" in str(refusal(x))


def test_iterators_are_for_score_many():
    assert str(refusal(iter([b"x"]))) == "score() takes one request; score_many() goes through an iterator"


# --- codecs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "body"),
    [
        (np.array([[1, 2]]), {"data": [[1, 2]]}),
        ([[1.5, float("nan")]], {"data": [[1.5, None]]}),
        ({"inputs": [1]}, {"inputs": [1]}),
        (b"\x00", {"data": {"b64": "AA=="}}),
        ([b"\x00", b"\x01"], {"data": [{"b64": "AA=="}, {"b64": "AQ=="}]}),
        ([np.zeros(1), np.zeros(2)], {"data": [[0.0], [0.0, 0.0]]}),
        (np.array(["a"]), {"data": ["a"]}),
        (2, {"data": 2}),
    ],
)
def test_as_json(x, body):
    payload = encode(x, "json")
    assert payload.content_type == "application/json"
    assert json.loads(payload.body) == body


def test_what_json_cannot_carry_is_refused():
    assert "infinity is not JSON" in str(refusal([float("inf")], "json"))
    assert "arrays of dtype complex128" in str(refusal(np.array([1j]), "json"))


def test_as_npy():
    assert array_in(encode([[1, 2]], "npy")).tolist() == [[1, 2]]
    assert array_in(encode(np.array(["a"]), "npy")).tolist() == ["a"]
    assert encode([np.zeros(2), np.zeros(2)], "npy").items == "many"
    assert str(refusal(JPEG, "npy")) == 'bytes cannot be sent with codec="npy"; pass an array'
    assert str(refusal({"a": 1}, "npy")) == 'JSON cannot be sent with codec="npy"'
    message = 'codec="npy" sends one array, so all items need one shape and dtype; got float64 [2], float64 [3]'
    assert str(refusal([np.zeros(2), np.zeros(3)], "npy")) == message


def test_as_bytes(tmp_path):
    (tmp_path / "x.json").write_text("no json")
    assert encode(JPEG, "bytes") == Payload("application/octet-stream", JPEG)
    assert encode(tmp_path / "x.json", "bytes") == Payload("application/octet-stream", b"no json")
    assert parts_in(encode([JPEG, b"x"], "bytes")) == [
        ("application/octet-stream", JPEG),
        ("application/octet-stream", b"x"),
    ]
    assert "pass x.tobytes()" in str(refusal(np.zeros(2), "bytes"))
    assert "arrays cannot be sent" in str(refusal([np.zeros(2)], "bytes"))


def test_what_is_encoded_without_leaving_the_event_loop():
    assert encodes_at_once(b"x")
    assert encodes_at_once(np.zeros(2))
    assert not encodes_at_once("path.jpg")
    assert not encodes_at_once([b"x"])
