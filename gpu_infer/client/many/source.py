"""One item after the other, out of whatever was handed to ``score_many``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import BadInputError
from ..arrays import array_of, is_array_like

__all__ = ["IMAGE_SUFFIXES", "holds_items", "images_in", "items_of", "length_of"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def items_of(items: Any) -> Any:
    """What to iterate over: the rows of arrays and data frames, the images in a folder by name, else what it is.

    Data frames by themselves would give the names of their columns.

    Raises:
        TypeError: it can be iterated over, but not into items.
        BadInputError: a folder without images.
    """
    if isinstance(items, str | os.PathLike) and Path(cast("str", items)).is_dir():
        return _images(Path(cast("str", items)))
    if isinstance(items, str | bytes | bytearray | memoryview | Mapping | os.PathLike):
        kind = type(cast("object", items)).__name__
        missing = ""
        if isinstance(items, str | os.PathLike) and not Path(cast("str", items)).exists():
            missing = f" There is no folder {os.fspath(cast('str', items))!r} to take images from."
        raise TypeError(f"score_many() takes an iterable of items, not one {kind}; that is for score().{missing}")
    return array_of(items) if is_array_like(items) and hasattr(items, "columns") else items


def images_in(folder: Path) -> list[Path]:
    """The images in a folder itself, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _images(folder: Path) -> list[Path]:
    found = images_in(folder)
    if not found:
        raise BadInputError(
            f"There are no images in the folder {str(folder)!r} itself; for those in its folders, or other files, pass "
            "their paths: sorted(folder.rglob('*.jpg')).",
            attempts=0,
        )
    return found


def length_of(items: object) -> int | None:
    """How many items there are, where that can be said without reading them."""
    return len(items) if isinstance(items, Sized) and not isinstance(items, Iterator) else None


def holds_items(source: object) -> bool:
    """Whether all items are there beforehand; others make each when it is asked for, perhaps in one place."""
    return isinstance(source, list | tuple | range | np.ndarray)
