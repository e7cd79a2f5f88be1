"""The client for programs that wait: moves bytes with requests, and leaves every decision to the protocol."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self, Unpack, overload
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from ..errors import ScoringError
from .base import (
    CONNECT_TIMEOUT,
    BaseClient,
    Body,
    credential_failure,
    report_of,
    too_large,
)
from .credentials import CredentialError, ThreadVault, Token
from .learning import ThreadLearner, seconds_left
from .many import threads
from .many.options import ManyOptions, MoreOptions, OnError, ShowProgress
from .many.pieces import Answer, Attempts, Group
from .many.results import ManyResults
from .many.source import items_of, length_of
from .messages import Codec, Failure, Outcome, Pause, Payload, ScoreResponse, Send
from .protocol import Conversation, Report, Watch, new_request_id, score_request
from .repeated import Repeated
from .results import Readable, check_result, read_response, uses_signature
from .retry import DEFAULT_RETRIES, DEFAULT_TIMEOUT, RetryPolicy
from .session import Bearer, Sessions, chunks_of, forget_request, kind_of_failure
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
        deployment: of an online endpoint, which is asked whatever its traffic says.

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
        deployment: str | None = None,
    ) -> None:
        sealed = Sealed(credential)
        del credential  # tools that report errors show variables
        self._vault = ThreadVault(sealed)
        super().__init__(
            uri,
            self._vault,
            timeout=timeout,
            retries=retries,
            codec=codec,
            max_side=max_side,
            max_body=max_body,
            deployment=deployment,
        )
        self._learner = self._with(ThreadLearner(ours=ours))
        self._closed = threading.Event()
        # Waiting on the event and not on the clock: close() wakes those who wait for a retry.
        self._sleep: Callable[[float], object] = self._closed.wait
        self._sessions = Sessions()
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
        response = self._score(self._encode(x, one=False), timeout, result)
        return read_response(response, result, self._learner.signature)

    @overload
    def score_many(
        self,
        items: Iterable[Any] | str | os.PathLike[str],
        *,
        result: None = None,
        on_error: OnError = "raise",
        **options: Unpack[MoreOptions],
    ) -> ManyResults[Any]: ...
    @overload
    def score_many(
        self,
        items: Iterable[Any] | str | os.PathLike[str],
        *,
        result: type[Readable],
        on_error: Literal["raise"] = "raise",
        **options: Unpack[MoreOptions],
    ) -> ManyResults[Readable]: ...
    @overload
    def score_many(
        self,
        items: Iterable[Any] | str | os.PathLike[str],
        *,
        result: type[Readable],
        on_error: Literal["return"],
        **options: Unpack[MoreOptions],
    ) -> ManyResults[Readable | ScoringError]: ...
    def score_many(
        self,
        items: Iterable[Any] | str | os.PathLike[str],
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
        timeout: float | None = None,
        result: type[Any] | None = None,
        items_per_request: int | None = None,
        hedge: float = 0.0,
        progress: ShowProgress = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> ManyResults[Any]:
        """Score any number of items, many at a time, in bounded memory.

        Args:
            items: any iterable; each element is one item, as :meth:`score` takes it. The rows of an array or data frame
                are items, and so are the images of a folder, by name. Some are read ahead of the results: twice what
                may be under way.
            concurrency: requests in flight at once, 1 to 256; fewer while the service has no room. ``None`` begins with
                8 and goes up to 64 as long as that keeps answers quick.
            ordered: results in the order of the items, else as they are ready.
            on_error: ``"raise"`` the first :class:`ScoringError`, or ``"return"`` it in the place of the result.
            timeout: seconds for each request with its retries, instead of the client's.
            result: what each result is read as, as for :meth:`score`.
            items_per_request: items that share a request. ``None`` finds out how many make it quickest for services of
                ours, up to 1,024 and a megabyte, and sends one at a time to others.
            hedge: share of requests, 0 to 1, that may be sent a second time because they are later than 95 of 100; the
                first answer counts. Only where scoring twice does no harm; services of ours do not mind.
            progress: ``True`` for a bar on standard error; or a function that takes a
                :class:`~gpu_infer.client.Progress` about ten times a second.
            checkpoint: a file that keeps the results (SQLite, made if it is not there). The same call with the same
                items goes on where an interrupted one stopped, and sends nothing again that has a result. Errors are
                not kept.

        Returns:
            an iterator over the results, each without a batch axis. Its methods make a list, an array or a Parquet file
            of them. Nothing is read or sent before the first is asked for.

        Raises:
            ScoringError: with ``on_error="raise"``, what :meth:`score` raises; a note on it says which item. An item at
                fault fails alone, whatever others shared its request.
            CheckpointError: the checkpoint belongs to other items, or is in use.
        """
        options = ManyOptions(
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            timeout=timeout,
            result=result,
            items_per_request=items_per_request,
            hedge=hedge,
            progress=progress,
            checkpoint=checkpoint,
        )
        source = items_of(items)
        results = threads.run(
            functools.partial(self._open_job, options, source),
            iter(source),
            options,
            send=functools.partial(self._send_group, options=options),
            ours=self._takes_groups,
        )
        return ManyResults(results, total=length_of(source))

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
        self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, seconds: float) -> dict[str, Any]:
        return report_of(self._run(self._report_conversation("describe", seconds, once=True)))

    def _report(self, report: Report, timeout: float | None) -> dict[str, Any]:
        return report_of(self._run(self._report_conversation(report, timeout)))

    def _score(
        self,
        payload: Payload,
        timeout: float | None,
        result: type[Any] | None,
        *,
        watch: Watch | None = None,
        abandoned: threading.Event | None = None,
    ) -> ScoreResponse[Any]:
        """One request, after a look whether it fits, and with what is told of the service where ``result`` needs it.

        With ``watch`` it is one of many, see ``Call.patient``.
        """
        clock = self._timing.clock
        seconds = self._learner.admit(payload, self._seconds(timeout), ask=self._ask, clock=clock)
        conversation = self._score_conversation(payload, seconds, patient=watch is not None, watch=watch)
        response = self._run(conversation, abandoned)
        if uses_signature(result):
            self._learner.learn(seconds_left(seconds, response.elapsed), ask=self._ask, clock=clock)
        return response

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
            with self._sessions.get().request(
                request.method,
                request.url,
                data=request.body or None,
                headers=request.headers,
                auth=Bearer(token),
                proxies=self._proxies,
                timeout=(min(CONNECT_TIMEOUT, order.timeout), order.timeout),
                allow_redirects=False,
                stream=True,
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                body, chunks = Body(self._max_answer, headers), chunks_of(answer.raw)
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
            forget_request(error)
            # What goes wrong while the connection is closed changes nothing.
            return outcome or self._failure(kind_of_failure(error), error, order.timeout)
        return outcome

    def _send_group(
        self,
        group: Group,
        refused: Callable[[], None],
        abandoned: threading.Event,
        *,
        options: ManyOptions,
    ) -> Answer:
        attempts = Attempts(refused)
        try:
            payload = self._encode_group(group.items)
            response = self._score(payload, options.timeout, options.result, watch=attempts, abandoned=abandoned)
            return Answer(response.value, attempts.seconds)
        except ScoringError as error:
            return Answer(error=error)
