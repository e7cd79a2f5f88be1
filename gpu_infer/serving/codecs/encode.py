"""From results to the bytes of an answer; see ``docs/serving.md`` for what becomes of each value."""

from __future__ import annotations

import base64
from typing import Any, List, Optional, Sequence, Set, Tuple, Union, cast

import numpy as np
import orjson

from ..failures import ModelFailure
from ..narrow import is_array
from . import npy
from .decode import JSON, NPY

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def encode_results(results: Union[Sequence[Any], np.ndarray], *, many: bool, accept_npy: bool) -> Tuple[bytes, str]:
    """Encode the results of a request.

    Args:
        results: one per item, as a list or an array.
        many: whether the answer has an entry per item, or is the one result.
        accept_npy: whether the caller takes ``.npy``.

    Returns:
        body and content type.

    Raises:
        ModelFailure: a result (of the user's ``postprocess``) that no codec can write.
    """
    if accept_npy:
        array = _as_array(results) if many else _as_array(results[:1])
        if array is not None:
            return npy.encode(array if many else array[0]), NPY
    return to_json(results if many else results[0]), JSON


def to_json(value: Any) -> bytes:
    """JSON of nearly anything: NaN becomes null, NumPy values become numbers, bytes text or ``{"b64": ...}``."""
    try:
        return orjson.dumps(value, default=_fallback, option=_OPTIONS)
    except TypeError as error:
        raise ModelFailure(
            f"The result cannot be written as JSON: {error}. Let postprocess return plain values."
        ) from error


def _fallback(value: Any) -> Any:
    """What orjson does not know itself."""
    if isinstance(value, np.generic):
        # bfloat16 (kind V) and long doubles have no Python type of their own: item() would return them as they are.
        scalar = cast("Any", value)
        value = float(scalar) if scalar.dtype.kind in "Vf" else scalar.item()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode("ascii")}
    if is_array(value):
        if value.dtype.kind == "V" and value.dtype.names is None:  # bfloat16 and its kin from ml_dtypes
            value = value.astype(np.float32)
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(cast("Set[Any]", value))
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise TypeError(f"a value of type {type(value).__name__}")


def _as_array(results: Union[Sequence[Any], np.ndarray]) -> Optional[np.ndarray]:
    """One array of all results, ``None`` where they are not numbers of one shape."""
    if is_array(results):
        return results if results.dtype.kind in "biufcV" else None
    rows: List[np.ndarray] = []
    for result in results:
        if not isinstance(result, (np.ndarray, np.generic, bool, int, float)):
            return None
        row = np.asarray(result)
        numeric = row.dtype.kind in "biufc" or (row.dtype.kind == "V" and row.dtype.names is None)
        if not numeric or (rows and (row.shape != rows[0].shape or row.dtype != rows[0].dtype)):
            return None
        rows.append(row)
    return np.stack(rows) if rows else np.empty(0, np.float32)
