"""What is sent to a server and how its answer is read: the plain way, and the V2 protocol of MLServer and Triton."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .processes import HOST
from .workloads import Assets, Workload, wrong_logits, wrong_top5

NPY = "application/x-npy"
_BOUNDARY = "gpu-infer-bench-5f0c1d"


@dataclass(frozen=True, slots=True)
class Question:
    """A request in its variants.

    Args:
        path: where it is posted.
        headers: of every request.
        bodies: sent in turn.
        wrong: what is wrong with the answer to the body of that number; empty where nothing is.
    """

    path: str
    headers: Mapping[str, str]
    bodies: tuple[bytes, ...] = field(repr=False)
    wrong: Callable[[int, bytes], str] = field(repr=False)

    def check(self, port: int, *, threads: int = 16) -> str:
        """Ask everything once, many at a time, so that batches form; returns the first thing that is wrong."""
        numbers = list(range(len(self.bodies)))
        repeated = numbers * max(1, 32 // len(numbers))
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda number: self._ask(port, number), repeated))
        return next((problem for problem in found if problem), "")

    def settle(self, port: int) -> None:
        """Wait until the server has done what an earlier load has left in its queue: this request comes behind it."""
        self._ask(port, 0)

    def _ask(self, port: int, number: int) -> str:
        connection = http.client.HTTPConnection(HOST, port, timeout=60)
        try:
            connection.request("POST", self.path, self.bodies[number], dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                return f"status {answer.status}: {content[:200].decode('utf-8', 'replace')}"
            return self.wrong(number, content)
        except (OSError, ValueError, KeyError, TypeError, IndexError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()


def anything(question: Question) -> Question:
    """The same request to a server that computes nothing."""
    return Question(question.path, question.headers, question.bodies, lambda _number, _answer: "")


def plain(path: str) -> Callable[[Workload, Assets], Question]:
    """JSON as in the tutorials (``{"data": [row]}``), ``.npy``, or the JPEG as it is."""

    def ask(workload: Workload, assets: Assets) -> Question:
        if workload.name == "images":
            return Question(path, {"Content-Type": "image/jpeg"}, (assets.jpeg,), _top5_in_json)
        if workload.name == "mnist-json":
            # Rows in double precision, as the second tutorial's client sends them.
            rows = [(np.round(row * 255).astype(np.float64) / 255).tolist() for row in assets.rows]
            bodies = tuple(json.dumps({"data": [row]}).encode() for row in rows)
            return Question(path, {"Content-Type": "application/json"}, bodies, _logits_in_json(assets))
        bodies = tuple(npy(row[None]) for row in assets.rows)
        return Question(path, {"Content-Type": NPY, "Accept": NPY}, bodies, _logits_in_npy(assets))

    return ask


def form(path: str, *, json_path: str = "", images_path: str = "") -> Callable[[Workload, Assets], Question]:
    """What is binary as a file in a form, for servers that take nothing else; JSON as in ``plain``."""

    def ask(workload: Workload, assets: Assets) -> Question:
        if workload.name == "mnist-json":
            return plain(json_path or path)(workload, assets)
        inner = plain((images_path if workload.name == "images" else "") or path)(workload, assets)
        kind = inner.headers["Content-Type"]
        part = f'Content-Disposition: form-data; name="file"; filename="file"\r\nContent-Type: {kind}'
        head, tail = f"--{_BOUNDARY}\r\n{part}\r\n\r\n".encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()
        bodies = tuple(head + body + tail for body in inner.bodies)
        headers = {**inner.headers, "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        return Question(inner.path, headers, bodies, inner.wrong)

    return ask


def v2(path: str, *, output: str) -> Callable[[Workload, Assets], Question]:
    """The V2 protocol: tensors as JSON, or behind a JSON header (the binary extension). Pictures go as bytes."""

    def ask(workload: Workload, assets: Assets) -> Question:
        if workload.name == "images":
            body = len(assets.jpeg).to_bytes(4, "little") + assets.jpeg
            tensor = {"name": "jpeg", "shape": [1, 1], "datatype": "BYTES"}
            return _binary(path, tensor, (body,), output="top5", wrong=lambda _n, answer: _top5_behind_header(answer))
        tensor = {"name": "X", "shape": [1, 784], "datatype": "FP32"}
        if workload.name == "mnist-json":
            rows = [(np.round(row * 255).astype(np.float64) / 255).tolist() for row in assets.rows]
            bodies = tuple(json.dumps({"inputs": [{**tensor, "data": row}]}).encode() for row in rows)
            return Question(path, {"Content-Type": "application/json"}, bodies, _logits_in_v2(assets))
        bodies = tuple(row.tobytes() for row in assets.rows)

        def wrong(number: int, answer: bytes) -> str:
            return wrong_logits(assets, number, np.frombuffer(_behind_header(answer), np.float32))

        return _binary(path, tensor, bodies, output=output, wrong=wrong)

    return ask


def v2_json(path: str) -> Callable[[Workload, Assets], Question]:
    """The V2 protocol of servers without its binary extension: pictures in base64."""
    tensors = v2(path, output="")

    def ask(workload: Workload, assets: Assets) -> Question:
        if workload.name != "images":
            return tensors(workload, assets)
        text = base64.b64encode(assets.jpeg).decode()
        parameters = {"content_type": "base64"}
        tensor = {"name": "jpeg", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters, "data": [text]}
        body = json.dumps({"inputs": [tensor]}).encode()
        return Question(path, {"Content-Type": "application/json"}, (body,), _top5_in_v2)

    return ask


def _binary(
    path: str,
    tensor: dict[str, Any],
    bodies: tuple[bytes, ...],
    *,
    output: str,
    wrong: Callable[[int, bytes], str],
) -> Question:
    """Bodies of the binary extension: all are of one length here, so the header's length is one, too."""
    described = {**tensor, "parameters": {"binary_data_size": len(bodies[0])}}
    wanted = [{"name": output, "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": [described], "outputs": wanted}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}
    return Question(path, headers, tuple(header + body for body in bodies), wrong)


def _behind_header(answer: bytes) -> bytes:
    """The binary part of an answer: what stands behind the JSON object that it starts with."""
    _, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    return answer[end:]


def npy(array: np.ndarray) -> bytes:
    """An array in NumPy's format."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _logits_in_json(assets: Assets) -> Callable[[int, bytes], str]:
    return lambda number, answer: wrong_logits(assets, number, np.asarray(json.loads(answer), np.float64))


def _logits_in_npy(assets: Assets) -> Callable[[int, bytes], str]:
    """BentoML answers with JSON whatever it is asked for."""

    def wrong(number: int, answer: bytes) -> str:
        found = np.load(io.BytesIO(answer)) if answer.startswith(b"\x93NUMPY") else np.asarray(json.loads(answer))
        return wrong_logits(assets, number, found)

    return wrong


def _logits_in_v2(assets: Assets) -> Callable[[int, bytes], str]:
    return lambda number, answer: wrong_logits(assets, number, np.asarray(json.loads(answer)["outputs"][0]["data"]))


def _top5_in_json(_number: int, answer: bytes) -> str:
    found = json.loads(answer)
    return wrong_top5(found[0] if isinstance(found, list) else found)  # a list from those whose every request is one


def _top5_in_v2(_number: int, answer: bytes) -> str:
    return wrong_top5(json.loads(json.loads(answer)["outputs"][0]["data"][0]))


def _top5_behind_header(answer: bytes) -> str:
    return wrong_top5(json.loads(_behind_header(answer)[4:]))
