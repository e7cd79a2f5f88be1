"""The local target: the stock Azure ML inference server as a process of this machine. No Azure, no Docker."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_infer.blotting import remember_secrets
from gpu_infer.bundle import Template
from gpu_infer.diagnose import current_stage, hanging_stack, init_failure, stages, tail
from gpu_infer.errors import (
    DeploymentTimeoutError,
    Finding,
    PreflightError,
    ServiceNotFoundError,
    UnsupportedError,
)
from gpu_infer.ledger import Entry, Ledger, exclusive, state_folder
from gpu_infer.plans import Plan
from gpu_infer.preflight import check_local, choose_template, find_local_model
from gpu_infer.progress import Event, emit
from gpu_infer.spec import DEFAULT_TTL, Rollout, ServiceSpec
from gpu_infer.targets import local_process as process
from gpu_infer.targets.base import DEFAULT_WAIT, Deployment, State, refuse_rollout
from gpu_infer.targets.local_folder import build_folder

__all__ = ["LocalTarget"]

_ABANDONED_SECONDS = 3600.0
"""A folder without an entry is being built, for less than this."""

_BOOTING = "Booting worker with pid"
_READY = ("ready for serving traffic", "GPU_INFER_STAGE ready ok")
"""What the stock server's log says of a user's script, and ours of the bundled one."""

_KIND, _TARGET = "service", "local"


class LocalTarget:
    """Runs bundles on this machine, on 127.0.0.1."""

    name = "local"
    default_wait = DEFAULT_WAIT

    def __init__(self) -> None:
        self._mine: dict[str, Entry] = {}
        atexit.register(self._delete_mine)

    def plan(self, spec: ServiceSpec) -> Plan:
        """What would be started, and what the checks find."""
        found, findings = find_local_model(spec)
        template = choose_template(spec, found)
        findings += check_local(spec, found, template)
        return Plan(
            spec=spec,
            model_format=found.format if found else "",
            template=template.name if template else "none",
            findings=tuple(findings),
        )

    # --- start and wait -----------------------------------------------------------------------------------------------

    def start(self, spec: ServiceSpec, template: Template | None) -> Deployment:
        """Start a service; does not wait.

        Raises:
            PreflightError: the name or the port is taken.
        """
        folder = build_folder(spec, template)
        if spec.overwrite:
            self.delete(spec.name, cluster=False)
        try:
            bound = process.bind(_port(spec))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        expires = time.time() + (spec.ttl or DEFAULT_TTL) if spec.keep else None
        details: dict[str, Any] = {
            "folder": str(folder),
            "port": bound.getsockname()[1],
            "model": str(spec.model),
            "kept": spec.keep,
            "workers": spec.scale.workers,
            "timeout": spec.timeout,
            "own_script": spec.entry_script is not None,
            "pid": 0,
            "started": "",
            "parent": [os.getpid(), process.process_start(os.getpid())],
        }
        with bound:
            self._forget_dead()
            entry = Ledger().record(_KIND, _TARGET, spec.name, details=details, expires=expires)
            if entry is None:
                shutil.rmtree(folder, ignore_errors=True)
                message = f"A local service {spec.name!r} exists already."
                fix = (
                    f"Use overwrite=True (--overwrite), another name, gpu_infer.attach({spec.name!r}), or: "
                    f"gpu-infer down {spec.name}"
                )
                raise PreflightError([Finding("error", "name-taken", message, fix)])
            self._mine[spec.name] = entry
            try:
                return self._deployment(self._launch(entry, bound), "Starting")
            except BaseException:
                self._delete(self._entry(spec.name))
                raise

    def wait(self, name: str, *, timeout: float) -> Deployment:
        """Wait until the server answers its health probe.

        Raises:
            ScoringInitError: the entry script failed, with its traceback.
            DeploymentTimeoutError: not healthy within ``timeout`` seconds; tells the stage and where it hangs.
        """
        entry = self._entry(name)
        folder = Path(entry.details["folder"])
        deadline = time.monotonic() + timeout
        told = 0
        health = process.Health(entry.details["port"])
        answered = False
        try:
            while not (answered := answered or health.poll(0.05)) or not self._all_workers_ready(entry):
                if answered:
                    time.sleep(0.05)
                log = process.read_log(folder)
                told = _tell(name, log, told)
                alive = self._is_alive(entry)
                # gunicorn starts a worker anew that ends without an exit code of its own: that would go on for ever.
                if not alive or log.count(_BOOTING) > entry.details["workers"]:
                    raise init_failure(name, process.read_log(folder), exit_code=process.exit_code(folder))
                if time.monotonic() >= deadline:
                    raise self._timed_out(entry, timeout)
        finally:
            health.close()
        _tell(name, process.read_log(folder), told)
        deployment = self._deployment(entry, "Healthy")
        emit(Event(name, "healthy", "ok", deployment.scoring_uri))
        return deployment

    def _all_workers_ready(self, entry: Entry) -> bool:
        """Whether every worker has warmed up: the probe is answered by the first. A user's script does not tell."""
        if entry.details["own_script"] or entry.details["workers"] == 1:
            return True
        log = process.read_log(Path(entry.details["folder"]))
        ready = [stage for stage in stages(log) if (stage.name, stage.state) == ("ready", "ok")]
        return len(ready) >= entry.details["workers"]

    def _timed_out(self, entry: Entry, timeout: float) -> DeploymentTimeoutError:
        process.dump_stacks(entry.details["pid"])
        log = process.read_log(Path(entry.details["folder"]))
        stage = current_stage(log)
        where = f" It was in stage {stage}." if stage else ""
        stack = hanging_stack(log)
        shown = (
            f"It hangs here, the innermost call first:\n{stack}" if stack else f"The end of its log:\n{tail(log, 15)}"
        )
        return DeploymentTimeoutError(
            f"Service {entry.name!r} was not healthy after {timeout:g} s.{where} Give it longer with wait=SECONDS if "
            f"it only needs time.\n{shown}",
            logs=tail(log),
        )

    # --- look ---------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Deployment:
        """Look at one service."""
        entry = self._entry(name)
        return self._deployment(entry, self._state(entry))

    def services(self) -> list[Deployment]:
        """All local services of this user, those of other processes included."""
        self._forget_dead()
        self._forget_folders()
        return [self._deployment(entry, self._state(entry)) for entry in Ledger().entries(_KIND, _TARGET)]

    def logs(self, name: str) -> str:
        """Everything that the server has written."""
        return process.read_log(Path(self._entry(name).details["folder"]))

    # --- change -------------------------------------------------------------------------------------------------------

    def update(
        self, name: str, spec: ServiceSpec, template: Template | None, *, rollout: Rollout | None = None
    ) -> Deployment:
        """Serve something else at the same address; the old server comes back where the new one does not start."""
        refuse_rollout(rollout, "on this machine the old server ends before the new one starts")
        with exclusive(name):
            return self._update(name, spec, template)

    def _update(self, name: str, spec: ServiceSpec, template: Template | None) -> Deployment:
        entry = self._entry(name)
        changed = {
            "folder": str(build_folder(replace(spec, name=name), template)),
            "model": str(spec.model),
            "workers": spec.scale.workers,
            "timeout": spec.timeout,
            "own_script": spec.entry_script is not None,
        }
        return self._restart(entry, changed)

    def scale(self, name: str, *, replicas: int | tuple[int, int] | None, workers: int | None) -> Deployment:
        """Change the number of worker processes; the server starts anew at the same address."""
        if workers is None:
            message = (
                f"scale(replicas={replicas}) means nothing on the local target: one server runs. Use scale(workers=)."
            )
            raise UnsupportedError(message)
        with exclusive(name):
            return self._restart(self._entry(name), {"workers": workers})

    def rotate_keys(self, name: str) -> None:
        """Not possible: a local service answers this machine alone and has no keys."""
        self._entry(name)
        message = f"Local service {name!r} has no keys: it answers on 127.0.0.1 alone."
        raise UnsupportedError(message)

    def keep(self, name: str, *, ttl: float | None) -> Deployment:
        """Let the service outlive this process for ``ttl`` seconds (8 hours where ``None``)."""
        entry = self._entry(name)
        expires = time.time() + (ttl or DEFAULT_TTL)
        details: dict[str, Any] = {**entry.details, "kept": True}
        Ledger().update(_KIND, _TARGET, name, details=details, expires=expires)
        process.write_lease(Path(details["folder"]), kept=True, expires=expires)
        self._mine.pop(name, None)
        process.disown(details["pid"])
        return self.find(name)

    def hold(self, name: str) -> None:
        """Nothing to note: what is not kept ends with this process anyway."""

    def delete(
        self,
        name: str,
        *,
        cluster: bool,  # noqa: ARG002 - there is none here
        model: bool = False,  # noqa: ARG002 - the model is the user's own file
        created: float | None = None,
    ) -> None:
        """End the processes and remove every trace; deleting the absent succeeds."""
        entry = Ledger().find(_KIND, _TARGET, name)
        if entry is not None and created in (None, entry.created):
            self._delete(entry)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _launch(self, entry: Entry, bound: Any) -> Entry:
        """Start the processes of an entry on a bound socket and write their pid down."""
        folder = Path(entry.details["folder"])
        bundle = next(folder.glob("gpu-infer-*"))
        model_dir = next((folder / "azureml-models").glob("*/*"), folder)
        content: Mapping[str, Any] = json.loads((bundle / "gpu_infer.json").read_text("utf-8"))
        environment = {**content["environment"], "WORKER_COUNT": str(entry.details["workers"])}
        remember_secrets(environment)  # of a service that another process has deployed, too
        # Not kept until its pid is written down: killed in between, we must not leave a server that nobody can find.
        process.new_run(folder)
        process.write_lease(folder, kept=False, expires=None)
        emit(Event(entry.name, "start_server", "start"))
        owner: tuple[int, str] = tuple(entry.details["parent"])
        pid = process.spawn(folder, bound, process.server_environment(bundle, model_dir, environment), owner=owner)
        details = {**entry.details, "pid": pid, "started": process.process_start(pid)}
        Ledger().update(_KIND, _TARGET, entry.name, details=details, expires=entry.expires)
        launched = replace(entry, details=details)
        if entry.details["kept"]:
            process.write_lease(folder, kept=True, expires=entry.expires)
            process.disown(pid)
            self._mine.pop(entry.name, None)
        elif entry.name in self._mine:
            self._mine[entry.name] = launched
        else:
            process.disown(pid)  # another process owns the service and ends it
        return launched

    def _restart(self, entry: Entry, changed: Mapping[str, Any]) -> Deployment:
        """Replace the server of an entry at its port; puts the old one back where the new one does not get healthy."""
        after = replace(entry, details={**entry.details, **changed})
        surplus = entry
        try:
            return self._serve(after)
        except BaseException:
            surplus = after
            self._serve(entry)
            raise
        finally:
            if after.details["folder"] != entry.details["folder"]:
                shutil.rmtree(surplus.details["folder"], ignore_errors=True)

    def _serve(self, entry: Entry) -> Deployment:
        """Have the server of an entry run as the entry says, instead of the one that runs now; wait for it."""
        running = self._entry(entry.name)
        process.stop(running.details["pid"], running.details["started"])
        with process.bind(entry.details["port"]) as bound:
            self._launch(entry, bound)
        return self.wait(entry.name, timeout=DEFAULT_WAIT)

    def _delete(self, entry: Entry) -> None:
        process.stop(entry.details["pid"], entry.details["started"])
        shutil.rmtree(entry.details["folder"], ignore_errors=True)
        Ledger().remove(entry)
        self._mine.pop(entry.name, None)

    def _delete_mine(self) -> None:
        """At the end of this process: what was not kept goes."""
        for mine in list(self._mine.values()):
            entry = Ledger().find(_KIND, _TARGET, mine.name)
            if entry is None or entry.created != mine.created or entry.details["kept"]:
                continue  # deleted, replaced or kept by another process
            if entry.details["parent"][0] == os.getpid():  # not in a forked child
                self._delete(entry)

    def _entry(self, name: str) -> Entry:
        self._forget_dead()
        entry = Ledger().find(_KIND, _TARGET, name)
        if entry is None:
            known = ", ".join(other.name for other in Ledger().entries(_KIND, _TARGET)) or "none"
            message = f"There is no local service {name!r}. Running: {known}."
            raise ServiceNotFoundError(message)
        return entry

    def _forget_dead(self) -> None:
        """Strike out services that are gone for good: expired, or their parent ended. A kept one that crashed stays."""
        for entry in Ledger().entries(_KIND, _TARGET):
            details = entry.details
            folder = Path(details["folder"])
            if self._is_alive(entry):
                continue
            if process.is_alive(*details["parent"]) and not (details["kept"] and details["pid"]):
                continue  # its parent is starting it, or has yet to read why it failed
            expired = entry.expires is not None and entry.expires <= time.time()
            if details["kept"] and details["pid"] and folder.exists() and not expired:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            Ledger().remove(entry)

    def _forget_folders(self) -> None:
        """Remove folders that no entry names: whoever built them was killed before it could write one."""
        known = {entry.details["folder"] for entry in Ledger().entries(_KIND, _TARGET)}
        for folder in (state_folder() / "services").glob("*-*"):
            with contextlib.suppress(FileNotFoundError):
                if str(folder) not in known and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    def _is_alive(self, entry: Entry) -> bool:
        return bool(entry.details["pid"]) and process.is_alive(entry.details["pid"], entry.details["started"])

    def _state(self, entry: Entry) -> State:
        if not self._is_alive(entry):
            return "Starting" if not entry.details["pid"] else "Failed"
        health = process.Health(entry.details["port"])
        try:
            if health.poll(1.0):
                return "Healthy"
        finally:
            health.close()
        log = process.read_log(Path(entry.details["folder"]))
        return "Unhealthy" if any(ready in log for ready in _READY) else "Starting"

    def _deployment(self, entry: Entry, state: State) -> Deployment:
        return Deployment(
            name=entry.name,
            state=state,
            scoring_uri=f"http://{process.HOST}:{entry.details['port']}/score",
            model=entry.details["model"],
            created=entry.created,
            expires=entry.expires,
            kept=entry.details["kept"],
            timeout=entry.details["timeout"],
            own_script=entry.details["own_script"],
            made=str(entry.created),
            raw=entry,
        )


def _port(spec: ServiceSpec) -> int:
    """The port that the user asked for by the stock server's own variable; 0 for any free one."""
    text = spec.environment_variables.get("SERVER_PORT", "0")
    if text.isdecimal() and int(text) < 1 << 16:
        return int(text)
    message = f"environment_variables: SERVER_PORT={text!r} is no port number."
    raise PreflightError([Finding("error", "port", message, "Give a number up to 65535, or leave it out.")])


def _tell(name: str, log: str, told: int) -> int:
    """Send the stages that are new in the log; returns how many have been sent."""
    seen = stages(log)
    for stage in seen[told:]:
        state = {"start": "start", "ok": "ok"}.get(stage.state, "failed")
        emit(Event(name, stage.name, state, stage.text))  # type: ignore[arg-type]
    return len(seen)
