"""``scale``, ``park``, ``unpark``: change what runs, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpu_infer.cli import options, screen

if TYPE_CHECKING:
    from gpu_infer.service import Service

__all__ = ["park", "scale", "unpark"]


def scale(
    name: options.ServiceName,
    *,
    replicas: Annotated[
        int, typer.Argument(min=1, metavar="N", help="Containers, or instances of a managed endpoint.")
    ],
    most: Annotated[
        int | None, typer.Option("--max-replicas", min=1, metavar="N", help="Let Azure choose up to N by load.")
    ] = None,
    workspace: options.Workspace = None,
    online: options.Online = False,
    as_json: options.Json = False,
) -> None:
    """Change how many copies of a service run in Azure."""
    where = options.place(workspace, online=online)
    if most is not None and most < replicas:
        raise typer.BadParameter(f"{most} is less than {replicas}.", param_hint="--max-replicas")
    with screen.progress(f"scaling {name}"):
        service = options.attached(name, where).scale(replicas=replicas if most is None else (replicas, most))
    _tell(
        service, where, as_json=as_json, text=f"{name} has {replicas}{'' if most is None else f' to {most}'} replicas."
    )


def park(
    name: options.ServiceName,
    *,
    workspace: options.Workspace = None,
    online: options.ImpliedOnline = True,
    as_json: options.Json = False,
) -> None:
    """Take down what is billed of an online endpoint; its address and keys stay."""
    where = options.place(workspace, online=online)
    with screen.progress(f"parking {name}"):
        service = options.attached(name, where)
        already = service.state == "Parked"
        service.park()
    said = "is parked already" if already else "is parked"
    _tell(service, where, as_json=as_json, text=f"{name} {said}: nothing of it is billed, its address and keys stay.")
    if not as_json:
        screen.hint(f"gpu-infer unpark {name}{options.again(workspace)}", because="brings it back")


def unpark(
    name: options.ServiceName,
    *,
    env: options.Env = None,
    workspace: options.Workspace = None,
    online: options.ImpliedOnline = True,
    as_json: options.Json = False,
) -> None:
    """Bring back what was parked from this machine, at the same address and with the same keys."""
    where = options.place(workspace, online=online)
    variables = options.variables(env)
    with screen.progress(f"starting {name}"):
        service = options.attached(name, where)
        already = service.state == "Healthy"
        service.unpark(environment_variables=variables)
    _tell(service, where, as_json=as_json, text=f"{name} serves already." if already else f"{name} serves again.")
    if not as_json:
        screen.hint(f"gpu-infer score {name} FILE{options.again(where)}")


def _tell(service: Service, where: str | None, *, as_json: bool, text: str) -> None:
    if as_json:
        from gpu_infer.cli import show

        screen.print_json(show.service_dict(service))
        return
    price = f" It costs ${service.price_per_hour:.2f} per hour." if where and service.price_per_hour else ""
    screen.out().print(f"{text}{price}")
