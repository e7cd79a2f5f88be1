"""The client for event loops: moves bytes with aiohttp, and leaves every decision to the protocol."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast, overload

from ..errors import ScoringError
from .base import (
    CONNECT_TIMEOUT,
    BaseClient,
    Body,
    credential_failure,
    report_of,
    too_large,
)
from .credentials import CredentialError, TaskVault, Token
from .extras import missing_package
from .inputs import encodes_at_once
from .learning import TaskLearner, seconds_left
from .many import tasks
from .many.options import ManyOptions, MoreOptions, OnError, ShowProgress
from .many.pieces import Answer, Attempts, Group
from .many.results import AsyncManyResults
from .many.source import items_of, length_of
from .messages import Codec, Outcome, Pause, Payload, ScoreResponse, Send
from .protocol import Conversation, Report, Watch
from .results import Readable, check_result, read_response, uses_signature
from .retry import DEFAULT_RETRIES, DEFAULT_TIMEOUT, RetryPolicy
from .tokens import AsyncCredential, Sealed

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AsyncScoringClient"]


class AsyncScoringClient(BaseClient):
    """:class:`ScoringClient` for ``async``: the same names, the same behaviour. For one event loop at a time.

    Args:
        uri: the whole scoring address, as ``service.scoring_uri`` has it.
        credential: as for :class:`ScoringClient`; also a coroutine function, or a Microsoft Entra credential of
            ``azure.identity.aio``. What is not async runs in a thread, since it may block.
        timeout: seconds for a call, all its retries and their waits included.
        retries: how often a call that was turned away is tried again at most; a :class:`RetryPolicy` for more.
        codec: as for :class:`ScoringClient`.
        max_side: the same, in pixels; pictures are scaled in a thread.
        max_body: the same, in bytes.
        ours: the same.
        deployment: the same.

    Raises:
        MissingDependencyError: aiohttp is not installed.
        TypeError: a credential of another type.
        ValueError: an address, time-out, codec or key that cannot be used.
    """

    def __init__(
        self,
        uri: str,
        credential: AsyncCredential | None = None,
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
        self._connections = _import_connections()
        self._proxy: str | None = None
        self._vault = TaskVault(sealed)
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
        self._learner = self._with(TaskLearner(ours=ours))
        self._sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
        self._http: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @overload
    async def score(self, x: Any, *, timeout: float | None = None, result: None = None) -> Any: ...
    @overload
    async def score(self, x: Any, *, timeout: float | None = None, result: type[Readable]) -> Readable: ...
    async def score(self, x: Any, *, timeout: float | None = None, result: type[Any] | None = None) -> Any:
        """Score one item, or a list of items in one request; see :meth:`ScoringClient.score`.

        Files are read and images encoded in a thread.
        """
        response: ScoreResponse[Any] = await self.score_response(x, timeout=timeout, result=result)
        return response.value

    @overload
    async def score_response(
        self, x: Any, *, timeout: float | None = None, result: None = None
    ) -> ScoreResponse[Any]: ...
    @overload
    async def score_response(
        self, x: Any, *, timeout: float | None = None, result: type[Readable]
    ) -> ScoreResponse[Readable]: ...
    async def score_response(
        self, x: Any, *, timeout: float | None = None, result: type[Any] | None = None
    ) -> ScoreResponse[Any]:
        """Score as :meth:`score` does, and return the result with device, batch size, waiting time and request id."""
        check_result(result)
        payload = await self._encode_aside(functools.partial(self._encode, x, one=False), [x])
        response = await self._score(payload, timeout, result)
        return read_response(response, result, self._learner.signature)

    @overload
    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
        *,
        result: None = None,
        on_error: OnError = "raise",
        **options: Unpack[MoreOptions],
    ) -> AsyncManyResults[Any]: ...
    @overload
    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
        *,
        result: type[Readable],
        on_error: Literal["raise"] = "raise",
        **options: Unpack[MoreOptions],
    ) -> AsyncManyResults[Readable]: ...
    @overload
    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
        *,
        result: type[Readable],
        on_error: Literal["return"],
        **options: Unpack[MoreOptions],
    ) -> AsyncManyResults[Readable | ScoringError]: ...
    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
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
    ) -> AsyncManyResults[Any]:
        """Score any number of items, many at a time, in bounded memory; see :meth:`ScoringClient.score_many`.

        Args:
            items: as there, or an async iterable, which is read while requests are under way.
            concurrency: as there, and so are all that follow.
            ordered: results in the order of the items, else as they are ready.
            on_error: ``"raise"`` the first :class:`ScoringError`, or ``"return"`` it in the place of the result.
            timeout: seconds for each request with its retries, instead of the client's.
            result: what each result is read as, as for :meth:`score`.
            items_per_request: items that share a request; ``None`` finds out how many for services of ours.
            hedge: share of requests that may be sent a second time because they are late.
            progress: ``True`` for a bar, or a function.
            checkpoint: a file that keeps the results, so that an interrupted call can go on.

        Returns:
            an async iterator over the results, each without a batch axis.

        Raises:
            ScoringError: with ``on_error="raise"``, what :meth:`score` raises; a note on it says which item.
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
        source: Any = items if hasattr(items, "__aiter__") else items_of(items)
        results = tasks.run(
            functools.partial(self._open_job, options, source),
            aiter(source) if hasattr(source, "__aiter__") else iter(source),
            send=functools.partial(self._send_group, options=options),
            ours=self._takes_groups,
        )
        return AsyncManyResults(results, total=length_of(source))

    async def describe(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The model's inputs and outputs, the hooks and the settings; see :meth:`ScoringClient.describe`."""
        return await self._report("describe", timeout)

    async def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Counters since the start of the worker that answers; see :meth:`ScoringClient.stats`."""
        return await self._report("stats", timeout)

    async def gpu_report(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Which device does the work; see :meth:`ScoringClient.gpu_report`."""
        return await self._report("gpu", timeout)

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        self._closed = True
        loop = self._loop
        # Those of another loop that still runs are its own to close; where it has ended, this only keeps the books.
        if self._http is not None and loop is not None and (loop.is_closed() or loop is asyncio.get_running_loop()):
            await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _encode_aside(self, encode: Callable[[], Payload], items: Sequence[Any]) -> Payload:
        """What ``encode`` makes of the items; in a thread, unless that is quick for all of them."""
        if self._max_side is None and all(map(encodes_at_once, items)):
            return encode()
        return await asyncio.to_thread(encode)

    async def _ask(self, seconds: float) -> dict[str, Any]:
        return report_of(await self._run(self._report_conversation("describe", seconds, once=True)))

    async def _report(self, report: Report, timeout: float | None) -> dict[str, Any]:
        return report_of(await self._run(self._report_conversation(report, timeout)))

    async def _score(
        self, payload: Payload, timeout: float | None, result: type[Any] | None, *, watch: Watch | None = None
    ) -> ScoreResponse[Any]:
        """As :meth:`ScoringClient._score`."""
        await self._bind()
        clock = self._timing.clock
        seconds = await self._learner.admit(payload, self._seconds(timeout), ask=self._ask, clock=clock)
        conversation = self._score_conversation(payload, seconds, patient=watch is not None, watch=watch)
        response = await self._run(conversation)
        if uses_signature(result):
            await self._learner.learn(seconds_left(seconds, response.elapsed), ask=self._ask, clock=clock)
        return response

    async def _run(self, conversation: Conversation) -> ScoreResponse[Any]:
        """Carry out what the protocol orders, until it returns or raises."""
        http = await self._bind()
        token: Token | None = None
        try:
            order = next(conversation)
            while True:
                if self._closed:
                    raise RuntimeError("The client is closed.")
                event: Outcome | None = None
                if isinstance(order, Pause):
                    await self._sleep(order.seconds)
                else:
                    try:
                        token = await self._credential(order, token)
                        event = await self._transmit(http, order, token)
                    except CredentialError as problem:
                        event = credential_failure(problem)
                order = conversation.send(event)
        except StopIteration as stop:
            return stop.value
        finally:
            conversation.close()

    async def _credential(self, order: Send, token: Token | None) -> Token | None:
        limit = asyncio.timeout(order.remaining)
        try:
            async with limit:
                refused = token if order.renew else None
                return await self._vault.get(refused=refused, wait=order.remaining, timing=self._timing)
        except TimeoutError:
            if limit.expired():
                raise CredentialError("The credential provider gave nothing before the deadline.") from None
            raise

    async def _transmit(self, http: aiohttp.ClientSession, order: Send, token: Token | None) -> Outcome:
        request = order.request
        outcome: Outcome | None = None
        # One limit for the whole exchange: that of a read begins anew with each byte.
        try:
            async with asyncio.timeout(order.timeout):
                async with http.request(
                    request.method,
                    self._connections.url_of(request.url),
                    data=self._connections.body_of(request.body),
                    headers=self._connections.headers_of(request.headers, token),
                    proxy=self._proxy,
                    timeout=self._connections.timeouts(connect=min(CONNECT_TIMEOUT, order.timeout)),
                    allow_redirects=False,
                ) as answer:
                    headers = {name.lower(): value for name, value in answer.headers.items()}
                    body = Body(self._max_answer, headers)
                    while not body.overflows and (chunk := await answer.content.readany()):
                        body.add(chunk)
                    if body.overflows:
                        outcome = too_large(self._max_answer)
                    else:
                        outcome = self._outcome(answer.status, headers, body.join())
        except self._connections.errors as error:
            self._connections.forget_request(error)
            # What goes wrong while the connection is closed changes nothing.
            return outcome or self._failure(self._connections.kind_of_failure(error), error, order.timeout)
        return outcome

    async def _bind(self) -> aiohttp.ClientSession:
        """The session of the running loop, made on first use: only then the loop is known.

        Each ``asyncio.run`` has a loop of its own; connections and locks cannot move from one to the next.
        """
        if self._closed:
            raise RuntimeError("The client is closed.")
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is None or self._loop.is_closed():
            if self._http is not None:
                await self._http.close()  # its loop is gone, and its connections with it: only for its own books
            self._loop, self._http = loop, cast("aiohttp.ClientSession", self._connections.new_session())
            self._proxy = None if self._is_local() else self._connections.proxy_of(self._uri)
            self._vault.new_loop()
            self._learner.new_loop()
        if self._loop is not loop:
            raise RuntimeError("This client is in use in another event loop; make one for each loop.")
        return self._http

    async def _send_group(self, group: Group, refused: Callable[[], None], *, options: ManyOptions) -> Answer:
        attempts, items = Attempts(refused), group.items
        try:
            payload = await self._encode_aside(functools.partial(self._encode_group, items), items)
            response = await self._score(payload, options.timeout, options.result, watch=attempts)
            return Answer(response.value, attempts.seconds)
        except ScoringError as error:
            return Answer(error=error)


def _import_connections() -> ModuleType:
    try:
        return import_module(".connections", __package__)
    except ImportError as error:
        what = "AsyncScoringClient moves its bytes with aiohttp"
        raise missing_package(what, install="'gpu-infer[async]'") from error
