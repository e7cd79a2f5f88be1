"""Ways to score a row: by hand with an HTTP library, with Azure's SDKs, with ours. Imported where they are used only.

Each takes an array ``[784]`` and gives the ten scores, encoding and decoding included, as a user's program would. Most
ways exist for JSON and for ``.npy``; what the SDKs send is JSON.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

Row: TypeAlias = "np.ndarray[Any, Any]"
Form = Literal["json", "npy"]
Call: TypeAlias = Callable[[Row], Any]
AsyncCall: TypeAlias = Callable[[Row], Awaitable[Any]]
TIMEOUT = 30
_NPY = "application/x-npy"


@dataclass(frozen=True, slots=True)
class Target:
    """What is called.

    Args:
        uri: the scoring address.
        key: of it; empty where none is asked for.
        emulator: address of the emulator behind it; empty where there is none.
        name: of the service or endpoint there.
    """

    uri: str
    key: str = ""
    emulator: str = ""
    name: str = ""


def write(row: Row, form: Form) -> bytes:
    """A body by hand: one row, as a batch of one."""
    if form == "json":
        return json.dumps({"data": [row.tolist()]}).encode()
    file = io.BytesIO()
    np.save(file, row[None])
    return file.getvalue()


def read(body: bytes, form: Form) -> Any:
    """The answer by hand."""
    return np.array(json.loads(body))[0] if form == "json" else np.load(io.BytesIO(body))[0]


def headers(target: Target, form: Form) -> dict[str, str]:
    """Of a request by hand."""
    found = {"Content-Type": "application/json"} if form == "json" else {"Content-Type": _NPY, "Accept": _NPY}
    return found | ({"Authorization": f"Bearer {target.key}"} if target.key else {})


@contextmanager
def requests_post(target: Target, form: Form) -> Iterator[Call]:
    """As the tutorials do it: a connection for each call, no time-out, no look at the status."""
    post: Any = import_module("requests").post

    def call(row: Row) -> Any:
        return read(post(target.uri, write(row, form), headers=headers(target, form)).content, form)

    yield call


@contextmanager
def requests_session(target: Target, form: Form) -> Iterator[Call]:
    """A session, which keeps its connection."""
    session: Any
    with import_module("requests").Session() as session:
        sent = headers(target, form)

        def call(row: Row) -> Any:
            answer = session.post(target.uri, write(row, form), headers=sent, timeout=TIMEOUT)
            answer.raise_for_status()
            return read(answer.content, form)

        yield call


@contextmanager
def ours(target: Target, form: Form) -> Iterator[Call]:
    """``ScoringClient``: one for all threads."""
    with import_module("gpu_infer").ScoringClient(target.uri, target.key or None, codec=form) as client:
        yield client.score


@contextmanager
def azureml_core(target: Target, _form: Form) -> Iterator[Call]:
    """``AksWebservice.run()`` of azureml-core."""
    workspace = import_module("gpu_infer.emulator").workspace(target.emulator)
    service: Any = import_module("azureml.core.webservice").AksWebservice(workspace, target.name)

    def call(row: Row) -> Any:
        return np.array(service.run(json.dumps({"data": [row.tolist()]})))[0]

    yield call


@contextmanager
def azure_ai_ml(target: Target, _form: Form) -> Iterator[Call]:
    """``online_endpoints.invoke()`` of azure-ai-ml, which takes its input from a file."""
    client = import_module("gpu_infer.emulator").ml_client(target.emulator)
    with tempfile.TemporaryDirectory(prefix="gpu-infer-bench-") as folder:
        # A file for each row, ready beforehand: writing files would not be the SDK's time.
        files: dict[bytes, str] = {}

        def call(row: Row) -> Any:
            known = files.get(row.tobytes())
            if known is None:
                path = Path(folder) / f"{len(files)}-{id(row)}.json"
                path.write_bytes(write(row, "json"))
                known = files[row.tobytes()] = str(path)
            text = client.online_endpoints.invoke(endpoint_name=target.name, request_file=known)
            return np.array(json.loads(text))[0]

        yield call


@asynccontextmanager
async def httpx_by_hand(target: Target, form: Form) -> AsyncIterator[AsyncCall]:
    """``httpx.AsyncClient``."""
    library: Any = import_module("httpx")
    limits = library.Limits(max_connections=None, max_keepalive_connections=None)
    async with library.AsyncClient(timeout=TIMEOUT, limits=limits, headers=headers(target, form)) as client:

        async def call(row: Row) -> Any:
            answer = await client.post(target.uri, content=write(row, form))
            answer.raise_for_status()
            return read(answer.content, form)

        yield call


@asynccontextmanager
async def aiohttp_by_hand(target: Target, form: Form) -> AsyncIterator[AsyncCall]:
    """``aiohttp.ClientSession``."""
    library: Any = import_module("aiohttp")
    timeout = library.ClientTimeout(total=TIMEOUT)
    async with library.ClientSession(timeout=timeout, headers=headers(target, form)) as session:

        async def call(row: Row) -> Any:
            async with session.post(target.uri, data=write(row, form), raise_for_status=True) as answer:
                return read(await answer.read(), form)

        yield call


@asynccontextmanager
async def ours_async(target: Target, form: Form) -> AsyncIterator[AsyncCall]:
    """``AsyncScoringClient``."""
    async with import_module("gpu_infer").AsyncScoringClient(target.uri, target.key or None, codec=form) as client:
        yield client.score


def all_rows_by_loop(target: Target, rows: Row) -> list[Any]:
    """The tutorials' way with many rows: one call after the other."""
    with requests_post(target, "json") as call:
        return [call(row) for row in rows]


def all_rows_by_session(target: Target, rows: Row) -> list[Any]:
    """The same on one connection."""
    with requests_session(target, "npy") as call:
        return [call(row) for row in rows]


def all_rows_by_ours(target: Target, rows: Row) -> list[Any]:
    """``ScoringClient.score_many()`` with nothing set."""
    with import_module("gpu_infer").ScoringClient(target.uri, target.key or None) as client:
        return list(client.score_many(rows))


async def all_rows_by_ours_async(target: Target, rows: Row) -> list[Any]:
    """``AsyncScoringClient.score_many()`` with nothing set."""
    async with import_module("gpu_infer").AsyncScoringClient(target.uri, target.key or None) as client:
        return [result async for result in client.score_many(rows)]


SYNC: dict[str, Any] = {
    "requests.post": requests_post,
    "requests.Session": requests_session,
    "ScoringClient": ours,
    "AksWebservice.run": azureml_core,
    "MLClient.invoke": azure_ai_ml,
}
ASYNC: dict[str, Any] = {
    "httpx": httpx_by_hand,
    "aiohttp": aiohttp_by_hand,
    "AsyncScoringClient": ours_async,
}
OPENS_PER_THREAD = ("requests.Session",)
"""By hand a session belongs to one thread: requests does not promise more."""

BULK: dict[str, Any] = {
    "requests.post in a loop": all_rows_by_loop,
    "requests.Session in a loop": all_rows_by_session,
    "ScoringClient.score_many": all_rows_by_ours,
}
BULK_ASYNC: dict[str, Any] = {"AsyncScoringClient.score_many": all_rows_by_ours_async}
