"""Pictures scaled down before they are sent, for callers who ask for it with ``max_side=``.

A photograph of 12 megapixels takes megabytes on the wire and a service scales it to a few hundred pixels. What is small
enough already stays as it is, byte for byte.
"""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

from .arrays import bad_input
from .codecs import image_type
from .extras import missing_package
from .limits import positive_or_none

__all__ = ["check_max_side", "scaled_file", "scaled_picture"]

JPEG_QUALITY = 90

PNG_LEVEL = 1
"""zlib's fastest, as for pictures that are not scaled."""

REDUCING_GAP = 3.0
"""Pillow averages whole blocks first, down to so many times the wanted size: hardly to be seen, and much quicker."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""


def check_max_side(max_side: int | None) -> int | None:
    """The largest side, in pixels.

    Raises:
        ValueError: no whole number above 0.
    """
    return positive_or_none("max_side", max_side, unit="pixels")


def scaled_file(data: bytes, max_side: int) -> bytes:
    """The bytes of a picture whose longer side is at most ``max_side`` pixels.

    Args:
        data: a JPEG or PNG stays what it is; anything else, and what is small enough, comes back untouched.
        max_side: pixels.

    Returns:
        JPEG of quality 90 or PNG, with the colour profile and the EXIF tag of orientation that it had. Pixels are not
        turned: who ignores the tag (our services do) or obeys it sees what the original would have shown.

    Raises:
        BadInputError: a picture that cannot be read.
        MissingDependencyError: Pillow is not installed.
    """
    kind = {"image/jpeg": "JPEG", "image/png": "PNG"}.get(image_type(data) or "")
    if kind is None:
        return data
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data), formats=[kind]) as image:
            if max(image.size) <= max_side:
                return data
            # JPEG: decoded at an eighth to all of the size, whatever is still more than enough.
            image.draft(None, _fitted(image.size, max_side, times=REDUCING_GAP))
            return _written(_scaled(image, max_side), kind, image)
    except Exception as error:  # noqa: BLE001  (Pillow's decoders raise nearly anything over a broken file)
        bad_input(f"the image cannot be scaled to max_side={max_side}: {error}", cause=error)


def scaled_picture(image: Any, max_side: int) -> Any:
    """A PIL image whose longer side is at most ``max_side`` pixels; the same one where it is small enough.

    Raises:
        BadInputError: its pixels cannot be read.
    """
    if max(image.size) <= max_side:
        return image
    try:
        return _scaled(image, max_side)
    except Exception as error:  # noqa: BLE001  (an image is decoded here, and Pillow's decoders raise nearly anything)
        bad_input(f"the image cannot be scaled to max_side={max_side}: {error}", cause=error)


def _scaled(image: Any, max_side: int) -> Any:
    """A new image, in a mode whose pixels can be averaged."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    lanczos = _pillow().Resampling.LANCZOS
    return image.resize(_fitted(image.size, max_side), lanczos, reducing_gap=REDUCING_GAP)


def _fitted(size: tuple[int, int], max_side: int, *, times: float = 1.0) -> tuple[int, int]:
    """Width and height the longer one ``max_side`` (times a factor), in the same proportion, each at least 1."""
    factor = times * max_side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _written(scaled: Any, kind: str, original: Any) -> bytes:
    stream, exif = io.BytesIO(), _pillow().Exif()
    orientation = original.getexif().get(_ORIENTATION)
    if orientation is not None:
        exif[_ORIENTATION] = orientation
    options: dict[str, Any] = {"quality": JPEG_QUALITY} if kind == "JPEG" else {"compress_level": PNG_LEVEL}
    profile = original.info.get("icc_profile")
    scaled.save(stream, kind, icc_profile=profile, exif=exif if orientation is not None else b"", **options)
    return stream.getvalue()


def _pillow() -> Any:
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise missing_package("max_side= scales pictures with Pillow", install="pillow") from error
