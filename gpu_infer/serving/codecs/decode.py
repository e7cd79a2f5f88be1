"""From the bytes of a request to items. An item is ``bytes``, an array, or what JSON held; see ``docs/serving.md``."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
import orjson

from ..failures import BadInput, UnsupportedContentType
from ..narrow import is_array, is_dict, is_list
from . import npy
from .images import check_header, looks_like_image

NPY = "application/x-npy"
JSON = "application/json"
BYTES = "application/octet-stream"
MULTIPART = "multipart/form-data"

_UNDECLARED = ("", "text/plain", "application/x-www-form-urlencoded")
"""What clients send who do not think about it; curl's ``--data-binary`` says it is a form."""

_NO_ARRAY = (ValueError, TypeError, OverflowError, RecursionError)
"""What NumPy raises over lists of which it can make no array."""

_MAX_AXES = 64
"""As many as NumPy has."""

_MAX_RAGGED = 10_000
"""Each such item becomes an array of its own."""


@dataclass(frozen=True)
class Items:
    """The items of one request, and whether the caller meant many (an answer per item) or one."""

    values: Union[Sequence[Any], np.ndarray]
    many: bool


@dataclass(frozen=True)
class Part:
    """One file of a multipart body."""

    content_type: str
    body: bytes


def decode_body(
    content_type: str, body: bytes, *, item_ndim: Optional[int], many: Optional[bool], look: bool = True
) -> Items:
    """Read a body that is not multipart.

    Args:
        content_type: without parameters, lower case.
        body: as received.
        item_ndim: rank of an item, ``None`` where it is not known.
        many: what ``x-gpu-infer-items`` said, ``None`` without it.
        look: whether to look at the header of an image, which takes time: not where it is decoded next.

    Raises:
        BadInput: what the body holds is not what its type says.
        UnsupportedContentType: a type that no item comes in.
    """
    if not body:
        raise BadInput('The body is empty. POST an image, a .npy array or JSON as {"data": [...]}.')
    if content_type in _UNDECLARED:
        content_type = _recognise(body)
    if content_type == JSON or content_type.endswith("+json"):
        return decode_json(body, item_ndim=item_ndim, many=many)
    if content_type == NPY:
        return by_rank(npy.decode(body), item_ndim=item_ndim, many=many)
    if many:
        raise BadInput(f"A body of {content_type} is one item; many come as multipart/form-data, .npy or JSON.")
    return Items([_single(content_type, body, look=look)], many=False)


def decode_parts(parts: Sequence[Part], *, look: bool = True) -> Items:
    """Read the files of a multipart body, one item each; ``look`` as for ``decode_body``."""
    if not parts:
        raise BadInput("The multipart body has no file part. Send one file per item, each with a file name.")
    values: List[Any] = []
    for index, part in enumerate(parts):
        try:
            content_type = part.content_type
            if content_type in _UNDECLARED:
                content_type = _recognise(part.body)
            if content_type == NPY:
                values.append(npy.decode(part.body))
            elif content_type == JSON:
                raise UnsupportedContentType("JSON in a part of a multipart body is not accepted; send it as a body.")
            else:
                values.append(_single(content_type, part.body, look=look))
        except BadInput as failure:
            failure.item = index
            raise
    return Items(values, many=True)


def decode_json(body: bytes, *, item_ndim: Optional[int], many: Optional[bool]) -> Items:
    """Read ``{"data": ...}`` or a bare list."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = " NaN and Infinity are not JSON: send null, or a .npy array." if _has_bare_nan(body) else ""
        raise BadInput(f"The body is not JSON: {error}.{hint}") from error
    quotes = 2 if is_dict(payload) else 0  # those of the key
    if is_dict(payload) and "b64" not in payload:
        if "data" not in payload:
            keys = ", ".join(sorted(str(key)[:40] for key in payload)[:5]) or "none"
            raise BadInput(f'The JSON object has no "data". Send {{"data": [...]}}; its keys are: {keys}.')
        payload = payload["data"]
    # Numbers alone are the rule, and seen without a walk through all of them.
    value = _as_it_is(payload) if body.count(b'"') > quotes and _holds_text(payload) else _numbers(payload)
    if is_array(value):
        return by_rank(value, item_ndim=item_ndim, many=many, outer_list=True)
    if is_list(value) and many is not False:
        return Items(value, many=True)
    if many:
        raise BadInput('x-gpu-infer-items says "many", but "data" is not a list.')
    return Items([value], many=False)


def by_rank(array: np.ndarray, *, item_ndim: Optional[int], many: Optional[bool], outer_list: bool = False) -> Items:
    """Decide by rank whether an array is one item or many.

    Args:
        array: one item, or items along the first axis.
        item_ndim: rank of an item, ``None`` where it is not known.
        many: what the caller said, ``None`` where nothing.
        outer_list: an array that came as a JSON list, whose first axis counts items where nothing else decides.
    """
    if many is None:
        if item_ndim is None:
            if not outer_list:
                raise BadInput(
                    "This service does not know how many axes an item has, so it cannot tell one item from many. "
                    f"Add ITEM_NDIM = {array.ndim} to the preprocess file if this array is one item, {array.ndim - 1} "
                    "if it is many; without such a file deploy with GPU_INFER_ITEM_SHAPE. A request can say it, too: "
                    "with the header x-gpu-infer-items: one or many; in Python a list of arrays is always many."
                )
            many = array.ndim > 0
        elif array.ndim in (item_ndim, item_ndim + 1):
            many = array.ndim == item_ndim + 1
        elif item_ndim == 0:
            raise BadInput(
                "An item of this service is one value, such as the bytes of an encoded image; got an array, "
                f"{array.dtype} {list(array.shape)}. Send the file itself."
            )
        else:
            raise BadInput(
                f"An item has {item_ndim} ax{'i' if item_ndim == 1 else 'e'}s, so a request has {item_ndim} or "
                f"{item_ndim + 1}; got {array.ndim}: "
                f"{array.dtype} {list(array.shape)}."
            )
    if many and array.ndim == 0:
        raise BadInput('x-gpu-infer-items says "many", but the array has no axis.')
    return Items(array, many=True) if many else Items([array], many=False)


def _recognise(body: bytes) -> str:
    """The content type of a body that came without a useful one."""
    if body.startswith(npy.MAGIC):
        return NPY
    if looks_like_image(body):
        return "image/*"
    if body.lstrip()[:1] in (b"{", b"["):
        return JSON
    return BYTES


def _single(content_type: str, body: bytes, *, look: bool) -> bytes:
    if content_type.startswith("image/"):
        if not body:
            raise BadInput("The image is empty.")
        if look:
            check_header(body, content_type)
        return body
    if content_type == BYTES:
        return body
    raise UnsupportedContentType(
        f"Content-Type {content_type[:80]!r} is not accepted; send image/*, {BYTES}, {NPY}, {JSON} or {MULTIPART}."
    )


def _as_it_is(value: Any) -> Any:
    """JSON that holds text: ``{"b64": ...}`` becomes bytes, for one item or each of many; the rest is for a hook.

    No array is made of it: NumPy would pad all texts to the longest, and a small body would fill the memory.
    """
    if is_list(value):
        return [_base64(item) if is_dict(item) and set(item) == {"b64"} else item for item in value]
    return _base64(value) if is_dict(value) and set(value) == {"b64"} else value


def _holds_text(value: Any) -> bool:
    """Whether there is a text or an object anywhere in it."""
    queue: List[Any] = [value]
    while queue:
        element = queue.pop()
        if isinstance(element, (str, dict)):
            return True
        if is_list(element):
            queue.extend(element)
    return False


def _numbers(value: Any) -> Any:
    """JSON without any text, as an array; a list of arrays where the items are of different lengths."""
    try:
        return _array(value)
    except _NO_ARRAY as error:
        if is_list(value) and value and all(isinstance(element, list) for element in value):
            if len(value) > _MAX_RAGGED:
                raise BadInput(f"Up to {_MAX_RAGGED:,} items may differ in length; got {len(value):,}.") from error
            return [_one_of_many(element) for element in value]
        raise BadInput(f"The data is no array of numbers: {str(error).splitlines()[0][:200]}.") from error


def _one_of_many(value: Any) -> np.ndarray:
    try:
        return _array(value)
    except _NO_ARRAY as error:
        raise BadInput(f"An item is no array of numbers: {str(error).splitlines()[0][:200]}.") from error


def _array(value: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        array: np.ndarray = np.array(value)
        # null makes an array of objects: NaN for numbers, refused by the check of the model's dtype otherwise.
        return _with_nulls(value) if array.dtype == object else array


def _with_nulls(value: Any) -> np.ndarray:
    flat: List[Any] = [value]
    for _ in range(_MAX_AXES):
        if not any(isinstance(element, list) for element in flat):
            break
        flat = [inner for element in flat for inner in (element if is_list(element) else [element])]
    if any(not (element is None or isinstance(element, (int, float))) for element in flat):
        raise TypeError("it mixes numbers with text, objects or lists of other lengths")
    return np.array(value, dtype=np.float64)


def _base64(value: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadInput(f'"b64" does not hold base64: {error}.') from error


def _has_bare_nan(body: bytes) -> bool:
    head = body[:1_000_000]
    return b"NaN" in head or b"Infinity" in head


def parse_accept(accept: str) -> bool:
    """Whether the caller takes ``.npy``: named in ``Accept`` with a weight above 0."""
    for choice in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in choice.split(";"))
        if media == NPY:
            return not any(parameter.replace(" ", "") in ("q=0", "q=0.0") for parameter in parameters)
    return False


def parse_items_header(text: str) -> Tuple[Optional[bool], str]:
    """``x-gpu-infer-items``: many or not, ``None`` when absent; and what is wrong with it."""
    choices = {"": None, "one": False, "many": True}
    if text.strip().lower() not in choices:
        return None, f"x-gpu-infer-items is {text[:40]!r}; it takes one or many."
    return choices[text.strip().lower()], ""
