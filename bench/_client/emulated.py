"""An emulator with the model behind its doors: a web service on AKS and, where azure-ai-ml is, an online endpoint.

The arguments are the model and a folder of this run. Prints where they are as JSON, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import gpu_infer
from gpu_infer.bundle import build_bundle, load_template
from gpu_infer.emulator import Emulator

_TOGETHER = 64
"""Requests that a door lets in at once: more than there are callers."""


def main() -> None:
    """Deploy both, say where, and wait."""
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with contextlib.ExitStack() as stack:
        output = sys.stdout
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # the SDK prints
        emulator = stack.enter_context(Emulator(folder=folder))
        workspace = emulator.workspace()
        cluster = gpu_infer.Cluster("aks-gpu", vm_size="Standard_NC4as_T4_v3", nodes=3)
        arguments: Any = {"name": "digits", "cluster": cluster, "dry_run": False}
        service = stack.enter_context(gpu_infer.deploy(model, workspace, **arguments))
        key = service.raw.get_keys()[0]
        doors = {"aks": {"uri": service.scoring_uri, "key": key, "name": "digits"}}
        if importlib.util.find_spec("azure.ai"):
            doors["online"] = _endpoint(emulator, model, folder)
        said = {"emulator": emulator.url, "doors": doors}
        output.write(json.dumps(said) + "\n")
        output.flush()
        sys.stdin.read()


def _endpoint(emulator: Emulator, model: Path, folder: Path) -> dict[str, str]:
    """The same bundle behind an online endpoint."""
    spec = gpu_infer.plan(model).spec
    bundle = build_bundle(spec, folder, template=load_template("onnx"))
    emulator.add_endpoint("digits")
    emulator.add_deployment(
        "digits",
        bundle.folder,
        name="blue",
        model=model,
        environment_variables=dict(bundle.environment),
        max_concurrent=_TOGETHER,
    )
    client = emulator.ml_client()
    keys = client.online_endpoints.get_keys("digits")
    uri = client.online_endpoints.get("digits").scoring_uri
    return {"uri": uri, "key": keys.primary_key, "name": "digits"}


if __name__ == "__main__":
    main()
