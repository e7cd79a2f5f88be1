"""What half an hour did to a service, as a table, as JSON and as a picture.

Run in ``bench/``: ``python -m _serving.soak_report SOAK.json STEM``, which ``tests/local/test_soak.py`` does when it is
told to keep what it has found.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .hardware import describe, sentence
from .keeping import keep

COMMAND = "GPU_INFER_SOAK_MINUTES={minutes:g} GPU_INFER_SOAK_KEEP=bench/results .venv/bin/python -m pytest -m slow \
tests/local/test_soak.py"


def main() -> None:
    """Write ``.json``, ``.md`` and ``.png``."""
    source, stem = Path(sys.argv[1]), Path(sys.argv[2])
    found: dict[str, Any] = json.loads(source.read_text("utf-8"))
    found["hardware"] = describe()
    found["command"] = COMMAND.format(minutes=found["minutes"])
    problem = keep(found, as_table(found), stem, picture="plot_soak.py", indent=None)
    print(f"No picture: {problem}" if problem else f"Written: {stem}.md, .json, .png")


def as_table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"# {found['minutes']:g} minutes of callers of all kinds",
        "",
        f"{sentence(found['hardware'])}. Both services at the same time, the callers on the same cores.",
        "",
        f"The first {found['warm_up_seconds']:g} s are warm-up. Growth is the median of the last quarter of the rest",
        "less that of the first; trend is the median slope times the length (Theil and Sen). A service has the memory",
        "of all its processes, each with its part of what they share (PSS).",
        "",
        f"`{found['command']}`",
    ]
    for name, service in found["services"].items():
        memory = service["memory_mb"]
        words = (
            f"{service['requests']:,} requests after the warm-up. Memory: growth {memory['growth']:+.1f} MB, trend "
            f"{memory['trend']:+.1f} MB. Threads {service['threads_growth']:+g}, descriptors "
            f"{service['descriptors_growth']:+g}."
        )
        lines += ["", f"## {name}", "", words]
        lines += ["", "| process | MB | growth MB | trend MB | threads, quiet | descriptors, quiet |"]
        lines += ["|---|--:|--:|--:|--:|--:|"]
        lines += [_process(one) for one in service["processes"]]
        lines += ["", "| what became of requests | how many |", "|---|--:|"]
        lines += [f"| {kind} | {count:,} |" for kind, count in service["answers"].items()]
    ours = ", ".join(f"{name} {version}" for name, version in found["hardware"]["versions"].items() if name != "wrk")
    return "\n".join([*lines, "", f"Versions: {ours}."]) + "\n"


def _process(one: dict[str, Any]) -> str:
    threads, descriptors = (
        f"{before} → {after}"
        for before, after in zip(one["quiet_before"], one["quiet_after"] or ("gone", "gone"), strict=True)
    )
    memory = f"{one['rss_mb']:.1f} | {one['rss_growth_mb']:+.2f} | {one['rss_trend_mb']:+.2f}"
    return f"| {one['role']} | {memory} | {threads} | {descriptors} |"


if __name__ == "__main__":
    main()
