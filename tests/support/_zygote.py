"""Runs jobs of this library in processes that may be killed, without paying for the SDK's import each time.

Is given the name of the cloud, ``aks`` or ``online``. Reads one JSON job per line, forks, and answers two lines: the
child's pid, then how it ended and what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from short_pauses import shorten, shorten_online

import gpu_infer
import gpu_infer.teardown
from gpu_infer.emulator import ml_client, workspace
from gpu_infer.errors import GpuInferError

WANTED = ("gpu_infer.deployment", "gpu_infer.service", "gpu_infer.smoke", "packaging.requirements", "yaml")
"""What the jobs import as they go: once here is cheaper than once in each of them."""

SCRIPT = "def init(): ...\n\n\ndef run(data):\n    return data\n"
T4 = "Standard_NC4as_T4_v3"


def deployed(ws: Any, job: dict[str, Any]) -> gpu_infer.Service:
    """The service of all jobs: on a cluster of its own, or on an endpoint, with a script that nothing is asked of."""
    common: dict[str, Any] = {
        "name": "svc",
        "overwrite": bool(job.get("overwrite")),
        "keep": bool(job.get("keep")),
        "ttl": job.get("ttl"),
        "wait": job.get("wait", True),
        "dry_run": False,
    }
    deploy: Any = gpu_infer.deploy
    if sys.argv[1] == "aks":
        return deploy("net", ws, cluster=gpu_infer.Cluster("gpus", vm_size=T4, nodes=3), **common)
    script = Path(job["home"]) / "score.py"
    script.write_text(SCRIPT, "utf-8")
    return deploy("net", ws, vm_size=T4, entry_script=script, template="onnx", **common)


def deploy(ws: Any, job: dict[str, Any]) -> str:
    return deployed(ws, job).state


def update(ws: Any, job: dict[str, Any]) -> str:
    service = deployed(ws, job)
    Path(job["home"], "begun").touch()
    while not Path(job["home"], "go").exists():
        time.sleep(0.005)
    rollout = gpu_infer.Rollout(steps=(50, 100), pause=0)
    return service.update(timeout=30, rollout=rollout).state


def provision(ws: Any, job: dict[str, Any]) -> str:
    return gpu_infer.provision_cluster(ws, "gpus", "Standard_NC4as_T4_v3").name


def deploy_in_block(ws: Any, job: dict[str, Any]) -> str:
    cluster = gpu_infer.Cluster("gpus", vm_size="Standard_NC4as_T4_v3")
    with gpu_infer.deploy("net", ws, name="svc", cluster=cluster) as service:
        return service.state


def delete(ws: Any, job: dict[str, Any]) -> str:
    service = gpu_infer.attach("svc", ws)
    Path(job["home"], "begun").touch()
    service.delete(cluster=True)
    return service.state


def sweep(ws: Any, job: dict[str, Any]) -> str:
    return ", ".join(f"{one.kind} {one.name}" for one in gpu_infer.sweep(ws, older_than=job.get("older_than")))


JOBS = {
    "deploy": deploy,
    "deploy_in_block": deploy_in_block,
    "update": update,
    "delete": delete,
    "provision": provision,
    "sweep": sweep,
}


def run(job: dict[str, Any]) -> dict[str, str]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connect = workspace if sys.argv[1] == "aks" else ml_client
    os.environ["GPU_INFER_HOME"] = job["home"]
    os.environ["GPU_INFER_AZURE_TIMEOUT"] = str(job.get("timeout", 60))
    try:
        return {"outcome": "ok", "text": JOBS[job["action"]](connect(job["url"]), job)}
    except GpuInferError as error:
        notes = " ".join(getattr(error, "__notes__", []))
        return {"outcome": "typed", "type": type(error).__name__, "text": str(error), "notes": notes}
    except BaseException as error:  # noqa: BLE001 - that is what the caller wants to know
        return {"outcome": "untyped", "type": type(error).__name__, "text": repr(error)}


def main() -> None:
    (shorten if sys.argv[1] == "aks" else shorten_online)(pytest.MonkeyPatch())
    for name in (*WANTED, f"gpu_infer.targets.{sys.argv[1]}"):
        import_module(name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        result = Path(job["home"]) / "result.json"
        result.unlink(missing_ok=True)
        for name in ("begun", "go"):
            Path(job["home"], name).unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            result.write_text(json.dumps(run(job)), "utf-8")
            os._exit(0)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        answer = json.loads(result.read_text("utf-8")) if result.exists() else {"outcome": "killed"}
        print(json.dumps({**answer, "status": status}), flush=True)


if __name__ == "__main__":
    main()
