"""What only one of the clients has, over a real socket; time is scripted."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import AsyncScoringClient, ScoringClient

KEY = "sesame-0123456789abcdef"


def hands_out() -> str:
    return KEY


# --- what only one of them has ----------------------------------------------------------------------------------------


def test_closing_wakes_those_who_wait_for_a_retry(server, steps):
    client = ScoringClient(server.uri)
    caught: list[BaseException] = []
    waits = threading.Event()

    def wait(seconds: float) -> None:
        waits.set()
        client._closed.wait(seconds)

    server.plays(steps.answer(503, b"", {"Retry-After": "30"}))
    client._sleep = wait

    def call() -> None:
        try:
            client.score(b"x")
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert waits.wait(5)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [str(error) for error in caught] == ["The client is closed."]


def test_the_sync_client_is_a_context_manager(server, steps):
    server.plays(steps.answer(200, [1]))
    with ScoringClient(server.uri) as client:
        assert client.score(b"x") == [1]
    with pytest.raises(RuntimeError, match="closed"):
        client.score(b"x")


def test_the_async_client_is_a_context_manager_and_takes_async_sources(server, steps):
    server.default = steps.answer(200, [1])

    async def source() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield b"x"

    async def token() -> str:
        await asyncio.sleep(0)
        return KEY

    async def main() -> list[Any]:
        async with AsyncScoringClient(server.uri, token) as client:
            return [result async for result in client.score_many(source())]

    assert asyncio.run(main()) == [[1]] * 3
    assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {KEY}"}


def test_an_async_provider_that_hangs_ends_at_the_deadline(server):
    async def hangs() -> str:
        await asyncio.sleep(60)
        return KEY

    async def main() -> None:
        async with AsyncScoringClient(server.uri, hangs, timeout=0.05) as client:
            await client.score(b"x")

    with pytest.raises(errors.AuthenticationError, match="gave nothing before the deadline"):
        asyncio.run(main())


def test_a_cancelled_call_is_cancelled(server, steps):
    arrived = threading.Event()

    def hang(*_: Any) -> bool:
        arrived.set()
        return not server.closing.wait(5)

    server.plays(hang)

    async def main() -> None:
        async with AsyncScoringClient(server.uri) as client:
            task = asyncio.create_task(client.score(b"x"))
            await asyncio.to_thread(arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_an_async_client_serves_one_event_loop_after_the_other(server, steps):
    server.default = steps.answer(200, [1])
    client = AsyncScoringClient(server.uri, hands_out)

    async def call() -> Any:
        result = await client.score(b"x")
        assert client._http is not None
        await client._http.close()  # what is left open, asyncio complains about
        return result

    assert [asyncio.run(call()) for _ in range(2)] == [[1], [1]]
    asyncio.run(client.close())

    async def elsewhere() -> None:
        async with AsyncScoringClient(server.uri) as shared:
            await shared.score(b"x")
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                await asyncio.to_thread(asyncio.run, shared.score(b"x"))

    asyncio.run(elsewhere())


def test_without_aiohttp_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "gpu_infer.client.connections", raising=False)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'gpu-infer\[async\]'"):
        AsyncScoringClient("http://127.0.0.1/score")
    ScoringClient("http://127.0.0.1/score").close()


def test_the_package_loads_no_http_library_before_it_is_used():
    import subprocess

    code = (
        "import sys, gpu_infer.client as c\n"
        "assert not {'requests', 'aiohttp', 'numpy'} & set(sys.modules)\n"
        "c.ScoringClient\n"
        "assert 'requests' in sys.modules and 'aiohttp' not in sys.modules\n"
        "c.AsyncScoringClient\n"
        "assert 'aiohttp' not in sys.modules\n"
        "assert set(dir(c)) >= set(c.__all__)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
