"""Keeps what has been measured: as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from .environments import python_of
from .processes import NotAvailableError

HERE = Path(__file__).parent


def keep(found: dict[str, Any], table: str, stem: Path, *, picture: str, indent: int | None = 1) -> str:
    """Write ``.json``, ``.md`` and ``.png``; returns why there is no picture, empty where there is one.

    Args:
        found: what has been measured.
        table: the same as Markdown.
        stem: of the three files.
        picture: the script beside this one that draws it.
        indent: of the JSON.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    source, target = stem.with_suffix(".json"), stem.with_suffix(".png")
    source.write_text(json.dumps(found, indent=indent) + "\n", "utf-8")
    stem.with_suffix(".md").write_text(table, "utf-8")
    try:
        # In an environment of its own: nothing else of the project needs matplotlib.
        command = [str(python_of("plot")), str(HERE / picture), str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except NotAvailableError as error:
        return str(error)
    return done.stderr.strip()[-300:] if done.returncode else ""
