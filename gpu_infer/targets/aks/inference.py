"""From a spec and its bundle to what ``Model.deploy`` takes: an ``InferenceConfig`` and a deployment configuration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gpu_infer.blotting import remember_secrets
from gpu_infer.bundle import Bundle, Template, azure_environment, build_bundle, load_template, requests_at_once
from gpu_infer.errors import DeploymentError, Finding, PreflightError
from gpu_infer.ledger import state_folder
from gpu_infer.preflight import check_container
from gpu_infer.progress import Event, emit
from gpu_infer.spec import (
    DEFAULT_CPU_CORES,
    DEFAULT_MEMORY_GB,
    Batching,
    ModelRef,
    Scale,
    ServiceSpec,
    labels_from,
    seconds_of,
)
from gpu_infer.targets.aks.sdk import sdk
from gpu_infer.targets.calls import call

__all__ = ["Properties", "build_inference_config", "deploy_arguments", "inference_config"]

MAX_TIMEOUT_MS = 300_000
"""The longest that the router in front of AKS services waits."""

_GIT = ("azureml.git.", "mlflow.source.git.")


class Properties(dict[str, str]):
    """Properties of a service without what the SDK adds on its own.

    Inside a Git repository it reads the address, branch and commit and sends them along, by ``update()`` on this very
    dict. Whoever wants them there names them in ``properties=``.
    """

    def update(self, *args: Any, **keywords: Any) -> None:
        """As of any mapping, but for what is known of the repository."""
        added: dict[str, str] = dict(*args, **keywords)
        super().update({name: value for name, value in added.items() if not name.startswith(_GIT)})


def build_inference_config(
    template: str = "tensorflow",
    *,
    output: str | None = None,
    preprocess: str | Path | None = None,
    postprocess: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    entry_script: str | Path | None = None,
    conda_file: str | Path | None = None,
    base_image: str | None = None,
    batching: Batching | bool = True,
    workers: int = 1,
    environment_variables: Mapping[str, str] | None = None,
    timeout: float | str | timedelta = 60.0,
) -> Any:
    """An ``InferenceConfig`` with a GPU, of the bundled ``score.py`` and conda file, for your own ``Model.deploy``.

    The GPU itself is asked for by ``gpu_cores=1`` in ``AksWebservice.deploy_configuration``.

    Args:
        template: ``"tensorflow"``, ``"torch"`` or ``"onnx"``.
        output: as for ``deploy()``, and so are those that follow.
        preprocess: a built-in, a file, or ``"file.py:function"``.
        postprocess: the same.
        labels: names of the classes: a text file, or a list.
        entry_script: a whole score.py of your own.
        conda_file: instead of the template's.
        base_image: instead of the template's.
        batching: ``False`` keeps the items of different requests apart; ``Batching(...)`` sets sizes.
        workers: processes per replica.
        environment_variables: for the container.
        timeout: how long one request may take.

    Returns:
        ``azureml.core.model.InferenceConfig``; its files lie in the library's state folder.

    Raises:
        ValueError: there is no such template.
        PreflightError: a check of hooks, script, conda file or settings failed, or a file is missing.
        MissingDependencyError: azureml-core is not installed.
    """
    remember_secrets(environment_variables or {})
    spec = ServiceSpec(
        name="bundle",
        model=ModelRef(name="model"),
        target="aks",
        template=template,
        output=output or "",
        preprocess=str(preprocess or ""),
        postprocess=str(postprocess or ""),
        labels=labels_from(labels),
        entry_script=Path(entry_script) if entry_script else None,
        conda_file=Path(conda_file) if conda_file else None,
        batching=batching if isinstance(batching, Batching) else Batching(enabled=batching),
        scale=Scale(workers=workers),
        environment_variables=dict(environment_variables or {}),
        timeout=seconds_of(timeout),
    )
    chosen = load_template(template)
    findings = check_container(spec, chosen, today=datetime.now(UTC).date())
    if any(finding.level == "error" for finding in findings):
        raise PreflightError(findings)
    for finding in findings:
        emit(Event(spec.name, finding.code, "warning" if finding.level == "warning" else "ok", str(finding)))
    return inference_config(stored_bundle(spec, chosen), base_image=base_image or chosen.base_image)


def stored_bundle(spec: ServiceSpec, template: Template) -> Bundle:
    """Build a bundle into the state folder; one of the same content that lies there is used again."""
    parent = state_folder() / "bundles"
    parent.mkdir(exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=parent))
    try:
        bundle = build_bundle(spec, building, template=template)
        folder = parent / bundle.folder.name
        if not folder.exists():
            bundle.folder.rename(folder)
        return replace(bundle, folder=folder)
    except FileNotFoundError as error:
        message = f"The bundle needs a file that is not there: {error.filename}."
        raise PreflightError([Finding("error", "file-missing", message)]) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def inference_config(bundle: Bundle, *, base_image: str) -> Any:
    """The ``InferenceConfig`` of a bundle.

    In the ``environment=`` form: of the others, some drop the GPU without a word and some go the way of images that
    Azure no longer builds. With a name of its own, since the SDK's default brings ``EXAMPLE_ENV_VAR``.
    """

    def make() -> Any:
        environment = sdk("azureml.core.Environment")(f"gpu-infer-{bundle.digest}")
        dependencies = sdk("azureml.core.conda_dependencies.CondaDependencies")
        environment.python.conda_dependencies = dependencies(
            conda_dependencies_file_path=str(bundle.folder / "conda.yml")
        )
        environment.docker.base_image = base_image
        environment.environment_variables = azure_environment(bundle)
        configuration: Callable[..., Any] = sdk("azureml.core.model.InferenceConfig")
        return configuration(entry_script="score.py", source_directory=str(bundle.folder), environment=environment)

    return call(make, doing="making the InferenceConfig", default=DeploymentError)


def deploy_arguments(spec: ServiceSpec, *, tags: Mapping[str, str], run: str) -> dict[str, Any]:
    """The arguments of ``AksWebservice.deploy_configuration``, which are also some of ``AksWebservice.update``.

    ``gpu_cores`` is always among them: the SDK sends none where it is left out, and what Azure then takes is not
    documented in one way.
    """
    return {
        **replica_arguments(spec.scale),
        "cpu_cores": spec.resources.cpu_cores or DEFAULT_CPU_CORES,
        "memory_gb": spec.resources.memory_gb or DEFAULT_MEMORY_GB,
        "gpu_cores": spec.resources.gpus,
        "scoring_timeout_ms": min(round(spec.timeout * 1000), MAX_TIMEOUT_MS),
        "replica_max_concurrent_requests": requests_at_once(spec),
        "auth_enabled": spec.auth == "key",
        "token_auth_enabled": spec.auth == "token",
        "tags": dict(tags),
        "properties": Properties({**spec.properties, "gpu-infer-run": run}),
    }


def replica_arguments(scale: Scale) -> dict[str, Any]:
    """How many replicas, or between which numbers the autoscaler chooses."""
    if scale.max_replicas is None:
        return {"autoscale_enabled": False, "num_replicas": scale.replicas}
    return {
        "autoscale_enabled": True,
        "autoscale_min_replicas": scale.replicas,
        "autoscale_max_replicas": scale.max_replicas,
    }
