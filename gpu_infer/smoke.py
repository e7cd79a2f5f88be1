"""The smoke test: run the bundle on this machine and score one item, before anything that is billed is created."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from gpu_infer.blotting import blotted
from gpu_infer.bundle import Template
from gpu_infer.errors import Finding, PreflightError, ScoringError
from gpu_infer.progress import Event, emit
from gpu_infer.service import Service, service_from
from gpu_infer.spec import Scale, ServiceSpec
from gpu_infer.targets.local import LocalTarget

__all__ = ["run_smoke_test"]

_IMAGE_SIZE = 224


def run_smoke_test(spec: ServiceSpec, template: Template | None, *, sample: Any) -> None:
    """Deploy locally, score once, delete.

    Args:
        spec: with the model's path.
        template: of the model's framework.
        sample: one item; ``True`` makes one up from what the model takes.

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
    with service_from(target.start(here, template), target) as service:
        service.wait()
        item = _made_up(service) if sample is True else sample
        try:
            service.score(item)
        except ScoringError as error:
            message = f"The smoke test failed: the bundle starts on this machine and cannot score the sample. {error}"
            fix = "Pass an item that it can score as smoke_test=, or correct the model or its hooks."
            raise PreflightError([Finding("error", "smoke-test", blotted(message), fix)]) from error
    emit(Event(spec.name, "smoke_test", "ok"))


def _made_up(service: Service) -> Any:
    """An item that the service should take: zeros, or a grey picture where it takes encoded images."""
    import numpy as np

    takes = service.describe()
    kind = takes["input"]["dtype"]
    if kind in ("string", "object", "bytes") or takes["preprocess"].startswith("image"):
        return _grey_jpeg()
    shape = takes["input"]["shape"]
    if shape is None:
        message = "smoke_test=True cannot make an item up: the model does not say what shape it takes."
        raise PreflightError([Finding("error", "smoke-test", message, "Pass an item as smoke_test=.")])
    dims = [1 if size is None or size < 0 else size for size in shape]
    ndim = takes["input"]["item_ndim"]
    return np.zeros(dims[len(dims) - ndim :] if ndim is not None else dims[1:], dtype=kind)


def _grey_jpeg() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (_IMAGE_SIZE, _IMAGE_SIZE), (128, 128, 128)).save(stream, "JPEG")
    return stream.getvalue()
