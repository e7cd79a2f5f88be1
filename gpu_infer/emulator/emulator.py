"""The emulator as a whole: start it, connect to it, make it misbehave, see what was asked of it."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args

from ..errors import Finding, MissingDependencyError, PreflightError
from ..ledger import Ledger
from . import connect
from .faults import Fault, LoggedRequest
from .operations import Polling, Transition
from .state import Settings, State, real_hosts

if TYPE_CHECKING:
    from azureml.core import Workspace

    from .app import App
    from .online.models import AuthMode

__all__ = ["Emulator"]


class Emulator:
    """An Azure ML workspace on 127.0.0.1 that the real, unpatched SDK talks to.

    It starts empty and forgets everything when it stops. Deploying to one of its AKS clusters runs what was uploaded
    under the stock inference server; its GPUs are make-believe::

        with Emulator() as emulator:
            ws = emulator.workspace()          # an azureml.core.Workspace
            nodes = AksCompute.provisioning_configuration(3, "Standard_NC4as_T4_v3")
            cluster = ComputeTarget.create(ws, "aks-gpu", nodes)

    Args:
        port: of the control plane; 0 for any free one.
        tls_port: of the same over TLS, which uploads need; 0 for any free one.
        subscription_id: of the workspace; a new one at each start where ``None``. What is written down of a workspace
            goes by it, and two emulators that share it take each other's services for their own.
        resource_group: of the workspace.
        name: of the workspace.
        location: Azure region of the workspace.
        transitions: how long operations take, by the name of the call that begins them (``*`` stands for any text):
            ``{"compute.create": Transition.after_polls(3)}``. All others, and all without it, are over at once.
        run_services: ``False``: services become healthy without any process, and scoring answers 503.
        processes_per_service: one server process stands for all replicas of a service, and the front counts their
            capacity; ``None`` starts one for each.
        quota: vCPUs by quota family, VM size or ``"total"``; see :meth:`set_quota`.
        polling: where the clients of online endpoints look how a long operation goes: ``"async-operation"`` at an
            address in ``Azure-AsyncOperation``, ``"location"`` at one in ``Location``, ``"resource"`` at the thing
            itself, ``"azure"`` at the first where something is created and at the second otherwise.
        folder: where it keeps its files, in a folder of its own; the system's folder for temporary files if left out.

    Raises:
        ValueError: there is no such polling.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls_port: int = 0,
        subscription_id: str | None = None,
        resource_group: str = "emulator",
        name: str = "emulated",
        location: str = "eastus",
        transitions: Mapping[str, Transition] | Transition = Transition(),  # noqa: B008 (it is frozen)
        run_services: bool = True,
        processes_per_service: int | None = 1,
        quota: Mapping[str, int] | None = None,
        polling: Polling = "azure",
        folder: Path | None = None,
    ) -> None:
        if polling not in get_args(Polling):
            raise ValueError(f"There is no polling {polling!r}. There are: {', '.join(get_args(Polling))}.")
        self.subscription_id: str = subscription_id or str(uuid.uuid4())
        self._given_id = subscription_id is not None
        self.resource_group = resource_group
        self.name = name
        self.location = location
        self._options: dict[str, Any] = {
            "resource_group": resource_group,
            "name": name,
            "location": location,
            "run_services": run_services,
            "processes_per_service": processes_per_service,
            "quota": dict(quota or {}),
            "polling": polling,
        }
        self._ports = (port, tls_port)
        self._parent = folder
        self._transitions = transitions
        self._cleanup = ExitStack()
        self._app: App | None = None
        self._state: State | None = None
        self._stopped = False
        self.errors: list[BaseException] = []
        """What went wrong in the emulator itself, or in functions that faults called."""

    def start(self) -> Self:
        """Listen. A stopped emulator can be started again, and is empty then.

        Raises:
            MissingDependencyError: a package of the extra ``emulator`` is not installed.
            OSError: a port is taken.
            RuntimeError: it runs already.
        """
        if self._app is not None:
            raise RuntimeError(f"This emulator runs already, at {self.url}.")
        if self._stopped and not self._given_id:
            self.subscription_id = str(uuid.uuid4())
        with ExitStack() as stack:
            self._start(stack)
            self._cleanup = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        try:
            from . import tls
            from .app import App
            from .routes import TABLE
            from .server import Listener

            _ = TABLE.operations, TABLE.find("GET", "/")
        except ImportError as error:
            message = f"The emulator needs the package {error.name}, which is not installed."
            fix = "Run: pip install 'gpu-infer[emulator]'"
            raise MissingDependencyError([Finding("error", "missing-extra", message, fix)]) from error
        if self._parent is not None:
            self._parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="gpu-infer-emulator-", dir=self._parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = Settings(
            subscription_id=self.subscription_id, folder=folder, ca_file=tls.authority().bundle, **self._options
        )
        state = State.empty(settings, self._transitions, self.errors.append)
        app = App(state, TABLE, self.errors.append)
        hosts = real_hosts(settings.location)
        context = tls.server_context(("127.0.0.1", "localhost", *hosts), folder)
        plain = Listener(app, self._ports[0], folder=folder, proxied=context, hosts=hosts)
        stack.callback(plain.stop)
        secure = Listener(app, self._ports[1], folder=folder, tls=context)
        stack.callback(secure.stop)
        settings.url = f"http://127.0.0.1:{plain.port}"
        settings.tls_url = f"https://127.0.0.1:{secure.port}"
        self._app, self._state = app, state
        stack.callback(self._strike_out)
        stack.callback(self._end_services, state)
        stack.callback(app.stopping.set)
        for listener in (plain, secure):
            listener.start()
        stack.callback(connect.forget, settings.ca_file)
        connect.remember(settings.ca_file)

    @staticmethod
    def _end_services(state: State) -> None:
        for rollout in state.rollouts:
            rollout.end()
        for rollout in state.rollouts:
            rollout.join()

    def _strike_out(self) -> None:
        """Take out of the user's ledger what has gone with this workspace: nobody can ask it any more.

        Only where the id is our own: under one that was given the ledger may have what is really there and billed.
        """
        if self._given_id:
            return
        target = f"aks:{self.subscription_id}/{self.resource_group}/{self.name}"
        with suppress(PreflightError):  # no ledger can be had here, so none of its rows are ours
            ledger = Ledger()
            for entry in ledger.entries(target=target) if ledger.path.exists() else []:
                ledger.remove(entry)

    def stop(self) -> None:
        """End all processes and connections, and remove all files. Stopping twice does nothing."""
        self._stopped = self._stopped or self._app is not None
        self._cleanup.close()
        self._cleanup = ExitStack()
        self._app = self._state = None

    def __enter__(self) -> Self:
        """Start it, unless it runs."""
        return self if self._app is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def _running(self) -> tuple[App, State]:
        if self._app is None or self._state is None:
            raise RuntimeError("This emulator does not run. Call start(), or use it in a with statement.")
        return self._app, self._state

    @property
    def url(self) -> str:
        """The control plane, ``http://127.0.0.1:PORT``; :func:`gpu_infer.emulator.workspace` takes it."""
        return self._running()[1].settings.url

    @property
    def tls_url(self) -> str:
        """The same over TLS."""
        return self._running()[1].settings.tls_url

    @property
    def ca_file(self) -> Path:
        """Certificates to trust: the emulator's own, and those that this process trusted before."""
        return self._running()[1].settings.ca_file

    @property
    def folder(self) -> Path:
        """Where its files lie while it runs."""
        return self._running()[1].settings.folder

    @property
    def operations(self) -> frozenset[str]:
        """The names of all calls, for faults and transitions."""
        return self._running()[0].table.operations

    @property
    def requests(self) -> list[LoggedRequest]:
        """All calls so far, in the order they came in; a copy."""
        return self._running()[0].log.entries()

    def clear_log(self) -> None:
        """Forget the calls so far."""
        self._running()[0].log.clear()

    def add_fault(self, fault: Fault) -> None:
        """Have something go wrong. Of several faults that match a call, all act.

        Raises:
            ValueError: no call has such a name.
        """
        self._running()[0].faults.add(fault)

    def clear_faults(self) -> None:
        """From now on nothing goes wrong; who hangs goes on hanging."""
        self._running()[0].faults.clear()

    def workspace(self) -> Workspace:
        """The workspace, as an ``azureml.core.Workspace``; see :func:`gpu_infer.emulator.workspace`."""
        return connect.workspace(self.url)

    def ml_client(self) -> Any:
        """The workspace, as an ``azure.ai.ml.MLClient``; see :func:`gpu_infer.emulator.ml_client`."""
        return connect.ml_client(self.url)

    def credential(self) -> Any:
        """What other clients of Azure sign in with, of ``azure-mgmt-monitor`` or ``azure-mgmt-containerservice``.

        They find the emulator by ``base_url=emulator.tls_url``. This process trusts its certificate from now on.
        """
        return connect.credential(self.url)

    def billed(self) -> list[str]:
        """What is paid for: clusters that were created here by their names, and deployments of managed endpoints.

        Be they failed, half deleted or detached. Deployments read ``endpoint/deployment``.
        """
        state = self._running()[1]
        with state.lock:
            state.operations.end_due()
            return [*state.clusters.billed(), *state.endpoints.billed()]

    def add_aks(self, resource_id: str, *, vm_size: str, nodes: int) -> None:
        """Let there be an AKS cluster outside the workspace, which can be attached.

        Args:
            resource_id: ARM path: ``/subscriptions/.../providers/Microsoft.ContainerService/managedClusters/NAME``.
            vm_size: of its nodes.
            nodes: how many.
        """
        from .compute.models import Aks

        state = self._running()[1]
        with state.lock:
            name = resource_id.rstrip("/").rpartition("/")[2]
            state.clusters.aks[resource_id.lower()] = Aks(name, resource_id, vm_size, nodes, ours=False)

    def set_quota(self, key: str, limit: int) -> None:
        """Change what Azure allows, from the next call on.

        AKS clusters that exceed it fail; managed deployments are refused. The two have quotas of their own, as in
        Azure: what the one uses is not missing from the other.

        Args:
            key: a quota family such as ``"standard NCASv3_T4 Family"``, a VM size, or ``"total"``.
            limit: vCPUs. Managed deployments may use 10,000 of what is never set.

        Raises:
            ValueError: there is no such family or size, or the limit is below 0.
        """
        state = self._running()[1]
        with state.lock:
            state.quota.set(key, limit)

    def take_endpoint_name(self, name: str) -> None:
        """Let another workspace of the region have an online endpoint of this name: it is no longer free here."""
        state = self._running()[1]
        with state.lock:
            state.endpoints.taken.add(name.lower())

    def add_endpoint(self, name: str, *, auth_mode: AuthMode = "key", managed: bool = False) -> None:
        """Let there be an online endpoint, without any deployment yet.

        Args:
            name: of the endpoint.
            auth_mode: what callers must bring: a ``"key"``, the endpoint's own ``"aml_token"``, or an ``"aad_token"``.
            managed: with the door of the managed ones; else of those on Kubernetes.

        Raises:
            ValueError: the name cannot be, or is taken.
        """
        from .online.models import Endpoint, check_name

        state = self._running()[1]
        check_name("an endpoint", name)
        with state.lock:
            if name in state.endpoints.all:
                raise ValueError(f"There is an endpoint {name!r} already. Choose another name.")
            compute = None if managed else f"{state.settings.scope}/computes/emulated"
            state.endpoints.all[name] = Endpoint(name, auth_mode, compute=compute)

    def add_requests(self, endpoint: str, *, ago: float, requests: int = 1) -> None:
        """Let an endpoint have had requests, for Azure Monitor's ``RequestsPerMinute``.

        Args:
            endpoint: its name.
            ago: seconds.
            requests: how many.
        """
        state = self._running()[1]
        with state.lock:
            state.traffic.note(endpoint, ago=ago, requests=requests)

    def add_deployment(
        self,
        endpoint: str,
        source: Path,
        *,
        name: str = "default",
        entry_script: str = "score.py",
        model: Path | None = None,
        environment_variables: Mapping[str, str] | None = None,
        traffic: int = 100,
        max_concurrent: int = 1,
        request_timeout_ms: float = 5_000,
        timeout: float = 120.0,
    ) -> None:
        """Deploy a folder with code to an online endpoint; returns when it answers.

        Args:
            endpoint: of :meth:`add_endpoint`.
            source: the folder.
            name: of the deployment.
            entry_script: relative to the folder.
            model: a file or folder, which the script finds below ``AZUREML_MODEL_DIR``.
            environment_variables: of the container.
            traffic: percent of the endpoint's requests; the others keep what they have.
            max_concurrent: requests that it works on at once; others wait for half a second, and get 503 then.
            request_timeout_ms: after which it answers 504.
            timeout: seconds in which it must be ready.

        Raises:
            FileNotFoundError: there is no such folder, script or model.
            RuntimeError: the script failed; with the end of its log.
            TimeoutError: it was not ready in time.
            ValueError: no such endpoint, a name that cannot be or is taken, or traffic beyond 100 percent.
        """
        from .online import deploy
        from .online.models import Deployment, Limits, Spec, check_name, layout

        app, state = self._running()
        check_name("a deployment", name)
        variables = dict(environment_variables or {})
        files = layout(source, entry_script=entry_script, model=model, environment=variables)
        made = Deployment(name, Spec(files, Limits(max_concurrent, request_timeout_ms)))
        with state.lock:
            found = state.endpoints.all.get(endpoint)
            if found is None:
                raise ValueError(f"There is no endpoint {endpoint!r}. Call add_endpoint({endpoint!r}) first.")
            if name in found.deployments:
                raise ValueError(f"The endpoint {endpoint!r} has a deployment {name!r} already. Choose another name.")
            if not 0 <= traffic <= 100 - sum(found.traffic.values()):
                raise ValueError(f"The traffic of all deployments is 0 to 100 percent; {traffic} more are not left.")
            deploy.begin(state, found, made)
        deploy.wait(state, found, made, timeout=timeout, sleep=app.stopping.wait)
        with state.lock:
            found.traffic[name] = traffic
