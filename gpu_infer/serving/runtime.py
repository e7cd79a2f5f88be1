"""The runtime behind ``score.py``: started once by ``init()``, asked by every ``run()``."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Dict, Generator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .adapters.base import Adapter, TensorSpec
from .batching import Batcher
from .check import as_model_item
from .codecs.decode import (
    MULTIPART,
    Items,
    Part,
    decode_body,
    decode_parts,
    parse_accept,
    parse_items_header,
)
from .codecs.encode import encode_results, to_json
from .device import gpu_report
from .failures import (
    BadInput,
    BodyTooLarge,
    DeadlineExceeded,
    ModelFailure,
    Overloaded,
    RequestFailure,
)
from .hooks import Hook
from .narrow import is_array, is_dict, is_list
from .settings import Settings

MIB = 1 << 20
_TOO_LARGE = "The body is larger than {:g} MiB. Send fewer items per request, or raise GPU_INFER_MAX_BODY_MB."


@dataclass(frozen=True)
class Answer:
    """What ``score.py`` sends back."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class _Trace:
    """What the headers of an answer tell about the work behind it."""

    batch: int = 0
    queue_ms: float = 0.0


class Runtime:
    """A loaded model with everything around it.

    Args:
        settings: of the bundle.
        adapter: the loaded model.
        wanted: names of the outputs to answer with.
        preprocess, postprocess: the hooks, ``None`` without.
        version: of the library that built the bundle.
    """

    def __init__(
        self,
        settings: Settings,
        adapter: Adapter,
        *,
        wanted: Sequence[str],
        preprocess: Optional[Hook] = None,
        postprocess: Optional[Hook] = None,
        version: str = "",
    ) -> None:
        self.settings = settings
        self.adapter = adapter
        self.wanted: Tuple[str, ...] = tuple(wanted)
        self.preprocess = preprocess
        self.postprocess = postprocess
        self._version = version
        self._started = time.time()
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._in_flight = 0
        self.batcher: Batcher = Batcher(
            lambda rows: adapter.predict(rows, self.wanted),
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            fixed=adapter.input.fixed_batch,
            padded=adapter.device.kind != "cpu",
            merge=settings.batching,
            invalid_input_errors=tuple(adapter.invalid_input_errors),
        )

    @property
    def item_ndim(self) -> Optional[int]:
        """Rank of an array that is one item of a request, ``None`` where it is not known."""
        if self.preprocess is not None and not self.preprocess.keeps_rank:
            return self.preprocess.item_ndim
        shape = self.adapter.input.item_shape
        return None if shape is None else len(shape)

    # --- one request --------------------------------------------------------------------------------------------------

    def handle(self, request: Any) -> Answer:
        """Answer one request to ``/score``; never raises.

        Args:
            request: the stock server's request (a Flask request).
        """
        trace = _Trace()
        if request.method in ("GET", "POST"):
            answer = self._answer(request, trace)
        else:
            answer = _error(405, f"{request.method} is not supported")
        with self._lock:
            self._requests[str(answer.status)] += 1
        headers = {
            **answer.headers,
            "x-gpu-infer-device": str(self.adapter.device).replace(",", " "),
            "x-gpu-infer-batch": str(trace.batch),
            "x-gpu-infer-queue-ms": f"{trace.queue_ms:.3f}",
        }
        return Answer(answer.status, answer.body, headers)

    def _answer(self, request: Any, trace: _Trace) -> Answer:
        """Answer what can be answered; what goes wrong becomes an answer, too."""
        try:
            if request.method == "GET":
                return self._answer_get(request)
            with self._admitted():
                return self._answer_post(request, trace)
        except RequestFailure as failure:
            return self._refuse(failure)
        except Exception as error:  # our own mistake: say so, keep the traceback in the log, answer the next request
            traceback.print_exc(file=sys.stderr)
            return _error(500, f"The serving runtime failed: {type(error).__name__}. See the log.", kind="internal")

    @contextlib.contextmanager
    def _admitted(self) -> Generator[None, None, None]:
        """Count a request in and out.

        Requests beyond the limit would wait in gunicorn, where nobody counts them, and the health probe behind them.
        """
        with self._lock:
            if self._in_flight >= self.settings.max_concurrency:
                raise Overloaded(
                    f"{self._in_flight} requests are under way already. Send fewer at once.", retry_after=1
                )
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _answer_get(self, request: Any) -> Answer:
        reports = {"describe": self.describe, "stats": self.stats, "gpu": lambda: gpu_report(self.adapter)}
        asked = request.args.get("gpu_infer", "")
        report = reports.get(asked)
        if asked and report is None:
            return _error(404, f"There is no report {asked[:40]!r}; there are {', '.join(reports)}.")
        if report is None:
            return Answer(405, b"GET is not supported", {"Content-Type": "text/plain", "Allow": "POST"})
        return Answer(200, to_json(report()), {"Content-Type": "application/json"})

    def _answer_post(self, request: Any, trace: _Trace) -> Answer:
        started = time.monotonic()
        deadline = started + self._timeout(request.headers.get("x-gpu-infer-timeout-ms", "")) / 1e3
        items = self._read(request)
        results = self._score(items, deadline, trace)
        accept_npy = parse_accept(request.headers.get("Accept", ""))
        body, content_type = encode_results(results, many=items.many, accept_npy=accept_npy)
        return Answer(200, body, {"Content-Type": content_type})

    def _timeout(self, text: str) -> float:
        """The deadline of a request in milliseconds: the service's, or the caller's where that is shorter."""
        if not text:
            return self.settings.timeout_ms
        try:
            asked = float(text)
        except ValueError:
            asked = -1.0
        if not asked > 0:
            raise BadInput(f"x-gpu-infer-timeout-ms is {text[:40]!r}; it takes milliseconds above 0.")
        return min(asked, float(self.settings.timeout_ms))

    def _read(self, request: Any) -> Items:
        """Read the body of a request into items."""
        many, problem = parse_items_header(request.headers.get("x-gpu-infer-items", ""))
        if problem:
            raise BadInput(problem)
        limit = int(self.settings.max_body_mb * MIB)
        if (request.content_length or 0) > limit:
            raise BodyTooLarge(_TOO_LARGE.format(limit / MIB))
        with contextlib.suppress(AttributeError):  # Flask before 3.1 lets only the application set it
            request.max_content_length = limit
        content_type = (request.headers.get("Content-Type", "") or "").split(";")[0].strip().lower()
        with _body_errors(limit):
            if content_type == MULTIPART:
                return decode_parts(_read_parts(request))
            body = request.get_data(cache=False)
            return decode_body(content_type, body, item_ndim=self.item_ndim, many=many)

    def _score(self, items: Items, deadline: float, trace: _Trace) -> List[Any]:
        """Preprocess, check, run and postprocess the items of a request."""
        if is_array(items.values) and self.preprocess is None and self.adapter.input.dtype != "bytes":
            if not len(items.values):
                return []
            # One array of items: one check of the whole block instead of one per item.
            blocks: Sequence[Tuple[Sequence[int], np.ndarray]] = [
                (range(len(items.values)), self._check_block(items.values))
            ]
        else:
            prepared: List[Any] = []
            for index, item in enumerate(items.values):
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(f"The time-out passed after {index} items were read.")
                prepared.append(self._prepare(item, index if items.many else None))
            blocks = _by_shape(prepared)
        results: List[Any] = [None] * len(items.values)
        for indices, rows in blocks:
            outcome = self.batcher.run(rows, deadline=deadline)
            trace.batch = max(trace.batch, outcome.batch)
            trace.queue_ms = max(trace.queue_ms, outcome.queue_ms)
            if outcome.failures:
                at, failure = min(outcome.failures.items())
                failure.item = indices[at] if items.many else None
                raise failure
            for index, output in zip(indices, outcome.outputs):
                results[index] = self._finish(output or {}, index if items.many else None)
        if time.monotonic() > deadline:
            raise DeadlineExceeded("No result within the time-out: postprocess was not done in time.")
        return results

    def _check_block(self, block: np.ndarray) -> np.ndarray:
        """Check an array of items at once, against the model's input with this very number of items."""
        spec = self.adapter.input
        if spec.item_shape is None:
            return as_model_item(block, TensorSpec(spec.name, spec.dtype, None))
        try:
            return as_model_item(block, TensorSpec(spec.name, spec.dtype, (None, len(block), *spec.item_shape)))
        except BadInput:
            for index, item in enumerate(block):  # the same complaint, in terms of an item
                self._check(item, index)
            raise

    def _prepare(self, item: Any, index: Optional[int]) -> Any:
        if self.preprocess is not None:
            if is_array(item) and not item.flags.writeable:
                item = item.copy()  # a hook may work in place
            try:
                item = self.preprocess(item)
            except RequestFailure as failure:
                failure.item = index
                raise
            except ValueError as error:
                raise BadInput(f"preprocess refused the item: {error}", item=index) from error
            except (Exception, SystemExit) as error:  # sys.exit() would end the worker, or the whole server
                raise _hook_failure("preprocess", error, index) from error
        elif self.adapter.input.dtype == "bytes" and is_array(item) and item.ndim == 0:
            item = item.item()
        elif is_list(item) or is_dict(item):
            raise BadInput(f"The model takes {self.adapter.input}; got JSON that is no array of numbers.", item=index)
        return self._check(item, index)

    def _check(self, item: Any, index: Optional[int]) -> Any:
        try:
            return as_model_item(item, self.adapter.input)
        except BadInput as failure:
            failure.item = index
            raise

    def _finish(self, output: Dict[str, Any], index: Optional[int]) -> Any:
        result: Any = output[self.wanted[0]] if len(self.wanted) == 1 else output
        if self.postprocess is None:
            return result
        try:
            return self.postprocess(result)
        except RequestFailure:
            raise
        except (Exception, SystemExit) as error:
            raise _hook_failure("postprocess", error, index) from error

    def _refuse(self, failure: RequestFailure) -> Answer:
        if isinstance(failure, ModelFailure) and failure.__cause__ is not None:
            cause = failure.__cause__
            traceback.print_exception(type(cause), cause, cause.__traceback__, file=sys.stderr)
        extra = {"Retry-After": str(failure.retry_after)} if isinstance(failure, Overloaded) else {}
        return _error(failure.status, failure.message, kind=failure.kind, item=failure.item, extra=extra)

    # --- reports ------------------------------------------------------------------------------------------------------

    def describe(self) -> Dict[str, Any]:
        """What goes in and what comes out."""

        def tensor(spec: TensorSpec) -> Dict[str, Any]:
            return {"name": spec.name, "dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}

        return {
            "version": self._version,
            "framework": self.adapter.framework,
            "device": str(self.adapter.device),
            "input": {**tensor(self.adapter.input), "item_ndim": self.item_ndim},
            "outputs": [tensor(spec) for spec in self.adapter.outputs if spec.name in self.wanted],
            "preprocess": self.preprocess.text if self.preprocess else "",
            "postprocess": self.postprocess.text if self.postprocess else "",
            "settings": asdict(self.settings),
        }

    def stats(self) -> Dict[str, Any]:
        """Counters since the start of this worker."""
        with self._lock:
            requests = dict(sorted(self._requests.items()))
        return {"uptime_seconds": round(time.time() - self._started, 3), "requests": requests, **self.batcher.stats()}


@contextlib.contextmanager
def _body_errors(limit: int) -> Generator[None, None, None]:
    """Turn what Werkzeug raises while a body is read into our answers."""
    from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

    try:
        yield
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(_TOO_LARGE.format(limit / MIB) + " A multipart body has up to 1,000 parts.") from error
    except MemoryError as error:
        raise BodyTooLarge("There is no memory for a body of this size now. Send fewer items per request.") from error
    except (HTTPException, OSError, ValueError) as error:
        raise BadInput(f"The body could not be read: {str(error)[:200]}.") from error


def _read_parts(request: Any) -> List[Part]:
    parts: List[Part] = []
    if request.form:
        names = ", ".join(sorted(request.form)[:5])
        raise BadInput(f"The multipart body has fields without a file name ({names}); each item is a file part.")
    for _name, file in request.files.items(multi=True):  # noqa: PERF102 - values() gives one file per name
        with contextlib.closing(file):
            parts.append(Part((file.mimetype or "").lower(), file.read()))
    return parts


def _by_shape(items: Sequence[Any]) -> List[Tuple[List[int], np.ndarray]]:
    """Group items that can share a batch: bytes together, arrays by shape."""
    groups: Dict[Any, List[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.shape if is_array(item) else None, []).append(index)
    blocks: List[Tuple[List[int], np.ndarray]] = []
    for shape, indices in groups.items():
        if shape is None:
            rows = np.empty(len(indices), dtype=object)
            rows[:] = [items[index] for index in indices]
        else:
            rows = np.stack([items[index] for index in indices])
        blocks.append((indices, rows))
    return blocks


def _hook_failure(role: str, error: BaseException, index: Optional[int]) -> ModelFailure:
    return ModelFailure(f"{role} raised {type(error).__name__}: {str(error)[:300]}", item=index)


def _error(
    status: int,
    message: str,
    *,
    kind: str = "",
    item: Optional[int] = None,
    extra: Optional[Mapping[str, str]] = None,
) -> Answer:
    body: Dict[str, Any] = {"message": message}
    headers = {"Content-Type": "application/json", **(extra or {})}
    if kind:
        body["error"] = headers["x-gpu-infer-error"] = kind
    if item is not None:
        body["item"] = item
    return Answer(status, to_json(body), headers)
