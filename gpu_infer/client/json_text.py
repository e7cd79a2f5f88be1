"""JSON to bytes and back: with orjson where it is installed, else with the standard library, to the same effect.

orjson is several times as fast, and writes arrays as they lie in memory. The standard library decides whatever orjson
refuses, so that results and errors do not depend on what is installed.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from importlib import import_module
from typing import Any, cast
from uuid import UUID

import numpy as np

from .codecs import plain_dtype

__all__ = ["decode_json", "encode_json"]

_DIGITS = bytes(ord("0") if ord("0") <= code <= ord("9") else code for code in range(256))
"""For ``bytes.translate``: every digit becomes a zero."""

_MANY_DIGITS = b"0" * 19
"""Integers of 19 digits and more may need more than 64 bits; orjson would read those as floats, and lose digits."""


@lru_cache(maxsize=1)
def _orjson() -> Any:
    """The module, imported on first use; ``None`` where it is missing, or older than 3.9 and without ``Fragment``."""
    try:
        module = import_module("orjson")
    except ImportError:
        return None
    return module if hasattr(module, "Fragment") else None


def encode_json(value: Any) -> bytes:
    """Write JSON: arrays as lists, NumPy scalars as numbers, bytes as ``{"b64": ...}``, NaN as ``null``.

    With orjson, float32 and float16 are written with the few digits that tell them apart, without it with those of the
    float64 of the same value: read back into the array's dtype, both are the same.

    Raises:
        ValueError: infinities, complex numbers, or objects that JSON has no form for.
    """
    orjson = _orjson()
    if orjson is None:
        return _encode_slowly(value)
    try:
        # Dates and dataclasses, for which orjson has forms of its own, are refused as without it.
        options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
        text: bytes = orjson.dumps(value, default=_fast_form, option=options)
        if b"null" in text:
            # NaN and infinity are both written so; only now: looking for them would cost those who have none.
            _refuse_infinity(value)
    except (TypeError, RecursionError):
        return _encode_slowly(value)
    return text


def _encode_slowly(value: Any) -> bytes:
    """Write JSON with the standard library, which takes keys that are numbers and integers of any size, too."""
    try:
        try:
            text = json.dumps(value, default=_json_form, allow_nan=False, separators=(",", ":"))
        except ValueError:
            # Only now: looking for NaN in every list would cost those who have none.
            text = json.dumps(_without_nan(value), default=_json_form, allow_nan=False, separators=(",", ":"))
    except RecursionError as error:
        raise ValueError("it contains itself, or is nested too deeply for JSON") from error
    except TypeError as error:
        raise ValueError(f"JSON has no form for it: {error}") from error
    return text.encode()


def _fast_form(value: Any) -> Any:
    """What orjson does not know by itself; arrays go to it with their memory, not as lists of numbers."""
    if isinstance(value, np.ndarray):
        array = plain_dtype(cast("np.ndarray[Any, Any]", value))
        if array.ndim and array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
            orjson = _orjson()
            return orjson.Fragment(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))
    return _json_form(value)


def _json_form(value: Any) -> Any:
    """The nearest thing that JSON has a form for.

    Raises:
        TypeError: there is none.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b64": base64.b64encode(cast("bytes", value)).decode("ascii")}
    if isinstance(value, np.generic | np.ndarray):
        array = _narrow(value)
        if array.dtype.kind in "biufSU":
            return array.tolist()
        raise TypeError(f"arrays of dtype {array.dtype}")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"objects of type {type(value).__name__}")


def _narrow(value: Any) -> np.ndarray[Any, Any]:
    """An array without longdouble, which has no Python number: tolist() would hand it back as it is, for ever."""
    array = plain_dtype(np.asarray(value))
    if array.dtype.kind != "f" or array.dtype.itemsize <= 8:
        return array
    with np.errstate(all="ignore"):
        return array.astype(np.float64)


_INFINITY = "infinity is not JSON; send an array as .npy instead"


def _refuse_infinity(value: Any) -> None:
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(_INFINITY)
    elif isinstance(value, np.generic | np.ndarray):
        array = _narrow(value)
        if array.dtype.kind == "f" and np.isinf(array).any():
            raise ValueError(_INFINITY)
    elif isinstance(value, Mapping):
        for inner in cast("Mapping[Any, Any]", value).values():
            _refuse_infinity(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[Any]", value):
            _refuse_infinity(inner)
    elif isinstance(value, Enum):
        _refuse_infinity(value.value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        number = float(cast("float", value))
        if math.isinf(number):
            raise ValueError(_INFINITY)
        return None if math.isnan(number) else number
    if isinstance(value, np.ndarray):
        return _without_nan(_json_form(value))
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in cast("Sequence[Any]", value)]
    return _without_nan(value.value) if isinstance(value, Enum) else value


def decode_json(body: bytes | str) -> Any:
    """Read JSON; the bare words ``NaN`` and ``Infinity`` of foreign services are read as floats.

    Raises:
        ValueError: no JSON, or no text.
    """
    orjson = _orjson()
    if orjson is not None and isinstance(body, bytes) and _MANY_DIGITS not in body.translate(_DIGITS):
        try:
            return orjson.loads(body)
        except ValueError:
            pass  # it may be JSON to the standard library, which else says what is wrong
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
