"""The client for event loops: moves bytes with httpx, and leaves every decision to the protocol."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import traceback
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from ..errors import ScoringError
from .base import (
    CONNECT_TIMEOUT,
    BaseClient,
    Body,
    ca_file,
    chain_of,
    credential_failure,
    report_of,
    too_large,
)
from .credentials import CredentialError, TaskVault, Token
from .extras import missing_extra
from .inputs import encodes_at_once
from .learning import TaskLearner, seconds_left
from .many import tasks
from .many.options import MAX_CONCURRENCY, ManyOptions, ShowProgress
from .many.pieces import Answer, Attempts, Group
from .many.results import AsyncManyResults
from .many.source import items_of, length_of
from .messages import Codec, FailureKind, Outcome, Pause, Payload, ScoreResponse, Send
from .protocol import Conversation, Report
from .results import Readable, check_result, read_response, uses_signature
from .retry import DEFAULT_RETRIES, DEFAULT_TIMEOUT, RetryPolicy
from .tokens import AsyncCredential, Sealed

if TYPE_CHECKING:
    import httpx

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

    Raises:
        MissingDependencyError: httpx is not installed.
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
    ) -> None:
        sealed = Sealed(credential)
        del credential  # tools that report errors show variables
        self._httpx = _import_httpx()
        self._vault = TaskVault(sealed)
        super().__init__(
            uri, self._vault, timeout=timeout, retries=retries, codec=codec, max_side=max_side, max_body=max_body
        )
        self._learner = self._with(TaskLearner(ours=ours))
        self._sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
        self._http: httpx.AsyncClient | None = None
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
        payload = await self._encode_aside(x, one=False)
        self._bind()
        clock = self._timing.clock
        seconds = await self._learner.admit(payload, self._seconds(timeout), ask=self._ask, clock=clock)
        response = await self._run(self._score_conversation(payload, seconds))
        if uses_signature(result):
            await self._learner.learn(seconds_left(seconds, response.elapsed), ask=self._ask, clock=clock)
        return read_response(response, result, self._learner.signature)

    @overload
    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
        *,
        concurrency: int | None = ...,
        ordered: bool = ...,
        on_error: Literal["raise", "return"] = ...,
        timeout: float | None = ...,
        result: None = ...,
        items_per_request: int | None = ...,
        hedge: float = ...,
        progress: ShowProgress = ...,
        checkpoint: str | os.PathLike[str] | None = ...,
    ) -> AsyncManyResults[Any]: ...

    @overload
    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
        *,
        concurrency: int | None = ...,
        ordered: bool = ...,
        on_error: Literal["raise", "return"] = ...,
        timeout: float | None = ...,
        result: type[Readable],
        items_per_request: int | None = ...,
        hedge: float = ...,
        progress: ShowProgress = ...,
        checkpoint: str | os.PathLike[str] | None = ...,
    ) -> AsyncManyResults[Readable]: ...

    def score_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str],
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise", "return"] = "raise",
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
        check_result(result)
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
        total = length_of(source)
        results = tasks.run(
            functools.partial(self._open_job, options, total),
            aiter(source) if hasattr(source, "__aiter__") else iter(source),
            send=functools.partial(self._send_group, options=options),
            ours=self._takes_groups,
        )
        return AsyncManyResults(results, total=total)

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
        # Connections of a loop that has ended went with it, and cannot be closed from another.
        if self._http is not None and self._loop is asyncio.get_running_loop():
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _encode_aside(self, x: Any, *, one: bool) -> Payload:
        if self._max_side is None and encodes_at_once(x):
            return self._encode(x, one=one)
        return await asyncio.to_thread(self._encode, x, one=one)

    async def _ask(self, seconds: float) -> dict[str, Any]:
        return report_of(await self._run(self._report_conversation("describe", seconds, once=True)))

    async def _report(self, report: Report, timeout: float | None) -> dict[str, Any]:
        return report_of(await self._run(self._report_conversation(report, timeout)))

    async def _run(self, conversation: Conversation) -> ScoreResponse[Any]:
        """Carry out what the protocol orders, until it returns or raises."""
        http = self._bind()
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

    async def _transmit(self, http: httpx.AsyncClient, order: Send, token: Token | None) -> Outcome:
        httpx, request = self._httpx, order.request
        outcome: Outcome | None = None
        # One limit for the whole exchange: those of httpx begin anew with each byte.
        try:
            async with asyncio.timeout(order.timeout):
                async with http.stream(
                    request.method,
                    request.url,
                    content=request.body or None,
                    headers=dict(request.headers),
                    auth=_bearer(token),
                    timeout=httpx.Timeout(order.timeout, connect=min(CONNECT_TIMEOUT, order.timeout)),
                    follow_redirects=False,
                ) as answer:
                    headers = {name.lower(): value for name, value in answer.headers.items()}
                    body = Body(self._max_answer, headers)
                    chunks = answer.aiter_bytes()
                    while not body.overflows and (chunk := await anext(chunks, b"")):
                        body.add(chunk)
                    if body.overflows:
                        outcome = too_large(self._max_answer)
                    else:
                        outcome = self._outcome(answer.status_code, headers, body.join())
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            forget_request(error)
            # What goes wrong while the connection is closed changes nothing.
            return outcome or self._failure(_kind_of_failure(self._httpx, error), error, order.timeout)
        return outcome

    def _bind(self) -> httpx.AsyncClient:
        """The HTTP client of the running loop, made on first use: only then the loop is known.

        Each ``asyncio.run`` has a loop of its own; connections and locks cannot move from one to the next.
        """
        if self._closed:
            raise RuntimeError("The client is closed.")
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is None or self._loop.is_closed():
            self._loop, self._http = loop, self._new_http()
            self._vault.new_loop()
            self._learner.new_loop()
        if self._loop is not loop:
            raise RuntimeError("This client is in use in another event loop; make one for each loop.")
        return self._http

    def _new_http(self) -> httpx.AsyncClient:
        httpx, path = self._httpx, ca_file()
        verify: Any = True
        if path:
            is_folder = Path(path).is_dir()
            verify = ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
        # A load balancer's affinity cookie would tie all requests to one replica.
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        limits = httpx.Limits(max_connections=MAX_CONCURRENCY, max_keepalive_connections=MAX_CONCURRENCY)
        mounts = dict.fromkeys(("all://", "http://", "https://")) if self._is_local() else None
        return httpx.AsyncClient(verify=verify, limits=limits, cookies=jar, mounts=mounts)

    async def _send_group(self, group: Group, refused: Callable[[], None], *, options: ManyOptions) -> Answer:
        self._bind()
        attempts, clock = Attempts(refused), self._timing.clock
        try:
            if all(encodes_at_once(item) for item in group.items):
                payload = self._encode_group(group.items)
            else:
                payload = await asyncio.to_thread(self._encode_group, group.items)
            seconds = await self._learner.admit(payload, self._seconds(options.timeout), ask=self._ask, clock=clock)
            response = await self._run(self._score_conversation(payload, seconds, patient=True, watch=attempts))
            if uses_signature(options.result):
                await self._learner.learn(seconds_left(seconds, response.elapsed), ask=self._ask, clock=clock)
            return Answer(response.value, attempts.seconds)
        except ScoringError as error:
            return Answer(error=error)


def _bearer(token: Token | None) -> Callable[[httpx.Request], httpx.Request]:
    """Adds the credential at the last moment, so that it stands in no variable of ours."""

    def authorise(request: httpx.Request) -> httpx.Request:
        if token is not None:
            request.headers["Authorization"] = token.header()
        return request

    return authorise


def forget_request(error: BaseException) -> None:
    """Take the key out of the exception that becomes the cause of ours: httpx hangs the whole request on it."""
    for inner in chain_of(error):
        traceback.clear_frames(inner.__traceback__)  # and out of the variables: tools that report errors show those
        headers = getattr(getattr(inner, "_request", None), "headers", None)
        if headers is not None:
            headers.pop("Authorization", None)


def _kind_of_failure(httpx: Any, error: BaseException) -> FailureKind:
    """What may have happened at the other end; certificates left out."""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return "connect_timeout"
    if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return "connect"
    return "read_timeout" if isinstance(error, httpx.TimeoutException | TimeoutError) else "broken"


def _import_httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise missing_extra("AsyncScoringClient moves its bytes with httpx", "async") from error
    return httpx
