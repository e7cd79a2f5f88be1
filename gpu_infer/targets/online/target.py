"""The online target: managed and Kubernetes online endpoints, through ``azure-ai-ml``."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_infer.bundle import Template, bare_template, build_bundle
from gpu_infer.errors import (
    Finding,
    GpuInferError,
    PreflightError,
    ServiceNotFoundError,
    UnsupportedError,
)
from gpu_infer.ledger import Entry, exclusive
from gpu_infer.plans import Plan
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Rollout, Scale, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.base import Deployment
from gpu_infer.targets.models import RegisteredModel
from gpu_infer.targets.online import compute, deployments, endpoints, inventory, metrics, parking, removing
from gpu_infer.targets.online.inference import deployment_entity
from gpu_infer.targets.online.models import ensure_model
from gpu_infer.targets.online.planning import check_scale, make_plan
from gpu_infer.targets.online.rollout import REPLACE, check_golden, retire, serve_what_is_ready, take_over
from gpu_infer.targets.online.sdk import key_of

__all__ = ["OnlineTarget"]

DELETE_PATIENCE = 120.0
"""Seconds that a deletion waits for another change to end: who deletes must not leave a bill behind for that."""


class OnlineTarget:
    """Runs bundles on online endpoints.

    Args:
        client: ``azure.ai.ml.MLClient`` of a workspace.
    """

    name = "online"
    default_wait: float = 2700.0
    """Seconds: the first deployment builds an image of some gigabytes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._key = key_of(client)
        self._incoming: dict[str, tuple[deployments.Incoming, ServiceSpec]] = {}

    def plan(self, spec: ServiceSpec) -> Plan:
        """What would be created, what the checks find, and the price; only reads."""
        return make_plan(self.client, spec)

    # --- start and wait -----------------------------------------------------------------------------------------------

    def start(self, spec: ServiceSpec, template: Template | None) -> Deployment:
        """Model, endpoint, deployment. Whatever of it this call has created is removed again where it fails.

        Args:
            spec: of a plan: its VM size exists, its model is registered or has a path.
            template: of the model's framework.

        Raises:
            PreflightError: the name is taken.
            DeploymentError: the model, the endpoint or the deployment.
        """
        run = records.new_run(ttl=spec.ttl, keep=spec.keep)
        with self._changing(spec.name):
            try:
                return self._start(spec, template or bare_template(), run)
            except BaseException as error:
                removing.roll_back(self.client, run, error)
                raise

    def _start(self, spec: ServiceSpec, template: Template, run: records.Run) -> Deployment:
        self._check_free(spec)
        spec, attached = compute.prepare(self.client, spec, run)
        model = ensure_model(self.client, spec, framework=template.name, run=run.id)
        endpoint = self._check_free(spec)  # an upload takes its time, and somebody may have been quicker
        existed = endpoint is not None
        whose = "" if spec.cluster is None else "attached" if attached else "existing"
        tags = records.tags_of(spec, run, created=time.time(), nodes=_nodes(spec), cluster=whose)
        if endpoint is None:
            below = {"cluster": spec.cluster.name} if spec.cluster else {}
            details = {"model": model.id, "attached": False, **below, **_nodes(spec)}
            endpoint = endpoints.create_endpoint(self.client, spec, run, tags=tags, details=details)
        there = deployments.list_deployments(self.client, spec.name)
        name = deployments.free_name(there)
        self._deploy(spec, name, template, model, run=run, tags=tags)
        made = deployments.deployment_of(self.client, endpoint, there, self._entry(spec.name))
        drop = functools.partial(removing.drop_deployment, self.client, spec.name, name)
        return replace(
            made,
            state="Starting",
            model=model.id,
            price_per_hour=_price(spec) + made.price_per_hour,
            timeout=spec.timeout,
            own_script=spec.entry_script is not None or spec.codeless,
            kserve=spec.codeless,
            made=run.id,
            model_ref=model.ref,
            cluster_created=attached,
            hand_over=functools.partial(self._hand_over, spec.name, run),
            give_up=drop if existed else None,
        )

    def _check_free(self, spec: ServiceSpec) -> Any | None:
        """The endpoint of that name, which is to be replaced; ``None`` where there is none."""
        # Twice: to create an endpoint that is there all the same would take the requests from its deployments.
        endpoint = endpoints.look(self.client, spec.name, twice=True)
        if endpoint is not None and not spec.overwrite:
            message = f"An endpoint {spec.name!r} exists already in workspace {self.client.workspace_name!r}."
            fix = f"Use overwrite=True, another name, or gpu_infer.attach({spec.name!r}, ml_client)."
            raise PreflightError([Finding("error", "name-taken", message, fix)])
        return endpoint

    def _deploy(
        self,
        spec: ServiceSpec,
        name: str,
        template: Template,
        model: RegisteredModel,
        *,
        run: records.Run,
        tags: dict[str, str],
    ) -> None:
        """Ask for a deployment; ``wait()`` waits for it."""
        with tempfile.TemporaryDirectory(prefix="gpu-infer-") as folder:
            bundle = None if spec.codeless else build_bundle(spec, Path(folder), template=template)
            wanted = deployment_entity(spec, name, model=model, bundle=bundle, template=template, tags=tags, run=run.id)
            details = {"model": model.id, "attached": False, **_nodes(spec)}
            incoming = deployments.create_deployment(self.client, wanted, run, details=details)
        self._incoming[spec.name] = (incoming, spec)

    def _hand_over(self, name: str, run: records.Run) -> None:
        """Note that all is done, and the caller has it: until here it counts as half made."""
        if run.kept and run.expires is None:
            try:
                self._tag(name, records.lifetime_tags(kept=True, expires=None))
            except GpuInferError as error:
                text = f"its tags do not say yet that it is kept, for sweep() on other machines; keep() does: {error}"
                emit(Event(name, "keep", "warning", text))
        made = [one for one in records.entries(self._key) if one.details["run"] == run.id]
        records.settle_all(made, state="live")

    def wait(self, name: str, *, timeout: float) -> Deployment:
        """Wait until the deployment is ready, then let it have the requests of the endpoint.

        Raises:
            DeploymentError: it failed, with its logs and the traceback of its script.
        """
        incoming, spec = self._incoming.get(name, (None, None))
        if incoming is not None and spec is not None:
            with self._changing(name):
                deployments.wait_ready(self.client, incoming, timeout=timeout)
                take_over(self.client, spec, incoming.name, REPLACE)
                del self._incoming[name]
                retire(self.client, name, incoming.name)
            return self.find(name)
        found = self.find(name)
        if found.state in ("Healthy", "Parked"):
            return found
        serve_what_is_ready(self.client, self._endpoint(name), timeout=timeout)
        return self.find(name)

    # --- look ---------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Deployment:
        """Look at one service."""
        return self._seen(self._endpoint(name))

    def services(self) -> list[Deployment]:
        """All online endpoints of the workspace, whoever has deployed them."""
        return [self._seen(endpoint) for endpoint in endpoints.list_endpoints(self.client)]

    def logs(self, name: str) -> str:
        """What both containers of each deployment have written."""
        self._endpoint(name)
        there = deployments.list_deployments(self.client, name)
        return deployments.logs_of(self.client, name, [one.name for one in there])

    # --- change -------------------------------------------------------------------------------------------------------

    def update(
        self, name: str, spec: ServiceSpec, template: Template | None, *, rollout: Rollout | None = None
    ) -> Deployment:
        """Deploy beside what serves, move the traffic by steps, then delete the old deployment.

        Raises:
            DeploymentError: the new one does not start, or does not answer; the old one serves on.
            PreflightError: another thread or process is changing it.
        """
        check_golden(spec, rollout or Rollout())
        with self._changing(name):
            return self._update(name, spec, template, rollout or Rollout())

    def _update(self, name: str, spec: ServiceSpec, template: Template | None, rollout: Rollout) -> Deployment:
        endpoint, entry = self._endpoint(name), self._entry(name)
        known = records.read_tags(endpoint.tags)
        run = self._run_beside(name, known)
        chosen = template or bare_template()
        spec = replace(spec, name=name)
        try:
            model = ensure_model(self.client, spec, framework=chosen.name, run=known.get("run", run.id))
            tags = records.tags_of(spec, run, created=time.time(), nodes=_nodes(spec))
            colour = deployments.free_name(deployments.list_deployments(self.client, name))
            self._deploy(spec, colour, chosen, model, run=run, tags=tags)
            incoming, _ = self._incoming.pop(name)
            deployments.wait_ready(self.client, incoming, timeout=self.default_wait, doing="updating")
            take_over(self.client, spec, colour, rollout)
        except BaseException as error:
            self._incoming.pop(name, None)
            removing.roll_back(self.client, run, error)
            raise
        records.settle_all([one for one in records.entries(self._key) if one.details["run"] == run.id], state="live")
        if entry is not None:
            records.settle(entry, model=model.id)
        retire(self.client, name, colour)
        return replace(self.find(name), model_ref=model.ref)

    def scale(self, name: str, *, replicas: int | tuple[int, int] | None, workers: int | None) -> Deployment:
        """Change how many instances serve.

        Raises:
            UnsupportedError: worker processes cannot be changed so; or the service is parked.
            PreflightError: the quota does not hold so many instances; nothing was changed.
            DeploymentError: Azure refused it.
        """
        if workers is not None:
            message = "The worker processes of an instance are part of its container: use update(workers=...)."
            raise UnsupportedError(message)
        self._endpoint(name)
        if replicas is not None:
            scale = Scale.of(replicas)
            there = deployments.list_deployments(self.client, name)
            parking.refuse_parked(name, there)
            managed = [one for one in there if not deployments.is_kubernetes(one)]
            findings = [finding for one in managed for finding in check_scale(self.client, one, scale)]
            if any(finding.level == "error" for finding in findings):
                raise PreflightError(findings)
            with self._changing(name):
                for one in there:
                    deployments.scale(self.client, one, scale, timeout=self.default_wait)
        return self.find(name)

    def rotate_keys(self, name: str) -> None:
        """Replace both keys.

        Raises:
            UnsupportedError: the service has none, since it is scored with tokens.
        """
        endpoint = self._endpoint(name)
        if endpoint.auth_mode != "key":
            message = f"Service {name!r} is scored with tokens, so there are no keys to replace."
            raise UnsupportedError(message)
        endpoints.rotate_keys(self.client, name)

    def keep(self, name: str, *, ttl: float | None) -> Deployment:
        """Let endpoint and deployments outlive this process: for ``ttl`` seconds, or for good where ``None``."""
        expires = None if ttl is None else time.time() + ttl
        self._endpoint(name)
        records.settle_all(self._all_of(name), state="live", kept=True, block=False, expires=expires)
        self._tag(name, records.lifetime_tags(kept=True, expires=expires))
        return self.find(name)

    def hold(self, name: str) -> None:
        """Note that the service is used in a ``with`` block: it is nobody's once this process has ended."""
        entry = self._entry(name)
        if entry is not None and not entry.details["kept"]:
            records.settle_all(self._all_of(name, run=entry.details["run"]), block=True)

    def park(self, name: str) -> Deployment:
        """Delete the deployments; endpoint, address and keys stay, and nothing is billed.

        Raises:
            TeardownError: one is still there.
        """
        self._endpoint(name)
        with self._changing(name):
            parking.park(self.client, name)
        return self.find(name)

    def unpark(self, name: str, *, variables: Mapping[str, str]) -> Deployment:
        """Deploy again what was parked, at the same address and with the same keys; what serves is left alone.

        Raises:
            PreflightError: nothing was parked from this machine, or a variable has no value.
            DeploymentError: it does not start; the endpoint stays parked.
        """
        run = self._run_beside(name, records.read_tags(self._endpoint(name).tags))
        with self._changing(name):
            parking.unpark(self.client, name, run, variables=variables, timeout=self.default_wait)
        return self.find(name)

    # --- remove -------------------------------------------------------------------------------------------------------

    def delete(self, name: str, *, cluster: bool, model: bool = False, created: float | None = None) -> None:
        """The endpoint with all its deployments, its compute if it is ours, the models; each is seen to be gone.

        Raises:
            TeardownError: something is left.
        """
        entry = self._entry(name)
        if created is not None and entry is not None and entry.created != created:
            return  # another one has its name by now
        with self._changing(name, wait=DELETE_PATIENCE):
            self._incoming.pop(name, None)
            removing.delete(self.client, name, cluster=cluster, model=model)
            parking.forget(self.client, name)

    def remove(self, entry: Entry) -> None:
        """Remove what one entry of the ledger names, and strike it out.

        Raises:
            TeardownError: it is still there.
        """
        removing.remove(self.client, entry)

    # --- what is there ------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """What the ledger of this machine has of this workspace."""
        return records.entries(self._key)

    def tagged(self) -> list[Entry]:
        """What the tags of things in the workspace tell of."""
        return inventory.tagged(self.client)

    def state_of(self, entry: Entry) -> str:
        """How Azure calls the state of what an entry names; ``absent`` where it is not there."""
        return inventory.state_of_entry(self.client, entry)

    def idle_seconds(self, entry: Entry, *, within: float) -> float | None:
        """How long nobody has asked an endpoint anything; ``None`` where Azure Monitor does not tell."""
        return metrics.idle_seconds(self.client, entry.name, within=within) if entry.kind == records.SERVICE else None

    # --- inside -------------------------------------------------------------------------------------------------------

    def _changing(self, name: str, *, wait: float = 0.0) -> AbstractContextManager[None]:
        """Hold an endpoint against other threads and processes of this machine that change it, too."""
        lock = hashlib.sha256(f"{self._key}/{name}".encode()).hexdigest()[:16]
        return exclusive(f"online-{lock}", wait=wait, of=name)

    def _entry(self, name: str) -> Entry | None:
        return records.find(self._key, records.SERVICE, name)

    def _run_beside(self, name: str, known: Mapping[str, Any]) -> records.Run:
        """A run for one more deployment of a service, which lives as long as that does."""
        entry = self._entry(name)
        kept = bool(entry.details["kept"]) if entry else known.get("kept", True)
        expires = entry.expires if entry else known.get("expires")
        return replace(records.new_run(ttl=None, keep=kept), expires=expires)

    def _all_of(self, name: str, *, run: str = "") -> list[Entry]:
        """The entries of an endpoint, of its deployments, and of the compute below; that only where it is of a run."""
        found = records.entries(self._key)
        ours = [one for one in found if one.kind != records.CLUSTER and one.name.partition("/")[0] == name]
        below = {one.details.get("cluster") for one in ours if one.kind == records.SERVICE}
        clusters = [one for one in found if one.kind == records.CLUSTER and one.name in below]
        return [*ours, *(one for one in clusters if run in ("", one.details["run"]))]

    def _tag(self, name: str, tags: dict[str, str]) -> None:
        before: dict[str, str] = self._endpoint(name).tags or {}
        endpoints.change(self.client, name, doing=f"noting how long {name!r} lives on", tags={**before, **tags})

    def _seen(self, endpoint: Any) -> Deployment:
        there = deployments.list_deployments(self.client, endpoint.name)
        return deployments.deployment_of(self.client, endpoint, there, self._entry(endpoint.name))

    def _endpoint(self, name: str) -> Any:
        endpoint = endpoints.look(self.client, name)
        if endpoint is None:
            known = ", ".join(other.name for other in endpoints.list_endpoints(self.client)) or "none"
            message = (
                f"There is no online endpoint {name!r} in workspace {self.client.workspace_name!r}. There: {known}."
            )
            raise ServiceNotFoundError(message)
        return endpoint


def _nodes(spec: ServiceSpec) -> dict[str, Any]:
    """What is paid for a deployment; on Kubernetes nothing, since the cluster is."""
    if spec.cluster is not None:
        return {"vm_size": "", "nodes": 0}
    return {"vm_size": spec.resources.vm_size or "", "nodes": spec.scale.replicas}


def _price(spec: ServiceSpec) -> float:
    nodes = _nodes(spec)
    return records.cluster_price(nodes["vm_size"], nodes["nodes"])
