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

import gpu_infer
from gpu_infer import errors
from gpu_infer.client import AsyncScoringClient, ClassScore, ClassScores, ScoreResponse, ScoringClient, Signature
from gpu_infer.client.results import read_result

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
