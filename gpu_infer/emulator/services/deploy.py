"""Deployments: from what was asked for to a healthy service, or to the error that Azure gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ..operations import Operation, Outcome, Transition
from ..patches import apply
from ..scoring.rollout import Layout, Rollout
from ..state import State
from ..wire import Refusal, items, mapping
from .layout import plan
from .models import Service, complete, end, kubernetes_error, new_key, replicas

__all__ = ["changed", "create", "delete", "open_doors", "update"]

_CONTAINER = "environmentImageRequest"
"""What a container is made of."""

_CRASHED = (
    "Your container application crashed. This may be caused by errors in your scoring file's init() function.\n"
    "Please check the logs for your container instance: {name}. From the AML SDK, you can run "
    "print(service.get_logs()) if you have service object to fetch the logs."
)


def create(state: State, body: Mapping[str, Any], failing: Outcome) -> Operation:
    """Begin a new service, or with ``overwrite`` a new version of one.

    Raises:
        Refusal: 400, 404, 409.
    """
    services = state.services
    spec = complete(body)
    services.check(spec)
    service = services.all.get(str(spec["name"]))
    if service and not body.get("overwrite"):
        raise Refusal(409, "Conflict", f"Service {service.name} with the same name already exists.")
    layout = _layout(state, spec)
    keys = mapping(body.get("keys"))
    given = (str(keys.get("primaryKey") or new_key()), str(keys.get("secondaryKey") or new_key()))
    if service is None:
        service = Service(str(spec["name"]), spec, given)
        services.all[service.name] = service
    elif keys.get("primaryKey"):
        service.keys = given
    return _roll_out(state, service, spec, kind="services.create", failing=failing, layout=layout)


def update(state: State, service: Service, patches: Any, failing: Outcome) -> Operation:
    """Begin to change a service in place.

    Raises:
        Refusal: 400, 404.
    """
    spec = changed(service.spec, patches)
    state.services.check(spec)
    rebuild = service.running is None or service.running.container != spec.get(_CONTAINER)
    layout = _layout(state, spec) if rebuild else None
    return _roll_out(state, service, spec, kind="services.update", failing=failing, layout=layout)


def changed(spec: Mapping[str, Any], patches: Any) -> dict[str, Any]:
    """A service's spec after a JSON patch."""
    new = apply(spec, patches)
    paths = {str(mapping(patch).get("path")) for patch in items(patches)}
    if "/numReplicas" in paths:
        new["autoScaler"]["autoscaleEnabled"] = False
    return complete(new)


def _layout(state: State, spec: Mapping[str, Any]) -> Layout | None:
    """The files of new containers, if there are to be any."""
    if not state.settings.run_services:
        return None
    return plan(mapping(spec.get(_CONTAINER)), state.artifacts, state.models)


def _roll_out(
    state: State, service: Service, spec: dict[str, Any], *, kind: str, failing: Outcome, layout: Layout | None
) -> Operation:
    """Begin to bring a service to a spec; ``layout`` is of its new containers, if it gets any."""
    if service.operation:
        service.operation.cancel()
    if service.coming:
        service.coming.end()
        service.coming = None
    service.updated = datetime.now(UTC)
    service.state, service.log = "Transitioning", ""
    obstacle = state.services.obstacle(service, spec)
    if obstacle is None and failing is None:
        service.spec = spec  # what Azure shows is what was asked for last
        service.placed = True
        if layout:
            service.coming = _start(state, service, spec, layout)
    elif kind == "services.create":
        service.spec = spec
    service.operation = state.operations.begin(kind, _finish(service, failing, obstacle))
    return service.operation


def _start(state: State, service: Service, spec: Mapping[str, Any], layout: Layout) -> Rollout:
    settings = state.settings
    folder = settings.folder / "services" / f"{service.name}-{len(state.rollouts)}"
    rollout = Rollout(
        service.name,
        layout,
        folder,
        replicas=replicas(spec),
        container=spec.get(_CONTAINER),
        processes=settings.processes_per_service,
        report=state.report,
    )
    state.rollouts.append(rollout)
    rollout.start()
    return rollout


def _finish(service: Service, failing: Outcome, obstacle: str | None) -> Callable[[], Outcome]:
    def finish() -> Outcome:
        error = failing
        if error is None and obstacle is not None:
            error = kubernetes_error("Unschedulable", obstacle)
        if error is None and service.coming and not service.coming.is_healthy():
            error = kubernetes_error("CrashLoopBackOff", _CRASHED.format(name=service.name))
        if error is None:
            _succeed(service)
        else:
            _fail(service, error)
        return error

    return finish


def _succeed(service: Service) -> None:
    if service.coming:
        if service.running:
            service.running.end()
        service.running, service.coming = service.coming, None
    open_doors(service)
    service.state, service.error = "Healthy", None


def _fail(service: Service, error: Mapping[str, Any]) -> None:
    """The service keeps what ran before, if anything did."""
    if service.coming:
        service.log = service.coming.logs()
        service.coming.end()
        service.coming = None
    if service.running is None:
        service.placed = False
    codes = {str(mapping(detail).get("code")) for detail in items(error.get("details"))}
    service.error = dict(error)
    if "Unschedulable" in codes:
        service.state = "Unschedulable"
    else:
        service.state = "Unhealthy" if error.get("code") == "DeploymentTimedOut" else "Failed"


def open_doors(service: Service) -> None:
    """Let callers in on the terms that hold now."""
    spec = service.spec
    front = service.running.open(replicas(spec)) if service.running else None
    if front is None:
        return
    front.keys = service.keys
    front.tokens = dict(service.tokens)
    front.auth = "key" if spec["authEnabled"] else "token" if spec["aadAuthEnabled"] else "none"
    front.max_concurrent = int(spec["maxConcurrentRequestsPerContainer"])
    front.max_wait_ms = float(spec["maxQueueWaitMs"])
    front.scoring_timeout_ms = float(spec["scoringTimeoutMs"])


def delete(state: State, service: Service, failing: Outcome) -> Operation | None:
    """Delete a service: at once and without an operation, or by one that takes its time or fails."""
    if failing is None and state.operations.transition("services.delete") == Transition.at_once():
        state.services.remove(service)
        return None
    before = service.state

    def finish() -> Outcome:
        if failing is None:
            state.services.remove(service)
        else:
            service.state = before
        return failing

    if service.operation:
        service.operation.cancel()
    if service.coming:
        end(service)
    service.state = "Deleting"
    service.operation = state.operations.begin("services.delete", finish)
    return service.operation
