"""The smoke test: run the bundle on this machine and score one item, before anything that is billed is created."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from gpu_infer.blotting import blotted
from gpu_infer.bundle import Template
from gpu_infer.errors import Finding, PreflightError, ScoringError
from gpu_infer.progress import Event, emit
from gpu_infer.samples import made_up
from gpu_infer.service import Service, service_from
from gpu_infer.spec import Scale, ServiceSpec
from gpu_infer.targets.local import LocalTarget

__all__ = ["run_smoke_test"]


def run_smoke_test(spec: ServiceSpec, template: Template | None, *, sample: Any) -> float:
    """Deploy locally, score once, delete.

    Args:
        spec: with the model's path.
        template: of the model's framework.
        sample: one item; ``True`` makes one up from what the model takes.

    Returns:
        seconds until it was healthy: the model loaded and warmed up.

    Raises:
        PreflightError: the bundle does not run here, or gives no result for the sample; its cause has the details.
    """
    target = LocalTarget()
    here = replace(
        spec, name=f"{spec.name[:26]}-smoke", target="local", scale=Scale(), keep=False, ttl=None, overwrite=True
    )
    plan = target.plan(replace(here, cluster=None, resources=replace(here.resources, vm_size=None)))
    if plan.errors:
        raise PreflightError(list(plan.findings))
    emit(Event(spec.name, "smoke_test", "start"))
    began = time.monotonic()
    with service_from(target.start(here, template), target) as service:
        service.wait()
        seconds = time.monotonic() - began
        item = _made_up(service) if sample is True else sample
        try:
            service.score(item)
        except ScoringError as error:
            message = f"The smoke test failed: the bundle starts on this machine and cannot score the sample. {error}"
            fix = "Pass an item that it can score as smoke_test=, or correct the model or its hooks."
            raise PreflightError([Finding("error", "smoke-test", blotted(message), fix)]) from error
    emit(Event(spec.name, "smoke_test", "ok", f"ready after {seconds:.0f} s"))
    return seconds


def _made_up(service: Service) -> Any:
    takes = service.describe()
    try:
        return made_up(takes)
    except ValueError as error:
        message = f"smoke_test=True cannot make an item up: {error}"
        raise PreflightError([Finding("error", "smoke-test", message, "Pass an item as smoke_test=.")]) from error
