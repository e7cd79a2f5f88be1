"""``isinstance`` for values out of JSON and hooks, in a form that keeps a type checker informed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def is_array(value: Any) -> TypeIs[np.ndarray]:
    """Whether a value is a NumPy array."""
    return isinstance(value, np.ndarray)


def is_dict(value: Any) -> TypeIs[Dict[Any, Any]]:
    """Whether a value is a dictionary."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeIs[List[Any]]:
    """Whether a value is a list."""
    return isinstance(value, list)
