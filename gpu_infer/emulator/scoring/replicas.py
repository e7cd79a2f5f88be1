"""The processes of one emulated service: the stock server, run on what was uploaded, as its container would run it."""

from __future__ import annotations

import http.client
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gpu_infer.targets import local_process as process

__all__ = ["Answer", "NoReplicaError", "Replicas", "State"]

State = Literal["Starting", "Healthy", "Crashed"]
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""

_MODELS = "azureml-models"
"""Where a container has its models, below its working folder: ``Model.get_model_path`` looks nowhere else."""

_BOOTING = "Booting worker with pid"
_CHUNK = 1 << 16
_PATIENCE = 10.0
"""Seconds that surplus processes get to answer what they were sent."""
_HOP_BY_HOP = frozenset(
    ("connection", "content-length", "host", "keep-alive", "proxy-authorization", "te", "transfer-encoding", "upgrade")
)
"""Headers between two neighbours, not for the far end (RFC 9110, 7.6.1), and those that are written anew."""


class NoReplicaError(ConnectionError):
    """No replica is ready to answer."""


class Replicas:
    """The processes of one emulated service.

    Args:
        name: of the service.
        folder: has ``app/``, the source folder as uploaded, and ``azureml-models/NAME/VERSION/...``; gets logs.
        entry_script: relative to ``app/``.
        environment: variables of the container.
        replicas: how many the service has.
        processes: how many server processes stand for them; ``None`` for one each.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        entry_script: str,
        environment: Mapping[str, str],
        replicas: int = 1,
        processes: int | None = 1,
    ) -> None:
        self.name = name
        self.replicas = replicas
        self._folder = folder.resolve()
        self._entry_script = entry_script
        self._environment = dict(environment)
        self._wanted = processes
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running: list[_Server] = []
        self._ended: list[_Server] = []  # their logs can still be read
        self._started = 0

    def start(self) -> None:
        """Start the processes; does not wait until they answer."""
        self.resize(self.replicas)

    def resize(self, replicas: int) -> None:
        """Change the number of replicas: start those that are missing, end those that are too many."""
        with self._lock:
            self.replicas: int = replicas
            wanted = replicas if self._wanted is None else min(replicas, self._wanted)
            while len(self._running) < wanted:
                self._running.append(self._new_server())
            surplus = self._running[wanted:]
            del self._running[wanted:]
            self._ended += surplus
            # Who was sent to one of them a moment ago may not have reached it yet.
            self._idle.wait_for(lambda: not any(server.busy for server in surplus), _PATIENCE)
        _stop(surplus)

    def stop(self) -> None:
        """End all processes; returns when they have ended. The logs stay."""
        with self._lock:
            surplus = list(self._running)
            self._running.clear()
            self._ended += surplus
        _stop(surplus)

    def state(self) -> State:
        """How the service is, without waiting.

        ``Crashed`` as soon as one process ended before it was ever ready. One that was ready is started anew, as
        Kubernetes does with a container.
        """
        with self._lock:
            states = self._look()
        if not states or "Crashed" in states:
            return "Crashed"
        return "Starting" if "Starting" in states else "Healthy"

    def ready(self) -> bool:
        """Whether any replica can answer now."""
        with self._lock:
            return "Healthy" in self._look()

    def _look(self) -> list[State]:
        """The state of each process; those that have ended after they were ready are started anew."""
        for index, server in enumerate(self._running):
            if server.state() == "Crashed" and server.was_ready:
                server.stop()
                self._ended.append(server)
                self._running[index] = self._new_server()
        return [server.state() for server in self._running]

    def _new_server(self) -> _Server:
        self._started += 1
        server = _Server(self._folder / "replicas" / str(self._started))
        server.start(self._server_environment(), _note(self.name, self._started))
        return server

    def logs(self) -> str:
        """What the processes have written, one after the other; those that have ended only where no other runs."""
        with self._lock:
            servers = list(self._running or self._ended)
        return "\n".join(server.log() for server in servers)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """Hand a request to the replica with the least to do.

        Args:
            method: GET or POST.
            path: as the container sees it, ``/score``, with the query.
            headers: of the request.
            body: of the request.
            timeout: seconds until the whole answer must be there.

        Raises:
            NoReplicaError: none is ready.
            TimeoutError: no answer in time. The replica works on, as in Azure.
            ConnectionError: the replica ended while it worked.
        """
        with self._lock:
            self._look()
            ready = [server for server in self._running if server.state() == "Healthy"]
            if not ready:
                message = f"No ready replicas for service {self.name}"
                raise NoReplicaError(message)
            server = min(ready, key=lambda one: one.busy)
            server.busy += 1
        try:
            return server.send(method, path, headers, body, timeout)
        finally:
            with self._idle:
                server.busy -= 1
                self._idle.notify_all()

    def _server_environment(self) -> dict[str, str]:
        app, models = self._folder / "app", self._folder / _MODELS
        versions = list(models.glob("*/*"))
        for version in versions:
            _link(version, app / version.relative_to(self._folder))
        return process.server_environment(
            app,
            # One model: its own folder; several: the folder above all of them.
            versions[0] if len(versions) == 1 else models,
            {
                # Set in every container of a service; the SDK and the server look at them.
                "SERVICE_NAME": self.name,
                "SERVICE_PATH_PREFIX": f"api/v1/service/{self.name}",
                **self._environment,
                # Not what the service says: the cluster's GPUs are not there.
                "GPU_INFER_ALLOW_CPU": "1",
            },
            entry_script=self._find_script(app),
        )

    def _find_script(self, app: Path) -> str:
        """The entry script, below the source folder where the environment names one."""
        source = self._environment.get("AZUREML_SOURCE_DIRECTORY", "")
        inside = f"{source}/{self._entry_script}"
        return inside if source and (app / inside).is_file() else self._entry_script


class _Server:
    """One process of the stock server, with its supervisor."""

    def __init__(self, folder: Path) -> None:
        self.busy = 0
        self.was_ready = False
        self._folder = folder
        self._port = 0
        self._identity = (0, "")
        self._workers = 1
        self._health: process.Health | None = None
        self._settled: State = "Starting"

    def start(self, environment: dict[str, str], note: str) -> None:
        """Start it in a folder of its own."""
        self._folder.mkdir(parents=True)
        (self._folder / process.LOG_FILE).write_text(note, "utf-8")
        process.write_lease(self._folder, kept=False, expires=None)
        owner = (os.getpid(), process.process_start(os.getpid()))
        self._workers = int(environment.get("WORKER_COUNT") or 1)
        with process.bind() as bound:
            self._port = bound.getsockname()[1]
            pid = process.spawn(self._folder, bound, environment, owner=owner)
        self._identity = (pid, process.process_start(pid))
        self._health = process.Health(self._port)

    def state(self) -> State:
        """Without waiting. The caller sees to it that no two threads ask at once."""
        if self._settled != "Crashed":
            self._settled = self._look()
        return self._settled

    def _look(self) -> State:
        if not process.is_alive(*self._identity):
            return "Crashed"
        if self._settled == "Starting" and self._health is not None:
            if self._health.poll(0):
                self.was_ready = True
                return "Healthy"
            # gunicorn starts a worker anew that ends without an exit code of its own: that would go on for ever.
            if self.log().count(_BOOTING) > self._workers:
                return "Crashed"
        return self._settled

    def log(self) -> str:
        """What it has written."""
        return process.read_log(self._folder)

    def ask_to_stop(self) -> None:
        """Have it begin to end."""
        process.ask_to_stop(*self._identity)

    def stop(self) -> None:
        """End it; returns when it has ended."""
        if self._health is not None:
            self._health.close()
        process.stop(*self._identity)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """One request, on a connection of its own: a replica that has ended cannot have left a stale one."""
        deadline = time.monotonic() + timeout
        connection = http.client.HTTPConnection(process.HOST, self._port, timeout=timeout)
        try:
            connection.request(method, path, body or None, {**_end_to_end(headers), "Connection": "close"})
            answer = connection.getresponse()
            pieces: list[bytes] = []
            while piece := answer.read1(_CHUNK):
                pieces.append(piece)
                if time.monotonic() > deadline:
                    message = f"No complete answer after {timeout:g} s"
                    raise TimeoutError(message)
        except http.client.HTTPException as error:
            message = f"The replica closed the connection: {type(error).__name__}"
            raise ConnectionResetError(message) from error
        finally:
            connection.close()
        return answer.status, _end_to_end(dict(answer.getheaders())), b"".join(pieces)


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _link(version: Path, place: Path) -> None:
    """Put a model where the script looks for it, in place of a copy that the SDK had cached in the source folder."""
    if place.is_symlink():
        return
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(version)


def _note(name: str, number: int) -> str:
    return (
        f"gpu_infer emulator: replica {number} of service {name!r}. The GPUs of this cluster are make-believe: "
        "GPU_INFER_ALLOW_CPU=1 is set, and this machine does the work with what it has.\n"
    )


def _stop(servers: list[_Server]) -> None:
    """End several at once: each takes a while to finish what it answers."""
    for server in servers:
        server.ask_to_stop()
    for server in servers:
        server.stop()
