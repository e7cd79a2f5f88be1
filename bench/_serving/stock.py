"""The contenders under the stock Azure ML server: the tutorials, the empty script, and this project."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gpu_infer
from gpu_infer.bundle import container_environment
from gpu_infer.errors import GpuInferError

from .contenders import Contender
from .processes import NotAvailableError, Server, descendants, free_port, serve
from .questions import Question, anything, plain
from .workloads import HERE, Assets, Workload

START_SECONDS = 120.0

IMAGE = "image:224x224,layout=nchw,mean=127,std=128"
"""What EfficientNet-Lite0 takes, in this project's words."""

_ARGUMENTS = ("WORKER_COUNT", "SCORING_TIMEOUT_MS")
"""Variables that ``deploy()`` takes as arguments only."""

_FROM_AZURE = ("GPU_INFER_", "AZUREML_", "AML_", "WORKER_", "GUNICORN_", "SCORING_TIMEOUT_MS", "SERVER_PORT", "LISTEN_")


def forget_settings() -> None:
    """Take what the stock server would read out of this process's environment: the same run everywhere."""
    for name in [name for name in os.environ if name.startswith(_FROM_AZURE)]:
        del os.environ[name]


def stock_contenders(workers: tuple[int, ...] = (1, 2)) -> list[Contender[Assets]]:
    """The tutorials, the floor, ours."""
    found = [
        Contender(
            "tutorial-tf", "stock server, its one synchronous worker, TF1 session", _tutorial_tf, plain("/score")
        ),
        Contender("tutorial-onnx", "the same with a plain ONNX Runtime session", _tutorial_onnx, plain("/score")),
    ]
    for count in workers:
        noun = f"{count} worker{'s' if count > 1 else ''}"
        found.append(
            Contender(f"floor-{count}", f"stock server, empty script, our settings, {noun}", _floor(count), _floor_ask)
        )
    for count in workers:
        noun = f"{count} worker{'s' if count > 1 else ''}"
        found.append(
            Contender(f"ours-tf-{count}", f"deploy() of the SavedModel, {noun}", _ours_tf(count), plain("/score"))
        )
        found.append(
            Contender(f"ours-onnx-{count}", f"deploy() of the ONNX file, {noun}", _ours_onnx(count), plain("/score"))
        )
    return found


def tutorial(script: str, model: Path, log: Path) -> AbstractContextManager[Server]:
    """The stock server as it is, with a script of ``scripts/``."""
    port = free_port()
    command = [sys.executable, str(HERE / "servers" / "stock.py"), str(HERE / "scripts" / script), str(port)]
    # The root is where the server looks for what a script imports.
    told = {"AZUREML_MODEL_DIR": str(model), "AML_APP_ROOT": str(HERE / "scripts")}
    return serve(command, port=port, log=log, environment=told)


def _tutorial_tf(workload: Workload, assets: Assets, log: Path) -> AbstractContextManager[Server]:
    if workload.name == "images":
        return tutorial("tutorial_tf_images.py", assets.efficientnet_savedmodel, log)
    script = "tutorial_tf_json.py" if workload.name == "mnist-json" else "tutorial_tf_npy.py"
    return tutorial(script, assets.mnist_checkpoint, log)


def _tutorial_onnx(workload: Workload, assets: Assets, log: Path) -> AbstractContextManager[Server]:
    return tutorial("tutorial_onnx.py", assets.model(workload), log)


def _floor_ask(workload: Workload, assets: Assets) -> Question:
    return anything(plain("/score")(workload, assets))


def _floor(workers: int) -> Any:
    def start(workload: Workload, assets: Assets, log: Path) -> AbstractContextManager[Server]:
        model = assets.model(workload)
        # Whatever ours would be started with; a script of one's own gets the stock defaults otherwise.
        settings = container_environment(gpu_infer.plan(model, workers=workers).spec)
        settings = {name: value for name, value in settings.items() if name not in _ARGUMENTS}
        settings["PYTHONPATH"] = _beside_the_script(assets)
        script = HERE / "scripts" / "empty.py"
        return deployed(model, log, workers=workers, entry_script=script, environment_variables=settings)

    return start


def _beside_the_script(assets: Assets) -> str:
    """The path on which a script of one's own finds what lies beside ours: the settings name classes of it."""
    folder = assets.folder / "beside"
    folder.mkdir(exist_ok=True)
    package = folder / "gpu_infer_serving"
    if not package.exists():
        package.symlink_to(Path(gpu_infer.__file__).parent / "serving")
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def _ours_onnx(workers: int) -> Any:
    def start(workload: Workload, assets: Assets, log: Path) -> AbstractContextManager[Server]:
        hooks = {"preprocess": IMAGE, "postprocess": "top_k:5"} if workload.name == "images" else {}
        return deployed(assets.model(workload), log, workers=workers, **hooks)

    return start


def _ours_tf(workers: int) -> Any:
    def start(workload: Workload, assets: Assets, log: Path) -> AbstractContextManager[Server]:
        if workload.name == "images":
            hooks = {"output": "probabilities", "postprocess": "top_k:5"}
            return deployed(assets.efficientnet_savedmodel, log, workers=workers, **hooks)
        return deployed(assets.mnist_savedmodel, log, workers=workers)

    return start


@contextlib.contextmanager
def deployed(model: Path, log: Path, **arguments: Any) -> Iterator[Server]:
    """A service of this project, for the length of a ``with`` block.

    Raises:
        NotAvailableError: it does not start.
    """
    before = set(descendants(os.getpid()))
    try:
        service = gpu_infer.deploy(model, wait=START_SECONDS, dry_run=False, **arguments)
    except GpuInferError as error:
        raise NotAvailableError(" ".join(str(error).split())[:300]) from error
    with service:
        port = urlsplit(service.scoring_uri).port
        assert port is not None
        try:
            yield Server(port, tuple(set(descendants(os.getpid())) - before))
        finally:
            log.write_text(service.logs(), "utf-8")
