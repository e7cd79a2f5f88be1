"""What ``deploy()`` and ``plan()`` are given, made of the options of a command."""

from __future__ import annotations

from typing import Any

import typer

from gpu_infer.cli import options

__all__ = ["azure", "deployment", "ignored_here", "online"]


def azure(
    *, cluster: str, vm_size: str | None, nodes: int, dev_test: bool, replicas: int, max_replicas: int | None
) -> dict[str, Any]:
    """The arguments for a deployment to Azure."""
    from gpu_infer.spec import Cluster

    _check_replicas(replicas, max_replicas)
    return {
        # Without a size an existing cluster is taken as it is.
        "cluster": Cluster(cluster, vm_size=vm_size or "", nodes=nodes, purpose="DevTest" if dev_test else "FastProd"),
        "replicas": replicas if max_replicas is None else (replicas, max_replicas),
    }


def online(
    *, cluster: str, vm_size: str | None, nodes: int, dev_test: bool, replicas: int, max_replicas: int | None
) -> dict[str, Any]:
    """The arguments for a deployment to an online endpoint: on Kubernetes where a compute is named.

    Raises:
        typer.BadParameter: an option that is for a new AKS cluster.
    """
    _check_replicas(replicas, max_replicas)
    for option, asked in (("--nodes", nodes != options.DEFAULT_NODES), ("--dev-test", dev_test)):
        if asked:
            message = "is for a new AKS cluster; of an online endpoint --replicas says how many machines there are."
            raise typer.BadParameter(message, param_hint=option)
    return {
        **({} if cluster == options.DEFAULT_CLUSTER else {"cluster": cluster}),
        "vm_size": vm_size,
        "replicas": replicas if max_replicas is None else (replicas, max_replicas),
    }


def ignored_here(
    *, cluster: str, vm_size: str | None, nodes: int, dev_test: bool, replicas: int, max_replicas: int | None
) -> dict[str, Any]:
    """The same for a deployment to this machine: only what was asked for, so that the checks say it means nothing."""
    _check_replicas(replicas, max_replicas)
    asked = cluster != options.DEFAULT_CLUSTER or nodes != options.DEFAULT_NODES or dev_test
    given = {
        "cluster": cluster if asked else None,
        "vm_size": vm_size,
        "replicas": replicas if max_replicas is None else (replicas, max_replicas),
    }
    return {what: value for what, value in given.items() if value is not None}


def _check_replicas(least: int, most: int | None) -> None:
    if most is not None and most < least:
        message = f"{most} is less than --replicas {least}."
        raise typer.BadParameter(message, param_hint="--max-replicas")


def deployment(*, env: list[str] | None, port: int | None, **others: Any) -> dict[str, Any]:
    """The arguments for ``gpu_infer.deploy`` and ``gpu_infer.plan``.

    Args:
        env: pairs of name and value, as typed.
        port: ``None`` for any.
        others: the other options, under the names that ``deploy`` has for them.

    Raises:
        typer.BadParameter: ``--env`` without an equals sign.
    """
    variables = options.variables(env)
    if port is not None:
        variables["SERVER_PORT"] = str(port)
    # What the command line starts has to outlive it.
    return {**others, "environment_variables": variables, "keep": True}
