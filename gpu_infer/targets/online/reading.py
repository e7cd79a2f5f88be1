"""What a workspace has, as facts for the checks. What Azure does not tell is said, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from gpu_infer.blotting import blotted
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import Finding, PreflightError, WorkspaceError
from gpu_infer.preflight import OnlineFacts
from gpu_infer.preflight.facts import (
    ComputeFacts,
    DeploymentFacts,
    EndpointFacts,
    InstanceTypeFacts,
    SizeFacts,
    UsageFacts,
)
from gpu_infer.spec import Cluster, ServiceSpec
from gpu_infer.targets.calls import NoAnswerError, ask, call_timeout
from gpu_infer.targets.online.sdk import is_absent, state_of, status_of

__all__ = ["compute_facts", "read_facts"]

READ_SECONDS = 60.0
"""For one look at the workspace: the SDK goes on for as long as Azure asks it to wait, and a plan must not."""

MANAGED = "mir"
"""How the region's list calls managed online endpoints, in lower case."""

_LOW_PRIORITY = "lowpriority"
_GPU_LIMIT = "nvidia.com/gpu"
_MOST_SAID = 200

T = TypeVar("T")


class _Reading:
    """Looks at a workspace, and notes what it could not see.

    Args:
        client: ``azure.ai.ml.MLClient``.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._unseen: dict[str, list[str]] = {}

    def look(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """Read something.

        Args:
            what: it is, in words.
            read: reads it and makes facts of it.
            otherwise: what is given where that fails.

        Raises:
            WorkspaceError: the caller may do nothing at all here, since the login is missing or refused.
        """
        try:
            return ask(read, timeout=min(READ_SECONDS, call_timeout()))
        except PreflightError:
            raise
        except Exception as error:
            if any(kind.__name__ == "ClientAuthenticationError" for kind in type(error).__mro__):
                raise azure_error(error, doing=f"looking at {what}", default=WorkspaceError) from error
            self._unseen.setdefault(_why(error), []).append(what)
            return otherwise

    @property
    def findings(self) -> list[Finding]:
        """What could not be seen, one for each reason."""
        return [_unchecked(what, why) for why, what in self._unseen.items()]


def read_facts(client: Any, spec: ServiceSpec) -> tuple[OnlineFacts, list[Finding]]:
    """All that the checks of a deployment have to know of a workspace.

    Returns:
        the facts, and what could not be seen.

    Raises:
        WorkspaceError: the login is missing or refused.
    """
    reading = _Reading(client)
    facts = _read_endpoints(reading, spec, OnlineFacts())
    if spec.cluster is not None:
        return _read_compute(reading, spec.cluster, facts), reading.findings
    return _read_region(reading, facts), reading.findings


def _read_region(reading: _Reading, facts: OnlineFacts) -> OnlineFacts:
    """The facts with the sizes and quotas of the region."""
    compute = reading.client.compute
    return replace(
        facts,
        sizes=reading.look("the region's VM sizes", lambda: _sizes(compute.list_sizes()), None),
        usage=reading.look("the region's quotas", lambda: _usage(compute.list_usage()), None),
    )


def compute_facts(found: Any) -> ComputeFacts:
    """A compute of the SDK as data."""
    properties: dict[str, Any] = getattr(found, "properties", None) or {}
    types: dict[str, dict[str, Any] | None] = properties.get("instanceTypes") or properties.get("instance_types") or {}
    default = properties.get("defaultInstanceType") or properties.get("default_instance_type") or ""
    kind = str(found.type or "").lower()
    return ComputeFacts(
        name=found.name,
        kind="" if "unsupported" in kind else kind,
        state=state_of(found),
        instance_types=tuple(_instance_type(name, given) for name, given in types.items()),
        default=str(default),
    )


# --- endpoints --------------------------------------------------------------------------------------------------------


def _read_endpoints(reading: _Reading, spec: ServiceSpec, facts: OnlineFacts) -> OnlineFacts:
    client = reading.client
    listed: list[Any] = reading.look("the endpoints", lambda: list(client.online_endpoints.list()), [])
    wanted = spec.cluster.name.lower() if spec.cluster else ""
    there = next((one for one in listed if str(one.name).lower() == spec.name.lower()), None)
    others = sum(_cluster_of(one).lower() == wanted for one in listed if one is not there)
    if there is None:
        return replace(facts, others=others)
    made: tuple[DeploymentFacts, ...] | None = reading.look(
        f"the deployments of endpoint {there.name!r}", lambda: _deployments(client, there), None
    )
    return replace(facts, endpoint=EndpointFacts(there.name, state_of(there), _cluster_of(there), made), others=others)


def _deployments(client: Any, endpoint: Any) -> tuple[DeploymentFacts, ...]:
    shares: dict[str, Any] = endpoint.traffic or {}
    traffic = {name.lower(): int(share) for name, share in shares.items()}
    return tuple(_deployment(one, traffic) for one in client.online_deployments.list(endpoint.name))


def _cluster_of(endpoint: Any) -> str:
    """The compute of a Kubernetes endpoint is an ARM path."""
    return str(getattr(endpoint, "compute", None) or "").rstrip("/").rpartition("/")[2].removeprefix("azureml:")


def _deployment(one: Any, traffic: Mapping[str, int]) -> DeploymentFacts:
    return DeploymentFacts(
        name=one.name,
        vm_size=str(one.instance_type or ""),
        instances=int(one.instance_count or 0),
        traffic=traffic.get(str(one.name).lower(), 0),
    )


# --- sizes and quotas -------------------------------------------------------------------------------------------------


def _sizes(listed: Iterable[Any]) -> tuple[SizeFacts, ...] | None:
    rows = [_wire(one) for one in listed]
    told = any(MANAGED in _types(row) for row in rows)
    return tuple(
        SizeFacts(
            name=str(row["name"]),
            family=str(row.get("family") or ""),
            vcpus=_whole(row.get("vcpus")),
            gpus=_whole(row.get("gpus")),
            disk_gb=_whole(row.get("maxresourcevolumemb")) / 1024,
            managed=MANAGED in _types(row) if told else None,
        )
        for row in rows
    )


def _types(row: Mapping[str, Any]) -> list[str]:
    given = row.get("supportedcomputetypes") or ()
    names = given.split(",") if isinstance(given, str) else given
    return [str(name).strip().lower() for name in names]


def _usage(listed: Iterable[Any]) -> tuple[UsageFacts, ...]:
    """Of dedicated cores: those of low priority stand beside them under the same name."""
    found: list[UsageFacts] = []
    for row in map(_wire, listed):
        name = _wire(row["name"])
        family = str(name.get("value") or name.get("localizedvalue") or "")
        if not family or _LOW_PRIORITY in f"{family} {row.get('type') or ''}".lower():
            continue
        limit = int(row["limit"])
        found.append(UsageFacts(family, _whole(row.get("currentvalue")), None if limit < 0 else limit))
    return tuple(found)


def _wire(one: Any) -> dict[str, Any]:
    """The fields of an object of the SDK, or of a dict of its, with names without dashes and capitals.

    ``list_sizes()`` and ``list_usage()`` of azure-ai-ml 1.35 leave the documented attributes (``current_value``) at
    ``None`` and keep the values under the names that they have on the wire (``currentValue``).
    """
    fields: dict[str, Any] = {}
    given = cast("dict[str, Any]", one if isinstance(one, dict) else vars(one))
    for name, value in given.items():
        key = name.replace("_", "").lower()
        if fields.get(key) is None:
            fields[key] = value
    return fields


def _whole(value: Any) -> int:
    return int(value or 0)


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def _read_compute(reading: _Reading, cluster: Cluster, facts: OnlineFacts) -> OnlineFacts:
    unseen = ComputeFacts("")

    def read() -> ComputeFacts | None:
        try:
            return compute_facts(reading.client.compute.get(cluster.name))
        except Exception as error:
            if is_absent(error):
                return None
            raise

    found = reading.look(f"the compute {cluster.name!r}", read, unseen)
    return replace(facts, compute=None if found is unseen else found, compute_read=found is not unseen)


def _instance_type(name: str, given: dict[str, Any] | None) -> InstanceTypeFacts:
    resources: dict[str, Any] = (given or {}).get("resources") or {}
    limits: dict[str, Any] = resources.get("limits") or {}
    return InstanceTypeFacts(
        name=name,
        gpus=int(float(limits.get(_GPU_LIMIT) or 0)),
        cpu_cores=_quantity(limits.get("cpu")),
        memory_gb=_gigabytes(limits.get("memory")),
    )


_SUFFIXES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3}


def _quantity(text: Any) -> float | None:
    """A quantity of Kubernetes (``500m``, ``24Gi``) as a number, ``None`` where it is none."""
    if text is None:
        return None
    given = str(text).strip()
    suffix = next((one for one in _SUFFIXES if given.endswith(one)), "")
    try:
        return float(given.removesuffix(suffix)) * _SUFFIXES.get(suffix, 1)
    except ValueError:
        return None


def _gigabytes(text: Any) -> float | None:
    """Memory as in ``memory_gb=``, which Kubernetes is told in Gi."""
    quantity = _quantity(text)
    return None if quantity is None else quantity / 2**30


# --- what could not be seen -------------------------------------------------------------------------------------------


def _unchecked(what: list[str], why: str) -> Finding:
    fix = "The deployment is tried all the same."
    if " 403" in why:  # sizes and quotas are the subscription's, so that a role in the workspace does not show them
        fix += " The role Reader on the subscription shows them."
    return Finding("warning", "unchecked", f"Not to be seen, and so not checked: {' and '.join(what)}. {why}", fix)


def _why(error: Exception) -> str:
    """Why something could not be read, in a sentence."""
    if isinstance(error, NoAnswerError):
        return str(error)
    status = status_of(error)
    code = getattr(getattr(error, "error", None), "code", None)
    if status is not None:
        return f"Azure answers {status}{f' ({code})' if code else ''}."
    if isinstance(error, AttributeError | KeyError | TypeError | ValueError):  # the SDK's own, or ours above
        return "Azure's answer has not the shape that is known of it."
    said = blotted(str(getattr(error, "message", "") or error).strip().partition("\n")[0])[:_MOST_SAID].rstrip(".")
    return f"{said or type(error).__name__}."
