"""The results as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .hardware import sentence
from .keeping import keep
from .rounds import Plan, Result


def as_json(
    title: str, base: str, results: Sequence[Result], plan: Plan, *, hardware: dict[str, Any], servers: list[str]
) -> dict[str, Any]:
    """Everything, for the file."""
    return {
        "title": title,
        "base": base,
        "hardware": hardware,
        "servers": servers,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "contenders": [_contender(result) for result in results],
    }


def _contender(result: Result) -> dict[str, Any]:
    cells = [
        {
            "concurrency": concurrency or None,
            **result.median(concurrency).as_json(),
            "rounds": [load.as_json() for load in loads],
        }
        for concurrency, loads in result.loads.items()
        if not result.unavailable
    ]
    return {
        "name": result.name,
        "settings": result.settings,
        "unavailable": result.unavailable,
        "memory_mb": None if result.memory_mb is None else round(result.memory_mb),
        "gpu_mb": round(result.device_mb),
        "idle_cpu": None if result.idle_cpu is None else round(result.idle_cpu, 3),
        "cells": cells,
    }


def as_table(found: dict[str, Any]) -> str:
    """The results as Markdown: one table per concurrency, the fastest first."""
    lines = [
        f"# {found['title']}",
        "",
        f"{sentence(found['hardware'])}. Medians of {found['rounds']} rounds of {found['seconds']:g} s.",
        "The load is made on the same cores.",
        f"`times` is the rate divided by that of `{found['base']}` at the same concurrency.",
    ]
    levels = sorted(
        {cell["concurrency"] for one in found["contenders"] for cell in one["cells"] if cell["concurrency"]}
    )
    for level in levels:
        lines += ["", f"## {level} connection{'s' if level > 1 else ''}", "", *_level(found, level)]
    lines += ["", "## Without a server", "", *_loops(found)] if _rows(found, None) else []
    lines += ["", "## Settings", "", "| contender | settings | MB | GPU MB | idle CPU |", "|---|---|--:|--:|--:|"]
    for one in found["contenders"]:
        memory = "" if one["memory_mb"] is None else f"{one['memory_mb']:,}"
        idle = "" if one["idle_cpu"] is None else f"{one['idle_cpu']:.1%}"
        lines.append(f"| {one['name']} | {one['settings']} | {memory} | {one['gpu_mb'] or ''} | {idle} |")
    missing = [one for one in found["contenders"] if one["unavailable"]]
    if missing:
        lines += ["", "## Not available", "", "| contender | reason |", "|---|---|"]
        lines += [f"| {one['name']} | {one['unavailable'].replace('|', '/')} |" for one in missing]
    servers = ", ".join(found["servers"])
    ours = ", ".join(f"{name} {version}" for name, version in found["hardware"]["versions"].items())
    lines += ["", f"Versions: {ours}{'; ' + servers if servers else ''}."]
    return "\n".join(lines) + "\n"


def _rows(found: dict[str, Any], level: int | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    rows = [(one, cell) for one in found["contenders"] for cell in one["cells"] if cell["concurrency"] == level]
    return sorted(rows, key=lambda row: -row[1]["per_second"])


def _level(found: dict[str, Any], level: int) -> list[str]:
    rows = _rows(found, level)
    base = next((cell["per_second"] for one, cell in rows if one["name"] == found["base"]), None)
    lines = ["| contender | requests/s | times | p50 ms | p99 ms | errors |", "|---|--:|--:|--:|--:|--:|"]
    for one, cell in rows:
        times = f"{cell['per_second'] / base:.2f}" if base else ""
        lines.append(
            f"| {one['name']} | {cell['per_second']:,.0f} | {times} | {cell['p50_ms']:.2f} | {cell['p99_ms']:.2f} | "
            f"{cell['errors']:,} |"
        )
    return lines


def _loops(found: dict[str, Any]) -> list[str]:
    lines = ["| loop | items/s | p50 ms of a run | p99 ms | best way |", "|---|--:|--:|--:|---|"]
    lines += [
        f"| {one['name']} | {cell['per_second']:,.0f} | {cell['p50_ms']:.2f} | {cell['p99_ms']:.2f} | {cell['note']} |"
        for one, cell in _rows(found, None)
    ]
    return lines


def write(found: dict[str, Any], stem: Path) -> str:
    """Write ``.json``, ``.md`` and ``.png``; returns why there is no picture, empty where there is one."""
    return keep(found, as_table(found), stem, picture="plot.py")
