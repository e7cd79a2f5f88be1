"""The client for programs that wait: moves bytes with requests, and leaves every decision to the protocol."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal, Self, overload
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from ..errors import ScoringError
from .base import (
    CONNECT_TIMEOUT,
    DEFAULT_CONCURRENCY,
    MAX_CONCURRENCY,
    READ_SIZE,
    BaseClient,
    Body,
    Many,
    ca_file,
    chain_of,
    credential_failure,
    reason_of,
    report_of,
    rows_of,
    too_large,
)
from .credentials import CredentialError, ThreadVault, Token
from .learning import ThreadLearner, seconds_left
from .messages import Codec, Failure, Outcome, Pause, ScoreResponse, Send
from .protocol import Conversation, Report, new_request_id, score_request
from .repeated import Repeated
from .results import Readable, check_result, read_response, uses_signature
from .retry import DEFAULT_RETRIES, DEFAULT_TIMEOUT, RetryPolicy
from .tokens import Credential, Sealed

__all__ = ["ScoringClient"]


class ScoringClient(BaseClient):
    """Scores inputs against an Azure ML scoring URI. Safe to share between threads; close it, or use it in ``with``.

    Args:
        uri: the whole scoring address, as ``service.scoring_uri`` has it.
        credential: a key; a :class:`KeyPair`, whose second key is used when the first is refused; an
            :class:`AccessToken`; a Microsoft Entra credential as ``azure.identity.DefaultAzureCredential()``; or a
            function without arguments that returns one of the first three. It is asked once for all threads, again
            before a token expires, and once when the service refuses what it gave.
        timeout: seconds for a call, all its retries and their waits included.
        retries: how often a call that was turned away is tried again at most; a :class:`RetryPolicy` for more.
        codec: ``None`` sends each input in the form that fits it, which services built by ``gpu_infer`` read.
            ``"json"`` sends ``{"data": ...}`` and reads JSON, for other services; ``"npy"``, ``"bytes"`` force those.
            ``"kserve"`` speaks KServe's second protocol with binary tensors, for Triton and its like; ``uri`` then ends
            in ``/v2/models/NAME/infer``, or is the base address of a service with one model.
        max_side: pixels; a JPEG, PNG or PIL image whose longer side is larger is scaled down to it before it is sent.
        max_body: bytes; a larger request is a :class:`BadInputError` and not sent. Without it, the limit of the router
            on AKS counts for its addresses, and none for others.
        ours: whether ``gpu_infer`` built the service, which then tells what it takes: inputs are checked before they
            are sent, and classes have labels. ``None`` finds out from its answers; ``False`` never asks.

    Raises:
        TypeError: a credential of another type.
        ValueError: an address, time-out, codec or key that cannot be used.

    Example:
        >>> with ScoringClient("http://127.0.0.1:5001/score") as client:  # doctest: +SKIP
        ...     client.score("lynx.jpg").argmax()
        287
    """

    def __init__(
        self,
        uri: str,
        credential: Credential | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int | RetryPolicy = DEFAULT_RETRIES,
        codec: Codec | None = None,
        max_side: int | None = None,
        max_body: int | None = None,
        ours: bool | None = None,
    ) -> None:
        sealed = Sealed(credential)
        del credential  # tools that report errors show variables
        self._vault = ThreadVault(sealed)
        super().__init__(
            uri, self._vault, timeout=timeout, retries=retries, codec=codec, max_side=max_side, max_body=max_body
        )
        self._learner = self._with(ThreadLearner(ours=ours))
        self._closed = threading.Event()
        # Waiting on the event and not on the clock: close() wakes those who wait for a retry.
        self._sleep: Callable[[float], object] = self._closed.wait
        self._session = _new_session()
        # Named so, requests takes no proxy of the environment for this address.
        self._proxies = {"no_proxy": urlsplit(self._uri).hostname or ""} if self._is_local() else {}

    @overload
    def score(self, x: Any, *, timeout: float | None = None, result: None = None) -> Any: ...
    @overload
    def score(self, x: Any, *, timeout: float | None = None, result: type[Readable]) -> Readable: ...
    def score(self, x: Any, *, timeout: float | None = None, result: type[Any] | None = None) -> Any:
        """Score one item, or a list of items in one request.

        Args:
            x: ``bytes``, a path (``str`` or ``PathLike``), a binary file, a PIL image, an array or anything with
                ``__array__`` of any shape and dtype that NumPy saves without pickle, nested lists of numbers (one
                array), a ``dict`` (sent as JSON as it is), or a list of items: bytes, paths, files, images and arrays.
            timeout: seconds for this call, instead of the client's.
            result: what the result is read as: ``ClassScores``, ``np.ndarray``, ``dict``, ``list``, ``float``, ``int``,
                ``str``, or a class with a classmethod ``from_answer``, see :class:`FromAnswer`; ``None``: as it comes.

        Returns:
            for one item its result, without a batch axis; for a list of items, or an array with one axis more than the
            model's item, one result per item. ``np.ndarray`` or NumPy scalar where the service answers ``.npy`` (ours
            do), else parsed JSON.

        Raises:
            BadInputError: nothing that can be sent, or that the service takes.
            ModelError: the model raised on it.
            OverloadedError: turned away, and no time or retry is left.
            ScoringTimeoutError: no result in time.
            AuthenticationError: the key or token was refused.
            ScoringConnectionError: the service could not be reached, or the connection broke.
            ScoringError: anything else that is no result, or none that can be read as ``result``.
            TypeError: a ``result`` that nothing can be read as.
        """
        response: ScoreResponse[Any] = self.score_response(x, timeout=timeout, result=result)
        return response.value

    @overload
    def score_response(self, x: Any, *, timeout: float | None = None, result: None = None) -> ScoreResponse[Any]: ...
    @overload
    def score_response(
        self, x: Any, *, timeout: float | None = None, result: type[Readable]
    ) -> ScoreResponse[Readable]: ...
    def score_response(
        self, x: Any, *, timeout: float | None = None, result: type[Any] | None = None
    ) -> ScoreResponse[Any]:
        """Score as :meth:`score` does, and return the result with device, batch size, waiting time and request id."""
        check_result(result)
        payload = self._encode(x, one=False)
        seconds = self._learner.admit(payload, self._seconds(timeout), ask=self._ask, clock=self._timing.clock)
        response = self._run(self._score_conversation(payload, seconds))
        if uses_signature(result):
            self._learner.learn(seconds_left(seconds, response.elapsed), ask=self._ask, clock=self._timing.clock)
        return read_response(response, result, self._learner.signature)

    def score_many(
        self,
        items: Iterable[Any],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        ordered: bool = True,
        on_error: Literal["raise", "return"] = "raise",
        timeout: float | None = None,
    ) -> Generator[Any, None, None]:
        """Score items one by one, several at a time, in bounded memory.

        Args:
            items: any iterable; each element is one item, as :meth:`score` takes it. The rows of an array or data frame
                are items. Up to ``2 * concurrency`` of them are read ahead of the results.
            concurrency: requests in flight at once, 1 to 256.
            ordered: results in the order of the items, else as they are ready.
            on_error: ``"raise"`` the first :class:`ScoringError`, or ``"return"`` it in the place of the result.
            timeout: seconds for each item, instead of the client's.

        Yields:
            the result of each item, without a batch axis.

        Raises:
            ScoringError: with ``on_error="raise"``, what :meth:`score` raises; a note on it says which item.
        """
        many = Many(concurrency=concurrency, ordered=ordered, on_error=on_error, timeout=timeout)
        return self._many(iter(rows_of(items)), many)

    def repeated(self, x: Any, *, timeout: float | None = None) -> Repeated:
        """Encode ``x``, as :meth:`score` takes it, once, to send it many times on connections apart from this client's.

        For measuring (see ``gpu_infer.load``): no retries, and answers are not decoded.

        Raises:
            BadInputError: nothing that can be sent.
            ValueError: the environment names a proxy that is not spoken there, or the codec is ``"kserve"``.
        """
        if self._codec == "kserve":
            raise ValueError(
                "repeated() has no form for codec='kserve'; Triton's own perf_analyzer measures such services."
            )
        request = score_request(self._uri, self._encode(x, one=False), codec=self._codec, request_id=new_request_id())
        seconds = self._timeout if timeout is None else timeout
        return Repeated(request, self._vault, timeout=seconds, direct=self._is_local())

    def describe(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The model's inputs and outputs, the hooks and the settings, as the service tells them.

        Raises:
            ScoringError: no answer, or the service is none of ours.
        """
        return self._report("describe", timeout)

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Counters since the start of the worker that answers: requests, batches, errors, times in milliseconds.

        Raises:
            ScoringError: no answer, or the service is none of ours.
        """
        return self._report("stats", timeout)

    def gpu_report(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Which device does the work, as the service's framework sees it.

        Raises:
            ScoringError: no answer, or the service is none of ours.
        """
        return self._report("gpu", timeout)

    def close(self) -> None:
        """Close the connections; calls that wait for a retry end with an error. May be called twice."""
        self._closed.set()
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, seconds: float) -> dict[str, Any]:
        return report_of(self._run(self._report_conversation("describe", seconds, once=True)))

    def _report(self, report: Report, timeout: float | None) -> dict[str, Any]:
        return report_of(self._run(self._report_conversation(report, timeout)))

    def _run(self, conversation: Conversation, abandoned: threading.Event | None = None) -> ScoreResponse[Any]:
        """Carry out what the protocol orders, until it returns or raises."""
        token: Token | None = None
        try:
            order = next(conversation)
            while True:
                if self._closed.is_set() or (abandoned is not None and abandoned.is_set()):
                    raise RuntimeError("The client is closed." if self._closed.is_set() else "Nobody waits for this.")
                event: Outcome | None = None
                if isinstance(order, Pause):
                    self._sleep(order.seconds)
                else:
                    try:
                        token = self._vault.get(
                            refused=token if order.renew else None, wait=order.remaining, timing=self._timing
                        )
                        event = self._transmit(order, token)
                    except CredentialError as problem:
                        event = credential_failure(problem)
                order = conversation.send(event)
        except StopIteration as stop:
            return stop.value
        finally:
            conversation.close()

    def _transmit(self, order: Send, token: Token | None) -> Outcome:
        request = order.request
        begun = self._timing.clock()
        outcome: Outcome | None = None
        try:
            with self._session.request(
                request.method,
                request.url,
                data=request.body or None,
                headers=request.headers,
                auth=_Bearer(token),
                proxies=self._proxies,
                timeout=(min(CONNECT_TIMEOUT, order.timeout), order.timeout),
                allow_redirects=False,
                stream=True,
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                body, chunks = Body(self._max_answer, headers), _chunks(answer.raw)
                while not body.overflows and (chunk := next(chunks, b"")):
                    body.add(chunk)
                    # The socket's time-out begins anew with each byte; the call's does not.
                    if self._timing.clock() - begun > order.timeout:
                        return Failure("read_timeout", self._no_answer(order.timeout))
                if body.overflows:
                    outcome = too_large(self._max_answer)
                else:
                    outcome = self._outcome(answer.status_code, headers, body.join())
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            _forget_request(error)
            # What goes wrong while the connection is closed changes nothing.
            return outcome or self._failure(error, order.timeout)
        return outcome

    def _failure(self, error: Exception, timeout: float) -> Failure:
        chain = chain_of(error)
        reason = reason_of(error)
        if (failure := self._not_encrypted(error)) is not None:
            return failure
        # Refused or no such host; asked before the time-outs, one of which it is in urllib3 1.
        if any(isinstance(inner, NewConnectionError | requests.exceptions.ProxyError) for inner in chain):
            return Failure("connect", self._no_connection(reason), error)
        if any(isinstance(inner, requests.ConnectTimeout | ConnectTimeoutError) for inner in chain):
            return Failure("connect_timeout", self._no_connection("it did not take the connection in time"), error)
        if any(isinstance(inner, TimeoutError | urllib3.exceptions.TimeoutError | requests.Timeout) for inner in chain):
            return Failure("read_timeout", self._no_answer(timeout), error)
        return Failure("broken", self._broken(reason), error)

    def _many(self, source: Iterator[Any], many: Many) -> Generator[Any, None, None]:
        abandoned = threading.Event()
        pool = ThreadPoolExecutor(many.concurrency, thread_name_prefix="gpu-infer-score")

        def work(index: int, item: Any) -> Any:
            try:
                payload = self._encode(item, one=True)
                return self._run(self._score_conversation(payload, many.timeout), abandoned).value
            except ScoringError as error:
                return many.outcome(error, index)

        pending: deque[Future[Any]] = deque()
        broken: list[Exception] = []
        try:
            for index, item in _numbered(source, broken):
                pending.append(pool.submit(work, index, item))
                if len(pending) >= many.window:
                    yield _take(pending, ordered=many.ordered).result()
            while pending:
                yield _take(pending, ordered=many.ordered).result()
        finally:
            abandoned.set()
            # Those in flight end by their own time-out; whoever leaves the loop does not wait for them.
            pool.shutdown(wait=False, cancel_futures=True)
        if broken:
            raise broken[0]


def _numbered(source: Iterator[Any], broken: list[Exception]) -> Iterator[tuple[int, Any]]:
    """The caller's items with their numbers; what the iterable raises is kept, until the items before it are done."""
    try:
        yield from enumerate(source)
    except Exception as error:  # noqa: BLE001  (the caller's own code; raised again at the end)
        broken.append(error)


def _take(pending: deque[Future[Any]], *, ordered: bool) -> Future[Any]:
    if ordered:
        return pending.popleft()
    done = next(iter(wait(pending, return_when=FIRST_COMPLETED).done))
    pending.remove(done)
    return done


def _chunks(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives, unpacked; urllib3 1 has no ``read1`` and gives it in whole pieces."""
    read = getattr(raw, "read1", raw.read)
    while chunk := read(READ_SIZE, decode_content=True):
        yield chunk


def _new_session() -> requests.Session:
    session = requests.Session()
    session.headers.clear()
    session.verify = ca_file() or True
    # A load balancer's affinity cookie would tie all requests to one replica.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=MAX_CONCURRENCY, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Bearer(AuthBase):
    """Adds the credential at the last moment; with any ``auth`` at all, requests does not read ``.netrc`` either."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            r.headers["Authorization"] = self._token.header()
        return r


def _forget_request(error: BaseException) -> None:
    """Take the key out of the exception that becomes the cause of ours: requests hangs the whole request on it."""
    for inner in chain_of(error):
        traceback.clear_frames(inner.__traceback__)  # and out of the variables: tools that report errors show those
        request = getattr(inner, "request", None)
        if isinstance(request, requests.PreparedRequest):
            request.headers.pop("Authorization", None)
