"""``demo``, ``plan``, ``deploy``: what starts a service. Each names the next command."""

from __future__ import annotations

import shlex
from typing import Any

import typer

import gpu_infer
from gpu_infer.cli import deployment, options, screen
from gpu_infer.errors import GpuInferError

__all__ = ["demo", "deploy", "plan"]

_DEFAULT_TTL = "8h"


def demo(*, as_json: options.Json = False) -> None:
    """Train on MNIST, deploy on this machine, score 2,000 digits. Takes about a minute."""
    from gpu_infer.cli import show
    from gpu_infer.demo import run_demo

    with screen.progress("looking for what the demo needs") as shown:

        def scored(done: int, total: int) -> None:
            shown.say("scoring digits, one per request")
            shown.count(done, total)

        report = run_demo(on_scored=scored)
    if as_json:
        screen.print_json(report.to_dict())
        return
    show.demo(report)
    screen.hint("gpu-infer init my-service", because="files to start your own from")


def plan(
    model: options.Model,
    *,
    name: options.Name = None,
    template: options.Template = None,
    output: options.Output = None,
    preprocess: options.Preprocess = None,
    postprocess: options.Postprocess = None,
    labels: options.Labels = None,
    entry_script: options.EntryScript = None,
    conda_file: options.CondaFile = None,
    workers: options.Workers = 1,
    timeout: options.Timeout = "60s",
    ttl: options.Ttl = _DEFAULT_TTL,
    env: options.Env = None,
    port: options.Port = None,
    overwrite: options.Overwrite = False,
    workspace: options.Workspace = None,
    online: options.Online = False,
    cluster: options.ClusterName = options.DEFAULT_CLUSTER,
    vm_size: options.VmSize = None,
    nodes: options.Nodes = options.DEFAULT_NODES,
    dev_test: options.DevTest = False,
    replicas: options.Replicas = 1,
    max_replicas: options.MaxReplicas = None,
    cpu_cores: options.CpuCores = None,
    memory_gb: options.MemoryGb = None,
    as_json: options.Json = False,
) -> None:
    """Show what `deploy` would do with the same options. Creates nothing."""
    workspace = options.place(workspace, online=online)
    arguments = deployment.deployment(
        env=env,
        port=port,
        name=name,
        template=template,
        output=output,
        preprocess=preprocess,
        postprocess=postprocess,
        labels=labels,
        entry_script=entry_script,
        conda_file=conda_file,
        workers=workers,
        timeout=timeout,
        ttl=ttl,
        overwrite=overwrite,
        **_in_azure(
            workspace,
            online=online,
            cluster=cluster,
            vm_size=vm_size,
            nodes=nodes,
            dev_test=dev_test,
            replicas=replicas,
            max_replicas=max_replicas,
            cpu_cores=cpu_cores,
            memory_gb=memory_gb,
        ),
    )
    with screen.progress("checking"):
        made = gpu_infer.plan(model, options.open_workspace(workspace), **arguments)
    if as_json:
        screen.print_json(made.to_dict())
    else:
        from gpu_infer.cli import show

        show.plan(made)
        if not made.errors:
            screen.hint(f"gpu-infer deploy {shlex.quote(model)} ...", because="with the same options")
    if made.errors:
        raise typer.Exit(1)


def deploy(
    model: options.Model,
    *,
    name: options.Name = None,
    template: options.Template = None,
    output: options.Output = None,
    preprocess: options.Preprocess = None,
    postprocess: options.Postprocess = None,
    labels: options.Labels = None,
    entry_script: options.EntryScript = None,
    conda_file: options.CondaFile = None,
    workers: options.Workers = 1,
    timeout: options.Timeout = "60s",
    ttl: options.Ttl = _DEFAULT_TTL,
    env: options.Env = None,
    port: options.Port = None,
    overwrite: options.Overwrite = False,
    wait: options.Wait = None,
    workspace: options.Workspace = None,
    online: options.Online = False,
    cluster: options.ClusterName = options.DEFAULT_CLUSTER,
    vm_size: options.VmSize = None,
    nodes: options.Nodes = options.DEFAULT_NODES,
    dev_test: options.DevTest = False,
    replicas: options.Replicas = 1,
    max_replicas: options.MaxReplicas = None,
    cpu_cores: options.CpuCores = None,
    memory_gb: options.MemoryGb = None,
    as_json: options.Json = False,
) -> None:
    """Start a service on this machine, or in Azure. It runs on until `down`, or until its time is over."""
    from gpu_infer.spec import seconds_of

    workspace = options.place(workspace, online=online)
    arguments = deployment.deployment(
        env=env,
        port=port,
        name=name,
        template=template,
        output=output,
        preprocess=preprocess,
        postprocess=postprocess,
        labels=labels,
        entry_script=entry_script,
        conda_file=conda_file,
        workers=workers,
        timeout=timeout,
        ttl=ttl,
        overwrite=overwrite,
        **_in_azure(
            workspace,
            online=online,
            cluster=cluster,
            vm_size=vm_size,
            nodes=nodes,
            dev_test=dev_test,
            replicas=replicas,
            max_replicas=max_replicas,
            cpu_cores=cpu_cores,
            memory_gb=memory_gb,
        ),
    )
    with screen.progress("checking"):
        service = gpu_infer.deploy(
            model,
            options.open_workspace(workspace),
            wait=True if wait is None else seconds_of(wait),
            dry_run=False,
            **arguments,
        )
        device = None if entry_script is not None else _device(service)
    from gpu_infer.cli import show

    if as_json:
        screen.print_json({**show.service_dict(service), "device": device})
        return
    show.service(service, device)
    screen.hint(f"gpu-infer score {service.name} FILE{options.again(workspace)}")


def _in_azure(
    workspace: str | None, *, online: bool, cpu_cores: float | None, memory_gb: float | None, **others: Any
) -> dict[str, Any]:
    """What only a deployment to Azure takes; one to this machine warns of what was asked for."""
    means = deployment.ignored_here if workspace is None else deployment.online if online else deployment.azure
    return {**means(**others), "cpu_cores": cpu_cores, "memory_gb": memory_gb}


def _device(service: Any) -> str | None:
    """The device of a service; ``None`` where an entry script of the user's answers, which has no reports."""
    try:
        return str(service.gpu_report()["device"])
    except (GpuInferError, KeyError):
        return None
