"""The AKS target: web services on a GPU cluster of an Azure ML workspace, through ``azureml-core``."""

from __future__ import annotations

import functools
import tempfile
import time
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
from gpu_infer.ledger import Entry
from gpu_infer.plans import Plan
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Cluster, Rollout, Scale, ServiceSpec
from gpu_infer.targets import records
from gpu_infer.targets.aks import clusters, removing, services
from gpu_infer.targets.aks.inference import deploy_arguments, inference_config, replica_arguments
from gpu_infer.targets.aks.models import find_model, register_model
from gpu_infer.targets.aks.planning import check_scale, make_plan
from gpu_infer.targets.base import Deployment, refuse_rollout
from gpu_infer.targets.calls import call
from gpu_infer.targets.models import RegisteredModel

__all__ = ["AksTarget"]


class AksTarget:
    """Runs bundles on AKS.

    Args:
        workspace: ``azureml.core.Workspace``.
    """

    name = "aks"
    default_wait: float = 2700.0
    """Seconds: the first deployment builds an image of some gigabytes."""

    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace
        self._key = records.workspace_key(workspace)

    def plan(self, spec: ServiceSpec) -> Plan:
        """What would be created, what the checks find, and the price; only reads."""
        return make_plan(self.workspace, spec)

    # --- start and wait -----------------------------------------------------------------------------------------------

    def start(self, spec: ServiceSpec, template: Template | None) -> Deployment:
        """Cluster, model, service. Whatever of it this call has created is removed again where it fails.

        Args:
            spec: of a plan: its VM size exists, its model is registered or has a path.
            template: of the model's framework.

        Raises:
            ProvisioningError: the cluster.
            DeploymentError: the model or the service.
        """
        run = records.new_run(ttl=spec.ttl, keep=spec.keep)
        try:
            return self._start(spec, template or bare_template(), run)
        except BaseException as error:
            removing.roll_back(self.workspace, run, error)
            raise

    def _start(self, spec: ServiceSpec, template: Template, run: records.Run) -> Deployment:
        cluster = spec.cluster or Cluster()
        compute, created = clusters.ensure_cluster(self.workspace, cluster, run, timeout=clusters.WAIT_SECONDS)
        below = records.find(self._key, records.CLUSTER, compute.name)
        if below is not None:
            records.remember_service(below, spec.name)
        model = self._model(spec, template, run.id)
        nodes = {"vm_size": compute.agent_vm_size or cluster.vm_size, "nodes": compute.agent_count or cluster.nodes}
        whose = _whose(cluster, below) if created else "existing"
        details = {
            "model": model.id,
            "cluster": compute.name,
            **nodes,
        }
        tags = records.tags_of(spec, run, created=time.time(), nodes=nodes, cluster=whose)
        with tempfile.TemporaryDirectory(prefix="gpu-infer-") as folder:
            service = services.create_service(
                self.workspace,
                spec.name,
                model=model.raw,
                bundle=build_bundle(spec, Path(folder), template=template),
                base_image=template.base_image,
                cluster=compute,
                arguments=deploy_arguments(spec, tags=tags, run=run.id),
                run=run,
                overwrite=spec.overwrite,
                details=details,
            )
        deployment = services.deployment_of(service, self._entry(spec.name))
        hand_over = functools.partial(self._hand_over, service, run)
        return replace(deployment, cluster_created=created, model_ref=model.ref, hand_over=hand_over)

    def _model(self, spec: ServiceSpec, template: Template, run: str) -> RegisteredModel:
        """The registered model; one of this machine is registered for this run."""
        if spec.model.path is not None:
            return register_model(self.workspace, spec.model, framework=template.name, run=run)
        model = find_model(self.workspace, spec.model)
        if model is None:
            message = f"Model {str(spec.model)!r} is not registered in workspace {self.workspace.name!r}."
            raise PreflightError([Finding("error", "model-missing", message)])
        return model

    def _hand_over(self, service: Any, run: records.Run) -> None:
        """Note that all is done, and the caller has it: until here it counts as half made."""
        if run.kept and run.expires is None:
            try:
                services.add_tags(service, records.lifetime_tags(kept=True, expires=None))
            except GpuInferError as error:
                text = f"its tags do not say yet that it is kept, for sweep() on other machines; keep() does: {error}"
                emit(Event(service.name, "keep", "warning", text))
        made = [one for one in records.entries(self._key) if one.details["run"] == run.id]
        for one in made if run.kept and run.expires is None else ():
            clusters.keep_cluster(self.workspace, one, kept=True, expires=None)
        records.settle_all(made, state="live")

    def wait(self, name: str, *, timeout: float) -> Deployment:
        """Wait until the service is healthy.

        Raises:
            DeploymentError: it failed, with its logs and the traceback of its script.
        """
        service = services.wait_healthy(self._service(name), name, timeout=timeout)
        return services.deployment_of(service, self._entry(name))

    # --- look ---------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Deployment:
        """Look at one service."""
        return services.deployment_of(self._service(name), self._entry(name))

    def services(self) -> list[Deployment]:
        """All AKS services of the workspace, whoever has deployed them."""
        found = services.list_services(self.workspace)
        return [services.deployment_of(service, self._entry(service.name)) for service in found]

    def logs(self, name: str) -> str:
        """What its containers have written."""
        return services.logs_of(self._service(name))

    # --- change -------------------------------------------------------------------------------------------------------

    def update(
        self, name: str, spec: ServiceSpec, template: Template | None, *, rollout: Rollout | None = None
    ) -> Deployment:
        """Serve something else under the same name and URI; Azure replaces the replicas one after the other."""
        refuse_rollout(rollout, "on AKS the replicas of a service are replaced one after the other")
        service = self._service(name)
        chosen = template or bare_template()
        run = records.read_tags(service.tags).get("run", "")
        model = self._model(spec, chosen, run)
        tags = {**spec.tags, **{key: text for key, text in service.tags.items() if key.startswith("gpu-infer-")}}
        with tempfile.TemporaryDirectory(prefix="gpu-infer-") as folder:
            bundle = build_bundle(replace(spec, name=name), Path(folder), template=chosen)
            services.change(
                service,
                models=[model.raw],
                inference_config=inference_config(bundle, base_image=chosen.base_image),
                **deploy_arguments(spec, tags=tags, run=run),
            )
        service = services.wait_healthy(service, name, timeout=self.default_wait, doing="updating")
        entry = self._entry(name)
        if entry is not None:
            entry = records.settle(entry, model=model.id)
        return replace(services.deployment_of(service, entry), model_ref=model.ref)

    def scale(self, name: str, *, replicas: int | tuple[int, int] | None, workers: int | None) -> Deployment:
        """Change how many replicas serve.

        Raises:
            PreflightError: the cluster has too few GPUs for them.
        """
        if workers is not None:
            message = "The worker processes of a replica are part of its container: use update(workers=...)."
            raise UnsupportedError(message)
        service = self._service(name)
        if replicas is not None:
            scale = Scale.of(replicas)
            errors = [one for one in check_scale(self.workspace, service, scale) if one.level == "error"]
            if errors:
                raise PreflightError(errors)
            services.change(service, doing="scaling", **replica_arguments(scale))
        service = services.wait_healthy(service, name, timeout=self.default_wait, doing="scaling")
        return services.deployment_of(service, self._entry(name))

    def rotate_keys(self, name: str) -> None:
        """Replace both keys; the SDK waits at least 5 seconds for each.

        Raises:
            UnsupportedError: the service has none, since it is scored with tokens.
        """
        service = self._service(name)
        if service.token_auth_enabled:
            message = f'Service {name!r} is scored with tokens (auth="token"), so there are no keys to replace.'
            raise UnsupportedError(message)
        for key in ("Primary", "Secondary"):
            call(
                service.regen_key,
                key,
                doing=f"replacing the {key.lower()} key of service {name!r}",
                default=GpuInferError,
            )

    def keep(self, name: str, *, ttl: float | None) -> Deployment:
        """Let service and cluster outlive this process: for ``ttl`` seconds, or for good where ``None``."""
        expires = None if ttl is None else time.time() + ttl
        service, entry = self._service(name), self._entry(name)
        if entry is not None:
            below = records.find(self._key, records.CLUSTER, entry.details["cluster"])
            all_of_it = [entry, *([] if below is None else [below])]
            entry = records.settle_all(all_of_it, state="live", kept=True, block=False, expires=expires)[0]
            if below is not None:
                clusters.keep_cluster(self.workspace, below, kept=True, expires=expires)
        services.add_tags(service, records.lifetime_tags(kept=True, expires=expires))
        return services.deployment_of(service, entry)

    def hold(self, name: str) -> None:
        """Note that the service is used in a ``with`` block: it is nobody's once this process has ended."""
        entry = self._entry(name)
        if entry is None or entry.details["kept"]:
            return
        cluster = records.find(self._key, records.CLUSTER, entry.details["cluster"])
        ours = [] if cluster is None or cluster.details["run"] != entry.details["run"] else [cluster]
        records.settle_all([entry, *ours], block=True)

    # --- remove -------------------------------------------------------------------------------------------------------

    def delete(self, name: str, *, cluster: bool, model: bool = False, created: float | None = None) -> None:
        """Service, then cluster if it is ours, then the models registered for it; each is seen to be gone.

        Raises:
            TeardownError: something is left.
        """
        entry = self._entry(name)
        if created is not None and entry is not None and entry.created != created:
            return  # another one has its name by now
        removing.delete(self.workspace, name, entry, cluster=cluster, model=model)

    def remove(self, entry: Entry) -> None:
        """Remove what one entry of the ledger names, and strike it out.

        Raises:
            TeardownError: it is still there.
        """
        removing.remove(self.workspace, entry)

    # --- what is there ------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """What the ledger of this machine has of this workspace, services first."""
        return records.entries(self._key)

    def tagged(self) -> list[Entry]:
        """What the tags of the workspace's services tell of: those services, and clusters created for them."""
        found: list[Entry] = []
        for service in services.list_services(self.workspace):
            known = records.read_tags(service.tags)
            if known:
                found.append(records.unwritten(self._key, records.SERVICE, service.name, known))
            if known.get("cluster_created"):
                found.append(records.unwritten(self._key, records.CLUSTER, service.compute_name, known))
        seen = {one.name for one in found if one.kind == records.CLUSTER}
        return [*found, *(one for one in clusters.made_elsewhere(self.workspace) if one.name not in seen)]

    def state_of(self, entry: Entry) -> str:
        """How Azure calls the state of what an entry names; ``absent`` where it is not there."""
        if entry.kind == records.SERVICE:
            service = services.look(self.workspace, entry.name, twice=True)
            return "absent" if service is None else service.state or "unknown"
        return clusters.state_of(self.workspace, entry)

    def idle_seconds(self, entry: Entry, *, within: float) -> None:
        """Not known: Azure Monitor counts the requests of online endpoints, not those of web services."""

    # --- inside -------------------------------------------------------------------------------------------------------

    def _entry(self, name: str) -> Entry | None:
        return records.find(self._key, records.SERVICE, name)

    def _service(self, name: str) -> Any:
        service = services.look(self.workspace, name)
        if service is None:
            known = ", ".join(other.name for other in services.list_services(self.workspace)) or "none"
            message = f"There is no service {name!r} in workspace {self.workspace.name!r}. There: {known}."
            raise ServiceNotFoundError(message)
        return service


def _whose(cluster: Cluster, below: Entry | None) -> str:
    """How a cluster of this run has come about, for the tags of its service."""
    if cluster.resource_id is not None:
        return "attached"
    return "aks" if below is not None and below.details.get("aks") else "created"
