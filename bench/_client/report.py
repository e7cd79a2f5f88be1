"""The results as a table, as JSON and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _serving.hardware import sentence
from _serving.keeping import keep

from .calls import DOORS

NAMES = {"json": "JSON", "npy": "npy"}

_BODIES = """\
Rows of 784 float32 in 0 to 1, and a JPEG. `tutorial` is what the tutorials do: a string around `str(list)`, here of
`row.tolist()`, since `str(list(row))` is no JSON with NumPy 2; the JPEG as it is. JSON has it in base64. `times` is
against `json`."""

_CALLS = """\
One row per call, encoding and decoding included; every answer is compared. Callers are threads, or tasks of one event
loop, in one process. `requests.post` as in the tutorials; `httpx` and `aiohttp` by hand are asynchronous. The emulator
is Python, too, and opens a connection to the replica for every request: compare within a table only."""

_OVERHEAD = """\
One caller, `.npy`, a server that answers at once. `bare` posts a body written once on a `requests.Session` and does not
read the answer's array; `direct` is the same without a look for proxies in the environment, which `score()` does not
take either on the way to this machine; `by hand` is `bare` with encoding and decoding."""

_BULK = """\
`score_many(rows)` with nothing set. The loops call once per row, the first as the tutorials do, and get fewer rows:
their rate does not depend on the number."""


def as_table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Clients side by side",
        "",
        f"{sentence(found['hardware'])}. Medians of {found['rounds']} rounds; calls: {found['seconds']:g} s each.",
        "The service (MNIST network 784-300-100-10 as ONNX, one worker) runs on the same cores as the callers.",
        f"Load average of the machine before: {found['hardware']['load_average_before']:g}.",
        "",
        *_bodies(found["bodies"]),
        *_calls(found),
        *_overhead(found["overhead"]),
        *_bulk(found["bulk"]),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in found["hardware"]["versions"].items() if version)
    return "\n".join([*lines, "", f"Versions: {versions}."]) + "\n"


def _bodies(bodies: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Bodies",
        "",
        _BODIES,
        "",
        "| body | way | bytes | encode ms | decode ms | both ms | times |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for body in bodies:
        both = body["write_ms"] + body["read_ms"]
        base = next(one for one in bodies if (one["what"], one["way"]) == (body["what"], "json"))
        times = (base["write_ms"] + base["read_ms"]) / both if both else 0
        lines.append(
            f"| {body['what']} | {body['way']} | {body['size']:,} | {body['write_ms']:.4f} | {body['read_ms']:.4f} | "
            f"{both:.4f} | {times:,.1f} |"
        )
    return lines


def _calls(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Calls",
        "",
        _CALLS,
    ]
    for door, title in DOORS.items():
        results = [one for one in found["calls"] if one["door"] == door]
        levels = sorted({cell["concurrency"] for one in results for cell in one["cells"]})
        for level in levels:
            noun = f"{level} caller{'s' if level > 1 else ''}"
            lines += ["", f"### {title}, {noun}", ""]
            lines += ["| way | form | calls/s | p50 ms | p99 ms | wrong |", "|---|---|--:|--:|--:|--:|"]
            rows = [(one, cell) for one in results for cell in one["cells"] if cell["concurrency"] == level]
            lines += [
                f"| {one['way']} | {NAMES[one['form']]} | {cell['per_second']:,.0f} | {cell['p50_ms']:.2f} | "
                f"{cell['p99_ms']:.2f} | {cell['wrong']:,.0f} |"
                for one, cell in sorted(rows, key=lambda row: -row[1]["per_second"])
            ]
        lines += [f"\n{one['way']}: not available: {one['unavailable']}" for one in results if one["unavailable"]]
    return lines


def _overhead(overhead: dict[str, float]) -> list[str]:
    return [
        "",
        "## Beyond a bare post",
        "",
        _OVERHEAD,
        "",
        "| | µs per call | against bare |",
        "|---|--:|--:|",
        *(
            f"| {title} | {overhead[name]:,.0f} | {overhead[name] / overhead['bare'] - 1:+.0%} |"
            for name, title in (
                ("bare", "bare"),
                ("direct", "direct"),
                ("by_hand", "by hand"),
                ("score", "`ScoringClient.score()`"),
            )
        ),
    ]


def _bulk(bulk: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "## Many rows",
        "",
        _BULK,
        "",
        "| way | rows | rows/s | times | wrong |",
        "|---|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {one['way']} | {one['items']:,.0f} | {one['per_second']:,.0f} | {one['times']:,.1f} | {one['wrong']:,.0f} |"
        for one in bulk
    ]


def write(found: dict[str, Any], stem: Path) -> str:
    """Write ``.json``, ``.md`` and ``.png``; returns why there is no picture, empty where there is one."""
    return keep(found, as_table(found), stem, picture="plot_client.py")
