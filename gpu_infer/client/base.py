"""What the sync and the async client have in common: everything but moving bytes and waiting."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, TypeVar, cast, get_args
from urllib.parse import urlsplit

from ..blotting import blot_values
from ..errors import ScoringError
from .answers import is_ours, without_secrets
from .budget import RetryBudget
from .credentials import TaskVault, ThreadVault
from .failures import chain_of, credential_failure, not_encrypted, reason_of, too_large
from .inputs import encode, encode_items
from .kserve_service import KServe, Tensors, kserve_inputs
from .learning import Learner
from .limits import check_max_body, known_limit, refuse_too_large
from .many.job import Job
from .many.options import ManyOptions
from .many.source import holds_items, length_of
from .messages import Codec, Failure, FailureKind, Outcome, Payload, Request, Response, ScoreResponse
from .pictures import check_max_side
from .protocol import (
    Call,
    Conversation,
    Report,
    Watch,
    check_deployment,
    check_uri,
    converse,
    new_request_id,
    report_request,
    score_request,
)
from .results import read_result
from .retry import DEFAULT_RETRIES, DEFAULT_TIMEOUT, RetryPolicy, policy_of
from .telemetry import observed
from .timing import Timing, check_timeout

__all__ = [
    "CONNECT_TIMEOUT",
    "MAX_ANSWER_BYTES",
    "READ_SIZE",
    "BaseClient",
    "Body",
    "Timing",
    "ca_file",
    "chain_of",
    "credential_failure",
    "reason_of",
    "report_of",
    "too_large",
]

AnyLearner = TypeVar("AnyLearner", bound=Learner)

CONNECT_TIMEOUT = 10.0
"""Seconds for one attempt to connect: an address that swallows packets must not eat the whole deadline."""

MAX_ANSWER_BYTES = 1 << 30
"""1 GiB, unpacked; an answer beyond it is a mistake or an attack, and would fill the memory."""

READ_SIZE = 1 << 18
"""Bytes read at once."""


class Body:
    """Collects an answer up to a limit.

    Args:
        limit: bytes.
        headers: of the answer, names in lower case; the length that they announce counts before anything is read.
    """

    def __init__(self, limit: int, headers: Mapping[str, str]) -> None:
        self._limit = limit
        self._size = 0
        self._chunks: list[bytes] = []
        length = headers.get("content-length", "")
        # Python refuses to read numbers of thousands of digits; 2 ** 64 has twenty.
        announced = int(length[:20]) if length.isascii() and length.isdigit() else 0
        self.overflows: bool = announced > limit

    def add(self, chunk: bytes) -> None:
        """Take the next bytes, unpacked."""
        self._size += len(chunk)
        self.overflows = self.overflows or self._size > self._limit
        if not self.overflows:
            self._chunks.append(chunk)

    def join(self) -> bytes:
        """All bytes so far."""
        return b"".join(self._chunks)


class BaseClient:
    """Settings, and the making of calls. Not for use by itself."""

    def __init__(
        self,
        uri: str,
        vault: ThreadVault | TaskVault,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int | RetryPolicy = DEFAULT_RETRIES,
        codec: Codec | None = None,
        max_side: int | None = None,
        max_body: int | None = None,
        deployment: str | None = None,
    ) -> None:
        if codec is not None and codec not in get_args(Codec):
            raise ValueError(f"codec must be one of {', '.join(get_args(Codec))} or None, not {codec!r}.")
        self._uri = check_uri(uri)
        self._base_vault = vault
        self._timeout = check_timeout(timeout)
        self._policy = policy_of(retries)
        self._budget = RetryBudget(self._policy.budget)
        self._codec: Codec | None = codec
        self._max_side = check_max_side(max_side)
        self._max_body = check_max_body(max_body)
        self._deployment = check_deployment(deployment)
        self._known_limit = known_limit(self._uri)
        self._kserve = KServe(self._uri, self._check_size)
        self._timing = Timing()
        self._max_answer = MAX_ANSWER_BYTES
        self._base_learner = Learner(ours=None)
        self._is_ours = False

    @property
    def uri(self) -> str:
        """The scoring address."""
        return self._uri

    @property
    def timeout(self) -> float:
        """Seconds that a call may take, its retries included."""
        return self._timeout

    def __repr__(self) -> str:
        if not hasattr(self, "_codec"):  # half made, in the traceback of why it could not be
            return f"{type(self).__name__}(...)"
        settings = f"credential={self._base_vault!r}, timeout={self._timeout:g}, codec={self._codec!r}"
        return f"{type(self).__name__}({without_secrets(self._uri)!r}, {settings})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {"timeout": self._timeout, "retries": self._policy, "codec": self._codec}
        options |= {"max_side": self._max_side, "max_body": self._max_body, "ours": self._base_learner.ours}
        options |= {"deployment": self._deployment}
        return (_rebuild, (type(self), self._uri, self._base_vault.portable(), options))

    def _with(self, learner: AnyLearner) -> AnyLearner:
        """Take what the client's own kind of learner knows from the start."""
        self._base_learner, self._is_ours = learner, bool(learner.ours)
        return learner

    def _encode(self, x: object, *, one: bool) -> Payload:
        if self._codec == "kserve":
            return kserve_inputs(x, one=one, max_side=self._max_side)
        return self._not_too_large(encode(x, self._codec, one=one, max_side=self._max_side))

    def _encode_group(self, items: Sequence[Any]) -> Payload:
        if len(items) == 1 or self._codec == "kserve":
            return self._encode(items[0] if len(items) == 1 else list(items), one=len(items) == 1)
        return self._not_too_large(encode_items(items, self._codec, max_side=self._max_side))

    def _not_too_large(self, payload: Payload) -> Payload:
        self._check_size(len(payload.body))
        return payload

    def _check_size(self, size: int) -> None:
        refuse_too_large(size, limit=self._max_body, known=self._known_limit)

    def _takes_groups(self) -> bool:
        """Whether several items may share a request unasked: services of ours say so by their answers."""
        return self._is_ours and self._codec in (None, "npy")

    def _open_job(self, options: ManyOptions, source: object) -> Job:
        read, clock = functools.partial(self._read, options.result), self._timing.clock
        return Job(options, total=length_of(source), read=read, clock=clock, own=not holds_items(source))

    def _read(self, result: type[Any] | None, value: Any) -> Any:
        return value if result is None else read_result(value, result, self._base_learner.signature)

    def _score_conversation(
        self, payload: Payload, timeout: float | None, *, patient: bool = False, watch: Watch | None = None
    ) -> Conversation:
        """One call, for ``_run``.

        Args:
            payload: the input.
            timeout: seconds, instead of the client's.
            patient: one of many calls of a job that nobody waits for, see :class:`Call`.
            watch: is told what came of each attempt, and how many seconds it took, in the thread or task that runs it.
        """
        if isinstance(payload, Tensors):
            until = self._timing.clock() + (self._timeout if timeout is None else check_timeout(timeout))

            def ask(request: Request, *, seconds: float, scores: bool) -> Conversation:
                id_, codec = request.headers["x-ms-client-request-id"], self._codec if scores else None
                call = self._call(request, id_, seconds, codec=codec, pure=not scores, patient=patient)
                return self._converse(call, "score", watch) if scores else self._converse(call, "describe")

            return self._kserve.score(payload, ask, lambda: until - self._timing.clock())
        request_id = new_request_id()
        request = score_request(self._uri, payload, codec=self._codec, request_id=request_id)
        call = self._call(request, request_id, timeout, codec=self._codec, pure=self._is_ours, patient=patient)
        return self._converse(call, "score", watch)

    def _report_conversation(self, report: Report, timeout: float | None, *, once: bool = False) -> Conversation:
        request_id = new_request_id()
        request = report_request(self._uri, report, request_id=request_id)
        call = self._call(request, request_id, timeout, codec=None, pure=True, patient=False)
        return self._converse(replace(call, policy=replace(call.policy, limit=0)) if once else call, report)

    def _call(
        self,
        request: Request,
        request_id: str,
        timeout: float | None,
        *,
        codec: Codec | None,
        pure: bool,
        patient: bool,
    ) -> Call:
        if self._deployment is not None:
            request = replace(request, headers={**request.headers, "azureml-model-deployment": self._deployment})
        return Call(
            request=request,
            request_id=request_id,
            codec=codec,
            timeout=self._seconds(timeout),
            policy=self._policy,
            pure=pure,
            patient=patient,
            renewable=self._base_vault.renewable,
            keys=lambda: self._base_vault.keys,
            keyless=self._base_vault.empty,
            hide=lambda text: blot_values(self._base_vault.hide_in(text)),
        )

    def _converse(self, call: Call, operation: str, watch: Watch | None = None) -> Conversation:
        timing = self._timing
        conversation = converse(
            call, clock=timing.clock, random=timing.random, now=timing.now, budget=self._budget, watch=watch
        )
        return observed(conversation, call, operation=operation, clock=timing.clock)

    def _outcome(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        if status == 200 and not body and not {"content-length", "transfer-encoding"} & headers.keys():
            # Python's own HTTP library takes a connection that is closed among the headers for the end of an answer.
            return Failure("broken", self._broken("it ended in the headers"))
        response = Response(status, headers, body)
        # Never back to False: an answer of the front end in between does not make the service another one.
        if is_ours(response):
            self._is_ours = True
            self._base_learner.met()
        return response

    def _seconds(self, timeout: float | None) -> float:
        """What a call may take: its own time-out, else the client's."""
        return self._timeout if timeout is None else check_timeout(timeout)

    def _is_local(self) -> bool:
        """Whether the service runs on this very machine, where no proxy of the environment may stand in between."""
        host = urlsplit(self._uri).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def _where(self) -> str:
        parts = urlsplit(self._uri)
        return f"{parts.scheme}://{parts.netloc}"

    def _no_connection(self, reason: str) -> str:
        return (
            f"The service at {self._where} could not be reached: {reason}. Is it running, and the address right? If it "
            "has crashed, service.logs(), or gpu-infer logs, has what it wrote."
        )

    def _broken(self, reason: str) -> str:
        return (
            f"The connection to {self._where} broke before the whole answer was here: {reason}. The worker may have "
            "crashed, which service.logs() shows; the request may have been carried out."
        )

    def _failure(self, kind: FailureKind, error: Exception, timeout: float) -> Failure:
        reason = "it did not take the connection in time" if kind == "connect_timeout" else reason_of(error)
        if kind == "read_timeout":
            message = self._no_answer(timeout)
        else:
            message = self._broken(reason) if kind == "broken" else self._no_connection(reason)
        return not_encrypted(error, self._where) or Failure(kind, message, error)

    def _no_answer(self, timeout: float) -> str:
        return f"No whole answer from {self._where} within the {timeout:.3g} s that this attempt had."


def _rebuild(kind: Callable[..., Any], uri: str, provider: object, options: dict[str, Any]) -> object:
    return kind(uri, provider, **options)


def ca_file() -> str | None:
    """The file or folder of certificates to trust that the environment names, ``None`` for those of certifi.

    requests and OpenSSL look for it under different names; here all of them count for both clients.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        if path := os.environ.get(name):
            return path
    return None


def report_of(response: ScoreResponse[Any]) -> dict[str, Any]:
    """The report in an answer.

    Raises:
        ScoringError: the service is none of ours; it may have run the request, or answered anything.
    """
    value: Any = response.value
    if response.device and isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise ScoringError(
        "The service does not report about itself; only services built by gpu_infer do.",
        status=200,
        request_id=response.request_id,
        elapsed=response.elapsed,
    )
