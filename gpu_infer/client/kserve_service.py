"""A service that speaks KServe's second protocol: its addresses, what its model takes, and how a call goes about it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np

from ..errors import BadInputError, ScoringError
from .arrays import array_of, bad_input, is_array_like, nested_list_to_array
from .codecs import BYTES, JSON
from .inputs import read_items
from .kserve import DATATYPES, HEAD_LENGTH, datatype_of, encode_tensors
from .messages import Outcome, Pause, Payload, Request, ScoreResponse, Send
from .protocol import USER_AGENT, Conversation, new_request_id

__all__ = ["KServe", "Tensors", "kserve_inputs"]

Array: TypeAlias = "np.ndarray[Any, Any]"


class Ask(Protocol):
    """Carries out a request within so many seconds; ``scores`` where it does not only read."""

    def __call__(self, request: Request, *, seconds: float, scores: bool) -> Conversation:
        """The orders to follow, as of any other call."""
        ...


_MODEL_PATH = re.compile(r"(?P<model>.*/v2/models/[^/]+(?:/versions/[^/]+)?)(?:/infer)?/?")

_ADDRESS = "Give the client the address of one model: .../v2/models/NAME/infer"

_SHORTEST = 1e-6
"""Seconds: what is left for a request when nothing is left, so that it ends as any that is out of time."""


@dataclass(frozen=True, slots=True)
class Tensors(Payload):
    """Inputs that are not bytes yet, since their names or datatypes may be the model's to say.

    Attributes:
        named: inputs by name.
        unnamed: the one input of a model with one, ``None`` where they are named.
        many: ``unnamed`` has been put together from a list of items.
    """

    named: Mapping[str, Array] = field(default_factory=dict[str, Array], repr=False)
    unnamed: Array | None = field(default=None, repr=False)
    many: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """What a model says about its only input; -1 in the shape stands for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def kserve_inputs(x: Any, *, one: bool, max_side: int | None) -> Tensors:
    """What :meth:`ScoringClient.score` takes, as arrays.

    Raises:
        BadInputError: nothing that can be sent so.
    """
    if isinstance(x, Mapping):
        inputs = cast("Mapping[Any, Any]", x)
        if not inputs or not all(isinstance(name, str) for name in inputs):
            bad_input("the inputs of a model are a dict of names to arrays")
        return Tensors(BYTES, b"", named={name: _named(value, name) for name, value in inputs.items()})
    items, listed = read_items(x, max_side=max_side)
    arrays = [item if isinstance(item, np.ndarray) else _texts([item]).reshape(()) for item in items]
    if not listed:
        return Tensors(BYTES, b"", unnamed=arrays[0])
    if one:
        bad_input("one item is expected here, this is a list of items; score_many() takes them one by one")
    forms = sorted({f"{array.dtype} {list(array.shape)}" for array in arrays})
    if len(forms) != 1:
        bad_input(f"the items of one request need one shape and dtype here; got {', '.join(forms[:4]) or 'none'}")
    return Tensors(BYTES, b"", unnamed=np.stack(arrays), many=True)


def _named(value: Any, name: str) -> Array:
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            return _texts([bytes(cast("bytes", value))])
        if isinstance(value, str | os.PathLike):
            bad_input("a str is neither a path nor a text here: pass the bytes of the file, or x.encode()")
        if is_array_like(value):
            # bfloat16 and texts in arrays of objects have a form here, and none in .npy.
            kept = str(getattr(value, "dtype", "")) in ("bfloat16", "object")
            return np.asarray(value) if kept else array_of(value)
        if isinstance(value, list | tuple):
            elements: Array = np.array(cast("Any", value), object)
            if elements.size and all(isinstance(element, str | bytes) for element in elements.ravel()):
                return elements
        return nested_list_to_array(cast("Any", value))
    except BadInputError as error:
        bad_input(f"the input {name[:80]!r}: {error}", cause=error.__cause__)


def _texts(values: list[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


class KServe:
    """The addresses of one service, and the model's input once it is known.

    Args:
        uri: ends in ``/v2/models/NAME/infer`` (``/versions/N`` between them, and ``/infer`` at all, may be left out or
            added); any other is taken as the base of a service that has one model.
        check_size: raises :class:`BadInputError` for a body of so many bytes that is too large.
    """

    def __init__(self, uri: str, check_size: Callable[[int], None]) -> None:
        self._parts = urlsplit(uri)
        self._check_size = check_size
        matched = _MODEL_PATH.fullmatch(self._parts.path)
        self._model_path = matched["model"] if matched else ""
        self._input: Input | None = None

    def score(self, payload: Tensors, ask: Ask, left: Callable[[], float]) -> Conversation:
        """Score in as many requests as it takes: which model, which input (both once), and the inputs.

        Args:
            payload: the inputs.
            ask: carries out a request.
            left: seconds until the deadline of the call.

        Raises:
            BadInputError: the model has several inputs, or its input takes something else.
            ScoringError: no result.
        """
        request, added = yield from self.prepare(payload, ask, left)
        response = yield from ask(request, seconds=max(left(), _SHORTEST), scores=True)
        return replace(response, value=_without_axis(response.value)) if added else response

    def prepare(
        self, payload: Tensors, ask: Ask, left: Callable[[], float]
    ) -> Generator[Send | Pause, Outcome | None, tuple[Request, bool]]:
        """The request that scores, and whether an axis of length 1 was put before the input."""
        if not self._model_path:
            index = self._request("/v2/repository/index", base=True, body=b"{}")
            try:
                answer = yield from ask(index, seconds=max(left(), _SHORTEST), scores=False)
            except ScoringError as error:
                error.add_note(f"The service was asked which models it has, since its address names none. {_ADDRESS}")
                raise
            name = quote(_only_model(answer), safe="")
            self._model_path = f"{self._base}/v2/models/{name}"
        tensors, bf16, added = payload.named, (), False
        if payload.unnamed is not None:
            if self._input is None:
                answer = yield from ask(self._request(""), seconds=max(left(), _SHORTEST), scores=False)
                self._input = _only_input(answer)
            array, added = _with_axis(payload.unnamed, self._input.shape, many=payload.many)
            tensors = {self._input.name: _cast(array, self._input)}
            bf16 = (self._input.name,) if self._input.datatype == "BF16" else ()
        try:
            body, head = encode_tensors(tensors, bf16=bf16)
        except ValueError as error:
            bad_input(f"the input cannot be sent: {error}", cause=error)
        self._check_size(len(body))
        return self._request("/infer", body=body, headers={"Content-Type": BYTES, HEAD_LENGTH: str(head)}), added

    @property
    def _base(self) -> str:
        return self._parts.path.rstrip("/").removesuffix("/v2")

    def _request(
        self, path: str, *, base: bool = False, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Request:
        common = {
            "Accept": "*/*" if headers else JSON,
            # Triton packs whatever it may: numbers hardly get smaller, and it costs more time than the wire saves.
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
            "x-ms-client-request-id": new_request_id(),
            **({"Content-Type": JSON} if body else {}),
            **(headers or {}),
        }
        url = urlunsplit(self._parts._replace(path=f"{self._base if base else self._model_path}{path}"))
        return Request("POST" if body else "GET", url, common, body)


def _only_model(answer: ScoreResponse[Any]) -> str:
    listed: Any = answer.value
    models = cast("list[Any]", listed) if isinstance(listed, list) else []
    entries = [cast("dict[str, Any]", model) for model in models if isinstance(model, dict)]
    names = {str(entry.get("name"))[:200] for entry in entries if entry.get("state", "READY") == "READY"}
    if len(names) != 1:
        found = f"has the models {', '.join(sorted(names)[:8])}" if names else "names no model that is ready"
        raise _unusable(answer, f"The service {found}. {_ADDRESS}")
    return names.pop()


def _only_input(answer: ScoreResponse[Any]) -> Input:
    value: Any = answer.value
    listed: Any = cast("dict[str, Any]", value).get("inputs") if isinstance(value, dict) else None
    inputs = cast("list[Any]", listed) if isinstance(listed, list) else []
    found = [_described(entry) for entry in inputs]
    if not found or None in found:
        raise _unusable(answer, "The service describes its model in a form that is not known; pass {name: array}.")
    known = [entry for entry in found if entry is not None]
    if len(known) > 1:
        names = ", ".join(entry.name[:80] for entry in known[:8])
        bad_input(f"the model has {len(known)} inputs, so each needs its name: pass a dict of arrays for {names}")
    return known[0]


def _described(entry: Any) -> Input | None:
    if not isinstance(entry, dict):
        return None
    fields = cast("dict[str, Any]", entry)
    name, datatype, shape = fields.get("name"), fields.get("datatype"), fields.get("shape")
    known = isinstance(name, str) and (
        datatype in ("BF16", "BYTES") or (isinstance(datatype, str) and datatype in DATATYPES)
    )
    if not known or not isinstance(shape, list):
        return None
    # Some servers write lengths as text.
    lengths = [str(axis) for axis in cast("list[Any]", shape)]
    if not all(re.fullmatch(r"-?[0-9]{1,18}", axis) for axis in lengths):
        return None
    return Input(cast("str", name), cast("str", datatype), tuple(int(axis) for axis in lengths))


def _unusable(answer: ScoreResponse[Any], message: str) -> ScoringError:
    return ScoringError(message, status=200, request_id=answer.request_id, elapsed=answer.elapsed)


def _with_axis(array: Array, shape: tuple[int, ...], *, many: bool) -> tuple[Array, bool]:
    """The array with as many axes as the model's input, and whether one was put before it for a single item."""
    missing = len(shape) - array.ndim
    if many and missing > 0:  # items without axes, for a model that gives each one of length 1
        return array.reshape(array.shape + (1,) * missing), False
    if array.ndim == 0 and missing:
        return array.reshape((1,) * missing), True
    if missing == 1 and shape[0] in (-1, 1):
        return array[None], True
    return array, False


def _without_axis(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_axis(output) for name, output in cast("dict[str, Any]", value).items()}
    if not isinstance(value, np.ndarray):
        return value
    array = cast("Array", value)
    return array[0] if array.shape[:1] == (1,) else array


def _cast(array: Array, wanted: Input) -> Array:
    """The array in the model's datatype, as far as that loses no more than digits.

    Raises:
        BadInputError: numbers for text, fractions for whole numbers, or numbers that do not fit.
    """
    try:
        have = datatype_of(array)
    except ValueError:
        have = str(array.dtype)
    if have == wanted.datatype:
        return array
    dtype = np.dtype("<f4") if wanted.datatype == "BF16" else DATATYPES.get(wanted.datatype)
    if dtype is not None and array.dtype.kind in "biuf" and np.can_cast(array.dtype, dtype, "same_kind"):
        with np.errstate(over="ignore"):
            found = array.astype(dtype)
        if dtype.kind == "f" or np.array_equal(found, array):
            return found
        have += " with numbers beyond it"
    return bad_input(f"the model's input {wanted.name[:80]!r} takes {wanted.datatype}, this is {have}")
