"""From a request to an answer: name it, log it, apply faults, check the token, let the route's handler work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .aad import models as aad
from .faults import Fault, Faults, Log, LoggedRequest, kinds
from .routing import UNMATCHED, Route, Table
from .state import State
from .wire import Refusal, Request, Response, answer, refuse

__all__ = ["App", "Dropped"]

_logger = logging.getLogger("gpu_infer.emulator")


class Dropped(Exception):  # noqa: N818 (asked for, or the end of the emulator)
    """The connection is to be broken instead of an answer."""


class App:
    """What the listeners call for every request, from many threads."""

    def __init__(self, state: State, table: Table, report: Callable[[BaseException], None]) -> None:
        self.state = state
        self.table = table
        self.log: Log = Log()
        self.faults: Faults = Faults(table.operations | {UNMATCHED})
        self.stopping: threading.Event = threading.Event()
        self._report = report

    def serve(self, route: Route | None, status: int, request: Request) -> Response:
        """Answer one request.

        Args:
            route: whose handler answers; ``None`` where there is none.
            status: the refusal's, where there is none.
            request: read to its end.

        Raises:
            Dropped: break the connection.
        """
        if route and route.hidden:
            return self._work(route, status, request)
        operation = self._name(route, request)
        acting = self.faults.meet(operation)
        body = _size(request) if route and route.plane in ("blob", "scoring") else request.json
        entry = LoggedRequest(
            request.number, operation, request.method, request.path, request.query, body, fault=kinds(acting)
        )
        self.log.put(entry)
        response = self._before(acting, entry, route)
        if response is None:
            broken = next((fault for fault in acting if fault.kind == "fail_operation"), None)
            if broken:
                request.failing = broken.failure
            response = self._work(route, status, request)
        for fault in acting:
            if fault.kind == "call_after":
                self._call(fault, entry)
        self.log.answered(request.number, response.status)
        if any(fault.kind == "reset_after" for fault in acting):
            raise Dropped
        return response

    def _name(self, route: Route | None, request: Request) -> str:
        if route is None:
            return UNMATCHED
        if route.name is None:
            return route.operation
        with self.state.lock:
            return route.name(self.state, request)

    def _before(self, acting: list[Fault], entry: LoggedRequest, route: Route | None) -> Response | None:
        """Apply what acts before the work; an answer replaces the work."""
        for fault in acting:
            if fault.kind == "call_before":
                self._call(fault, entry)
            elif fault.kind == "reset_before" or (fault.kind == "hang" and self.stopping.wait(fault.seconds)):
                raise Dropped
            elif fault.kind == "status":
                plane = route.plane if route else "plain"
                response = (
                    refuse(plane, Refusal(fault.status)) if fault.body is None else answer(fault.body, fault.status)
                )
                if fault.retry_after is not None:
                    response.headers["Retry-After"] = fault.retry_after
                return response
        return None

    def _call(self, fault: Fault, entry: LoggedRequest) -> None:
        if fault.call is None:
            return
        try:
            fault.call(entry)
        except BaseException as error:
            self._report(error)
            raise Dropped from error

    def _work(self, route: Route | None, status: int, request: Request) -> Response:
        if route is None:
            message = f"The emulator knows no {request.method} {request.path}."
            return refuse("arm", Refusal(status, "NotFound" if status == 404 else "MethodNotAllowed", message))
        try:
            if route.signed:
                _check_token(request)
            self._check_workspace(request)
            if not route.locked:
                return route.handler(self.state, request)
            with self.state.lock:
                self.state.operations.end_due()
                return route.handler(self.state, request)
        except Refusal as refusal:
            return refuse(route.plane, refusal)
        except Exception as error:
            _logger.warning("The emulator failed at %s %s.", request.method, request.path, exc_info=error)
            self._report(error)
            return refuse(route.plane, Refusal(500, "EmulatorError", f"The emulator failed: {error!r}"))

    def _check_workspace(self, request: Request) -> None:
        """Refuse ids that are not this workspace's."""
        settings = self.state.settings
        wanted = {"sub": settings.subscription_id, "rg": settings.resource_group, "workspace": settings.name}
        codes = {"sub": "SubscriptionNotFound", "rg": "ResourceGroupNotFound", "workspace": "ResourceNotFound"}
        for name, value in wanted.items():
            asked = request.args.get(name, value)
            if asked.lower() != value.lower():
                raise Refusal(404, codes[name], f"{asked!r} could not be found. This emulator has {value!r}.")


def _size(request: Request) -> int:
    return request.upload.stat().st_size if request.upload else len(request.body)


def _check_token(request: Request) -> None:
    """Refuse a request without a bearer token that is still valid. Who signed it does not matter here."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(401, "AuthenticationFailed", "The 'Authorization' header with a bearer token is missing.")
    expires = aad.expiry(token)
    if expires is None:
        raise Refusal(401, "InvalidAuthenticationToken", "The access token is no JWT with an expiry.")
    if expires < time.time():
        raise Refusal(401, "ExpiredAuthenticationToken", "The access token expired.")
