"""The AKS target: web services on a GPU cluster of an Azure ML workspace, through ``azureml-core``."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_infer.bundle import Template, build_bundle
from gpu_infer.errors import (
    DeploymentError,
    Finding,
    GpuInferError,
    PreflightError,
    ServiceNotFoundError,
    TeardownError,
    UnsupportedError,
)
from gpu_infer.ledger import Entry
from gpu_infer.plans import Plan
from gpu_infer.progress import Event, emit
from gpu_infer.spec import Cluster, ModelRef, Scale, ServiceSpec
from gpu_infer.targets.aks import clusters, records, services
from gpu_infer.targets.aks.inference import bare_template, deploy_arguments, inference_config, replica_arguments
from gpu_infer.targets.aks.models import RegisteredModel, delete_model, find_model, register_model
from gpu_infer.targets.aks.planning import make_plan
from gpu_infer.targets.aks.sdk import call
from gpu_infer.targets.base import Deployment

__all__ = ["AksTarget"]

DELETE_SECONDS = 2400.0
"""For a cluster to be gone: minutes as a rule."""


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
            self._roll_back(run, error)
            raise

    def _start(self, spec: ServiceSpec, template: Template, run: records.Run) -> Deployment:
        cluster = spec.cluster or Cluster()
        compute, created = clusters.ensure_cluster(self.workspace, cluster, run, timeout=clusters.WAIT_SECONDS)
        model, registered = self._model(spec, template)
        nodes = {
            "vm_size": compute.agent_vm_size or cluster.vm_size,
            "nodes": compute.agent_count or cluster.nodes,
            "created": created,
        }
        details = {
            "model": model.id,
            "registered": registered,
            "cluster": compute.name,
            "vm_size": nodes["vm_size"],
            "nodes": nodes["nodes"],
        }
        tags = records.tags_of(spec, run, created=time.time(), cluster=nodes)
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
        entry = records.find(self._key, records.SERVICE, spec.name)
        if entry is not None:
            entry = records.settle(entry, state="live")
        return replace(services.deployment_of(service, entry), cluster_created=created)

    def _model(self, spec: ServiceSpec, template: Template) -> tuple[RegisteredModel, bool]:
        """The registered model, and whether we have registered it just now."""
        if spec.model.path is not None:
            return register_model(self.workspace, spec.model, framework=template.name), True
        model = find_model(self.workspace, spec.model)
        if model is None:
            message = f"Model {str(spec.model)!r} is not registered in workspace {self.workspace.name!r}."
            raise PreflightError([Finding("error", "model-missing", message)])
        return model, False

    def _roll_back(self, run: records.Run, error: BaseException) -> None:
        """Remove what a run has created; what cannot be removed stays written down, and the error names it."""
        for entry in records.entries(self._key):
            if entry.details["run"] != run.id or entry.details.get("existed"):
                continue
            emit(Event(entry.name, f"remove_{entry.kind}", "start"))
            try:
                self.remove(entry)
            except GpuInferError as problem:
                records.settle(entry, state="failed")
                left = (
                    f"{entry.kind} {entry.name!r} may exist and be billed; gpu_infer.sweep(workspace) removes it "
                    f"once Azure lets it: {problem}"
                )
                error.add_note(left)
                emit(Event(entry.name, f"remove_{entry.kind}", "warning", left))

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

    def update(self, name: str, spec: ServiceSpec, template: Template | None) -> Deployment:
        """Serve something else under the same name and URI; Azure replaces the replicas one after the other."""
        service = self._service(name)
        chosen = template or bare_template()
        known = records.read_tags(service.tags)
        model, _ = self._model(spec, chosen)
        tags = {**spec.tags, **{key: text for key, text in service.tags.items() if key.startswith("gpu-infer-")}}
        with tempfile.TemporaryDirectory(prefix="gpu-infer-") as folder:
            bundle = build_bundle(replace(spec, name=name), Path(folder), template=chosen)
            self._change(
                service,
                models=[model.raw],
                inference_config=inference_config(bundle, base_image=chosen.base_image),
                **deploy_arguments(spec, tags=tags, run=known.get("run", "")),
            )
        entry = self._entry(name)
        if entry is not None:
            records.settle(entry, model=model.id)
        return self.wait(name, timeout=self.default_wait)

    def scale(self, name: str, *, replicas: int | tuple[int, int] | None, workers: int | None) -> Deployment:
        """Change how many replicas serve."""
        if workers is not None:
            message = "The worker processes of a replica are part of its container: use update(workers=...)."
            raise UnsupportedError(message)
        if replicas is not None:
            scale = Scale(replicas) if isinstance(replicas, int) else Scale(replicas[0], max_replicas=replicas[1])
            self._change(self._service(name), **replica_arguments(scale))
        return self.wait(name, timeout=self.default_wait)

    def _change(self, service: Any, **arguments: Any) -> None:
        call(service.update, **arguments, doing=f"updating service {service.name!r}", default=DeploymentError)

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
            entry = records.settle(entry, kept=True, block=False, expires=expires)
            cluster = records.find(self._key, records.CLUSTER, entry.details["cluster"])
            if cluster is not None:
                records.settle(cluster, kept=True, block=False, expires=expires)
        text = "never" if expires is None else str(int(expires))
        call(
            service.add_tags,
            {"gpu-infer-expires": text},
            doing=f"noting on service {name!r} how long it lives",
            default=GpuInferError,
        )
        return services.deployment_of(service, entry)

    def hold(self, name: str) -> None:
        """Note that the service is used in a ``with`` block: it is nobody's once this process has ended."""
        entry = self._entry(name)
        if entry is None or entry.details["kept"]:
            return
        records.settle(entry, block=True)
        cluster = records.find(self._key, records.CLUSTER, entry.details["cluster"])
        if cluster is not None and cluster.details["run"] == entry.details["run"]:
            records.settle(cluster, block=True)

    # --- remove -------------------------------------------------------------------------------------------------------

    def delete(self, name: str, *, cluster: bool, model: bool = False, created: float | None = None) -> None:
        """Service, then model if we have registered it, then cluster if it is ours; each is seen to be gone.

        Raises:
            TeardownError: something is left.
        """
        entry = self._entry(name)
        if created is not None and entry is not None and entry.created != created:
            return  # another one has its name by now
        below = self._cluster_below(name, entry) if cluster else None
        services.delete_service(self.workspace, name, timeout=DELETE_SECONDS)
        if entry is not None:
            records.forget(entry)
            if model and entry.details["registered"]:
                model_name, _, version = entry.details["model"].rpartition(":")
                delete_model(self.workspace, ModelRef(model_name, version=version))
        if below is not None:
            self._delete_cluster(below)

    def remove(self, entry: Entry) -> None:
        """Remove what one entry of the ledger names, and strike it out.

        Raises:
            TeardownError: it is still there.
        """
        if entry.kind == records.SERVICE:
            services.delete_service(self.workspace, entry.name, timeout=DELETE_SECONDS)
            records.forget(entry)
        else:
            self._delete_cluster(entry)

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
        return found

    def state_of(self, entry: Entry) -> str:
        """How Azure calls the state of what an entry names; ``absent`` where it is not there."""
        if entry.kind == records.SERVICE:
            service = services.look(self.workspace, entry.name, twice=True)
            return "absent" if service is None else service.state or "unknown"
        compute = clusters.look(self.workspace, entry.name, twice=True)
        return "absent" if compute is None else compute.provisioning_state or "unknown"

    # --- inside -------------------------------------------------------------------------------------------------------

    def _cluster_below(self, name: str, entry: Entry | None) -> Entry | None:
        """The cluster of a service where this library has created it: by the ledger, else by the service's tags."""
        if entry is not None:
            below = records.find(self._key, records.CLUSTER, entry.details["cluster"])
            cluster_name = entry.details["cluster"]
        else:
            service = services.look(self.workspace, name)
            if service is None:
                return None
            cluster_name = service.compute_name
            below = records.find(self._key, records.CLUSTER, cluster_name)
            known = records.read_tags(service.tags)
            if below is None and known.get("cluster_created"):
                below = records.unwritten(self._key, records.CLUSTER, cluster_name, known)
        if below is None:
            text = f"cluster {cluster_name!r} stays: this library has not created it"
            emit(Event(name, "delete_cluster", "warning", text))
        return below

    def _delete_cluster(self, entry: Entry) -> None:
        others = [service.name for service in services.list_services(self.workspace, cluster=entry.name)]
        if others:
            message = (
                f"Cluster {entry.name!r} was not deleted and is still billed: other services run on it "
                f"({', '.join(others)}). Delete those first."
            )
            raise TeardownError(message, left=[f"cluster {entry.name!r}"])
        clusters.delete_cluster(self.workspace, entry, timeout=DELETE_SECONDS)

    def _entry(self, name: str) -> Entry | None:
        return records.find(self._key, records.SERVICE, name)

    def _service(self, name: str) -> Any:
        service = services.look(self.workspace, name)
        if service is None:
            known = ", ".join(other.name for other in services.list_services(self.workspace)) or "none"
            message = f"There is no service {name!r} in workspace {self.workspace.name!r}. There: {known}."
            raise ServiceNotFoundError(message)
        return service
