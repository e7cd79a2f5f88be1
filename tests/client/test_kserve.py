"""KServe's second protocol with binary tensors: every datatype there and back, hostile answers, and both clients."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpu_infer.client import ScoringClient
from gpu_infer.client.kserve import DATATYPES, decode_tensors, encode_tensors
from gpu_infer.errors import AuthenticationError, BadInputError, OverloadedError, ScoringError

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))
BYTES = arrays.arrays(object, SHAPES, elements=st.binary(max_size=5), fill=st.just(b""))
NAMES = st.text(min_size=1, max_size=5)


def answer_of(outputs: list[tuple[dict[str, Any], bytes | None]]) -> tuple[bytes, str]:
    """An answer as a server writes it: what each output says of itself, and its bytes if they are not in the JSON."""
    described = [
        output if data is None else {**output, "parameters": {"binary_data_size": len(data)}}
        for output, data in outputs
    ]
    head = json.dumps({"model_name": "m", "outputs": described}).encode()
    return head + b"".join(data or b"" for _, data in outputs), str(len(head))


def as_answer(body: bytes, head: int) -> tuple[bytes, str]:
    """What a server would answer that gives every input back."""
    request = json.loads(body[:head])
    text = json.dumps({"outputs": request["inputs"]}).encode()
    return text + body[head:], str(len(text))


@given(st.dictionaries(NAMES, NUMBERS | BYTES, min_size=1, max_size=3))
def test_every_datatype_and_shape_comes_back(tensors):
    found = decode_tensors(*as_answer(*encode_tensors(tensors)))
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        back = found[name]
        assert back.shape == array.shape
        assert back.dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back, array)
        assert back.size == 0 or back.flags.writeable


@given(NUMBERS | BYTES)
def test_what_is_sent_is_what_the_protocol_describes(array):
    body, head = encode_tensors({"x": array})
    said = json.loads(body[:head])
    assert said["parameters"] == {"binary_data_output": True}
    (tensor,) = said["inputs"]
    assert (tensor["name"], tensor["shape"]) == ("x", list(array.shape))
    assert tensor["parameters"]["binary_data_size"] == len(body) - head
    if tensor["datatype"] == "BYTES":
        expected = b"".join(len(value).to_bytes(4, "little") + value for value in array.ravel())
    else:
        assert DATATYPES[tensor["datatype"]] == array.dtype.newbyteorder("<")
        expected = array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert body[head:] == expected


@given(arrays.arrays("<f4", SHAPES))
def test_bf16_is_the_nearest_and_comes_back_as_float32(array):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = array.astype(ml_dtypes.bfloat16)
    expected = nearest.astype(np.float32)
    for tensors, names in (({"x": array}, ["x"]), ({"x": nearest}, [])):
        body, head = encode_tensors(tensors, bf16=names)
        assert json.loads(body[:head])["inputs"][0]["datatype"] == "BF16"
        back = decode_tensors(*as_answer(body, head))["x"]
        assert back.dtype == np.float32
        np.testing.assert_array_equal(back, expected)


def test_text_is_sent_as_its_utf8_and_other_dtypes_are_refused():
    for array in (np.array(["h\u00e9", ""]), np.array(["h\u00e9", b""], object), np.array(["h\u00e9".encode(), b""])):
        assert decode_tensors(*as_answer(*encode_tensors({"x": array})))["x"].tolist() == ["h\u00e9".encode(), b""]
    for array in (
        np.zeros(1, complex),
        np.zeros(1, np.longdouble),
        np.array(["2026-01-01"], "M8[D]"),
        np.zeros(1, "V2"),
    ):
        with pytest.raises(ValueError, match="the protocol has no datatype for"):
            encode_tensors({"x": array})
    with pytest.raises(ValueError, match="text or bytes, this one holds dict"):
        encode_tensors({"x": np.array([{}], object)})


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("FP32", [1.5, None, [2]], [1.5, math.nan, 2.0]),
        ("FP16", [[1], [2], [3]], [1, 2, 3]), ("BF16", [1, 2, 3], [1, 2, 3]),
        ("INT8", [-128, 0, 127], [-128, 0, 127]), ("UINT64", [2**64 - 1, 0, 1], [2**64 - 1, 0, 1]),
        ("BOOL", [True, False, 1], [True, False, True]), ("BYTES", ["a", "\u00e9", ""], [b"a", "\u00e9".encode(), b""]),
    ],
)  # fmt: skip
def test_answers_in_json_alone_are_read(datatype, data, expected):
    output = {"name": "y", "datatype": datatype, "shape": [3], "data": data}
    for head_length in (None, len(json.dumps({"outputs": [output]}))):
        length = None if head_length is None else str(head_length)
        found = decode_tensors(json.dumps({"outputs": [output]}).encode(), length)["y"]
        np.testing.assert_array_equal(found, np.array(expected, found.dtype))


def test_binary_and_json_outputs_may_stand_side_by_side():
    body, head = answer_of(
        [
            ({"name": "a", "datatype": "FP32", "shape": [2]}, np.array([1, 2], "<f4").tobytes()),
            ({"name": "b", "datatype": "INT32", "shape": [1, 1], "data": [7]}, None),
            ({"name": "c", "datatype": "BOOL", "shape": [3]}, b"\x00\x01\x02"),
        ]
    )
    found = decode_tensors(body, head)
    assert {name: array.tolist() for name, array in found.items()} == {
        "a": [1, 2], "b": [[7]], "c": [False, True, True],
    }  # fmt: skip


def one(datatype: Any, shape: Any, data: bytes | None = None, **more: Any) -> tuple[bytes, str | None]:
    return answer_of([({"name": "y", "datatype": datatype, "shape": shape, **more}, data)])


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        (b"", None, "Expecting value"),
        (b"{}", None, 'no list of "outputs"'),
        (b"[1]", None, 'no list of "outputs"'),
        (b'{"outputs": []}', None, 'no list of "outputs"'),
        (b'{"outputs": [1]}', None, "no JSON object"),
        (b'{"outputs": [{"name": 1}]}', None, "no name or no datatype"),
        (b"{}", "3", "Content-Length is '3', and it has 2 bytes"),
        (b"{}", "-1", "Content-Length is '-1'"),
        (b"{}", "9" * 5000, "Content-Length is '9999"),
        (b"{}", "\u0663", "Content-Length is"),
        (*one("FP32", [3], b"12345678"), r"FP32 \[3\], which takes 12 bytes; 8 are there"),
        (*one("FP32", [10**6, 10**6, 10**6], b"1234"), "takes 4,000,000,000,000,000,000 bytes; 4 are there"),
        (*one("FP32", [0, 2**63], b""), "a shape that no array has"),
        (*one("FP32", [1] * 65, b"1234"), "more than 64 axes"),
        (*one("FP32", [-1], b""), "no list of lengths"),
        (*one("FP32", [True], b"1234"), "no list of lengths"),
        (*one("FP32", "3", b""), "no list of lengths"),
        (*one("FP80", [1], b"1"), "unknown datatype 'FP80'"),
        (*one("FP32", [1]), "neither binary_data_size nor data"),
        (*one("FP32", [1], parameters={"binary_data_size": -4}), "no number of bytes"),
        (*one("FP32", [1], parameters={"binary_data_size": "4"}), "no number of bytes"),
        (*one("FP32", [1], parameters={"binary_data_size": 2**70}), "is cut short"),
        (*one("FP32", [10**12], data_is=0, data=None), "neither"),
        (*one("BYTES", [10**15], b"\x00\x00\x00\x00"), "claims 1,000,000,000,000,000 elements of bytes in 4 bytes"),
        (*one("BYTES", [1], b"\xff\xff\xff\xffabc"), "an element of output 'y' is cut short"),
        (*one("BYTES", [1], b"\x00\x00\x00\x00\x01"), "is cut short"),
        (*one("BYTES", [1], b"\x00\x00\x00\x00\x00\x00\x00\x00"), "claims 1 elements, 2 are there"),
    ],
)  # fmt: skip
def test_hostile_answers_say_what_is_wrong(body, head, message):
    with pytest.raises(ValueError, match=message):
        decode_tensors(body, head)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [10**12], [1.0], r"claims \[1000000000000\], and has 1 elements"),
        ("FP32", [1], ["1"], "something else than numbers"),
        ("INT32", [1], [1.5], "holds fractions"),
        ("INT8", [1], [300], "is no INT8"),
        ("INT32", [1], [None], "is no INT32"),
        ("BYTES", [1], [1], "something else than text"),
    ],
)
def test_hostile_numbers_in_json_say_what_is_wrong(datatype, shape, data, message):
    body = json.dumps({"outputs": [{"name": "y", "datatype": datatype, "shape": shape, "data": data}]}).encode()
    with pytest.raises(ValueError, match=message):
        decode_tensors(body, None)


def test_two_outputs_of_one_name_and_bytes_behind_the_last_are_refused():
    output = ({"name": "y", "datatype": "INT8", "shape": [1]}, b"1")
    with pytest.raises(ValueError, match="two outputs 'y'"):
        decode_tensors(*answer_of([output, output]))
    body, head = answer_of([output])
    with pytest.raises(ValueError, match="3 bytes behind its last output"):
        decode_tensors(body + b"abc", head)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("y") | VALUES,
        "datatype": st.sampled_from([*DATATYPES, "BF16", "BYTES"]) | VALUES,
        "shape": st.lists(st.integers(-1, 2**64), max_size=4) | VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | VALUES}) | VALUES,
        "data": VALUES,
    },
)


@given(st.lists(FIELDS | VALUES, max_size=3), st.binary(max_size=20), st.none() | st.integers(-1, 60) | st.just("all"))
def test_no_answer_does_harm(outputs, noise, head):
    text = json.dumps({"outputs": outputs}).encode()
    length = str(len(text)) if head == "all" else None if head is None else str(head)
    for body in (text + noise, noise, text[: len(noise)]):
        try:
            found = decode_tensors(body, length)
        except ValueError:
            continue
        assert sum(array.nbytes for array in found.values()) <= 8 * len(body)


# --- the clients ------------------------------------------------------------------------------------------------------

MODEL = {"name": "m", "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}
INFER = "/v2/models/m/infer"


def scores(array: np.ndarray[Any, Any], steps: Any, name: str = "y") -> Any:
    """The answer with one FP32 output."""
    body, head = answer_of(
        [({"name": name, "datatype": "FP32", "shape": list(array.shape)}, array.astype("<f4").tobytes())]
    )
    return steps.answer(200, body, {"Inference-Header-Content-Length": head}, "application/octet-stream")


@pytest.fixture
def triton(make, server) -> Any:
    """Makes clients for a path of the scripted server."""

    def new(path: str = INFER, **options: Any) -> Any:
        return make(uri=server.uri.removesuffix("/score") + path, codec="kserve", **options)

    return new


def sent(server: Any, index: int = -1) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs of a request, read by the client's own reader."""
    seen = server.seen[index]
    assert (seen.method, seen.headers["content-type"]) == ("POST", "application/octet-stream")
    return decode_tensors(*as_answer(seen.body, int(seen.headers["inference-header-content-length"])))


def test_named_inputs_need_no_question(triton, server, steps):
    server.plays(scores(np.array([[1, 2]]), steps))
    inputs = {"a": np.ones((1, 2), np.float16), "b": [[1, 2]], "c": [[b"x", "y"]], "d": b"\xff\xd8", "e": True}
    found = triton().score(inputs)
    np.testing.assert_array_equal(found, np.array([[1, 2]], np.float32))
    arrived = sent(server)
    assert [(array.dtype, array.shape) for array in arrived.values()] == [
        ("<f2", (1, 2)), ("<i8", (1, 2)), (object, (1, 2)), (object, (1,)), (bool, ()),
    ]  # fmt: skip
    assert arrived["c"].tolist() == [[b"x", b"y"]]
    assert [seen.path for seen in server.seen] == [INFER]
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_several_outputs_are_a_dict(triton, server, steps):
    body, head = answer_of(
        [
            ({"name": "a", "datatype": "INT64", "shape": []}, (7).to_bytes(8, "little")),
            ({"name": "b", "datatype": "BYTES", "shape": [1]}, b"\x02\x00\x00\x00hi"),
        ]
    )
    server.plays(steps.answer(200, body, {"Inference-Header-Content-Length": head}))
    found = triton().score({"X": [1.0]})
    assert (found["a"], type(found["a"]), found["b"].tolist()) == (7, np.int64, [b"hi"])


def test_one_array_asks_once_for_the_name_and_datatype_of_the_input(triton, server, steps):
    server.plays(steps.answer(200, MODEL), *[scores(np.zeros((1, 2)), steps)] * 2, scores(np.zeros((2, 2)), steps))
    face = triton()
    assert face.score([1.0, 2.0, 3.0]).shape == (2,)  # one item: no batch axis, there and back
    assert face.score(np.ones((1, 3))).shape == (1, 2)
    assert face.score([np.ones(3), np.zeros(3)]).shape == (2, 2)
    assert [(seen.method, seen.path) for seen in server.seen] == [("GET", "/v2/models/m"), *[("POST", INFER)] * 3]
    assert [(sent(server, index)["X"].dtype, sent(server, index)["X"].shape) for index in (1, 2, 3)] == [
        ("<f4", (1, 3)), ("<f4", (1, 3)), ("<f4", (2, 3)),
    ]  # fmt: skip


def test_many_items_one_by_one(triton, server, steps):
    server.plays(steps.answer(200, MODEL))
    server.default = scores(np.array([[5.0]]), steps)
    face = triton()
    face.score(np.zeros(3))
    assert [found.tolist() for found in face.score_many(np.eye(3))] == [[5.0]] * 3
    with pytest.raises(BadInputError, match="One item is expected here"):
        list(face.score_many([[np.zeros(3), np.zeros(3)]]))


@pytest.mark.parametrize(
    ("path", "asked", "used"),
    [
        (INFER, [], INFER),
        ("/v2/models/m", [], INFER),
        ("/v2/models/m/versions/2", [], "/v2/models/m/versions/2/infer"),
        ("/prefix/v2/models/m/infer?x=1", [], "/prefix/v2/models/m/infer?x=1"),
        ("/", ["/v2/repository/index"], INFER),
        ("/v2", ["/v2/repository/index"], INFER),
        ("/api/v1/endpoint/e/", ["/api/v1/endpoint/e/v2/repository/index"], "/api/v1/endpoint/e/v2/models/m/infer"),
    ],
)
def test_addresses(triton, server, steps, path, asked, used):
    index = [{"name": "m", "version": "1", "state": "READY"}, {"name": "old", "state": "UNAVAILABLE"}]
    server.plays(*[steps.answer(200, index)] * len(asked), *[scores(np.zeros(1), steps)] * 2)
    face = triton(path)
    for _ in range(2):
        face.score({"X": [1.0]})
    assert [seen.path for seen in server.seen] == [*asked, used, used]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ([], "names no model that is ready"),
        ({}, "names no model that is ready"),
        (
            [{"name": "a"}, {"name": "b"}],
            "has the models a, b. Give the client the address of one model: .../v2/models/NAME/infer",
        ),
    ],
)
def test_a_base_address_needs_a_service_with_one_model(triton, server, steps, reply, message):
    server.plays(steps.answer(200, reply))
    with pytest.raises(ScoringError, match=message):
        triton("/").score({"X": [1.0]})


@pytest.mark.parametrize(
    "model",
    [
        [],
        {},
        {"inputs": 1},
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": [{"name": "X", "datatype": "FP99", "shape": [1]}]},
        {"inputs": [{"name": "X", "datatype": [], "shape": [1]}]},
        {"inputs": [{"name": "X", "datatype": "FP32", "shape": ["a"]}]},
    ],
)
def test_a_description_that_is_none(triton, server, steps, model):
    server.plays(steps.answer(200, model))
    with pytest.raises(ScoringError, match="pass {name: array}"):
        triton().score([1.0])


def test_a_service_that_does_not_list_its_models_needs_the_whole_address(triton, server, steps):
    server.plays(steps.answer(403, {"error": "this API is restricted"}))
    with pytest.raises(AuthenticationError, match="restricted") as caught:
        triton("/").score({"X": [1.0]})
    assert ".../v2/models/NAME/infer" in caught.value.__notes__[0]


def test_a_model_with_several_inputs_names_them(triton, server, steps):
    inputs = [{"name": name, "datatype": "FP32", "shape": [1]} for name in ("left", "right")]
    server.plays(steps.answer(200, {"inputs": inputs}))
    with pytest.raises(
        BadInputError, match="has 2 inputs, so each needs its name: pass a dict of arrays for left, right"
    ):
        triton().score([1.0])


@pytest.mark.parametrize(
    ("datatype", "shape", "x", "expected"),
    [
        ("INT32", [-1], [1, 2], np.array([1, 2], np.int32)),
        ("INT32", ["-1"], [True, False], np.array([1, 0], np.int32)),
        ("BF16", [-1, 2], [1.0, 2.0], np.array([[1, 2]], np.float32)),
        ("FP64", [-1, 1], 3, np.array([[3.0]])),
        ("BYTES", [-1, 1], b"photo", np.array([[b"photo"]], object)),
        ("BYTES", [-1, 1], [b"a", b"b"], np.array([[b"a"], [b"b"]], object)),
        ("BYTES", [-1], Path("photo"), np.array([b"photo"], object)),
        ("FP16", [3, 2], np.ones((3, 2)), np.ones((3, 2), np.float16)),
    ],
)
def test_inputs_take_the_models_form(triton, server, steps, tmp_path, monkeypatch, datatype, shape, x, expected):
    (tmp_path / "photo").write_bytes(b"photo")
    monkeypatch.chdir(tmp_path)
    server.plays(steps.answer(200, {"inputs": [{"name": "X", "datatype": datatype, "shape": shape}]}))
    server.plays(scores(np.zeros(1), steps))
    triton().score(x)
    found = sent(server)["X"]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("datatype", "x", "message"),
    [
        ("INT32", [1.5], "input 'X' takes INT32, this is FP64"),
        ("INT8", [300], "takes INT8, this is INT64 with numbers beyond it"),
        ("UINT8", [-1], "takes UINT8"),
        ("FP32", [b"a"], "takes FP32, this is BYTES"),
        ("BYTES", [1], "takes BYTES, this is INT64"),
        ("FP32", np.ones(1, complex), "takes FP32, this is complex128"),
    ],
)
def test_inputs_that_do_not_fit_the_model(triton, server, steps, datatype, x, message):
    server.plays(steps.answer(200, {"inputs": [{"name": "X", "datatype": datatype, "shape": [-1]}]}))
    with pytest.raises(BadInputError, match=message):
        triton().score(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({}, "a dict of names to arrays"),
        ({1: [1]}, "a dict of names to arrays"),
        ({"X": "photo.jpg"}, "The input 'X': .* neither a path nor a text"),
        ({"X": [[1], [1, 2]]}, "The input 'X': .*ragged"),
        ({"X": np.zeros(1, complex)}, "the protocol has no datatype for complex128"),
        ([], "The list is empty"),
        ([np.zeros(2), np.zeros(3)], "one shape and dtype here"),
        ([np.zeros(2), b"x"], "one shape and dtype here"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent(triton, server, x, message):
    with pytest.raises(BadInputError, match=message):
        triton().score(x)
    assert server.seen == []


def test_a_body_that_is_too_large_is_not_sent(triton, server):
    with pytest.raises(BadInputError, match="max_body= allows 1,000 at most"):
        triton(max_body=1000).score({"X": np.zeros(1000)})
    assert server.seen == []


def test_answers_that_cannot_be_read_and_errors(triton, server, steps):
    short = {"Inference-Header-Content-Length": "1000"}
    server.plays(steps.answer(200, b"{}", short), steps.answer(400, {"error": "unexpected shape for input 'X'"}))
    server.plays(steps.answer(404, {"error": "unknown model: 'm'"}), steps.answer(503, {"error": "queue is full"}))
    face = triton(retries=0)
    with pytest.raises(ScoringError, match="The service answered, but the tensors in the answer cannot be read"):
        face.score({"X": [1.0]})
    with pytest.raises(BadInputError, match="unexpected shape for input 'X'"):
        face.score({"X": [1.0]})
    with pytest.raises(ScoringError, match="unknown model: 'm'"):
        face.score([1.0])
    with pytest.raises(OverloadedError, match="queue is full"):
        face.score({"X": [1.0]})


def test_the_first_call_has_one_deadline_for_all_its_requests(triton, server, steps):
    server.plays(steps.answer(503, {}, {"Retry-After": "4"}), steps.answer(200, MODEL), scores(np.zeros((1, 1)), steps))
    face = triton(timeout=10)
    face.score([1.0, 2.0, 3.0])
    (slept,) = face.outside.sleeps
    assert slept >= 4
    assert [int(seen.headers["x-gpu-infer-timeout-ms"]) for seen in server.seen[1:]] == [1000 * (10 - slept)] * 2


def test_a_packed_answer_is_unpacked_before_it_is_split(triton, server, steps):
    body, head = answer_of([({"name": "y", "datatype": "UINT8", "shape": [2]}, b"\x01\x02")])
    headers = {"Inference-Header-Content-Length": head, "Content-Encoding": "gzip"}
    server.plays(steps.answer(200, gzip.compress(body), headers))
    assert triton().score({"X": [1.0]}).tolist() == [1, 2]


def test_repeated_says_that_it_does_not_speak_it(server):
    with (
        ScoringClient(server.uri, codec="kserve") as client,
        pytest.raises(ValueError, match="repeated\\(\\) has no form for codec='kserve'"),
    ):
        client.repeated(np.zeros(1))
