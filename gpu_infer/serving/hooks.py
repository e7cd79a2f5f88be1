"""What stands around the model: ``preprocess(item)`` and ``postprocess(output)``, built in or the user's own.

A hook is named by a text: steps joined by ``|``, each either a built-in (``softmax``, ``top_k:5``,
``image:224x224,layout=nchw``) or a function of the user's file (``hooks.py:preprocess``).
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from .codecs.images import ImageOptions, image_to_array
from .failures import BadInput
from .narrow import is_array, is_dict

Step = Callable[[Any], Any]


class HookError(ValueError):
    """A hook that does not exist or cannot be built; the message names it and lists what there is."""


@dataclass(frozen=True)
class Hook:
    """A chain of steps.

    Args:
        text: as the user wrote it.
        steps: run in order.
        item_ndim: rank of an array that the chain takes as one item, ``None`` where that is not known.
        keeps_rank: whether what goes in has the rank of what comes out.
        of_user: whether a step is a function of the user's.
        quick: whether all steps take no longer than a change of threads.
        decodes: whether the first step decodes images, and refuses what is none.
    """

    text: str
    steps: Tuple[Step, ...]
    item_ndim: Optional[int] = None
    keeps_rank: bool = False
    of_user: bool = False
    quick: bool = False
    decodes: bool = False

    def __call__(self, value: Any) -> Any:  # noqa: D102 - a chain is called
        for step in self.steps:
            value = step(value)
        return value


def load_hook(text: str, *, role: str, folder: Path) -> Optional[Hook]:
    """Build the hook that ``text`` names.

    Args:
        text: empty for none.
        role: ``"preprocess"`` or ``"postprocess"``: which built-ins there are, and the default function of a file.
        folder: where the user's files lie.

    Raises:
        HookError: an unknown built-in, a wrong option, a missing file or function.
    """
    if not text:
        return None
    steps: List[Step] = []
    item_ndim: Optional[int] = None
    for index, part in enumerate(piece.strip() for piece in text.split("|")):
        if is_file_hook(part):
            step, ndim = _from_file(part, role, folder)
        else:
            step, ndim = _built_in(part, role), (3 if part.split(":")[0] == "image" else None)
        steps.append(step)
        item_ndim = ndim if index == 0 else item_ndim
    pieces = [piece.strip() for piece in text.split("|")]
    keeps_rank = all(piece.startswith("divide:") for piece in pieces)
    of_user = any(map(is_file_hook, pieces))
    quick = not of_user and not any(piece.startswith("image:") for piece in pieces)
    return Hook(text, tuple(steps), item_ndim, keeps_rank, of_user, quick, pieces[0].startswith("image:"))


def split_file_hook(part: str) -> Tuple[str, str]:
    """``dir/hooks.py:scale`` to its path and function (empty for the default one); two empty texts for a built-in."""
    if part.endswith(".py"):
        return part, ""
    path, separator, function = part.rpartition(":")
    return (path, function) if separator and path.endswith(".py") else ("", "")


def is_file_hook(part: str) -> bool:
    """Whether a step names a Python file rather than a built-in."""
    return bool(split_file_hook(part)[0])


def check_hook(text: str, *, role: str) -> None:
    """Check the built-in steps of a hook without running a user's file.

    Raises:
        HookError: as ``load_hook``.
    """
    for part in (piece.strip() for piece in text.split("|")):
        if not is_file_hook(part):
            _built_in(part, role)


def _from_file(part: str, role: str, folder: Path) -> Tuple[Step, Optional[int]]:
    name, function = split_file_hook(part)
    path = folder / name
    if not path.is_file():
        raise HookError(f"{role}={part!r}: there is no file {name} in the bundle.")
    spec = importlib.util.spec_from_file_location(f"gpu_infer_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise HookError(f"{role}={part!r}: {name} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    step = getattr(module, function or role, None)
    if not callable(step):
        defined = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise HookError(f"{role}={part!r}: {name} has no function {function or role}. It has: {', '.join(defined)}.")
    return step, getattr(module, "ITEM_NDIM", None) if role == "preprocess" else None


def _built_in(part: str, role: str) -> Step:
    name, _, argument = part.partition(":")
    makers = _PREPROCESS if role == "preprocess" else _POSTPROCESS
    if name not in makers:
        raise HookError(
            f"{role}={part!r} is no built-in. There are: {', '.join(makers)}; or name a function as file.py:function."
        )
    return makers[name](argument)


def _no_argument(name: str, step: Step) -> Callable[[str], Step]:
    def make(argument: str) -> Step:
        if argument:
            raise HookError(f"{name!r} takes no argument, got {argument!r}.")
        return step

    return make


# --- before the model -------------------------------------------------------------------------------------------------


def _make_image(argument: str) -> Step:
    """``image:224x224,layout=nchw,mean=127,std=128``: see ``ImageOptions`` for the options."""
    size, *options = [piece.strip() for piece in argument.split(",")]
    try:
        width, height = (int(side) for side in size.lower().split("x")) if "x" in size.lower() else (int(size),) * 2
    except ValueError:
        raise HookError(f"image:{argument}: the size comes first, as in image:224x224 (width x height).") from None
    known: Dict[str, Callable[[str], Any]] = {
        "layout": _one_of("nchw", "nhwc"),
        "mean": _numbers,
        "std": _numbers,
        "dtype": _one_of("float32", "float16", "uint8"),
        "resize": _one_of("bilinear", "bicubic", "lanczos", "nearest", "box"),
        "crop": _one_of("none", "center"),
        "mode": _one_of("RGB", "L"),
    }
    values: Dict[str, Any] = {}
    for option in options:
        key, _, text = option.partition("=")
        if key not in known:
            raise HookError(f"image: has no option {key!r}. It has: {', '.join(known)}.")
        try:
            values[key] = known[key](text)
        except ValueError as error:
            raise HookError(f"image: {key}={text!r}: {error}") from None
    if width <= 0 or height <= 0 or 0 in values.get("std", ()):
        raise HookError(f"image:{argument}: the size and std must be above 0.")
    return partial(_image_step, options=ImageOptions(width, height, **values))


def _image_step(item: Any, options: ImageOptions) -> np.ndarray:
    return image_to_array(item, options)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"takes one of {', '.join(choices)}.")
        return text

    return parse


def _numbers(text: str) -> Tuple[float, ...]:
    """``127`` or ``123.7/116.3/103.5``: one number, or one per channel."""
    try:
        values = tuple(float(number) for number in text.split("/"))
    except ValueError:
        raise ValueError("takes a number, or one per channel with / between.") from None
    if len(values) not in (1, 3):
        raise ValueError("takes one number or three.")
    return values


def _make_divide(argument: str) -> Step:
    """``divide:255``."""
    try:
        divisor = float(argument)
    except ValueError:
        divisor = 0.0
    if not divisor:
        raise HookError(f"divide:{argument}: expected a number other than 0, as in divide:255.")
    return partial(_divide, divisor=np.float32(divisor))


def _divide(item: Any, divisor: np.float32) -> np.ndarray:
    return _as_array(item, "divide").astype(np.float32) / divisor


def _flatten(item: Any) -> np.ndarray:
    return _as_array(item, "flatten").reshape(-1)


def _as_array(item: Any, step: str) -> np.ndarray:
    if not is_array(item) or item.dtype.kind not in "biuf":
        raise BadInput(f"This service takes arrays of numbers ({step!r} is its first step); got {type(item).__name__}.")
    return item


# --- behind the model -------------------------------------------------------------------------------------------------


def _argmax(output: Any) -> Any:
    """Index of the largest value along the last axis: an ``int``, or an array for an output of more axes."""
    best = np.argmax(_one_output(output, "argmax"), axis=-1)
    return int(best) if best.ndim == 0 else best


def _softmax(output: Any) -> np.ndarray:
    """Logits to probabilities along the last axis."""
    logits = _one_output(output, "softmax").astype(np.float32)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _sigmoid(output: Any) -> np.ndarray:
    """Logits to probabilities, each on its own."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-_one_output(output, "sigmoid").astype(np.float32)))


def _make_top_k(argument: str) -> Step:
    """``top_k:5``: ``{"classes": [...], "scores": [...]}``, the largest first."""
    if not argument.isdigit() or int(argument) == 0:
        raise HookError(f"top_k:{argument}: expected how many, as in top_k:5.")
    return partial(_top_k, k=int(argument))


def _top_k(output: Any, k: int) -> Dict[str, List[Any]]:
    scores = _one_output(output, "top_k")
    if scores.ndim != 1:
        raise HookError(f"'top_k' takes one row of scores per item, the output has {list(scores.shape)}.")
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:k]  # unsigned numbers and booleans have no minus
    return {"classes": best.tolist(), "scores": scores[best].tolist()}


def _one_output(output: Any, step: str) -> np.ndarray:
    if is_dict(output):
        raise HookError(f"{step!r} takes one output, the model has {', '.join(output)}: name one with output=.")
    array = np.asarray(output)
    if array.dtype.kind not in "biufV" or array.ndim == 0:
        raise HookError(f"{step!r} takes a row of numbers, the output is {array.dtype} {list(array.shape)}.")
    return array


_PREPROCESS: Dict[str, Callable[[str], Step]] = {
    "image": _make_image,
    "divide": _make_divide,
    "flatten": _no_argument("flatten", _flatten),
}
_POSTPROCESS: Dict[str, Callable[[str], Step]] = {
    "argmax": _no_argument("argmax", _argmax),
    "softmax": _no_argument("softmax", _softmax),
    "sigmoid": _no_argument("sigmoid", _sigmoid),
    "top_k": _make_top_k,
}
