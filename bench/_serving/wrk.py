"""The load: wrk, with a Lua script that sends the bodies in turn and prints what it has counted as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from .processes import HOST
from .questions import Question

HINT = "wrk is not installed, and it makes the load here. Install it with: apt-get install wrk"

_SCRIPT = """\
local requests, turn = {}, 0

function init(args)
  for number = 1, %(count)d do
    local file = assert(io.open(%(folder)s .. "/body-" .. number, "rb"))
    requests[number] = wrk.format("POST", %(path)s, %(headers)s, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "microseconds": %%d, "status": %%d, "sockets": %%d, "p50": %%d, "p99": %%d}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk has measured.

    Args:
        per_second: good answers per second.
        p50_ms: half of the answers were there within this time.
        p99_ms: all but one of a hundred were.
        errors: answers of 400 or above, and broken connections.
        note: how it was done, where that was found out while measuring.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    note: str = ""

    def as_json(self) -> dict[str, float | str]:
        """For the file of results."""
        return asdict(self)


def find_wrk() -> str:
    """Where wrk is.

    Raises:
        SystemExit: it is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit(HINT)
    return path


def write_script(question: Question, folder: Path) -> Path:
    """Write wrk's script, and the bodies beside it, into a new folder."""
    folder.mkdir()
    for number, body in enumerate(question.bodies, 1):
        (folder / f"body-{number}").write_bytes(body)
    headers = ", ".join(f"[{_lua(name)}] = {_lua(value)}" for name, value in question.headers.items())
    values = {
        "count": len(question.bodies),
        "folder": _lua(str(folder)),
        "path": _lua(question.path),
        "headers": f"{{{headers}}}",
    }
    script = folder / "load.lua"
    script.write_text(_SCRIPT % values, "utf-8")
    return script


def run_wrk(port: int, script: Path, *, concurrency: int, seconds: float) -> Load:
    """Keep ``concurrency`` connections busy for some seconds.

    One thread makes the load: it is far from busy at the rates of these servers, and the cores are for them.

    Raises:
        RuntimeError: wrk itself failed.
    """
    whole = max(1, round(seconds))
    command = [find_wrk(), "-t1", f"-c{concurrency}", f"-d{whole}s", "--timeout", "30s", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://{HOST}:{port}/"], capture_output=True, text=True, timeout=whole + 60, check=False
    )
    found = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not found:
        raise RuntimeError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    counted: dict[str, int] = json.loads(found[0])
    good = max(0, counted["requests"] - counted["status"])
    return Load(
        per_second=good / (counted["microseconds"] / 1e6),
        p50_ms=counted["p50"] / 1e3,
        p99_ms=counted["p99"] / 1e3,
        errors=counted["status"] + counted["sockets"],
    )


def _lua(text: str) -> str:
    """A Lua string: its escapes are those of JSON for all that stands in a path or a header."""
    return json.dumps(text)
