"""``score_many``, and what only one of the clients has, over a real socket; time is scripted."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from gpu_infer import errors
from gpu_infer.client import AsyncScoringClient, ScoringClient
from gpu_infer.client.base import MAX_CONCURRENCY

KEY = "sesame-0123456789abcdef"


def hands_out() -> str:
    return KEY


# --- many -------------------------------------------------------------------------------------------------------------


def doubling(server: Any, steps: Any) -> None:
    """The server answers each number with its double, and each negative one with 400."""

    def step(connection: Any, seen: Any) -> bool:
        assert seen.headers["x-gpu-infer-items"] == "one"
        number = int(np.load(io.BytesIO(seen.body)))
        if number < 0:
            return steps.answer(400, {"message": "negative", "item": 0})(connection, seen)
        return steps.answer(200, 2 * number, steps.ours)(connection, seen)

    server.default = step


def test_many_come_back_in_order(make, server, steps):
    doubling(server, steps)
    assert list(make().score_many(range(100), concurrency=4)) == list(range(0, 200, 2))
    assert 1 < server.connections <= 4


def test_many_may_come_as_they_are_ready(make, server, steps):
    release = threading.Event()

    def step(connection: Any, seen: Any) -> bool:
        number = int(np.load(io.BytesIO(seen.body)))
        if number == 0:
            release.wait(5)
        return steps.answer(200, number)(connection, seen)

    server.default = step
    results = make().score_many(range(8), concurrency=2, ordered=False)
    first = [next(results) for _ in range(3)]
    assert 0 not in first
    release.set()
    assert sorted(first + list(results)) == list(range(8))


def test_of_many_only_a_window_is_read_ahead(make, server, steps):
    doubling(server, steps)
    taken: list[int] = []

    def source() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    results = make().score_many(source(), concurrency=3)
    assert taken == []
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(taken) <= 5 + 2 * 3
    results.close()


def test_of_many_the_first_error_is_raised_and_says_which(make, server, steps):
    doubling(server, steps)
    results = make().score_many([1, 2, -3, 4], concurrency=2)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(errors.BadInputError, match="negative") as caught:
        next(results)
    assert caught.value.__notes__ == ["This was item 2 of score_many()."]
    assert list(results) == []


def test_of_many_errors_may_take_the_place_of_results(make, server, steps):
    doubling(server, steps)
    results = list(make().score_many([1, -2, [[1], [2, 3]], 4], on_error="return"))
    assert (results[0], results[3]) == (2, 8)
    assert isinstance(results[1], errors.BadInputError)
    assert "ragged" in str(results[2]), "what cannot be sent is reported like what is refused"


def test_of_many_the_results_before_a_broken_source_come_first(make, server, steps):
    doubling(server, steps)

    def source() -> Any:
        yield from (1, 2, 3)
        raise OSError("the disk is gone")

    results = make().score_many(source())
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_many_rows_of_an_array_or_a_table_are_items(make, server, steps):
    class Table:
        columns = ("a", "b")

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([[1, 2], [3, 4]])

        def __iter__(self) -> Any:
            return iter(self.columns)

    server.default = steps.answer(200, [1])
    face = make()
    assert len(list(face.score_many(np.zeros((3, 2))))) == 3
    assert len(list(face.score_many(Table(), concurrency=1))) == 2
    assert np.load(io.BytesIO(server.seen[-1].body)).tolist() == [3, 4]


@pytest.mark.parametrize("items", ["photos", b"bytes", {"data": [1]}])
def test_many_are_not_one(make, items):
    with pytest.raises(TypeError, match="takes an iterable of items, not one .*; that is for score"):
        list(make().score_many(items))


def test_a_list_is_no_item_of_many(make, server):
    with pytest.raises(errors.BadInputError, match="One item is expected here, this is a list of items"):
        list(make().score_many([[b"a", b"b"]]))


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"concurrency": MAX_CONCURRENCY + 1}, {"on_error": "skip"}, {"timeout": 0}]
)
def test_bad_options_of_many_are_refused_at_once(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make().client.score_many([1], **options)


def test_leaving_many_early_leaves_nothing_running(make, server, steps):
    doubling(server, steps)
    for _ in make().score_many(range(1000), concurrency=4):
        break
    seen = len(server.seen)
    assert seen <= 2 * 4 + 4
    for _ in range(200):
        if not any(thread.name.startswith("gpu-infer-score") for thread in threading.enumerate()):
            break
        time.sleep(0.01)
    assert not any(thread.name.startswith("gpu-infer-score") for thread in threading.enumerate())


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
        await client._http.aclose()  # what is left open, asyncio complains about
        return result

    assert [asyncio.run(call()) for _ in range(2)] == [[1], [1]]
    asyncio.run(client.close())

    async def elsewhere() -> None:
        async with AsyncScoringClient(server.uri) as shared:
            await shared.score(b"x")
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                await asyncio.to_thread(asyncio.run, shared.score(b"x"))

    asyncio.run(elsewhere())


def test_without_httpx_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'gpu-infer\[async\]'"):
        AsyncScoringClient("http://127.0.0.1/score")
    ScoringClient("http://127.0.0.1/score").close()


def test_the_package_loads_no_http_library_before_it_is_used():
    import subprocess

    code = (
        "import sys, gpu_infer.client as c\n"
        "assert not {'requests', 'httpx', 'numpy'} & set(sys.modules)\n"
        "c.ScoringClient\n"
        "assert 'requests' in sys.modules and 'httpx' not in sys.modules\n"
        "c.AsyncScoringClient\n"
        "assert 'httpx' not in sys.modules\n"
        "assert set(dir(c)) >= set(c.__all__)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
