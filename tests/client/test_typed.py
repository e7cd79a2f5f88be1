"""Results as the types that callers want, and inputs checked against what the service tells about itself."""

from __future__ import annotations

import asyncio
import io
import math
import pickle
from dataclasses import dataclass
from typing import Any, Self, assert_type

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpu_infer
from gpu_infer import errors
from gpu_infer.client import (
    AsyncScoringClient,
    ClassScore,
    ClassScores,
    ManyResults,
    ScoreResponse,
    ScoringClient,
    Signature,
)
from gpu_infer.client.results import read_result
from gpu_infer.client.signature import Tensor, array_misfit
from gpu_infer.serving.adapters.base import TensorSpec
from gpu_infer.serving.check import as_model_item
from gpu_infer.serving.codecs.decode import by_rank
from gpu_infer.serving.failures import BadInput

DESCRIPTION: dict[str, Any] = {
    "version": "0.1.0",
    "framework": "onnxruntime",
    "device": "cpu",
    "input": {"name": "x", "dtype": "float32", "shape": [None, 784], "item_ndim": 1},
    "outputs": [{"name": "y", "dtype": "float32", "shape": [None, 3]}],
    "preprocess": "",
    "postprocess": "",
    "labels": ["cat", "lynx", "dog"],
    "settings": {},
}


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# --- scores of classes ------------------------------------------------------------------------------------------------


def test_the_scores_of_one_item_name_the_best_classes():
    scores = ClassScores(np.array([0.1, 0.7, 0.2], np.float32), ("cat", "lynx", "dog"))
    assert (scores.best.label, scores.best.index, scores.best.score) == ("lynx", 1, pytest.approx(0.7))
    assert [one.label for one in scores.top(2)] == ["lynx", "dog"]
    assert len(scores.top(5)) == 3
    assert scores.scores.dtype == np.float32
    assert np.asarray(scores).shape == (3,)
    assert not scores.several
    assert scores, "it is something, though it has no length"


def test_the_scores_of_several_items_are_a_sequence_of_those_of_one():
    scores = ClassScores([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])
    assert len(scores) == 3
    assert [one.best.index for one in scores] == [1, 0, 0], "of equals the first"
    assert scores[-1] == ClassScores([0.5, 0.5])
    assert [one.best.name for one in scores] == ["1", "0", "0"]
    with pytest.raises(IndexError):
        scores[3]
    with pytest.raises(TypeError, match="scores of 3 items: ask each"):
        scores.top()


def test_the_scores_of_one_item_are_no_sequence():
    scores = ClassScores([1, 2])
    for use in (len, iter, lambda one: one[0]):
        with pytest.raises(TypeError, match="the scores of one item"):
            use(scores)
    with pytest.raises(ValueError, match="k is a number from 1, got 0"):
        scores.top(0)


def test_what_is_no_number_is_the_least():
    scores = ClassScores([math.nan, -1.0, None, -math.inf])
    assert [one.index for one in scores.top(4)] == [1, 3, 0, 2]
    assert ClassScores([True, False]).best.index == 0


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (0.5, None, r"\[classes\] or \[N, classes\], these have \[\]"),
        ([[[1.0]]], None, r"these have \[1, 1, 1\]"),
        ([], None, r"these have \[0\]"),
        (["a", "b"], None, "something else than numbers"),
        (["1.5", None], None, "something else than numbers"),
        ([[1.0], [1.0, 2.0]], None, "different lengths"),
        (np.array(["a"]), None, "holds <U1 values"),
        ([1.0, 2.0], ("a",), "1 labels for 2 classes"),
    ],
)
def test_scores_that_are_none_are_refused(values, labels, message):
    with pytest.raises(ValueError, match=message):
        ClassScores(values, labels)


def test_the_scores_are_values_that_nobody_changes():
    given = np.array([0.1, 0.9])
    scores = ClassScores(given, ("a", "b"))
    with pytest.raises(ValueError, match="read-only"):
        scores.scores[0] = 1.0
    given[0] = 0.2
    assert given.flags.writeable, "the caller's own array stays as it is"
    assert scores != ClassScores([0.1, 0.9])
    assert scores != [0.1, 0.9]
    assert pickle.loads(pickle.dumps(scores)) == scores
    with pytest.raises(TypeError, match="unhashable"):
        hash(scores)


def test_a_repr_shows_the_best():
    one = ClassScores([0.1, 0.7, 0.2, 0.0], ("cat", "lynx", "dog", "<b>"))
    assert repr(one) == "ClassScores(4 classes: lynx 0.7, dog 0.2, cat 0.1, ...)"
    assert repr(ClassScores([[0.25, 0.75]])) == "ClassScores(1 item of 2 classes: 1 0.75)"
    assert repr(ClassScores(np.zeros((0, 2)))) == "ClassScores(0 items of 2 classes)"
    assert repr(ClassScores(np.eye(4))) == "ClassScores(4 items of 4 classes: 0 1, 1 1, 2 1, ...)"
    assert "<th style='text-align:left'>lynx</th><td style='text-align:left'>0.7</td>" in one._repr_html_()
    assert "&lt;b&gt;" in one._repr_html_()
    assert "best of 4 items" in ClassScores(np.eye(4))._repr_html_()


# --- what a value is read as ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (np.float32(0.5), float, 0.5),
        (2, float, 2.0),
        (np.int64(7), int, 7),
        ("lynx", str, "lynx"),
        ({"a": 1}, dict, {"a": 1}),
        ({"a": 1}, dict[str, Any], {"a": 1}),
        ([1, "a"], list, [1, "a"]),
        ([1, "a"], list[Any], [1, "a"]),
        (np.array([[1.0]]), list, [[1.0]]),
    ],
)
def test_a_value_is_read_as_a_type_of_pythons(value, kind, expected):
    found: Any = read_result(value, kind)
    assert found == expected
    assert type(found) is type(expected)


def test_lists_of_numbers_are_arrays_too():
    np.testing.assert_array_equal(read_result([[1, None], [2.5, 3]], np.ndarray), [[1, np.nan], [2.5, 3]])
    assert read_result(np.float32(1), np.ndarray).shape == ()
    array = np.zeros(2)
    assert read_result(array, np.ndarray) is array


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (
            {"digit": 7},
            np.ndarray,
            "as ndarray: it is neither an array nor numbers. It is an object with digit",
        ),
        ("text", np.ndarray, "neither an array nor numbers. It is of type str"),
        ([{"a": 1}], np.ndarray, "hold something else than numbers. It is a list of 1"),
        (
            np.zeros((2, 3), np.float32),
            dict,
            r"as dict: it has no named parts. It is an array, float32 \[2, 3\]",
        ),
        (None, list, r"it is no list. It is nothing \(null\)"),
        (np.float32(1.5), int, "it is no whole number. It is a number, float32"),
        (True, int, "it is no number"),
        (np.True_, float, "it is no number"),
        (7, str, "it is no text"),
        ({}, ClassScores, r"it has parts \(\).* It is an empty object"),
        ({"classes": [1], "scores": [0.5]}, ClassScores, r"it has parts \(classes, scores\), not one row of scores"),
        (np.int64(3), ClassScores, r"have the shape \[classes\]"),
    ],
)
def test_another_value_than_the_one_that_is_wanted_is_an_error(value, kind, message):
    with pytest.raises(errors.ScoringError, match=message):
        read_result(value, kind)


@dataclass(frozen=True)
class Digit:
    value: int
    inputs: int

    @classmethod
    def from_answer(cls, value: Any, signature: Signature | None) -> Self:
        return cls(value["digit"], len(signature.inputs) if signature else 0)


def test_a_type_of_the_users_makes_itself_of_the_value():
    assert read_result({"digit": 7}, Digit) == Digit(7, 0)
    assert read_result({"digit": 7}, Digit, Signature.from_description(DESCRIPTION)) == Digit(7, 1)
    with pytest.raises(errors.ScoringError, match="as Digit: KeyError: 'digit'. It is an object with x") as caught:
        read_result({"x": 7}, Digit, request_id="r1", elapsed=0.5)
    assert isinstance(caught.value.__cause__, KeyError)
    assert (caught.value.status, caught.value.request_id, caught.value.elapsed) == (200, "r1", 0.5)


@pytest.mark.parametrize("kind", [bytes, tuple, 7, "ndarray", dict[str, int], [int]])
def test_a_type_that_nothing_is_read_as_is_refused_before_anything_is_sent(make, server, kind):
    with pytest.raises(TypeError, match="a result is read as np.ndarray, ClassScores"):
        make().score([1.0], result=kind)
    assert server.seen == []


# --- through the clients ----------------------------------------------------------------------------------------------


def test_score_reads_the_result_as_what_is_wanted(make, server, steps):
    server.plays(
        steps.answer(200, npy(np.array([0.1, 0.9], np.float32)), content_type="application/x-npy"),
        steps.answer(200, [[0.25, 0.75], [1, 0]]),
        steps.answer(200, {"digit": 7}),
    )
    face = make()
    assert face.score([1.0], result=ClassScores).best == ClassScore(None, 1, float(np.float32(0.9)))
    assert [one.best.index for one in face.score([[1.0], [2.0]], result=ClassScores)] == [1, 0]
    assert face.score([1.0], result=Digit) == Digit(7, 0)


def test_a_response_has_its_value_as_what_is_wanted(make, server, steps):
    server.plays(steps.answer(200, [0.5]))
    response = make().score_response([1.0], result=np.ndarray)
    assert response.value.tolist() == [0.5]
    assert response.request_id == server.seen[0].headers["x-ms-client-request-id"]


def test_an_answer_of_another_type_is_an_error_that_names_the_request(make, server, steps):
    server.plays(steps.answer(200, {"a": 1}))
    with pytest.raises(errors.ScoringError, match=r"cannot be read as ndarray.*\(request [0-9a-f]{32}\)") as caught:
        make().score([1.0], result=np.ndarray)
    assert caught.value.request_id == server.seen[0].headers["x-ms-client-request-id"]
    assert caught.value.status == 200


def test_pyright_knows_the_types(server, steps):
    """What ``assert_type`` says is checked by ``pyright --project tests``; this runs it."""
    server.default = steps.answer(200, [1.5])
    with ScoringClient(server.uri) as client:
        assert_type(client.score([1.0]), Any)
        assert_type(client.score([1.0], result=ClassScores), ClassScores)
        assert_type(client.score([1.0], result=np.ndarray), np.ndarray)
        assert_type(client.score([1.0], result=list[Any]), list[Any])
        assert_type(client.score_response([1.0], result=ClassScores), ScoreResponse[ClassScores])
        assert_type(client.score_response([1.0], result=ClassScores).value.best.label, str | None)
        assert_type(client.score_response([1.0]), ScoreResponse[Any])
        many = client.score_many([[1.0]], result=ClassScores, concurrency=1)
        assert_type(many, ManyResults[ClassScores])
        either = client.score_many([[1.0]], result=ClassScores, on_error="return")
        assert_type(either, ManyResults[ClassScores | errors.ScoringError])
        assert_type(client.score_many([[1.0]], on_error="return"), ManyResults[Any])

    async def main() -> None:
        async with AsyncScoringClient(server.uri) as client:
            assert_type(await client.score([1.0]), Any)
            assert_type(await client.score([1.0], result=ClassScores), ClassScores)
            assert_type(await client.score_response([1.0], result=np.ndarray), ScoreResponse[np.ndarray])

    asyncio.run(main())

    def through_a_service(service: gpu_infer.Service) -> None:
        assert_type(service.score("lynx.jpg"), Any)
        assert_type(service.score("lynx.jpg", result=float), float)
        assert_type(service.score("lynx.jpg", result=Digit), Digit)

    assert callable(through_a_service)


# --- what the service tells -------------------------------------------------------------------------------------------


def describing(steps: Any, **changes: Any) -> Any:
    return steps.answer(200, {**DESCRIPTION, **changes}, steps.ours)


def tensor(dtype: str, *shape: int | None) -> dict[str, Any]:
    return {"name": "x", "dtype": dtype, "shape": [None, *shape], "item_ndim": len(shape)}


def test_a_signature_is_what_a_service_tells():
    signature = Signature.from_description(DESCRIPTION)
    assert (signature.item_shape, signature.dtype, signature.takes_batches) == ((784,), "float32", True)
    assert [str(output) for output in signature.outputs] == ["y: float32 [N, 3]"]
    assert signature.labels == ("cat", "lynx", "dog")


def test_behind_a_hook_the_models_input_says_nothing_about_a_request():
    signature = Signature.from_description({**DESCRIPTION, "preprocess": "divide:255"})
    assert (signature.item_shape, signature.dtype, signature.takes_batches) == (None, None, False)
    assert signature.input.item_shape == (784,)


def test_a_service_without_labels_or_shapes_has_none():
    bare = {"input": {"name": "x", "dtype": "bytes", "shape": None}, "outputs": []}
    signature = Signature.from_description(bare)
    assert (signature.labels, signature.item_shape, signature.takes_batches) == (None, None, False)
    for broken in ({}, {"input": 7, "outputs": []}, {"input": {"name": "x"}, "outputs": []}):
        with pytest.raises(ValueError, match="the description of the service cannot be read"):
            Signature.from_description(broken)


def test_a_service_that_is_ours_is_asked_before_the_first_input(make, server, steps):
    server.describes = describing(steps)
    server.plays(steps.answer(200, [0.1, 0.7, 0.2], steps.ours), steps.answer(200, [0.1, 0.7, 0.2], steps.ours))
    face = make(ours=True)
    for _ in range(2):
        assert face.score(np.zeros(784), result=ClassScores).best.label == "lynx"
    assert len(server.asked) == 1


def test_one_whose_answer_shows_that_it_is_ours_is_asked_then(make, server, steps):
    server.describes = describing(steps)
    server.default = steps.answer(200, [0.1, 0.7, 0.2], steps.ours)
    face = make()
    face.score(np.zeros(784))
    assert server.asked == []
    face.score(np.zeros(784))
    assert len(server.asked) == 1
    face = make()
    assert face.score(np.zeros(784), result=ClassScores).best.label == "lynx", "for labels it is asked at once"
    assert len(server.asked) == 2


def test_a_foreign_service_is_never_asked(make, server, steps):
    server.default = steps.answer(200, [0.1, 0.9])
    face = make()
    for _ in range(3):
        assert face.score(np.zeros((2, 2)), result=ClassScores).best.label is None
    server.default = steps.answer(200, [0.1, 0.9], steps.ours)
    face = make(ours=False)
    for _ in range(3):
        face.score(np.zeros((2, 2)), result=ClassScores)
    assert server.asked == []


def test_a_service_that_does_not_tell_is_asked_three_times_and_no_error(make, server, steps):
    server.default = steps.answer(200, [0.1, 0.9], steps.ours)
    face = make(ours=True)
    for answer in (
        steps.answer(503, {"error": "overloaded"}, {"Retry-After": "1"}),
        steps.raw(b""),
        steps.answer(200, {"input": 7}, steps.ours),
    ):
        server.describes = answer
        assert face.score(np.zeros((2, 2, 2)), result=ClassScores).best.name == "1"
    assert len(server.asked) == 3
    face.score(np.zeros((2, 2, 2)))
    assert len(server.asked) == 3
    assert face.outside.sleeps == [], "the question is not repeated within a call"


def test_the_question_takes_of_the_time_of_the_call(make, server, steps):
    server.default = steps.answer(200, [0.1, 0.9], steps.ours)
    face = make(ours=True)

    def slow(connection: Any, seen: Any) -> bool:
        face.outside.time += 1.5
        return describing(steps)(connection, seen)

    server.describes = slow
    face.score(np.zeros(784), timeout=4)
    assert server.asked[0].headers["x-gpu-infer-timeout-ms"] == "2000"
    assert server.seen[0].headers["x-gpu-infer-timeout-ms"] == "2500"


def test_all_who_begin_together_ask_once(make, server, steps):
    server.describes = describing(steps)
    server.default = steps.answer(200, [0.1, 0.7, 0.2], steps.ours)
    face = make(ours=True)
    face.real_time()
    assert face.at_once(8, np.zeros(784)) == [[0.1, 0.7, 0.2]] * 8
    assert len(server.asked) == 1


def test_an_input_that_does_not_fit_is_refused_before_it_is_sent(make, server, steps):
    server.describes = describing(steps)
    face = make(ours=True)
    with pytest.raises(
        errors.BadInputError,
        match=r"^expected float32 \[784\] or \[N, 784\], got uint8 \[28, 28\]: pass x.reshape\(784\); its values",
    ) as caught:
        face.score(np.zeros((28, 28), np.uint8))
    assert caught.value.attempts == 0
    assert server.seen == []


def test_what_was_told_long_ago_is_asked_for_again_before_an_input_is_refused(make, server, steps):
    server.describes = describing(steps)
    server.default = steps.answer(200, [0.1, 0.7, 0.2], steps.ours)
    face = make(ours=True)
    face.score(np.zeros(784))
    server.describes = describing(steps, input=tensor("float32", 28, 28))
    face.outside.time += 11
    assert face.score(np.zeros((28, 28))) == [0.1, 0.7, 0.2], "another model is served by now"
    with pytest.raises(errors.BadInputError, match=r"expected float32 \[28, 28\]"):
        face.score(np.zeros(784))
    assert len(server.asked) == 2


def test_a_client_is_pickled_with_what_it_was_told_of_its_service(make):
    assert pickle.loads(pickle.dumps(make(ours=True).client))._learner.due


IMAGE = tensor("float32", 3, 224, 224)


@pytest.mark.parametrize(
    ("spec", "x", "message"),
    [
        (tensor("float32", 784), np.zeros((5, 28, 28)), r"got float64 \[5, 28, 28\]: pass x.reshape\(5, 784\)$"),
        (tensor("float32", 784), np.zeros((1, 1, 784)), r": pass x.reshape\(784\)$"),
        (tensor("float32", 784), np.zeros(783), r"got float64 \[783\]$"),
        (
            tensor("float32", None, 2),
            np.zeros((3, 3)),
            r"expected float32 \[any, 2\] or \[N, any, 2\], got float64 \[3, 3\]$",
        ),
        (IMAGE, np.zeros((224, 224, 3)), r"its axes stand in another order, pass x.transpose\(2, 0, 1\)$"),
        (IMAGE, np.zeros((2, 224, 224, 3)), r"pass x.transpose\(0, 3, 1, 2\)$"),
        (tensor("float32", 4, 5, 3), np.zeros((3, 4, 5)), r"pass x.transpose\(1, 2, 0\)$"),
        (tensor("float32", 28, 14), np.zeros((14, 28)), r"got float64 \[14, 28\]$"),
        (
            tensor("int64", 4),
            np.zeros(4),
            r'got float64 \[4\], and that cast would lose values: pass x.astype\("int64"\)',
        ),
        (tensor("float32", 4), np.zeros(4, complex), "that cast would lose values"),
        (tensor("float32", 784), b"\xff\xd8\xff photo", r"got an encoded image: send an array; .* preprocess="),
        (tensor("float32", 784), b"text", "got bytes: send an array"),
        (
            tensor("bytes"),
            np.zeros(4),
            r"expected bytes, such as an encoded image, one for each item, got float64 \[4\]",
        ),
        (tensor("float32", 4), [np.zeros(5), np.zeros(5)], r"^expected float32 \[N, 4\], got float64 \[2, 5\]$"),
    ],
)
def test_what_does_not_fit_is_told_with_a_hint_where_that_is_certain(make, server, steps, spec, x, message):
    server.describes = describing(steps, input=spec)
    with pytest.raises(errors.BadInputError, match=message):
        make(ours=True).score(x)
    assert server.seen == []


@pytest.mark.parametrize(
    ("spec", "x"),
    [
        *(
            (tensor("float32", 4), np.ones((2, 4), dtype))
            for dtype in ("bool", "uint8", "int64", "float64", "float16", ">f4")
        ),
        (tensor("uint8", 4), np.ones(4, np.int64)),
        (tensor("int32", 4), np.ones(4, bool)),
        (tensor("bfloat16", 4), np.ones(4)),
        (tensor("float32", None, 2), np.zeros((9, 2))),
        (tensor("float32", 4), [1, 2, 3, 4]),
        (tensor("float32", 4), np.zeros((0, 7))),
        (tensor("float32", 4), {"data": "whatever"}),
        (tensor("float32", 4), [b"a", np.zeros(3)]),
        (tensor("bytes"), b"\xff\xd8\xff photo"),
        (tensor("bytes"), [b"a", b"b"]),
        ({"name": "x", "dtype": "float32", "shape": None, "item_ndim": None}, np.zeros((2, 3, 4))),
    ],
)
def test_what_the_service_may_take_is_sent(make, server, steps, spec, x):
    server.describes = describing(steps, input=spec)
    server.plays(steps.answer(200, [1], steps.ours))
    assert make(ours=True).score(x) == [1]


def refused_by_the_service(array: np.ndarray, spec: TensorSpec, many: bool | None) -> bool:
    """What ``serving/runtime.py`` does with an array where there is no ``preprocess``."""
    item = spec.item_shape or ()
    try:
        found = by_rank(array, item_ndim=len(item), many=many)
        if not found.many:
            as_model_item(found.values[0], spec)
        elif len(array) and spec.dtype == "bytes":
            for one in array:
                as_model_item(one, spec)
        elif len(array):
            as_model_item(array, TensorSpec(spec.name, spec.dtype, (None, len(array), *item)))
    except BadInput:
        return True
    return False


AXES = st.lists(st.integers(0, 3), max_size=3)
DTYPES = st.sampled_from(["bool", "uint8", "int8", "int64", "uint64", "float16", "float32", "float64", "complex64"])


@given(
    shape=AXES,
    dtype=DTYPES,
    item=st.lists(st.none() | st.integers(1, 3), max_size=2),
    wanted=DTYPES | st.just("bytes"),
    items=st.sampled_from([None, "one", "many"]),
)
def test_nothing_is_refused_that_the_service_would_take(shape, dtype, item, wanted, items):
    item = [] if wanted == "bytes" else item
    array, many = np.zeros(shape, dtype), {None: None, "one": False, "many": True}[items]
    misfit = array_misfit(array.shape, array.dtype, Tensor("x", wanted, (None, *item)), items=items)
    refused = refused_by_the_service(array, TensorSpec("x", wanted, (None, *item)), many)
    assert refused or not misfit
    assert misfit or not refused or 0 in shape, "and what it refuses by shape or dtype is told here"


def test_in_front_of_a_hook_nothing_is_checked(make, server, steps):
    server.describes = describing(steps, preprocess="hooks.py")
    server.default = steps.answer(200, [1], steps.ours)
    face = make(ours=True)
    assert face.score(np.zeros((1, 2, 3))) == [1]
    assert face.score(b"\xff\xd8\xff photo") == [1]


def test_as_many_labels_as_scores_or_an_error(make, server, steps):
    server.describes = describing(steps)
    server.plays(steps.answer(200, [0.5, 0.5], steps.ours))
    with pytest.raises(errors.ScoringError, match="there are 3 labels for 2 classes"):
        make(ours=True).score(np.zeros(784), result=ClassScores)
