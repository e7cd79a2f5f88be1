"""How each script that draws begins; they run in an environment that has matplotlib and nothing of the rest."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def begin() -> tuple[dict[str, Any], str, Any]:
    """What was measured (the first argument), the picture's file (the second), and pyplot."""
    source, target = sys.argv[1:]
    found: dict[str, Any] = json.loads(Path(source).read_text("utf-8"))
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    return found, target, import_module("matplotlib.pyplot")


def machine(found: dict[str, Any]) -> str:
    """The hardware in a line."""
    return f"{found['hardware']['cpu']}, {found['hardware']['cores']} cores"
