"""From a folder with code to a deployment that answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..operations import Pending
from ..scoring.rollout import Rollout
from ..state import State
from .models import Deployment, Endpoint

__all__ = ["begin", "new_rollout", "wait"]

_LOOK = 0.05
"""Seconds between two looks at a container that starts."""

_SHOWN = 2_000
"""Characters of a container's log that a message repeats."""


def begin(state: State, endpoint: Endpoint, deployment: Deployment) -> None:
    """Start the containers of a deployment, unless the emulator runs none. The caller holds the lock."""
    endpoint.deployments[deployment.name] = deployment
    if not state.settings.run_services:
        return
    deployment.rollout = new_rollout(state, endpoint, deployment)
    deployment.rollout.start()


def new_rollout(state: State, endpoint: Endpoint, deployment: Deployment) -> Rollout:
    """Containers of a deployment, not yet started; they end with the emulator. The caller holds the lock."""
    settings, spec = state.settings, deployment.shown
    folder: Path = settings.folder / "online" / f"{endpoint.name}-{deployment.name}-{len(state.rollouts)}"
    rollout = Rollout(
        f"{endpoint.name}-{deployment.name}",
        spec.files,
        folder,
        replicas=spec.replicas,
        processes=settings.processes_per_service,
        report=state.report,
    )
    state.rollouts.append(rollout)
    deployment.latest = rollout
    return rollout


def wait(
    state: State, endpoint: Endpoint, deployment: Deployment, *, timeout: float, sleep: Callable[[float], object]
) -> None:
    """Wait until a deployment answers, and let callers in. Where it does not, it is taken out again.

    Raises:
        RuntimeError: its script failed; with the end of its log.
        TimeoutError: it was not ready in time.
    """
    if deployment.rollout is None:
        return
    try:
        _settle(deployment, deployment.rollout, timeout=timeout, sleep=sleep)
    except BaseException:
        with state.lock:
            endpoint.deployments.pop(deployment.name, None)
        deployment.rollout.end()
        raise
    with state.lock:
        deployment.runs = True
        endpoint.open_doors()


def _settle(deployment: Deployment, rollout: Rollout, *, timeout: float, sleep: Callable[[float], object]) -> None:
    """Return when the containers answer, else raise."""
    deadline = time.monotonic() + timeout
    while not (healthy := _look(rollout)):
        if healthy is False:
            written = rollout.logs()[-_SHOWN:]
            raise RuntimeError(f"The deployment {deployment.name!r} crashed while starting. Its log ends:\n{written}")
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"The deployment {deployment.name!r} was not ready after {timeout:g} s: give it more with timeout=."
            )
        sleep(_LOOK)


def _look(rollout: Rollout) -> bool | None:
    """Whether the containers came up; ``None``: not yet known."""
    try:
        return rollout.is_healthy()
    except Pending:
        return None
