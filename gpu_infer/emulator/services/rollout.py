"""A deployment on its way: files laid out, processes started, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..operations import Outcome, Pending
from .layout import Layout
from .models import kubernetes_error, replicas

if TYPE_CHECKING:
    from ..scoring.front import Front
    from ..scoring.replicas import Replicas

__all__ = ["Rollout"]


class Rollout:
    """The processes of one version of a service, and the door in front of them.

    Args:
        name: of the service.
        spec: complete.
        layout: its files.
        folder: to lay them out in; new.
        processes: see ``Emulator``.
        report: called with what goes wrong in the thread and is not the user's fault.
    """

    def __init__(
        self,
        name: str,
        spec: Mapping[str, Any],
        layout: Layout,
        folder: Path,
        *,
        processes: int | None,
        report: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._layout = layout
        self._folder = folder
        self._processes = processes
        self._report = report
        self._count = replicas(spec)
        self._replicas: Replicas | None = None
        self._problem = ""
        self._lock = threading.Lock()
        self._ended = False
        self.container: Any | None = spec.get("environmentImageRequest")
        self.front: Front | None = None
        self._thread = threading.Thread(target=self._bring_up, name=f"rollout-{name}", daemon=True)
        self._ending = threading.Thread(target=self._take_down, name=f"end-{name}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def _bring_up(self) -> None:
        from ..scoring.replicas import Replicas

        try:
            self._layout.copy(self._folder)
            script = self._layout.entry_script
            if not script or not (self._folder / "app" / script).is_file():
                self._problem = f"There is no entry script {script!r} in what was uploaded."
                return
            made = Replicas(
                self._name,
                self._folder,
                entry_script=script,
                environment=self._layout.environment,
                replicas=self._count,
                processes=self._processes,
            )
            with self._lock:
                if self._ended:
                    return
                made.start()
                self._replicas = made
        except Exception as error:  # noqa: BLE001 (nobody waits for this thread: the deployment fails and says why)
            self._problem = f"The emulator could not start the service: {error!r}"
            self._report(error)

    def outcome(self) -> Outcome:
        """How the deployment ended.

        Raises:
            Pending: it has not.
        """
        if not self._problem and (self._thread.is_alive() or self._replicas is None):
            raise Pending
        state = "Crashed" if self._problem or self._replicas is None else self._replicas.state()
        if state == "Starting":
            raise Pending
        if state == "Healthy":
            return None
        return kubernetes_error(
            "CrashLoopBackOff",
            "Your container application crashed. This may be caused by errors in your scoring file's init() function.\n"
            f"Please check the logs for your container instance: {self._name}. From the AML SDK, you can run "
            "print(service.get_logs()) if you have service object to fetch the logs.",
        )

    def is_unhealthy(self) -> bool:
        """Whether what was healthy is so no more: nothing is ready to answer, or a replica cannot start."""
        return self._replicas is not None and (not self._replicas.ready() or self._replicas.state() == "Crashed")

    def open(self, spec: Mapping[str, Any], keys: tuple[str, str], tokens: Mapping[str, float]) -> None:
        """Let requests in, or change on which terms."""
        if self._replicas is None:
            return
        from ..scoring.front import Front

        count = replicas(spec)
        if count != self._count:
            self._count = count
            self._replicas.resize(count)
        if self.front is None:
            self.front = Front(self._replicas)
        self.front.keys = keys
        self.front.tokens = dict(tokens)
        self.front.auth = "key" if spec["authEnabled"] else "token" if spec["aadAuthEnabled"] else "none"
        self.front.max_concurrent = int(spec["maxConcurrentRequestsPerContainer"])
        self.front.max_wait_ms = float(spec["maxQueueWaitMs"])
        self.front.scoring_timeout_ms = float(spec["scoringTimeoutMs"])

    def logs(self) -> str:
        """What the containers wrote."""
        written = self._replicas.logs() if self._replicas else ""
        return "\n".join(text for text in (written, self._problem) if text)

    def end(self) -> None:
        """Have the processes end; returns at once."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._ending.start()

    def _take_down(self) -> None:
        if self._replicas:
            self._replicas.stop()

    def join(self) -> None:
        """End the processes and wait for it."""
        self.end()
        self._ending.join(timeout=60)
        if self._thread.is_alive():
            self._thread.join(timeout=60)
