"""The handle of a deployed service."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from gpu_infer.errors import (
    GpuInferError,
    ScoringConnectionError,
    ScoringError,
    ServiceNotFoundError,
    UnsupportedError,
    WorkspaceError,
)
from gpu_infer.notebook import html_table
from gpu_infer.spec import Rollout, Scale, seconds_of
from gpu_infer.targets.base import Deployment, ParkingTarget, Target

if TYPE_CHECKING:
    from gpu_infer.client import AsyncScoringClient, ManyResults, ScoringClient
    from gpu_infer.client.results import Readable
    from gpu_infer.client.tokens import Provider

__all__ = ["Service"]


@dataclass(eq=False)
class Service:
    """A deployed service.

    Use it in a ``with`` block and it is deleted at the block's end, however that comes, and so is the cluster that
    ``deploy()`` has created for it; or call ``delete()``. The block of a handle from ``attach()`` only closes
    connections: the service is somebody else's, or kept.

    Attributes:
        name: of the service.
        state: ``Starting``, ``Healthy``, ``Unhealthy``, ``Failed``, ``Parked`` or ``Deleted``, as last seen;
            ``refresh()`` looks again, ``wait()`` waits for ``Healthy``.
        scoring_uri: where requests go.
        target: ``local``, ``aks`` or ``online``.
        price_per_hour: US dollars while it exists, of the cluster below it; 0 on the local target. Among those that
            ``gpu_infer.services()`` gives, the first of each cluster has it, so that their sum is right.
        cluster: name of the cluster below it, empty on the local target.
        raw: what the target itself has on it.
    """

    name: str
    state: str
    scoring_uri: str
    target: str
    price_per_hour: float = 0.0
    model: str = ""
    kept: bool = False
    expires: float | None = None
    cluster: str = ""
    raw: Any = field(default=None, repr=False)
    _target: Target | None = field(default=None, repr=False)
    _redeploy: Callable[..., Deployment] | None = field(default=None, repr=False)
    _arguments: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    _timeout: float = field(default=60.0, repr=False)
    _created: float | None = field(default=None, repr=False)
    _own_script: bool = field(default=False, repr=False)
    _kserve: bool = field(default=False, repr=False)
    _credential: Provider | None = field(default=None, repr=False)
    _created_cluster: bool = field(default=False, repr=False)
    _attached: bool = field(default=False, repr=False)
    _client: ScoringClient | None = field(default=None, repr=False)
    _async_client: AsyncScoringClient | None = field(default=None, repr=False)

    # --- scoring ------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> ScoringClient:
        """The typed client of this service, made once."""
        if self._client is None:
            from gpu_infer.client import ScoringClient

            self._client = ScoringClient(
                self.scoring_uri, self._credential, timeout=self._timeout, codec=self._codec, ours=self._ours
            )
        return self._client

    @property
    def async_client(self) -> AsyncScoringClient:
        """The asynchronous client of this service, made once; needs the extra ``async``."""
        if self._async_client is None:
            from gpu_infer.client import AsyncScoringClient

            self._async_client = AsyncScoringClient(
                self.scoring_uri, self._credential, timeout=self._timeout, codec=self._codec, ours=self._ours
            )
        return self._async_client

    @overload
    def score(self, x: Any, *, timeout: float | None = None, result: None = None) -> Any: ...
    @overload
    def score(self, x: Any, *, timeout: float | None = None, result: type[Readable]) -> Readable: ...
    def score(self, x: Any, *, timeout: float | None = None, result: type[Any] | None = None) -> Any:
        """Score one item, or a list of items.

        Args:
            x: an image or file by path, ``bytes``, a Pillow image, an array of the model's item shape or one axis more,
                nested lists of numbers; or a list of items.
            timeout: seconds for all attempts together; the service's own where ``None``.
            result: what the result is read as, such as ``gpu_infer.ClassScores``, ``np.ndarray`` or ``dict``, see
                ``docs/client.md``; ``None``: as it comes.

        Returns:
            the result for one item, without a batch axis; for a list or an array of items one result per item.

        Raises:
            ScoringError: see ``gpu_infer.errors``.
            ServiceNotFoundError: the service has been deleted.
        """
        try:
            return self.client.score(x, timeout=timeout, result=result)
        except ScoringError as error:
            if error.status == HTTPStatus.NOT_FOUND or isinstance(error, ScoringConnectionError):
                self._look_after(error)
            raise

    def score_many(self, items: Any, **options: Any) -> ManyResults[Any]:
        """Score any number of items, many at a time; ``ScoringClient.score_many`` says what it takes and gives."""
        return self.client.score_many(items, **options)

    # --- looking ------------------------------------------------------------------------------------------------------

    def wait(self, *, timeout: float | None = None) -> Self:
        """Wait until the service is healthy.

        Args:
            timeout: seconds; what is usual on its target where ``None``: 10 minutes on this machine, 45 in Azure.

        Raises:
            DeploymentError: it failed, or was not healthy in time.
        """
        return self._take(self._on.wait(self.name, timeout=self._on.default_wait if timeout is None else timeout))

    def refresh(self) -> Self:
        """Look again: state, address, expiry."""
        return self._take(self._on.find(self.name))

    def logs(self) -> str:
        """What its processes or containers have written."""
        return self._on.logs(self.name)

    def stats(self) -> dict[str, Any]:
        """The runtime's counters: requests by status, items, batch sizes, queue."""
        return self._reporting.stats()

    def describe(self) -> dict[str, Any]:
        """What the model takes and gives: names, dtypes, shapes, hooks, settings."""
        return self._reporting.describe()

    def gpu_report(self) -> dict[str, Any]:
        """The device that does the work, as the framework in the service sees it."""
        return self._reporting.gpu_report()

    # --- changing -----------------------------------------------------------------------------------------------------

    def update(self, model: Any = None, *, rollout: Rollout | None = None, **changes: Any) -> Self:
        """Serve another model, or with other settings, under the same name and address.

        Args:
            model: as for ``deploy()``; the present one where ``None``.
            rollout: how the new deployment of an online endpoint takes over; ``Rollout()`` where ``None``.
            changes: arguments of ``deploy()`` to change: ``output``, ``preprocess``, ``batching``, ``timeout``, ...

        Raises:
            PreflightError: a check failed, or without ``model`` the service was deployed anew elsewhere.
            DeploymentError: the new one does not start; the old one serves on.
        """
        if self._redeploy is None:
            message = (
                f"Service {self.name!r} was attached, and how it was deployed is not known here: use "
                "deploy(overwrite=True)."
            )
            raise UnsupportedError(message)
        self._close_clients()  # an open connection would hold the old server up
        redeploy = self._redeploy
        return self._changed(lambda: redeploy(model, rollout=rollout, **changes))

    def scale(self, *, replicas: int | tuple[int, int] | None = None, workers: int | None = None) -> Self:
        """Change how many copies serve: containers, or worker processes in each.

        Args:
            replicas: a number, or the least and the most between which Azure chooses by load.
            workers: processes per container; on the local target only.

        Raises:
            PreflightError: the cluster has too few GPUs for so many replicas; nothing was changed.
            UnsupportedError: the service is parked, or its target cannot change that number.
            DeploymentError: Azure refused it, or the new ones did not start.
            ValueError: that is no number of replicas or workers.
        """
        Scale.of(1 if replicas is None else replicas, 1 if workers is None else workers)
        self._close_clients()
        self._changed(lambda: self._on.scale(self.name, replicas=replicas, workers=workers))
        wanted = {"replicas": replicas, "workers": workers}
        self._arguments.update({name: number for name, number in wanted.items() if number is not None})
        return self

    def rotate_keys(self) -> None:
        """Replace the keys of the service; a local one has none."""
        self._on.rotate_keys(self.name)

    def keep(self, ttl: float | str | timedelta | None = None) -> Self:
        """Let the service outlive this process and the ``with`` block.

        Args:
            ttl: seconds, a ``timedelta`` or text as ``"8h"``, after which it is removed: a local service by itself,
                one in Azure by the next ``sweep()``. Where ``None``: 8 hours for a local one, for good in Azure.
        """
        return self._take(self._on.keep(self.name, ttl=None if ttl is None else seconds_of(ttl)))

    def park(self) -> Self:
        """Take down what is billed of an online endpoint, and keep its address and keys: for the night.

        Its deployments are deleted, and ``unpark()`` brings the one that has served back, in this process or another of
        this machine. A request in between is answered 404. What is parked already stays so.

        Raises:
            UnsupportedError: the service is no online endpoint.
            TeardownError: a deployment is still there, and billed.
        """
        parking = self._parking()
        self._close_clients()
        return self._changed(lambda: parking.park(self.name))

    def unpark(self, *, environment_variables: Mapping[str, str] | None = None) -> Self:
        """Bring back what ``park()`` has taken down, at the same address and with the same keys, and wait for it.

        Where it serves already, nothing is done.

        Args:
            environment_variables: those that the deployment had beside the library's own: their values may be secrets,
                and are not kept anywhere.

        Raises:
            UnsupportedError: the service is no online endpoint.
            PreflightError: it was not parked from this machine, or a variable is missing.
            DeploymentError: it does not start; the endpoint stays parked.
        """
        parking = self._parking()
        return self._changed(lambda: parking.unpark(self.name, variables=dict(environment_variables or {})))

    def delete(self, *, cluster: bool = False, model: bool = False) -> None:
        """Remove the service; deleting what is gone already succeeds.

        Args:
            cluster: remove the cluster too, where this library has created it. One that it has attached is detached,
                and one that was there before stays.
            model: remove the registered model too, where this deployment has registered it.

        Raises:
            TeardownError: something is left and may still be billed; it says what.
        """
        self._close_clients()
        self._on.delete(self.name, cluster=cluster, model=model, created=self._created)
        self.state, self.price_per_hour = "Deleted", 0.0

    def on_update(self, redeploy: Callable[..., Deployment], arguments: dict[str, Any]) -> None:
        """Tell the handle how it was deployed: ``update()`` does it again with changes, ``scale()`` notes its own."""
        self._redeploy, self._arguments = redeploy, arguments

    def __enter__(self) -> Self:
        if not (self.kept or self._attached):
            self._on.hold(self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.kept or self._attached:
            self._close_clients()
        else:
            self.delete(cluster=self._created_cluster)

    def _repr_html_(self) -> str:
        rows = [
            ("state", self.state),
            ("target", self.target),
            ("model", self.model),
            ("scoring URI", self.scoring_uri),
            ("price", f"${self.price_per_hour:.2f} per hour"),
            ("kept", _until(self.expires) if self.kept else "until this process ends"),
        ]
        return html_table(self.name, rows)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _look_after(self, error: ScoringError) -> None:
        """Raise that the service is gone, where that is why nothing answered any more."""
        with contextlib.suppress(WorkspaceError, UnsupportedError):  # then the first error says more
            try:
                self._on.find(self.name)
            except ServiceNotFoundError as gone:
                message = f"Service {self.name!r} is gone: it has been deleted, or has ended. {gone}"
                raise ServiceNotFoundError(message) from error

    def _changed(self, change: Callable[[], Deployment]) -> Self:
        """Take what a change gives; where it fails, look how the service is now, which the error does not tell."""
        try:
            return self._take(change())
        except GpuInferError:
            with contextlib.suppress(GpuInferError):  # the first error is the one to tell
                self.refresh()
            raise

    @property
    def _codec(self) -> Literal["json", "kserve"] | None:
        """A script of the user's is asked in JSON, as the stock server reads it; ours in what suits each input."""
        return "kserve" if self._kserve else "json" if self._own_script else None

    @property
    def _ours(self) -> Literal[True] | None:
        """Our own runtime tells what it takes; of another script only its answers show what it is."""
        return None if self._own_script else True

    @property
    def _reporting(self) -> ScoringClient:
        """The client, for a question that only our runtime answers."""
        if self._own_script:
            who = "is served by Triton" if self._kserve else "answers with an entry script of its own"
            message = f"Service {self.name!r} {who}; reports come from our runtime alone."
            raise UnsupportedError(message)
        return self.client

    def _parking(self) -> ParkingTarget:
        on = self._on
        if not isinstance(on, ParkingTarget):
            message = (
                f"Service {self.name!r} cannot be parked: only an online endpoint keeps its address without a "
                "deployment. Delete it, and deploy it again."
            )
            raise UnsupportedError(message)
        return on

    @property
    def _on(self) -> Target:
        if self._target is None:
            message = f"Service {self.name!r} is not bound to a target: get it from deploy() or attach()."
            raise UnsupportedError(message)
        return self._target

    def _take(self, deployment: Deployment) -> Self:
        asked = (deployment.scoring_uri, deployment.timeout, deployment.own_script, deployment.kserve)
        if asked != (self.scoring_uri, self._timeout, self._own_script, self._kserve):
            self._close_clients()
        self.scoring_uri, self._timeout, self._own_script, self._kserve = asked
        self._credential = deployment.credential
        self.state, self.model, self.price_per_hour = deployment.state, deployment.model, deployment.price_per_hour
        self.kept, self.expires, self.raw = deployment.kept, deployment.expires, deployment.raw
        return self

    def _close_clients(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._async_client = None


def service_from(deployment: Deployment, target: Target, *, attached: bool = False) -> Service:
    """The handle of what a target has deployed."""
    return Service(
        name=deployment.name,
        state=deployment.state,
        scoring_uri=deployment.scoring_uri,
        target=target.name,
        price_per_hour=deployment.price_per_hour,
        model=deployment.model,
        kept=deployment.kept,
        expires=deployment.expires,
        cluster=deployment.cluster,
        raw=deployment.raw,
        _target=target,
        _timeout=deployment.timeout,
        _created=deployment.created,
        _own_script=deployment.own_script,
        _kserve=deployment.kserve,
        _credential=deployment.credential,
        _created_cluster=deployment.cluster_created,
        _attached=attached,
    )


def _until(expires: float | None) -> str:
    if expires is None:
        return "until deleted"
    return time.strftime("until %Y-%m-%d %H:%M", time.localtime(expires))
