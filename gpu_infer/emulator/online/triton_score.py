"""Runs in the container of a deployment without code: what Triton answers, from the ONNX files of its model.

The stock server knows one path only, so the emulator hands every request to it there, and says in a header where it
was meant to go. The answers are those of the Open Inference Protocol, version 2, with Triton's binary tensors.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from azureml_inference_server_http.api.aml_request import rawhttp  # pyright: ignore[reportUnknownVariableType] (not annotated there)
from azureml_inference_server_http.api.aml_response import AMLResponse

__all__ = ["init", "run"]

_PATH = "x-gpu-infer-path"
_HEADER = "Inference-Header-Content-Length"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/(\d+))?(/ready|/config|/infer)?")
_TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}").type for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_ONNX = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16", "tensor(string)": "BYTES"}
_sessions: dict[str, dict[str, Any]] = {}
"""By the name of a model, and its version."""


class _RefusedError(Exception):
    """Goes back as an error of Triton's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def init() -> None:
    """Load every ``NAME/VERSION/model.onnx`` below the folder of the model."""
    from onnxruntime import InferenceSession

    for path in sorted(Path(os.environ["AZUREML_MODEL_DIR"]).rglob("model.onnx")):
        version, name = path.parent.name, path.parent.parent.name
        _sessions.setdefault(name, {})[version] = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        print(f"successfully loaded '{name}' version {version}")  # noqa: T201 (the log of the container)


@rawhttp
def run(request: Any) -> Any:
    """Answer one request of the protocol."""
    try:
        return _answer(request, str(request.headers.get(_PATH, "")).partition("?")[0].rstrip("/"))
    except _RefusedError as refused:
        return _json({"error": str(refused)}, refused.status)


def _answer(request: Any, path: str) -> Any:
    if path in ("/v2/health/live", "/v2/health/ready"):
        return AMLResponse(b"", 200)
    if path == "/v2":
        return _json({"name": "triton", "version": "emulator", "extensions": ["binary_tensor_data"]})
    if path == "/v2/repository/index":
        return _json([{"name": n, "version": v, "state": "READY"} for n, of in _sessions.items() for v in of])
    found = _MODEL.fullmatch(path)
    if not found:
        raise _RefusedError(404, f"There is nothing at {path!r}.")
    name, version, what = found.groups()
    version, session = _session(name, version)
    if what == "/infer":
        return _infer(request, session, name, version)
    if what == "/ready":
        return AMLResponse(b"", 200)
    described = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    shown: dict[str, Any] = {
        key: [{"name": one.name, "datatype": _type_of(one.type), "shape": _shape(one.shape)} for one in values]
        for key, values in described.items()
    }
    if what == "/config":
        shown = {"max_batch_size": 0, "backend": "onnxruntime", "input": shown["inputs"], "output": shown["outputs"]}
    return _json({"name": name, "versions": sorted(_sessions[name]), "platform": "onnxruntime_onnx", **shown})


def _session(name: str, version: str | None) -> tuple[str, Any]:
    """The version that is asked for, else the newest."""
    versions = _sessions.get(name, {})
    chosen = version or max(versions, key=int, default="")
    if chosen not in versions:
        raise _RefusedError(404, f"Request for unknown model: '{name}' version {version or 'latest'} is not found")
    return chosen, versions[chosen]


def _infer(request: Any, session: Any, name: str, version: str) -> Any:
    data: bytes = request.get_data()
    size = int(request.headers.get(_HEADER) or len(data))
    try:
        asked: dict[str, Any] = json.loads(data[:size])
        fed = _inputs(asked, memoryview(data)[size:])
    except (KeyError, TypeError, ValueError) as error:
        raise _RefusedError(400, f"failed to parse the request: {error}") from error
    known = [one.name for one in session.get_outputs()]
    wanted: list[dict[str, Any]] = asked.get("outputs") or [{"name": one} for one in known]
    try:
        results = session.run([one["name"] for one in wanted], fed)
    except Exception as error:
        raise _RefusedError(400, f"onnxruntime: {error}") from error
    all_binary = asked.get("parameters", {}).get("binary_data_output", False)
    outputs, tail = list[dict[str, Any]](), b""
    for one, result in zip(wanted, results, strict=True):
        array = np.asarray(result)
        shown = {"name": one["name"], "datatype": _name_of(array), "shape": list(array.shape)}
        if one.get("parameters", {}).get("binary_data", all_binary):
            packed = _pack(array)
            shown["parameters"], tail = {"binary_data_size": len(packed)}, tail + packed
        else:
            shown["data"] = array.ravel().tolist()
        outputs.append(shown)
    head = {"model_name": name, "model_version": version, "outputs": outputs}
    if "id" in asked:
        head["id"] = asked["id"]
    if not tail:
        return _json(head)
    text = json.dumps(head).encode()
    headers = {_HEADER: str(len(text)), "Content-Type": "application/octet-stream"}
    return AMLResponse(text + tail, 200, headers)


def _inputs(asked: dict[str, Any], tail: memoryview) -> dict[str, Any]:
    """The arrays of a request: in its JSON, or one after the other behind it."""
    found: dict[str, Any] = {}
    for one in asked["inputs"]:
        kind, shape = one["datatype"], one["shape"]
        size = one.get("parameters", {}).get("binary_data_size")
        if size is not None:
            piece, tail = tail[:size], tail[size:]
            array = _unpack(piece) if kind == "BYTES" else np.frombuffer(piece, _TYPES[kind])
        else:
            array = np.asarray(one["data"], object if kind == "BYTES" else _TYPES[kind])
        found[one["name"]] = array.reshape(shape)
    return found


def _unpack(piece: memoryview) -> Any:
    texts: list[str] = []
    while piece:
        size = int.from_bytes(piece[:4], "little")
        texts.append(bytes(piece[4 : 4 + size]).decode())
        piece = piece[4 + size :]
    return np.asarray(texts, object)


def _pack(array: Any) -> bytes:
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    texts = [str(text).encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _name_of(array: Any) -> str:
    return next((name for name, kind in _TYPES.items() if array.dtype == kind), "BYTES")


def _type_of(onnx: str) -> str:
    return _ONNX.get(onnx) or onnx.removeprefix("tensor(").removesuffix(")").upper()


def _shape(shape: list[Any]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]


def _json(value: Any, status: int = 200) -> Any:
    return AMLResponse(json.dumps(value).encode(), status, {"Content-Type": "application/json"})
