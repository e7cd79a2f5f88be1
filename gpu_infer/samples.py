"""An item made up for a service, from what it says it takes: for checks and measurements that are given none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

__all__ = ["made_up"]

_IMAGE_SIZE = 224


def made_up(takes: Mapping[str, Any]) -> Any:
    """An item that a service should take: zeros, or a grey picture where it takes encoded images.

    Args:
        takes: what ``service.describe()`` has given.

    Returns:
        an array of the item's shape and dtype, where any size will do with size 1; or the bytes of a JPEG.

    Raises:
        ValueError: the model does not say what shape it takes, or a picture is needed and Pillow is not there.
    """
    import numpy as np

    kind = takes["input"]["dtype"]
    if kind in ("string", "object", "bytes") or takes["preprocess"].startswith("image"):
        return _grey_jpeg()
    shape = takes["input"]["shape"]
    if shape is None:
        raise ValueError("the model does not say what shape it takes.")
    dims = [1 if size is None or size < 0 else size for size in shape]
    ndim = takes["input"]["item_ndim"]
    return np.zeros(dims[len(dims) - ndim :] if ndim is not None else dims[1:], dtype=kind)


def _grey_jpeg() -> bytes:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ValueError("it takes a picture, and Pillow is not installed (pip install pillow).") from error
    stream = io.BytesIO()
    Image.new("RGB", (_IMAGE_SIZE, _IMAGE_SIZE), (128, 128, 128)).save(stream, "JPEG")
    return stream.getvalue()
