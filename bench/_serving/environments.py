"""A virtual environment for each server, with the versions of ``requirements/NAME.txt``; made once, then reused."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from .processes import NotAvailableError

FOLDER = Path(__file__).parents[1] / ".venvs"
REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_SECONDS = 1200
_DONE = "installed"


def python_of(name: str) -> Path:
    """The interpreter of an environment, which is made where it is absent or its requirements have changed.

    Raises:
        NotAvailableError: what it needs cannot be installed on this machine.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    folder = FOLDER / name
    python = folder / "bin" / "python"
    done = folder / _DONE
    if done.exists() and done.read_text("utf-8") == digest:
        return python
    print(f"  installing {name} in {folder.relative_to(FOLDER.parents[1])}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
    done.write_text(digest, "utf-8")
    return python


def version_of(name: str) -> str:
    """The server that an environment was made for, with its version: the first line of its requirements."""
    return (REQUIREMENTS / f"{name}.txt").read_text("utf-8").splitlines()[0].replace("==", " ")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotAvailableError(f"not installed within {INSTALL_SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason given")
        raise NotAvailableError(f"cannot be installed here: {said[:200]}")
