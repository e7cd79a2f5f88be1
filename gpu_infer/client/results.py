"""What a result is read as: :func:`read_result` checks a value against the type that the caller wants."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn, Protocol, Self, TypeVar, cast, runtime_checkable

import numpy as np

from ..errors import ScoringError
from ..notebook import html_table
from .messages import ScoreResponse
from .signature import Signature

__all__ = [
    "ClassScore",
    "ClassScores",
    "FromAnswer",
    "Readable",
    "check_result",
    "read_response",
    "read_result",
    "uses_signature",
]

_SHOWN = 3
"""Classes, or items, that a repr names."""

_SHOWN_HTML = 10
"""The same in a notebook."""


@runtime_checkable
class FromAnswer(Protocol):
    """A type that makes itself of an answer; any class with this one method can stand in ``result=``.

    Example:
        >>> @dataclass(frozen=True)
        ... class Digit:
        ...     value: int
        ...
        ...     @classmethod
        ...     def from_answer(cls, value, signature):
        ...         return cls(int(value["digit"]))
    """

    @classmethod
    def from_answer(cls, value: Any, signature: Signature | None) -> Self:
        """Make one of what the service answered.

        Args:
            value: the result as ``score()`` returns it without ``result=``.
            signature: inputs, outputs, hooks and labels of the service; ``None`` where it does not tell.

        Raises:
            ValueError: the answer is none of these; it becomes a :class:`ScoringError` with the same text.
        """
        ...


Readable = TypeVar(
    "Readable", bound="np.ndarray[Any, Any] | dict[str, Any] | list[Any] | float | int | str | FromAnswer"
)
"""What can stand in ``result=``."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class with its score.

    Attributes:
        label: its name, ``None`` where the service has no labels.
        index: its place among the classes.
        score: as the service gave it; a probability only where the model or a hook makes one.
    """

    label: str | None
    index: int
    score: float

    @property
    def name(self) -> str:
        """The label, or the index as text."""
        return str(self.index) if self.label is None else self.label


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class ClassScores:
    """The scores of a classifier, of one item or of several.

    Those of several items are a sequence: ``len()``, indexing and iteration give the scores of one item each.

    Args:
        scores: ``[classes]`` for one item, ``[N, classes]`` for N; numbers, kept in a dtype of floats, else made
            float64. Held read-only.
        labels: one per class, ``None`` without.

    Raises:
        ValueError: another shape, no numbers, or another number of labels than of classes.

    Example:
        >>> scores = ClassScores([0.1, 0.7, 0.2], ("cat", "lynx", "dog"))
        >>> scores.best.label
        'lynx'
        >>> [one.index for one in scores.top(2)]
        [1, 2]
    """

    scores: np.ndarray[Any, np.dtype[np.floating[Any]]]
    labels: tuple[str, ...] | None

    def __init__(self, scores: np.ndarray[Any, Any] | Sequence[Any], labels: Sequence[str] | None = None) -> None:
        scores = _floats(scores)
        if scores.ndim not in (1, 2) or scores.shape[-1] == 0:
            msg = f"scores of classes have the shape [classes] or [N, classes], these have {list(scores.shape)}"
            raise ValueError(msg)
        labels = None if labels is None else tuple(labels)
        if labels is not None and len(labels) != scores.shape[-1]:
            msg = f"there are {len(labels):,} labels for {scores.shape[-1]:,} classes"
            raise ValueError(msg)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", labels)

    @classmethod
    def from_answer(cls, value: Any, signature: Signature | None) -> Self:
        """The scores in an answer: an array, or lists of numbers; with the service's labels where it has some.

        Raises:
            ValueError: the answer is no row of scores per item.
        """
        if isinstance(value, dict):
            names = ", ".join(map(str, cast("dict[str, Any]", value)))
            return _no(f"it has parts ({names}), not one row of scores per item; result=dict gives them")
        return cls(value, None if signature is None else signature.labels)

    @property
    def several(self) -> bool:
        """Whether these are of several items (or of a batch of one)."""
        return self.scores.ndim == 2

    @property
    def best(self) -> ClassScore:
        """The class with the largest score, of one item; see :meth:`top`.

        Raises:
            TypeError: these are of several items.
        """
        return self.top(1)[0]

    def top(self, k: int = 5) -> list[ClassScore]:
        """The ``k`` classes with the largest scores, the largest first, of one item; NaN counts as the smallest.

        Args:
            k: how many; all classes where there are fewer.

        Raises:
            TypeError: these are of several items: ask each, as in ``[one.top() for one in scores]``.
            ValueError: ``k`` is below 1.
        """
        if self.several:
            msg = f"These are the scores of {len(self)} items: ask each of them, as in [one.top() for one in scores]."
            raise TypeError(msg)
        if k < 1:
            msg = f"k is a number from 1, got {k!r}."
            raise ValueError(msg)
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [
            ClassScore(self.labels[at] if self.labels else None, at, float(self.scores[at]))
            for at in cast("list[int]", order.tolist())
        ]

    def __len__(self) -> int:
        self._must_be_several()
        return len(self.scores)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> Self:
        self._must_be_several()
        return type(self)(self.scores[int(index)], self.labels)

    def __iter__(self) -> Iterator[Self]:
        self._must_be_several()
        return (type(self)(row, self.labels) for row in self.scores)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array(self.scores, dtype=dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassScores):
            return NotImplemented
        return self.labels == other.labels and np.array_equal(self.scores, other.scores, equal_nan=True)

    __hash__: ClassVar[None] = None  # pyright: ignore[reportIncompatibleMethodOverride] - as of arrays

    def __repr__(self) -> str:
        classes = f"{self.scores.shape[-1]:,} classes"
        if not self.several:
            shown = ", ".join(f"{one.name} {one.score:.3g}" for one in self.top(_SHOWN))
            return f"ClassScores({classes}: {shown}{_more(self.scores.shape[0], _SHOWN)})"
        best = ", ".join(f"{one.best.name} {one.best.score:.3g}" for one in (self[at] for at in self._first(_SHOWN)))
        items = f"{len(self)} item{'' if len(self) == 1 else 's'} of {classes}"
        return f"ClassScores({items}{': ' + best if best else ''}{_more(len(self), _SHOWN)})"

    def _repr_html_(self) -> str:
        if not self.several:
            return html_table("scores", [(one.name, f"{one.score:.4g}") for one in self.top(_SHOWN_HTML)])
        best = [(at, self[at].best) for at in self._first(_SHOWN_HTML)]
        caption = f"best of {len(self)} items"
        return html_table(caption, [(str(at), f"{one.name} ({one.score:.4g})") for at, one in best])

    def _first(self, most: int) -> range:
        return range(min(len(self), most))

    def _must_be_several(self) -> None:
        if not self.several:
            msg = (
                "These are the scores of one item: .best, .top() and .scores have them; only several items are counted."
            )
            raise TypeError(msg)


def check_result(result: object) -> None:
    """Check what a caller wants results read as, before anything is sent.

    Raises:
        TypeError: a type that results cannot be read as.
    """
    if result is None or (isinstance(result, Hashable) and result in _PLAIN):
        return
    if isinstance(result, type) and callable(_maker_of(result)):
        return
    msg = (
        f"result={getattr(result, '__name__', result)!s}: a result is read as np.ndarray, ClassScores, dict, list, "
        "float, int, str, or a class of yours with a classmethod from_answer(value, signature)."
    )
    raise TypeError(msg)


def uses_signature(result: object) -> bool:
    """Whether reading a result as this type looks at what the service tells about itself."""
    return result is not None and callable(_maker_of(result))


def read_result(
    value: Any,
    result: type[Readable],
    signature: Signature | None = None,
    *,
    request_id: str = "",
    elapsed: float = 0.0,
) -> Readable:
    """The value of an answer as the type that the caller wants.

    Args:
        value: of one request, as ``score()`` returns it without ``result=``.
        result: ``np.ndarray``, ``ClassScores``, ``dict``, ``list``, ``float``, ``int``, ``str``, or a class with
            ``from_answer``.
        signature: of the service, ``None`` where it does not tell.
        request_id: of the request, for the error.
        elapsed: seconds that it took, for the error.

    Raises:
        ScoringError: the answer is something else; it says what.
        TypeError: a type that results cannot be read as.
    """
    check_result(result)
    make = _maker_of(result)
    trouble: Exception | None = None
    try:
        return make(value, signature) if callable(make) else _PLAIN[result](value)
    except ScoringError:
        raise
    except Exception as error:  # noqa: BLE001  (a class of the user's may raise anything over an unexpected answer)
        trouble = error
    said = str(trouble) if isinstance(trouble, ValueError) else f"{type(trouble).__name__}: {trouble}"
    message = f"The answer cannot be read as {result.__name__}: {said.rstrip('.')}. It is {_described(value)}."
    tail = f" (request {request_id})" if request_id else ""
    raise ScoringError(message + tail, status=200, request_id=request_id, elapsed=elapsed) from trouble


def read_response(
    response: ScoreResponse[Any], result: type[Readable] | None, signature: Signature | None
) -> ScoreResponse[Any]:
    """A response with its value as the type that the caller wants; as it is where that is ``None``.

    Raises:
        ScoringError: the answer is something else.
    """
    if result is None:
        return response
    request_id, elapsed = response.request_id, response.elapsed
    return replace(
        response, value=read_result(response.value, result, signature, request_id=request_id, elapsed=elapsed)
    )


def _maker_of(result: object) -> Callable[[Any, Signature | None], Any] | None:
    return getattr(result, "from_answer", None)


def _no(what: str) -> NoReturn:
    raise ValueError(what)


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    """An array as it is; a number of NumPy without its axis; JSON's lists of numbers, with NaN for null."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(cast("Any", value))
    if not isinstance(value, list | int | float):
        return _no("it is neither an array nor numbers")
    try:
        array = np.asarray(value)
        if array.dtype == object and not any(isinstance(leaf, str) for leaf in array.ravel()):
            array = np.asarray(value, dtype=np.float64)  # None becomes NaN; anything else raises
    except (ValueError, TypeError, OverflowError):
        return _no("its lists have different lengths, or hold something else than numbers")
    return array if array.dtype.kind in "biuf" else _no("it holds something else than numbers")


def _floats(value: Any) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """A read-only view of scores as floats."""
    array = _as_array(list(cast("Sequence[Any]", value)) if isinstance(value, tuple) else value)
    if array.dtype.kind not in "biuf":
        return _no(f"it holds {array.dtype} values, and no numbers to compare")
    floats = (array if array.dtype.kind == "f" else array.astype(np.float64)).view()
    floats.flags.writeable = False
    return floats


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray) and value.ndim:
        return cast("np.ndarray[Any, Any]", value).tolist()
    return cast("list[Any]", value) if isinstance(value, list) else _no("it is no list")


def _as_dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else _no("it has no named parts")


def _number(value: Any) -> Any:
    """A number of Python's; booleans are none."""
    plain = cast("Any", value).item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, int | float) and not isinstance(plain, bool) else _no("it is no number")


def _as_float(value: Any) -> float:
    return float(_number(value))


def _as_int(value: Any) -> int:
    number = _number(value)
    return number if isinstance(number, int) else _no("it is no whole number")


def _as_str(value: Any) -> str:
    return value if isinstance(value, str) else _no("it is no text")


_PLAIN: dict[object, Callable[[Any], Any]] = {
    np.ndarray: _as_array,
    dict: _as_dict,
    dict[str, Any]: _as_dict,
    list: _as_list,
    list[Any]: _as_list,
    float: _as_float,
    int: _as_int,
    str: _as_str,
}


def _described(value: Any) -> str:
    """In a few words, what an answer is; never its text, which may be anything."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(cast("Any", value))
        return f"an array, {array.dtype} {list(array.shape)}" if array.ndim else f"a number, {array.dtype}"
    if isinstance(value, dict):
        names = [str(name)[:40] for name in cast("dict[Any, Any]", value)][:5]
        return f"an object with {', '.join(names)}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(cast('list[Any]', value)):,}"
    return "nothing (null)" if value is None else f"of type {type(value).__name__}"


def _more(count: int, shown: int) -> str:
    return ", ..." if count > shown else ""
