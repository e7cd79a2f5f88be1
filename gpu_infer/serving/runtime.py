"""The runtime behind ``score.py``: started once by ``init()``, asked by every ``run()``."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from .adapters.base import TensorSpec
from .admission import Admission
from .answering import Answer, error_answer, log_request
from .check import as_model_item
from .codecs.decode import (
    Items,
    Part,
    decode_body,
    decode_parts,
    parse_accept,
    parse_items_header,
)
from .codecs.encode import encode_results, to_json
from .cores import usable_cores
from .engine.engine import Engine, ModelFacts
from .engine.jobs import BlockResult, Rows
from .engine.latencies import Latencies
from .engine.scheduling import Scheduler
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
from .receiving import MIB, NO_MEMORY, content_type, header, receive
from .settings import Settings
from .stats import summed

LARGE_BODY = 256 << 10
"""Bytes from which on a body is decoded in a thread of the pool: else it would keep other requests waiting."""

HOOK_THREADS = 32
"""Threads for the functions of the user's files: they may wait for something, so there are more than cores."""

Results = Union[List[Any], np.ndarray]
"""One result per item."""

Block = Tuple[Sequence[int], Rows]
"""Items that can share a batch: where they stand in the request, and ``[k, ...]`` or what makes it."""


@dataclass
class _Trace:
    """What the headers of an answer tell about the work behind it."""

    batch: int = 0
    queue_ms: float = 0.0
    decode_ms: float = 0.0


class Runtime:
    """A loaded model with everything around it.

    Args:
        settings: of the bundle.
        engine: runs the model.
        scheduler: how requests wait.
        preprocess, postprocess: the hooks, ``None`` without.
        version: of the library that built the bundle.
        labels: names of the classes, empty without.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        scheduler: Scheduler,
        preprocess: Optional[Hook] = None,
        postprocess: Optional[Hook] = None,
        version: str = "",
        labels: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.model: ModelFacts = engine.facts
        self.preprocess = preprocess
        self.postprocess = postprocess
        self._looks = preprocess is None or not preprocess.decodes
        self._wanted: Tuple[str, ...] = tuple(spec.name for spec in self.model.outputs)
        self._scheduler = scheduler
        self._version, self._labels = version, labels
        self._started = time.time()
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._latencies = Latencies(("decode", "total"))
        self._admission = Admission(
            most=settings.max_concurrency, at_least=settings.max_batch, longest_wait=settings.max_queue_ms / 1e3
        )
        self._cores = usable_cores()
        self._device_header = str(self.model.device).replace(",", " ")
        spec = self.model.input
        fixed = spec.dtype != "bytes" and spec.item_shape is not None and None not in spec.item_shape
        # What nearly every array is, so that it takes no more than two comparisons.
        self._plain: Tuple[Any, Any] = (np.dtype(spec.dtype), spec.item_shape) if fixed else (None, None)

    @property
    def item_ndim(self) -> Optional[int]:
        """Rank of an array that is one item of a request, ``None`` where it is not known."""
        if self.preprocess is not None and not self.preprocess.keeps_rank:
            return self.preprocess.item_ndim
        shape = self.model.input.item_shape
        return None if shape is None else len(shape)

    @property
    def max_body(self) -> int:
        """The most bytes of a body."""
        return int(self.settings.max_body_mb * MIB)

    # --- one request --------------------------------------------------------------------------------------------------

    def handle(self, request: Any) -> Answer:
        """Answer one request to ``/score``; never raises.

        Args:
            request: the stock server's request (a Flask request).
        """
        started = time.perf_counter()
        trace = _Trace()
        if request.method in ("GET", "POST"):
            answer = self._answer(request, trace)
        else:
            answer = error_answer(405, f"{request.method} is not supported")
        milliseconds = (time.perf_counter() - started) * 1e3
        with self._lock:
            self._requests[str(answer.status)] += 1
            if trace.batch:
                self._latencies.add("decode", trace.decode_ms)
                self._latencies.add("total", milliseconds)
        headers = {
            **answer.headers,
            "x-gpu-infer-device": self._device_header,
            "x-gpu-infer-batch": str(trace.batch),
            "x-gpu-infer-queue-ms": f"{trace.queue_ms:.3f}",
        }
        if self.settings.access_log or 400 <= answer.status < 500:
            log_request(request, answer, milliseconds)
        return Answer(answer.status, answer.body, headers)

    def _answer(self, request: Any, trace: _Trace) -> Answer:
        """Answer what can be answered; what goes wrong becomes an answer, too."""
        try:
            if request.method == "GET":
                return self._answer_get(request)
            return self._answer_post(request, trace)
        except RequestFailure as failure:
            return self._refuse(failure)
        except Exception as error:  # our own mistake: say so, keep the traceback in the log, answer the next request
            traceback.print_exc(file=sys.stderr)
            return error_answer(
                500, f"The serving runtime failed: {type(error).__name__}. See the log.", kind="internal"
            )

    def _answer_get(self, request: Any) -> Answer:
        reports = {"describe": self.describe, "stats": self.stats, "gpu": self.engine.gpu_report}
        asked = request.args.get("gpu_infer", "")
        report = reports.get(asked)
        if asked and report is None:
            return error_answer(404, f"There is no report {asked[:40]!r}; there are {', '.join(reports)}.")
        if report is None:
            return Answer(405, b"GET is not supported", {"Content-Type": "text/plain", "Allow": "POST"})
        return Answer(200, to_json(report()), {"Content-Type": "application/json"})

    def _answer_post(self, request: Any, trace: _Trace) -> Answer:
        deadline = time.monotonic() + self._timeout(header(request, "x-gpu-infer-timeout-ms")) / 1e3
        body = receive(request, limit=self.max_body)
        # Not before its body has come: a few slow senders would keep all others out.
        entered, took = self._admission.enter(deadline), 0.0
        started = time.perf_counter()
        try:
            items = self._decode(request, body)
            blocks = self._blocks(items, deadline, trace)
            trace.decode_ms = (time.perf_counter() - started) * 1e3
            results = self._score(items, blocks, deadline, trace)
            accept_npy = parse_accept(header(request, "accept"))
            content, its_type = encode_results(results, many=items.many, accept_npy=accept_npy)
            took = time.perf_counter() - started
            return Answer(200, content, {"Content-Type": its_type})
        finally:
            self._admission.leave(entered, took)

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

    def _decode(self, request: Any, body: Union[bytes, List[Part]]) -> Items:
        """Read items out of a body."""
        many, problem = parse_items_header(header(request, "x-gpu-infer-items"))
        if problem:
            raise BadInput(problem)
        if isinstance(body, list):
            return decode_parts(body, look=self._looks)
        kind, ndim = content_type(request), self.item_ndim
        decode = partial(decode_body, kind, body, item_ndim=ndim, many=many, look=self._looks)
        try:
            return decode() if len(body) < LARGE_BODY else self._scheduler.offload("decode", self._cores, decode)
        except MemoryError as error:
            raise BodyTooLarge(NO_MEMORY) from error

    def _blocks(self, items: Items, deadline: float, trace: _Trace) -> Sequence[Block]:
        """Preprocess and check the items of a request, and group those that can share a batch."""
        values = items.values
        if self.preprocess is None and self.model.input.dtype != "bytes":
            if is_array(values):
                # One array of items: one check of the whole block instead of one per item.
                return [(range(len(values)), self._check_block(values))] if len(values) else []
            if len(values) == 1 and is_array(values[0]):
                return [((0,), self._check(values[0], 0 if items.many else None)[np.newaxis])]
        hook = self.preprocess
        if hook is not None and not (hook.quick or hook.of_user) and len(values) == 1 and self.engine.makes:
            return [((0,), partial(self._make, values[0], 0 if items.many else None, deadline, trace))]
        prepare = [
            partial(self._prepare, item, index if items.many else None, deadline) for index, item in enumerate(values)
        ]
        return _by_shape(self._run_all(prepare, self.preprocess))

    def _make(self, item: Any, index: Optional[int], deadline: float, trace: _Trace) -> np.ndarray:
        """Prepare an item where it runs: what one thread has just decoded another would have to fetch."""
        started = time.perf_counter()
        rows = _stacked([self._prepare(item, index, deadline)])
        trace.decode_ms += (time.perf_counter() - started) * 1e3
        return rows

    def _run_all(self, calls: Sequence[Callable[[], Any]], hook: Optional[Hook]) -> List[Any]:
        """Run the calls of a hook, several at once where that keeps others from waiting; those of none as they are."""
        if hook is None or hook.quick:
            return [call() for call in calls]
        if hook.of_user:
            return self._scheduler.offload_all("hooks", HOOK_THREADS, calls)
        return self._scheduler.offload_all("decode", self._cores, calls)

    def _score(self, items: Items, blocks: Sequence[Block], deadline: float, trace: _Trace) -> Results:
        """Run the blocks of a request and postprocess what comes out; one result per item."""
        count = len(items.values)
        outcomes: List[Tuple[Sequence[int], BlockResult]] = []
        for indices, rows in blocks:
            outcome = self.engine.run(rows, deadline=deadline)
            trace.batch = max(trace.batch, outcome.batch)
            trace.queue_ms = max(trace.queue_ms, outcome.queue_ms)
            if outcome.failures:
                at, failure = min(outcome.failures.items())
                failure.item = indices[at] if items.many else None
                raise failure
            outcomes.append((indices, outcome))
        if self.postprocess is None and len(outcomes) == 1 and len(self._wanted) == 1:
            return outcomes[0][1].outputs[self._wanted[0]]  # in order, and as it is
        results: List[Any] = [None] * count
        finish: List[Callable[[], None]] = []
        for indices, outcome in outcomes:
            for row, index in enumerate(indices):
                output = {name: outcome.outputs[name][row] for name in self._wanted}
                finish.append(partial(self._finish, results, index, output, index if items.many else None))
        self._run_all(finish, self.postprocess)
        if time.monotonic() > deadline:
            raise DeadlineExceeded("No result within the time-out: postprocess was not done in time.")
        return results

    def _check_block(self, block: np.ndarray) -> np.ndarray:
        """Check an array of items at once, against the model's input with this very number of items."""
        if (block.dtype, block.shape[1:]) == self._plain:
            return block
        spec = self.model.input
        if spec.item_shape is None:
            return as_model_item(block, TensorSpec(spec.name, spec.dtype, None))
        try:
            return as_model_item(block, TensorSpec(spec.name, spec.dtype, (None, len(block), *spec.item_shape)))
        except BadInput:
            for index, item in enumerate(block):  # the same complaint, in terms of an item
                self._check(item, index)
            raise

    def _prepare(self, item: Any, index: Optional[int], deadline: float) -> Any:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"The time-out passed after {index or 0} items were read.")
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
        elif self.model.input.dtype == "bytes" and is_array(item) and item.ndim == 0:
            item = item.item()
        elif is_list(item) or is_dict(item):
            raise BadInput(f"The model takes {self.model.input}; got JSON that is no array of numbers.", item=index)
        return self._check(item, index)

    def _check(self, item: Any, index: Optional[int]) -> Any:
        if is_array(item) and (item.dtype, item.shape) == self._plain:
            return item
        try:
            return as_model_item(item, self.model.input)
        except BadInput as failure:
            failure.item = index
            raise

    def _finish(self, results: List[Any], at: int, output: Dict[str, Any], index: Optional[int]) -> None:
        """Make one item's result of its outputs; ``index`` is its number in an error, if it has one."""
        result: Any = output[self._wanted[0]] if len(self._wanted) == 1 else output
        if self.postprocess is not None:
            try:
                result = self.postprocess(result)
            except RequestFailure:
                raise
            except (Exception, SystemExit) as error:
                raise _hook_failure("postprocess", error, index) from error
        results[at] = result

    def _refuse(self, failure: RequestFailure) -> Answer:
        if isinstance(failure, ModelFailure):
            failure.report()
        extra = {"Retry-After": str(failure.retry_after)} if isinstance(failure, Overloaded) else {}
        return error_answer(failure.status, failure.message, kind=failure.kind, item=failure.item, extra=extra)

    # --- reports ------------------------------------------------------------------------------------------------------

    def describe(self) -> Dict[str, Any]:
        """What goes in and what comes out."""

        def tensor(spec: TensorSpec) -> Dict[str, Any]:
            return {"name": spec.name, "dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}

        return {
            "version": self._version,
            "framework": self.model.framework,
            "device": str(self.model.device),
            "input": {**tensor(self.model.input), "item_ndim": self.item_ndim},
            "outputs": [tensor(spec) for spec in self.model.outputs],
            "preprocess": self.preprocess.text if self.preprocess else "",
            "postprocess": self.postprocess.text if self.postprocess else "",
            "labels": list(self._labels) or None,
            "settings": asdict(self.settings),
        }

    def counts(self) -> Dict[str, Any]:
        """What this process alone has counted: requests by status, and histograms of their times."""
        with self._lock:
            return {
                "started": self._started,
                "requests": dict(sorted(self._requests.items())),
                "latencies": self._latencies.counts(),
            }

    def stats(self) -> Dict[str, Any]:
        """Counters since the start of the service, of all its workers."""
        return summed([self.counts(), *self.engine.other_workers()], self.engine.stats())


def _by_shape(items: Sequence[Any]) -> Sequence[Block]:
    """Group items that can share a batch: bytes together, arrays by shape."""
    groups: Dict[Any, List[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.shape if is_array(item) else None, []).append(index)
    return [(indices, _stacked([items[index] for index in indices])) for indices in groups.values()]


def _stacked(items: Sequence[Any]) -> np.ndarray:
    """Items of one shape, or bytes, as a block."""
    if not is_array(items[0]):
        rows = np.empty(len(items), dtype=object)
        rows[:] = items
        return rows
    return items[0][np.newaxis] if len(items) == 1 else np.stack(items)


def _hook_failure(role: str, error: BaseException, index: Optional[int]) -> ModelFailure:
    return ModelFailure(f"{role} raised {type(error).__name__}: {str(error)[:300]}", item=index)
