"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

OURS = ("azureml-inference-server-http", "gunicorn", "gpu-infer", "numpy", "onnxruntime", "tensorflow", "torch")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, versions, date, and how busy the machine was before."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "versions": {**{name: found for name in OURS if (found := installed(name))}, "wrk": _wrk()},
    }


def sentence(hardware: dict[str, Any]) -> str:
    """The machine in a line, for tables."""
    gpu = f", {hardware['gpu']}" if hardware.get("gpu") else ""
    return (
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB{gpu}, {hardware['system']}, "
        f"Python {hardware['python']}, {hardware['date']}"
    )


def cpu_model() -> str:
    """The processor's name, as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(package: str) -> str:
    """The version of a package; empty where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _wrk() -> str:
    try:
        said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, timeout=10, check=False).stdout
    except FileNotFoundError:
        return ""
    return next(iter(said.splitlines()), "").partition(" Copyright")[0].removeprefix("wrk ")
