"""Results on disk, so that an interrupted job goes on where it stopped. One SQLite file, one row for each item."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import CheckpointError
from ..codecs import decode_npy, encode_npy
from .pieces import Piece

__all__ = ["Checkpoint"]

VERSION = 1
COMMIT_EVERY = 0.5
"""Seconds of work at most that are done again after the process was killed."""


class Checkpoint:
    """The results of the items so far.

    SQLite keeps the file whole however the process ends: what was committed is there, what was not is not.

    Args:
        path: of the file, made if it is not there.
        clock: seconds, monotonic.

    Raises:
        CheckpointError: no checkpoint, one in use by another process, or of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._clock = clock
        self._committed = clock()
        self._open = True
        if not self._path.parent.is_dir():
            raise CheckpointError(
                f"The checkpoint {str(self._path)!r} cannot be opened: there is no such folder; make it first."
            )
        try:
            # Generators may be resumed in another thread than the one that began them, though never in two at once.
            self._file = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise CheckpointError(f"The checkpoint {str(self._path)!r} cannot be opened: {error}.") from error
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise CheckpointError(
                f"The file {str(self._path)!r} {_why_not(error)}. Nothing was changed; name another."
            ) from error
        except CheckpointError:
            self._file.close()
            raise

    def _prepare(self) -> None:
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.execute("BEGIN EXCLUSIVE")
        tables = {name for (name,) in self._file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            self._file.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
            self._file.execute("CREATE TABLE results (item INTEGER PRIMARY KEY, digest INTEGER, kind TEXT, value BLOB)")
            self._file.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))
        elif tables != {"meta", "results"}:
            raise sqlite3.DatabaseError("it holds other tables")
        found = self._file.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        if found is None or found[0] != str(VERSION):
            raise CheckpointError(
                f"The checkpoint {str(self._path)!r} was written by another version of gpu_infer. Nothing was changed; "
                "name another file to begin anew."
            )
        self._file.execute("COMMIT")
        self._file.execute("BEGIN")

    def find(self, piece: Piece) -> tuple[Any] | None:
        """The result of an item in a tuple, ``None`` where it has none yet.

        Raises:
            CheckpointError: the item is not the one that the file has a result for.
        """
        row = self._file.execute("SELECT digest, kind, value FROM results WHERE item = ?", (piece.index,)).fetchone()
        if row is None:
            return None
        digest, kind, value = row
        if digest and piece.digest and digest != piece.digest:
            raise CheckpointError(
                f"Item {piece.index} is not the one that the checkpoint {str(self._path)!r} has a result for. Give the "
                "same items in the same order to go on, or name another file to begin anew."
            )
        return (_READ[kind](value),)

    def keep(self, piece: Piece, value: Any) -> None:
        """Write down the result of an item.

        Raises:
            CheckpointError: the disk is full or gone, or a result that has no form on disk.
        """
        kind, data = _written(value)
        try:
            self._file.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", (piece.index, piece.digest, kind, data)
            )
            if self._clock() - self._committed >= COMMIT_EVERY:
                self._file.execute("COMMIT")
                self._file.execute("BEGIN")
                self._committed = self._clock()
        except sqlite3.Error as error:
            raise CheckpointError(f"The checkpoint {str(self._path)!r} cannot be written: {error}.") from error

    def close(self) -> None:
        """Commit, and let others have the file. May be called twice."""
        if self._open:
            self._open = False
            self._file.execute("COMMIT")
            self._file.close()


def _why_not(error: sqlite3.DatabaseError) -> str:
    if "locked" in str(error):
        return "is in use by another process, or another score_many() of this one"
    # What the operating system refuses, a read-only folder or a full disk, says nothing about what the file is.
    is_refused = isinstance(error, sqlite3.OperationalError)
    return f"cannot be written as a checkpoint: {error}" if is_refused else f"is no checkpoint of score_many(): {error}"


def _written(value: Any) -> tuple[str, bytes]:
    if isinstance(value, np.ndarray | np.generic):
        return ("npy" if isinstance(value, np.ndarray) else "scalar"), encode_npy(np.asarray(cast("Any", value)))
    if isinstance(value, bytes):
        return "bytes", value
    if isinstance(value, Mapping):
        fields = cast("Mapping[Any, Any]", value)
        if fields and all(isinstance(one, np.ndarray | np.generic) for one in fields.values()):
            stream = io.BytesIO()
            # By position: a name of the model's may be one that savez() has a meaning for.
            np.savez(stream, np.array([str(name) for name in fields]), *map(np.asarray, fields.values()))
            return "npz", stream.getvalue()
    try:
        return "json", json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"A result cannot be written to the checkpoint: {error}.") from error


def _read_npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        names, *arrays = (file[f"arr_{at}"] for at in range(len(file.files)))
    return dict(zip(names.tolist(), arrays, strict=True))


_READ: Mapping[str, Callable[[bytes], Any]] = {
    "npy": decode_npy,
    "scalar": lambda data: decode_npy(data)[()],
    "bytes": bytes,
    "npz": _read_npz,
    "json": json.loads,
}
