"""How handles and plans show themselves in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["html_table"]


def html_table(caption: str, rows: Sequence[tuple[str, str]]) -> str:
    """Pairs as the small table that a notebook shows."""
    left = "style='text-align:left'"
    cells = "".join(
        f"<tr><th {left}>{html.escape(key)}</th><td {left}>{html.escape(value)}</td></tr>" for key, value in rows
    )
    return f"<table><caption><b>{html.escape(caption)}</b></caption>{cells}</table>"
