"""What users hand in, to what is sent: :func:`encode` looks at the type of the input and at the codec.

Files are read here; nothing else of the outside world is touched.
"""

from __future__ import annotations

import io
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from ..errors import BadInputError
from .arrays import array_of, bad_input, bytes_of_array, holds_numbers, is_array_like, is_number, nested_list_to_array
from .codecs import (
    BYTES,
    JSON,
    NPY,
    NPY_MAGIC,
    decode_npy,
    encode_npy,
    image_type,
    multipart,
    npy_dtype,
)
from .json_text import decode_json, encode_json
from .messages import Codec, Payload
from .pictures import scaled_file, scaled_picture

__all__ = ["encode", "encode_items", "encodes_at_once", "is_picture", "read_items"]

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Modes of Pillow that PNG keeps without loss."""

_TO_RGB_MODES = frozenset({"CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La", "PA"})
"""Other ways to write the colours that RGB or RGBA has, which PNG cannot hold."""

_PNG_LEVEL = 1
"""zlib's fastest: still lossless, and higher levels cost more time here than they save on the wire."""

_SHOWN_PATH = 80
"""Characters of a path that a message repeats."""

ACCEPTED = (
    "bytes, a path, a binary file, a PIL image, an array or anything with __array__, nested lists of numbers, "
    "a list of items, or a dict as JSON"
)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are one item."""

    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """JSON text, sent as it is."""

    text: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """How things are to be sent: see :func:`encode`."""

    codec: Codec | None
    max_side: int | None


Item: TypeAlias = "Blob | Document | np.ndarray[Any, Any]"


def encode(x: Any, codec: Codec | None = None, *, one: bool = False, max_side: int | None = None) -> Payload:
    """Encode the input of one request.

    Args:
        x: what :meth:`ScoringClient.score` takes.
        codec: ``None`` chooses by the type of ``x``; the others force one form.
        one: ``x`` is one item, whatever its rank; a list of items is an error then.
        max_side: pixels to which the longer side of a larger picture is scaled down, ``None`` to send all as they are.

    Raises:
        BadInputError: nothing that can be sent; says why and what can.
        MissingDependencyError: a picture is to be scaled, and Pillow is not installed.
    """
    form = Form(codec, max_side)
    items = _items_of(x, form)
    if items is None:
        item = _item_of(x, form)
        listed = bytes_of_array(item) if isinstance(item, np.ndarray) else None
        if listed is None:
            return _encode_one(item, codec, one=one)
        blobs: list[Item] = [_blob(data, form) for data in listed]
        if cast("np.ndarray[Any, Any]", item).ndim == 0:
            return _encode_one(blobs[0], codec, one=one)
        items = blobs
    if one:
        bad_input("one item is expected here, this is a list of items; score_many() takes them one by one")
    if not items:
        bad_input("the list is empty: there is nothing to score")
    return _encode_many(items, codec)


def encode_items(items: Sequence[Any], codec: Codec | None = None, *, max_side: int | None = None) -> Payload:
    """Encode several items for one request; each is one item, whatever its rank.

    Raises:
        BadInputError: nothing that can be sent; ``item`` says which of them is at fault.
    """
    form = Form(codec, max_side)
    return _encode_many([_listed_item(item, index, form) for index, item in enumerate(items)], codec)


def read_items(x: Any, *, max_side: int | None = None) -> tuple[list[bytes | np.ndarray[Any, Any]], bool]:
    """The items of an input, arrays and bytes, and whether it was a list of them; images of Pillow become arrays.

    Args:
        x: what :meth:`ScoringClient.score` takes, a ``dict`` excepted.
        max_side: as for :func:`encode`.

    Raises:
        BadInputError: nothing that can be sent so.
    """
    form = Form("npy", max_side)
    items = _items_of(x, form)
    found = [_item_of(x, form)] if items is None else items
    if not found:
        bad_input("the list is empty: there is nothing to score")
    if any(isinstance(item, Document) for item in found):
        bad_input("JSON cannot be sent as a tensor; pass arrays, or a dict of names to arrays")
    return [item.data if isinstance(item, Blob) else cast("Any", item) for item in found], items is not None


def encodes_at_once(x: object) -> bool:
    """Whether encoding ``x`` is quick: it is in memory already, and neither read from a file nor compressed."""
    return isinstance(x, bytes | bytearray | memoryview | np.ndarray | np.generic | int | float | complex)


def _items_of(x: Any, form: Form) -> list[Item] | None:
    """The items of a list of items; ``None`` when ``x`` is one item, nested lists of numbers included."""
    if isinstance(x, range):
        x = list(x)
    if not isinstance(x, list | tuple):
        return None
    elements = cast("Sequence[Any]", x)
    if not elements:
        return []
    if holds_numbers(elements):
        return None
    if any(map(is_number, elements)):
        _refuse_mixture(elements)
    return [_listed_item(element, index, form) for index, element in enumerate(elements)]


def _refuse_mixture(elements: Sequence[Any]) -> NoReturn:
    number = next(index for index, element in enumerate(elements) if is_number(element))
    other = next(i for i, x in enumerate(elements) if not is_number(x) and not isinstance(x, list | tuple | range))
    hint = "; write float('nan') for None" if elements[other] is None else ""
    bad_input(
        f"a list holds numbers or items, this one mixes them: element {number} is a number, "
        f"element {other} is {type(elements[other]).__name__}{hint}"
    )


def _listed_item(element: Any, index: int, form: Form) -> Item:
    if isinstance(element, Mapping):
        bad_input('a dict cannot stand in a list of items; send JSON as one dict: {"data": [...]}', item=index)
    try:
        found = _item_of(element, form)
    except BadInputError as error:
        if error.item is None:
            bad_input(str(error), item=index, cause=error.__cause__)
        raise
    if isinstance(found, Document):
        bad_input("a .json file is a whole request and cannot stand in a list of items", item=index)
    if isinstance(found, np.ndarray) and found.dtype.kind in "SUO":
        if found.ndim == 0 and found.dtype.kind != "U":
            return _blob(bytes(found.item()), form)
        bad_input("an array of text or bytes cannot stand in a list of items; pass it alone", item=index)
    return found


def _item_of(x: Any, form: Form) -> Item:
    for matches, read in _READERS:
        if matches(x):
            return read(x, form)
    if hasattr(x, "__next__") or hasattr(x, "__anext__"):
        return bad_input("score() takes one request; score_many() goes through an iterator")
    return bad_input(f"{type(x).__name__} cannot be sent; score() takes {ACCEPTED}")


def _blob(data: bytes, form: Form) -> Blob:
    """Bytes with the type that their first bytes show.

    Raises:
        BadInputError: nothing in it, or pickled objects in a ``.npy`` array.
    """
    if not data:
        bad_input("there are no bytes in it")
    if form.max_side is not None:
        data = scaled_file(data, form.max_side)
    if form.codec == "bytes":
        return Blob(BYTES, data)
    if data.startswith(NPY_MAGIC):
        dtype = npy_dtype(data)
        if dtype is not None and dtype.hasobject:
            bad_input("the .npy data holds pickled Python objects, which are never sent")
        return Blob(NPY if dtype is not None else BYTES, data)
    return Blob(image_type(data) or BYTES, data)


def _read_path(path: str | os.PathLike[str], form: Form) -> Item:
    text = os.fsdecode(path)
    shown = repr(text if len(text) <= _SHOWN_PATH else "..." + text[-_SHOWN_PATH:])
    try:
        data = Path(text).read_bytes()
    except IsADirectoryError as error:
        bad_input(f"{shown} is a folder; pass one file, or score_many() over its files", cause=error)
    except PermissionError as error:
        bad_input(f"the file {shown} may not be read: {error.strerror}", cause=error)
    except (OSError, ValueError) as error:  # ValueError: a NUL in what was never meant as a path
        bad_input(f"there is no file {shown}. A str is a path{_instead_of_path(text)}", cause=error)
    if not data:
        bad_input(f"the file {shown} is empty")
    suffix = Path(text).suffix.lower()
    if suffix == ".npy" and form.codec != "bytes":
        try:
            return array_of(decode_npy(data))
        except ValueError as error:
            bad_input(f"the file {shown} cannot be sent as an array: {error}", cause=error)
    if suffix == ".json" and form.codec != "bytes":
        try:
            decode_json(data)
        except ValueError as error:
            bad_input(f"the file {shown} is not JSON: {error}", cause=error)
        return Document(data)
    return _blob(data, form)


def _instead_of_path(text: str) -> str:
    start = text.lstrip()[:1]
    if text.lower().startswith(("http://", "https://")):
        return "; a URL is not fetched: pass the bytes"
    if start in ("{", "["):
        return "; for JSON pass the object: json.loads(x)"
    return "; for text pass bytes: x.encode()"


def _read_file(file: Any, form: Form) -> Blob:
    try:
        data = file.read()
    except Exception as error:  # noqa: BLE001  (foreign code, which may raise anything; of a closed file a ValueError)
        bad_input(f"the file cannot be read: {error}", cause=error)
    if isinstance(data, str):
        bad_input('the file was opened as text; open it with "rb"')
    if not isinstance(data, bytes | bytearray | memoryview):
        bad_input(f"read() of {type(file).__name__} gave {type(data).__name__}, not bytes")
    content = bytes(cast("bytes", data))
    if not content:
        bad_input("the file has nothing left to read; it is empty, or was read before: file.seek(0)")
    return _blob(content, form)


def is_picture(x: object) -> bool:
    """Whether it is a PIL image. Who has one has imported Pillow, so that it need not be imported here."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(x, pillow.Image)


def _picture_blob(image: Any, form: Form) -> Blob:
    original = _original_file(image)
    if original is not None:
        return _blob(original, form)
    if form.max_side is not None:
        image = scaled_picture(image, form.max_side)
    if image.mode in _TO_RGB_MODES:
        image = image.convert("RGBA" if image.mode in ("RGBa", "La", "PA") else "RGB")
    elif image.mode not in _PNG_MODES:
        bad_input(f"an image of mode {image.mode!r} has no lossless form as PNG; pass np.asarray(image)")
    stream = io.BytesIO()
    try:
        image.save(stream, "PNG", compress_level=_PNG_LEVEL)
    except Exception as error:  # noqa: BLE001  (an image is decoded here, and Pillow's decoders raise nearly anything)
        bad_input(f"the image cannot be read: {error}", cause=error)
    return _blob(stream.getvalue(), form)


def _original_file(image: Any) -> bytes | None:
    """The file that the image was opened from, while its pixels are still untouched; ``None`` afterwards.

    Pillow reads pixels when they are first used. ``tile`` lists what is still to be read: as long as there is some,
    nobody can have changed a pixel, and the file is smaller and exact.
    """
    file = getattr(image, "fp", None)
    if getattr(image, "format", None) not in ("JPEG", "PNG") or not getattr(image, "tile", None) or file is None:
        return None
    try:
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
    except (OSError, ValueError):  # closed, or not seekable: the pixels are encoded anew
        return None
    return data if image_type(data) is not None else None


def _read_picture(image: Any, form: Form) -> Item:
    if form.codec != "npy":
        return _picture_blob(image, form)
    return array_of(image if form.max_side is None else scaled_picture(image, form.max_side))


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, types)


_READERS: Sequence[tuple[Callable[[Any], bool], Callable[[Any, Form], Item]]] = (
    (_is(bytes, bytearray, memoryview), lambda x, form: _blob(bytes(x), form)),
    (_is(str, os.PathLike), _read_path),
    (_is(Mapping), lambda x, _: Document(_json(x))),
    (_is(list, tuple), lambda x, _: nested_list_to_array(x)),
    (_is(range), lambda x, _: nested_list_to_array(list(x))),
    (is_picture, _read_picture),
    (is_array_like, lambda x, _: array_of(x)),
    (_is(int, float, complex), lambda x, _: nested_list_to_array(x)),
    (lambda x: callable(getattr(x, "read", None)), _read_file),
)
"""Who reads what; the first that matches. Arrays come before numbers, since some NumPy scalars are both."""


def _json(value: Any) -> bytes:
    try:
        return encode_json(value)
    except ValueError as error:
        bad_input(f"the input cannot be written as JSON: {error}", cause=error)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    try:
        return encode_npy(array)
    except ValueError as error:
        bad_input(f"the array cannot be sent: {error}", cause=error)


def _encode_one(item: Item, codec: Codec | None, *, one: bool) -> Payload:
    count = "one" if one else None
    if isinstance(item, Document):
        if codec in ("npy", "bytes"):
            bad_input(f'JSON cannot be sent with codec="{codec}"')
        return Payload(JSON, item.text)
    if isinstance(item, Blob):
        if codec == "json":
            return Payload(JSON, _json({"data": item.data}), count)
        if codec == "npy" and item.content_type != NPY:
            bad_input('bytes cannot be sent with codec="npy"; pass an array')
        return Payload(item.content_type, item.data, count if item.content_type == NPY else None)
    if codec == "bytes":
        bad_input('an array cannot be sent with codec="bytes"; pass x.tobytes() in the form the service takes')
    if codec == "json" or (codec is None and item.dtype.kind == "U"):
        return Payload(JSON, _json({"data": item}), count)
    return Payload(NPY, _npy(item), count)


def _encode_many(items: Sequence[Item], codec: Codec | None) -> Payload:
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if codec == "json":
        values = [item.data if isinstance(item, Blob) else item for item in items]
        return Payload(JSON, _json({"data": values}), "many")
    if len(arrays) == len(items) and len({(array.shape, array.dtype) for array in arrays}) == 1:
        if codec == "bytes":
            bad_input('arrays cannot be sent with codec="bytes"')
        return Payload(NPY, _npy(np.stack(arrays)), "many")
    if codec == "npy":
        forms = sorted({f"{array.dtype} {list(array.shape)}" for array in arrays} or {"no array"})
        bad_input(f'codec="npy" sends one array, so all items need one shape and dtype; got {", ".join(forms[:4])}')
    return multipart([_encode_one(item, codec, one=False) for item in items], uuid.uuid4().hex)
