"""Everything that runs, and later everything that is billed, written down before it is created.

A SQLite file in the user's state folder: safe under several processes, and under SIGKILL at any instruction.
It never holds a key or a token.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_infer.errors import Finding, PreflightError

__all__ = ["Entry", "Ledger", "exclusive", "state_folder"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
    kind TEXT NOT NULL, target TEXT NOT NULL, name TEXT NOT NULL,
    created REAL NOT NULL, expires REAL, details TEXT NOT NULL,
    PRIMARY KEY (target, kind, name)
)
"""


def state_folder() -> Path:
    """Where the library keeps its state: ``$GPU_INFER_HOME``, else ``$XDG_STATE_HOME/gpu-infer``; made where absent.

    Raises:
        PreflightError: it cannot be made.
    """
    root = os.environ.get("GPU_INFER_HOME")
    if not root:
        root = str(Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gpu-infer")
    folder = Path(root).expanduser().absolute()  # a service runs in a folder of its own, and names it
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"The state folder {folder} cannot be made: {error.strerror}."
        fix = "Set GPU_INFER_HOME to a folder that can be written."
        raise PreflightError([Finding("error", "state-folder", message, fix)]) from error
    return folder


@contextmanager
def exclusive(name: str, *, wait: float = 0.0, of: str = "") -> Generator[None]:
    """Hold what is called ``name`` against other threads and processes; the system lets go of it when we die.

    Args:
        name: of a service, or of anything else.
        wait: seconds to wait for somebody else to be done.
        of: the service that is meant, where ``name`` is no name for people.

    Raises:
        PreflightError: somebody else holds it.
    """
    import fcntl  # not on Windows, where nothing gets here

    folder = state_folder() / "locks"
    folder.mkdir(exist_ok=True)
    end = time.monotonic() + wait
    with (folder / name).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    message = f"Service {(of or name)!r} is being changed by another thread or process."
                    raise PreflightError([Finding("error", "busy", message, "Try again when that is done.")]) from error
                time.sleep(0.1)
        try:
            yield
        finally:
            # Closing is not enough: a child that another thread is just starting has the file, too, for a moment.
            fcntl.flock(file, fcntl.LOCK_UN)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that exists, or was about to.

    Args:
        kind: ``service``, ``cluster``, ``endpoint``, ...
        target: where: ``local``, or the workspace.
        name: its name there.
        created: when it was written down, seconds since the epoch.
        expires: when it may be removed, ``None`` for never.
        details: what the target needs to find it again.
    """

    kind: str
    target: str
    name: str
    created: float
    expires: float | None
    details: Mapping[str, Any]


class Ledger:
    """The file. Cheap to make: each call opens, commits and closes.

    Args:
        path: of the SQLite file; the user's where ``None``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path: Path = path or state_folder() / "ledger.sqlite3"

    def record(
        self,
        kind: str,
        target: str,
        name: str,
        *,
        details: Mapping[str, Any],
        expires: float | None = None,
        created: float | None = None,
    ) -> Entry | None:
        """Write a new entry down, as created now where ``created`` does not say when.

        Returns:
            the entry; ``None``, with nothing changed, where one of that kind, target and name exists.
        """
        entry = Entry(kind, target, name, time.time() if created is None else created, expires, details)
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT OR IGNORE INTO resources VALUES (?, ?, ?, ?, ?, ?)",
                (kind, target, name, entry.created, expires, json.dumps(dict(details))),
            )
            return entry if cursor.rowcount == 1 else None

    def update(self, kind: str, target: str, name: str, *, details: Mapping[str, Any], expires: float | None) -> None:
        """Replace the details and the expiry of an entry."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE resources SET details = ?, expires = ? WHERE kind = ? AND target = ? AND name = ?",
                (json.dumps(dict(details)), expires, kind, target, name),
            )

    def rewrite(self, entries: Sequence[Entry]) -> None:
        """Replace details and expiry of these very entries, of all at once: killed in between, none is changed."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE resources SET details = ?, expires = ? "
                "WHERE kind = ? AND target = ? AND name = ? AND created = ?",
                [
                    (json.dumps(dict(one.details)), one.expires, one.kind, one.target, one.name, one.created)
                    for one in entries
                ],
            )

    def remove(self, entry: Entry) -> None:
        """Strike out this very entry, not a newer one of the same name; removing the absent is fine."""
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM resources WHERE kind = ? AND target = ? AND name = ? AND created = ?",
                (entry.kind, entry.target, entry.name, entry.created),
            )

    def find(self, kind: str, target: str, name: str) -> Entry | None:
        """The entry of that name, ``None`` without one."""
        return next((entry for entry in self.entries(kind, target) if entry.name == name), None)

    def entries(self, kind: str | None = None, target: str | None = None) -> list[Entry]:
        """All entries of a kind and target, or of all where ``None``, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT kind, target, name, created, expires, details FROM resources "
                "WHERE kind = coalesce(?, kind) AND target = coalesce(?, target) ORDER BY created",
                (kind, target),
            ).fetchall()
        return [Entry(*row[:5], details=json.loads(row[5])) for row in rows]

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            yield connection
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            message = f"The ledger {self.path} cannot be used: {error}."
            fix = "Free some space if the disk is full; move the file away if it is damaged (no service ends by that)."
            raise PreflightError([Finding("error", "ledger", message, fix)]) from error
        finally:
            connection.close()  # rolls back what was not committed
