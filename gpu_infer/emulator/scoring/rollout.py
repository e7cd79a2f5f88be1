"""A deployment on its way: files laid out, processes started, in a thread of its own."""

from __future__ import annotations

import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..operations import Pending

if TYPE_CHECKING:
    from .front import Front
    from .replicas import Replicas

__all__ = ["Layout", "Rollout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What goes where: everything is settled here but the copying itself.

    Attributes:
        entry_script: relative to ``app/``; empty where the deployment names none.
        environment: variables of the container.
        files: from where to where, and whether to unpack.
    """

    entry_script: str
    environment: dict[str, str]
    files: tuple[tuple[Path, str, bool], ...]

    def copy(self, folder: Path) -> None:
        """Lay the files out below a folder: the source in ``app/``, models in ``azureml-models/NAME/VERSION/``."""
        (folder / "app").mkdir(parents=True)
        for source, target, unpack in self.files:
            place = folder / target
            if unpack:
                with tarfile.open(source) as archive:
                    archive.extractall(place, filter="data")
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)


class Rollout:
    """The processes of one version of a service, and the door in front of them.

    Args:
        name: of the service.
        layout: its files.
        folder: to lay them out in; new.
        replicas: how many to begin with.
        container: what the containers are made of, in the caller's words, for him to compare with later.
        processes: see ``Emulator``.
        report: called with what goes wrong in the thread and is not the user's fault.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        folder: Path,
        *,
        replicas: int,
        container: Any = None,
        processes: int | None,
        report: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._layout = layout
        self._folder = folder
        self._processes = processes
        self._report = report
        self._count = replicas
        self.container: Any = container
        self._replicas: Replicas | None = None
        self._problem = ""
        self._lock = threading.Lock()
        self._ended = False
        self._began = 0.0
        self._calm = threading.Condition()
        self._callers = 0
        self._drain = 0.0
        self.front: Front | None = None
        self._thread = threading.Thread(target=self._bring_up, name=f"rollout-{name}", daemon=True)
        self._ending = threading.Thread(target=self._take_down, name=f"end-{name}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def _bring_up(self) -> None:
        from .replicas import Replicas

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
                self._began = time.monotonic()
                self._replicas = made
        except Exception as error:  # noqa: BLE001 (nobody waits for this thread: the deployment fails and says why)
            self._problem = f"The emulator could not start the service: {error!r}"
            self._report(error)

    def is_healthy(self) -> bool:
        """Whether the containers came up; ``False`` is final.

        Raises:
            Pending: they are still starting.
        """
        if not self._problem and (self._thread.is_alive() or self._replicas is None):
            raise Pending
        state = "Crashed" if self._problem or self._replicas is None else self._replicas.state()
        if state == "Starting":
            raise Pending
        return state == "Healthy"

    def is_unhealthy(self) -> bool:
        """Whether what was healthy is so no more: nothing is ready to answer, or a replica cannot start."""
        return self._replicas is not None and (not self._replicas.ready() or self._replicas.state() == "Crashed")

    def age(self) -> float:
        """Seconds since the processes were started; 0 until then."""
        return time.monotonic() - self._began if self._began else 0.0

    def enter(self) -> None:
        """A request is on its way to the door: while one is, :meth:`end` with a patience waits for it."""
        with self._calm:
            self._callers += 1

    def leave(self) -> None:
        """It was answered."""
        with self._calm:
            self._callers -= 1
            self._calm.notify_all()

    def open(self, replicas: int, door: type[Front] | None = None) -> Front | None:
        """The door, for the caller to say who may come in: shut until then. ``None``: nothing was ever started.

        Args:
            replicas: how many there are to be from now on.
            door: of which kind it is; ``None``: azureml-fe's.
        """
        if self._replicas is None:
            return None
        from .front import Front

        if replicas != self._count:
            self._count = replicas
            self._replicas.resize(replicas)
        if self.front is None:
            self.front = (door or Front)(self._replicas)
        return self.front

    def logs(self) -> str:
        """What the containers wrote."""
        written = self._replicas.logs() if self._replicas else ""
        return "\n".join(text for text in (written, self._problem) if text)

    def fetched(self) -> str:
        """Which files were laid out for the containers, one on a line."""
        if self._thread.is_alive():
            return ""
        return "\n".join(f"Fetched {target}" for _, target, _ in self._layout.files)

    def end(self, *, patience: float = 0.0) -> None:
        """Have the processes end; returns at once.

        Args:
            patience: seconds that they may go on answering those who are at the door already.
        """
        with self._calm:
            self._drain = min(self._drain, patience) if self._ended else patience
            self._calm.notify_all()
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._ending.start()

    def _take_down(self) -> None:
        begun = time.monotonic()
        with self._calm:
            while self._callers and (left := begun + self._drain - time.monotonic()) > 0:
                self._calm.wait(left)
        if self._replicas:
            self._replicas.stop()

    def join(self) -> None:
        """End the processes and wait for it."""
        self.end()
        self._ending.join(timeout=60)
        if self._thread.is_alive():
            self._thread.join(timeout=60)
