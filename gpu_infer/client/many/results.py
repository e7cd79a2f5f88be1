"""What ``score_many`` gives: an iterator over results, which can also fill a list, an array, a Parquet file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, Generic, Self, TypeVar

import numpy as np

from .flight import Result
from .parquet import ParquetWriter

__all__ = ["AsyncManyResults", "ManyResults"]

R = TypeVar("R")


class ManyResults(Iterator[R], Generic[R]):
    """The results of :meth:`ScoringClient.score_many`, each made when it is asked for.

    Iterate over it, or use one of its methods, once; what is read by the one is not there for the other.
    """

    def __init__(self, results: Generator[Result, None, None], *, total: int | None) -> None:
        self._results = results
        self._total = total

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return _outcome(next(self._results))

    def with_index(self) -> Iterator[tuple[int, R]]:
        """The index of each item with its result; says with ``ordered=False`` which item it is."""
        return ((result.index, _outcome(result)) for result in self._results)

    def to_list(self) -> list[R]:
        """All results, in the order of the items."""
        return _in_order(list(self._results))

    def to_array(self) -> np.ndarray[Any, Any]:
        """All results in one array, in the order of the items.

        Returns:
            ``[N, ...]`` with the shape and dtype of a result behind the first axis.

        Raises:
            ScoringError: with ``on_error="return"``, the first item without a result.
            ValueError: the results have several shapes.
        """
        stack = _Stack(self._total)
        for result in self._results:
            stack.add(result)
        return stack.array()

    def to_parquet(self, path: str | os.PathLike[str]) -> int:
        """Write all results to a Parquet file, some thousand at a time.

        The columns are ``item`` (its index, int64), ``result``, and ``error`` (text, with ``on_error="return"``). The
        file appears under its name when it is whole.

        Returns:
            the number of rows.

        Raises:
            MissingDependencyError: pyarrow is not installed.
        """
        with ParquetWriter(path) as writer:
            for result in self._results:
                writer.add(result)
        return writer.rows

    def for_each(self, function: Callable[[int, R], object]) -> int:
        """Call a function with the index and the result of each item; returns how many there were."""
        count = 0
        for result in self._results:
            count += 1
            function(result.index, _outcome(result))
        return count

    def close(self) -> None:
        """Stop: what is under way is given up."""
        self._results.close()


class AsyncManyResults(AsyncIterator[R], Generic[R]):
    """The results of :meth:`AsyncScoringClient.score_many`; see :class:`ManyResults`."""

    def __init__(self, results: AsyncGenerator[Result, None], *, total: int | None) -> None:
        self._results = results
        self._total = total

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        return _outcome(await anext(self._results))

    async def with_index(self) -> AsyncGenerator[tuple[int, R], None]:
        """The index of each item with its result."""
        async for result in self._results:
            yield result.index, _outcome(result)

    async def to_list(self) -> list[R]:
        """All results, in the order of the items."""
        return _in_order([result async for result in self._results])

    async def to_array(self) -> np.ndarray[Any, Any]:
        """All results in one array ``[N, ...]``; see :meth:`ManyResults.to_array`."""
        stack = _Stack(self._total)
        async for result in self._results:
            stack.add(result)
        return stack.array()

    async def to_parquet(self, path: str | os.PathLike[str]) -> int:
        """Write all results to a Parquet file; see :meth:`ManyResults.to_parquet`."""
        with ParquetWriter(path) as writer:
            async for result in self._results:
                writer.add(result)
        return writer.rows

    async def for_each(self, function: Callable[[int, R], object]) -> int:
        """Call a function with the index and the result of each item; returns how many there were."""
        count = 0
        async for result in self._results:
            count += 1
            function(result.index, _outcome(result))
        return count

    async def aclose(self) -> None:
        """Stop: what is under way is given up."""
        await self._results.aclose()


def _outcome(result: Result) -> Any:
    return result.value if result.error is None else result.error


def _in_order(results: list[Result]) -> list[Any]:
    return [_outcome(result) for result in sorted(results, key=lambda result: result.index)]


class _Stack:
    """Collects results into one array; in place where their number is known, so that they are there only once."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._array: np.ndarray[Any, Any] | None = None
        self._rows: list[tuple[int, np.ndarray[Any, Any]]] = []
        self._count = 0

    def add(self, result: Result) -> None:
        if result.error is not None:
            raise result.error
        row = np.asarray(result.value)
        if self._count == 0 and self._total:
            self._array = np.empty((self._total, *row.shape), row.dtype)
        self._count += 1
        if self._array is None:
            self._rows.append((result.index, row))
            return
        if (row.shape, row.dtype) != (self._array.shape[1:], self._array.dtype):
            raise ValueError(_uneven(result, row, self._array[0]))
        self._array[result.index] = row

    def array(self) -> np.ndarray[Any, Any]:
        if self._array is not None:
            return self._array[: self._count]
        if not self._rows:
            return np.empty(0, np.float32)
        self._rows.sort(key=lambda row: row[0])
        first = self._rows[0][1]
        for index, row in self._rows:
            if (row.shape, row.dtype) != (first.shape, first.dtype):
                raise ValueError(_uneven(Result(index), row, first))
        return np.stack([row for _, row in self._rows])


def _uneven(result: Result, row: np.ndarray[Any, Any], first: np.ndarray[Any, Any]) -> str:
    return (
        f"The result of item {result.index} is {row.dtype} {list(row.shape)}, others are {first.dtype} "
        f"{list(first.shape)}, which makes no array; use to_list()."
    )
