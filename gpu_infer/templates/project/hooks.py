"""What runs before and behind the model.

Edit, then:

    gpu-infer deploy MODEL --preprocess hooks.py --postprocess hooks.py

The file travels into the container, with the files beside it that it imports. Anything else that it imports has to
stand in conda.yml.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

SIZE = 224

ITEM_NDIM = 3
"""How many axes an array has that is one item; delete it where items are images or other bytes only."""


def preprocess(item: bytes | np.ndarray) -> np.ndarray:
    """Turn one item of a request into the model's input, without the batch axis.

    An image arrives as the bytes of its file, a .npy or JSON request as an array. A ``ValueError`` is answered with 400
    and its message.
    """
    if isinstance(item, bytes):
        picture = Image.open(io.BytesIO(item)).convert("RGB").resize((SIZE, SIZE))
        item = np.asarray(picture)
    if item.shape != (SIZE, SIZE, 3):
        raise ValueError(f"expected a picture of shape ({SIZE}, {SIZE}, 3), got {item.shape}")
    return item.astype(np.float32) / 255


def postprocess(output: np.ndarray) -> dict[str, Any]:
    """Turn the model's output for one item into the answer: anything that JSON can hold, or an array.

    A model with several outputs gives a dict by name here, unless the deployment names one with ``output``.
    """
    scores = np.asarray(output).ravel()
    best = int(scores.argmax())
    return {"class": best, "score": float(scores[best])}
