"""Which processes run in or from a folder, asked of a system where processes end while one looks."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def below(folder: Path, *, running: str = "") -> list[psutil.Process]:
    """Processes that work in a folder or have it on their command line, but not this one.

    Args:
        folder: Any part of the path counts, so a folder of the test's own.
        running: A part that the command line must have, such as a script's name.

    What has ended and waits to be reaped is left out. Each process is asked once: one that ends before a second
    question would raise there.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "cwd", "ppid", "status"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        command = " ".join(process.info["cmdline"] or [])
        if running in command and str(folder) in f"{process.info['cwd'] or ''} {command}":
            found.append(process)
    return found


def supervisors(folder: Path) -> list[psutil.Process]:
    """The supervisors of local services whose state lies in a folder.

    A child of theirs that is about to become the server has their command line for a moment.
    """
    found = below(folder, running="_supervisor.py")
    theirs = {process.pid for process in found}
    return [process for process in found if process.info["ppid"] not in theirs]


def alive(process: psutil.Process) -> bool:
    """Whether a process has not ended; for psutil's ``is_running`` one that waits to be reaped has not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
