"""Whatever is encoded comes back, with orjson and without it; and no bytes of a stranger do harm."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import math
import sys
import uuid
from collections import OrderedDict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpu_infer.client import json_text
from gpu_infer.client.answers import read_value
from gpu_infer.client.codecs import decode_npy, encode_npy
from gpu_infer.client.inputs import encode
from gpu_infer.client.json_text import decode_json, encode_json
from gpu_infer.client.kserve_service import kserve_inputs
from gpu_infer.client.messages import Response
from gpu_infer.client.pictures import scaled_file
from gpu_infer.errors import BadInputError

pytestmark = pytest.mark.filterwarnings("ignore:Stored array in format 3.0")  # NumPy's, over a field's name

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ORDERS = st.sampled_from(["<", ">"])

# --- .npy -------------------------------------------------------------------------------------------------------------

FIELDS = np.dtype([("a", "<f4"), ("\u00e4 \u4e2d", ">i8", (2,))])
NPY_DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?"),
    arrays.complex_number_dtypes(endianness="?"),
    arrays.datetime64_dtypes(endianness="?"),
    arrays.timedelta64_dtypes(endianness="?"),
    arrays.byte_string_dtypes(min_len=1, max_len=5),
    arrays.unicode_string_dtypes(endianness="?", min_len=1, max_len=5),
) | st.sampled_from([np.dtype(np.longdouble), np.dtype("S0"), np.dtype("V3"), FIELDS])


@st.composite
def laid_out(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """An array of any dtype that needs no pickle, in C or Fortran order, with steps, turned round or repeated."""
    dtype, shape = draw(NPY_DTYPES), draw(SHAPES)
    count = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=count, max_size=count))
    array = np.frombuffer(data, dtype).reshape(shape) if count else np.zeros(shape, dtype)
    if dtype.kind == "U":  # not every four bytes are a character
        array = draw(arrays.arrays(dtype, shape))
    match draw(st.sampled_from(["as it is", "F", "transposed", "steps", "reversed", "repeated"])):
        case "F":
            return np.asfortranarray(array)
        case "transposed":
            return array.T
        case "steps":
            return array[..., ::2] if array.ndim else array
        case "reversed":
            return array[::-1] if array.ndim else array
        case "repeated":
            return np.broadcast_to(array, (2, *array.shape))
    return array


@given(laid_out())
def test_npy_of_every_dtype_and_layout_comes_back_byte_for_byte(array):
    body = encode_npy(array)
    for back in (decode_npy(body), np.load(io.BytesIO(body), allow_pickle=False)):
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert back.tobytes() == array.tobytes()
    assert decode_npy(body).flags.writeable


@given(st.binary(max_size=64), st.integers(0, 200), st.integers(0, 3))
def test_a_body_that_was_tampered_with_is_read_or_refused(noise, at, cut):
    good = encode_npy(np.arange(6, dtype=np.float32).reshape(2, 3))
    for body in (good[:at] + noise + good[at + len(noise) :], good[:at] + noise, good[: len(good) - cut]):
        try:
            array = decode_npy(body)
        except ValueError:
            continue
        assert array.nbytes <= len(body)


# --- JSON: with orjson and without it ---------------------------------------------------------------------------------

pytest.importorskip("orjson")


class Colour(enum.Enum):
    RED = "red"
    MUCH = math.inf


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: float = 1.0


class Words(str):
    __slots__ = ()


UNUSUAL: list[Any] = [
    Colour.RED, Colour.MUCH, Level.HIGH, Point(), Words("text"), uuid.UUID(int=7), datetime(2026, 1, 1, tzinfo=UTC),
    OrderedDict(a=1), MappingProxyType({"a": 1}), {1: 2}, {None: 1}, {1.5: 1}, {Level.HIGH: 1}, {b"a": 1}, {1, 2}, 1j,
    object(), "\ud800", 2**63, 2**64, 10**30, -(2**63) - 1, -0.0, 1e300, float("nan"), math.inf, b"\x00",
    bytearray(b"ab"), memoryview(b"ab"), range(3), np.float64(1), np.float64("inf"), np.float16("nan"),
    np.datetime64("2026-01-01"), np.str_("a"), np.bytes_(b"a"), np.bool_(True), np.longdouble(1) / 3, np.array(2.5),
    np.array("a"), np.array([b"a"]),
    np.array([1j]), np.array([{}], object), np.array(["2026-01-01"], "M8[D]"), np.ma.MaskedArray([1.0], [False]),
    np.longdouble("1e4000") if sys.platform == "linux" else 1,
]  # fmt: skip

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=8),
    st.sampled_from(UNUSUAL),
    arrays.arrays(
        st.one_of(
            arrays.boolean_dtypes(),
            arrays.integer_dtypes(endianness="?"),
            arrays.unsigned_integer_dtypes(endianness="?"),
            arrays.floating_dtypes(endianness="?"),
        ),
        SHAPES,
    ),
    laid_out(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def outcome(call: Any, *arguments: Any) -> tuple[str, Any]:
    """The result, or what the error says."""
    try:
        return "result", call(*arguments)
    except ValueError as error:
        return "error", (type(error).__name__, str(error))


def without_orjson(call: Any, *arguments: Any) -> tuple[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_orjson", lambda: None)
        return outcome(call, *arguments)


def alike(one: Any, other: Any, narrow: bool = False) -> bool:
    """Whether two JSON values are the same, types included; numbers as nearly as a float32 can tell, if ``narrow``."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(alike(one[key], other[key], narrow) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(alike(a, b, narrow) for a, b in zip(one, other, strict=True))
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and one != other:
        return (math.isnan(one) and math.isnan(other)) or (
            narrow and math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-7)
        )
    return repr(one) == repr(other) if isinstance(one, float) else one == other


@given(VALUES)
def test_json_is_written_the_same_with_and_without_orjson(value):
    kind, text = outcome(encode_json, value)
    slow_kind, slow_text = without_orjson(encode_json, value)
    assert kind == slow_kind, (text, slow_text)
    if kind == "error":
        assert text == slow_text
        return
    strict = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    # float32 and float16 have fewer digits with orjson; the next test reads them back exactly.
    assert alike(strict, json.loads(slow_text), narrow=True)


@given(arrays.arrays(arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)), SHAPES))
def test_arrays_in_json_come_back_to_the_last_bit(array):
    assume(not np.isinf(array).any())
    for kind, text in (outcome(encode_json, array), without_orjson(encode_json, array)):
        assert kind == "result"
        back = np.array(json.loads(text), dtype="f8").reshape(array.shape).astype(array.dtype)
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4", "uint4"])
def test_dtypes_of_ml_dtypes_are_widened_in_json(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([[1, 2], [3, 4]]).astype(getattr(ml_dtypes, name))
    for kind, text in (outcome(encode_json, array), without_orjson(encode_json, array)):
        assert (kind, json.loads(text)) == ("result", [[1, 2], [3, 4]])


def test_an_array_goes_to_orjson_with_its_memory(monkeypatch):
    monkeypatch.setattr(json_text, "_json_form", lambda value: pytest.fail("the array became a list of numbers"))
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert encode_json({"data": array}) == b'{"data":' + str(array.tolist()).replace(" ", "").encode() + b"}"
    assert json.loads(encode_json({"data": array.T})) == {"data": array.T.tolist()}


def test_an_orjson_that_is_too_old_or_missing_is_not_used(monkeypatch):
    for module in (None, object()):
        json_text._orjson.cache_clear()
        monkeypatch.setitem(sys.modules, "orjson", module)
        assert json_text._orjson() is None
        assert encode_json({"data": np.array([1, 2], "f4")}) == b'{"data":[1.0,2.0]}'
    json_text._orjson.cache_clear()


NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z")
TEXTS = (
    st.text(max_size=20)
    | NUMBERS
    | st.lists(NUMBERS, max_size=4).map(lambda numbers: "[" + ",".join(numbers) + "]")
    | st.sampled_from(
        ["NaN", "[Infinity]", '"\\ud800"', "\ufeff1", '{"a":1,"a":2}', "[" * 2000, "[" * 500 + "]" * 500, "-0"]
    )
)


@given(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=20))
@example(b"18446744073709551616")
@example(b"[-9223372036854775809]")
@example(b"1e400")
def test_json_is_read_the_same_with_and_without_orjson(body):
    kind, value = outcome(decode_json, body)
    slow_kind, slow_value = without_orjson(decode_json, body)
    assert kind == slow_kind
    assert alike(value, slow_value) if kind == "result" else value == slow_value


# --- whole inputs and answers -----------------------------------------------------------------------------------------

CODECS = st.sampled_from([None, "json", "npy", "bytes", "kserve"])


@given(laid_out())
def test_arrays_handed_in_arrive_as_they_were(array):
    assume(array.dtype.kind not in "SU")
    payload = encode(array)
    back = decode_npy(payload.body)
    assert (payload.content_type, back.dtype, back.shape) == ("application/x-npy", array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@given(arrays.arrays(st.sampled_from(["?", "<i2", "<u4", "<f2", "<f4", "<f8"]), SHAPES), st.integers(1, 3))
def test_lists_of_arrays_arrive_stacked(array, count):
    assume(array.ndim)
    payload = encode([array] * count)
    assert payload.items == "many"
    np.testing.assert_array_equal(decode_npy(payload.body), np.stack([array] * count))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=4)
        | st.binary(max_size=8)
        | laid_out(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=5,
    ),
    CODECS,
    st.booleans(),
)
def test_whatever_is_handed_in_is_sent_or_refused(x, codec, one):
    try:
        payload = kserve_inputs(x, one=one, max_side=None) if codec == "kserve" else encode(x, codec, one=one)
    except BadInputError as error:
        assert error.attempts == 0  # noqa: PT017
        return
    assert isinstance(payload.body, bytes)


@given(
    st.binary(max_size=60),
    st.sampled_from(["", "application/json", "application/x-npy", "text/html", "application/octet-stream", "\u00e9"]),
    st.none() | st.text(max_size=5) | st.integers(0, 70).map(str),
    CODECS,
)
def test_no_answer_of_any_type_does_harm(body, content_type, head, codec):
    headers = {"content-type": content_type} | ({} if head is None else {"inference-header-content-length": head})
    for data in (body, b'{"outputs": [' + body, b"\x93NUMPY\x01\x00" + body):
        kind, value = outcome(read_value, Response(200, headers, data), codec)
        assert kind == "result" or len(value[1]) < 1000


@given(st.binary(min_size=1, max_size=30), st.integers(0, 2000), st.booleans(), st.sampled_from(["JPEG", "PNG"]))
def test_a_broken_picture_is_scaled_or_refused(noise, at, cut, kind):
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.new("RGB", (64, 32), (10, 200, 90)).save(stream, kind)
    good = stream.getvalue()
    at = at % len(good)
    broken = good[:at] + noise + (b"" if cut else good[at + len(noise) :])
    try:
        scaled = scaled_file(broken, 16)
    except BadInputError:
        return
    assert scaled == broken or max(image.open(io.BytesIO(scaled)).size) == 16
