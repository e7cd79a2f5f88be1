"""Encoded images: recognised, decoded, resized and normalised."""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np

from ..failures import BadInput
from ..narrow import is_array

MAX_PIXELS = 64_000_000
"""A photograph has up to 50 million; a file of a few kilobytes may claim far more than memory holds."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded. Pillow knows many more, PostScript among them, which would run the sender's program."""

_LARGE = 8_000_000
_one_large_at_a_time = threading.Lock()
"""Thirty-two threads that decode 64 million pixels each would need more memory than there is."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")


def looks_like_image(body: bytes) -> bool:
    """Whether the first bytes are those of a common image format."""
    return body.startswith(_MAGIC) or (body[:4] == b"RIFF" and body[8:12] == b"WEBP")


def check_header(body: bytes, content_type: str) -> None:
    """Look at an image's header alone; its pixels are not decoded.

    Raises:
        BadInput: no image of a known format, or one with too many pixels.
    """
    try:
        with _open(body):
            return
    except BadInput as failure:
        if "pixels" in failure.message:
            raise
        message = f"The body is not an image that can be read, although its type is {content_type}."
        raise BadInput(message) from failure


def decode_image(body: bytes, mode: str = "RGB") -> Any:
    """Decode to a Pillow image.

    Raises:
        BadInput: no image, one that is cut short or broken, or one with too many pixels.
    """
    with _open(body) as image:
        large = image.width * image.height > _LARGE
        with _one_large_at_a_time if large else contextlib.nullcontext():
            try:
                image.load()
                deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
                plain = _of_8_bits(image) if deep else image
                # convert() would copy an image of that mode, too: a third of the time that decoding takes.
                return plain if plain.mode == mode else plain.convert(mode)
            except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, and more
                raise BadInput(f"The image cannot be decoded, it may be cut short: {error}.") from error


def _of_8_bits(image: Any) -> Any:
    """The upper 8 of 16 bits, as libpng and Pillow itself (for colours) take them; convert() would cut off at 255.

    Older Pillow has the 16 bits of a PNG as 32. What a TIFF of 32 bits holds, nobody knows. One of 12 bits has the mode
    of 16, and says so in its tag 258.
    """
    from PIL import Image

    bits = image.tag_v2.get(258, (16,))[0] if image.format == "TIFF" else 16
    return Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> (bits - 8)).astype(np.uint8))


def _open(body: bytes) -> Any:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the limit is below; Pillow's own only warns
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    except Exception as error:  # hostile headers raise nearly anything
        known = ", ".join(FORMATS)
        raise BadInput(f"Not an image that can be read ({known}): {str(error)[:200]}.") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BadInput(f"The image has {image.width} x {image.height} pixels; up to {MAX_PIXELS:,} are accepted.")
    return image


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes the array that a vision model takes: ``(pixel - mean) / std``.

    Args:
        width, height: of the result, in pixels.
        layout: ``"nchw"`` or ``"nhwc"``: channels before or after the pixels.
        mean, std: one number, or one per channel, in units of a pixel (0 to 255).
        dtype: of the result.
        resize: Pillow's filter; ``bilinear`` and ``bicubic`` are antialiased there.
        crop: ``"none"`` squeezes the image into the size; ``"center"`` keeps the proportions and cuts the rest off.
        mode: Pillow's mode: ``"RGB"`` or ``"L"`` (grey).
    """

    width: int
    height: int
    layout: str = "nhwc"
    mean: Tuple[float, ...] = (0.0,)
    std: Tuple[float, ...] = (1.0,)
    dtype: str = "float32"
    resize: str = "bilinear"
    crop: str = "none"
    mode: str = "RGB"


def image_to_array(item: Any, options: ImageOptions) -> np.ndarray:
    """Turn an encoded image, or uint8 pixels ``[height, width, 3]``, into the model's item.

    Raises:
        BadInput: neither of the two, or an image that cannot be decoded.
    """
    from PIL import Image

    if isinstance(item, bytes):
        image = decode_image(item, options.mode)
    elif is_array(item) and item.dtype == np.uint8 and item.ndim in (2, 3) and item.size:
        try:
            image = Image.fromarray(np.ascontiguousarray(item)).convert(options.mode)
        except (TypeError, ValueError) as error:
            raise BadInput(f"Pixels come as uint8 [height, width, 3]; got {list(item.shape)}.") from error
    else:
        got = f"{item.dtype} {list(item.shape)}" if is_array(item) else type(item).__name__
        raise BadInput(f"This service takes an encoded image, or pixels as uint8 [height, width, 3]; got {got}.")
    planes = _planes(image, options)
    pixels = planes if options.layout == "nchw" else planes.transpose(1, 2, 0)
    return np.ascontiguousarray(pixels, dtype=options.dtype)


def _planes(image: Any, options: ImageOptions) -> np.ndarray:
    """Resize and normalise to float32 ``[channels, height, width]``.

    Each channel is resized as floats: Pillow would round the pixels of a colour image to whole numbers, TensorFlow and
    PyTorch do not, and a model notices (EfficientNet-Lite0 on a photograph: 0.820 instead of 0.828).
    """
    from PIL import Image, ImageOps

    size = (options.width, options.height)
    method = getattr(Image.Resampling, options.resize.upper())
    # Far larger than the result: averaged down first, to a size that no filter can tell from the whole.
    factor = min(image.width // (options.width * 4), image.height // (options.height * 4))
    if factor > 1:
        image = image.reduce(factor)

    def resized(band: Any) -> np.ndarray:
        if band.size == size:
            return np.asarray(band)
        whole = band.convert("F")
        return np.asarray(ImageOps.fit(whole, size, method) if options.crop == "center" else whole.resize(size, method))

    bands = image.split()
    count = max(len(bands), len(options.mean), len(options.std))  # a grey picture may have a mean per channel, too
    planes = np.empty((count, options.height, options.width), np.float32)
    for number in range(count):
        # One after the other, and each to its end: it stays in the cache, and the next takes the memory that it leaves.
        band = resized(bands[number % len(bands)])
        np.subtract(band, options.mean[number % len(options.mean)], out=planes[number], dtype=np.float32)
        planes[number] /= np.float32(options.std[number % len(options.std)])
    return planes
