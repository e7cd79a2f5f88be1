"""Plans of online endpoints, made from what the real azure-ai-ml reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer.catalog import sizes
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import PreflightError, WorkspaceError
from gpu_infer.plans import Plan
from gpu_infer.preflight.facts import ComputeFacts, InstanceTypeFacts, SizeFacts, UsageFacts
from gpu_infer.spec import Cluster, ModelRef, Resources, Scale, ServiceSpec
from gpu_infer.targets.online import reading
from gpu_infer.targets.online.planning import make_plan
from gpu_infer.targets.online.reading import read_facts

T4 = "Standard_NC4as_T4_v3"
T4_FAMILY = "standardNCASv3_T4Family"
AKS_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/mine"


@pytest.fixture(autouse=True)
def _cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # each MLClient() sets it, for good


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    with Emulator(run_services=False) as started:
        yield started
        assert started.errors == []


def usage(name: str, used: int, limit: int, kind: str = "dedicatedCores") -> dict[str, Any]:
    """A line of the region's list of quotas, as Azure sends it."""
    return {
        "id": f"/subscriptions/s/providers/Microsoft.MachineLearningServices/locations/eastus/usages/{name}",
        "type": f"Microsoft.MachineLearningServices/vmFamily/{kind}/usages",
        "unit": "Count",
        "currentValue": used,
        "limit": limit,
        "name": {"value": name, "localizedValue": f"{name} Cluster Dedicated vCPUs"},
    }


def vm_size(name: str, family: str, vcpus: int, gpus: int, types: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "family": family,
        "vCPUs": vcpus,
        "gpus": gpus,
        "memoryGB": 28,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 180224,
        "supportedComputeTypes": types,
    }


SIZES = [
    vm_size(T4, T4_FAMILY, 4, 1, ["AmlCompute", "MIR"]),
    vm_size("Standard_NC64as_T4_v3", T4_FAMILY, 64, 4, ["AmlCompute", "MIR"]),
    vm_size("Standard_ND96isr_H200_v5", "standardNDISRH200V5Family", 96, 8, ["AmlCompute"]),
]
USAGES = [
    usage(T4_FAMILY, 0, 24),
    usage(T4_FAMILY, 0, 1, "lowPriorityCores"),
    usage("standardNDISRH200V5Family", 0, -1),
    usage("TotalDedicatedCores", 0, 300, "totalDedicatedCores"),
    usage("TotalLowPriorityCores", 0, 0, "lowPriorityCores"),
]
KUBERNETES = {
    "name": "k8s",
    "id": "/subscriptions/s/computes/k8s",
    "location": "eastus",
    "properties": {
        "computeType": "Kubernetes",
        "resourceId": AKS_ID,
        "provisioningState": "Succeeded",
        "properties": {
            "namespace": "default",
            "defaultInstanceType": "defaultinstancetype",
            "instanceTypes": {
                "defaultinstancetype": {"resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "8Gi"}}},
                "gpu": {"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "3500m", "memory": "24576Mi"}}},
                "odd": None,
            },
        },
    },
}


class Region:
    """What the region says to the SDK; its answers go through the SDK's own deserialization."""

    def __init__(self) -> None:
        self.sizes: Any = SIZES
        self.usages: Any = USAGES
        self.compute: Any = None

    def list_sizes(self) -> list[Any]:
        from azure.ai.ml._restclient.arm_ml_service.models import VirtualMachineSize
        from azure.ai.ml.entities import VmSize

        return [VmSize._from_rest_object(VirtualMachineSize(one)) for one in self._answer(self.sizes)]

    def list_usage(self) -> Iterator[Any]:
        from azure.ai.ml._restclient.arm_ml_service.models import Usage as RestUsage
        from azure.ai.ml.entities import Usage

        return (Usage._from_rest_object(RestUsage(one)) for one in self._answer(self.usages))

    def get(self, name: str) -> Any:
        from azure.ai.ml._restclient.arm_ml_service.models import ComputeResource
        from azure.ai.ml.entities import Compute
        from azure.core.exceptions import ResourceNotFoundError

        answer = self._answer(self.compute)
        if answer is None:
            raise ResourceNotFoundError(f"{name} is not there", response=response(404))
        return Compute._from_rest_object(ComputeResource(answer))

    @staticmethod
    def _answer(given: Any) -> Any:
        if isinstance(given, Exception):
            raise given
        return given() if callable(given) else given


def response(status: int) -> Any:
    from azure.core.pipeline.transport import RequestsTransportResponse
    from requests import Response

    inner = Response()
    inner.status_code, inner.reason = status, "as told"
    return RequestsTransportResponse(None, inner)  # type: ignore[arg-type]


def refusal(status: int, code: str = "") -> Exception:
    from azure.core.exceptions import HttpResponseError, ODataV4Format

    error = HttpResponseError("as told", response=response(status))
    error.error = ODataV4Format({"error": {"code": code, "message": "as told"}}) if code else None
    return error


@pytest.fixture
def region(emulator: Emulator) -> Region:
    return Region()


@pytest.fixture
def client(emulator: Emulator, region: Region, monkeypatch: pytest.MonkeyPatch) -> Any:
    client = emulator.ml_client()
    for verb in ("list_sizes", "list_usage", "get"):
        monkeypatch.setattr(client.compute, verb, getattr(region, verb))
    return client


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a real network")
    return path


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "score.py"
    path.write_text("def init(): ...\ndef run(data): ...\n")
    return path


@pytest.fixture
def spec_of(network: Path, script: Path) -> Callable[..., ServiceSpec]:
    def spec_of(name: str = "gpu-rn", **changes: Any) -> ServiceSpec:
        base = {
            "model": ModelRef("net", path=network),
            "target": "online",
            "template": "onnx",
            "entry_script": script,
            "resources": Resources(vm_size=T4),
        }
        return ServiceSpec(name, **{**base, **changes})

    return spec_of


SpecOf = Callable[..., ServiceSpec]


def codes(made: Plan) -> list[tuple[str, str]]:
    print(made)
    return [(finding.level, finding.code) for finding in made.findings]


def test_a_managed_endpoint(client: Any, spec_of: SpecOf, network: Path):
    made = make_plan(client, spec_of(scale=Scale(2)))
    assert codes(made) == []
    assert made.spec.resources.vm_size == T4
    assert (made.vm_size, made.nodes, made.template) == (T4, 2, "onnx")
    assert made.price_per_hour == pytest.approx(2 * 0.526)
    assert made.creates == (
        f"model net (registered from {network})",
        "endpoint gpu-rn",
        f"deployment blue (2 x {T4})",
    )
    assert made.quota == f"12 = ceil(1.2 x 2) x 4 cores; 0 of 24 used in {T4_FAMILY}"


def test_what_the_region_says_becomes_facts(client: Any, spec_of: SpecOf):
    facts, unseen = read_facts(client, spec_of())
    assert unseen == []
    assert facts.sizes is not None
    assert facts.sizes[0] == SizeFacts(T4, T4_FAMILY, 4, 1, 176.0, managed=True)
    assert [size.managed for size in facts.sizes] == [True, True, False]
    assert facts.usage == (
        UsageFacts(T4_FAMILY, 0, 24),
        UsageFacts("standardNDISRH200V5Family", 0, None),
        UsageFacts("TotalDedicatedCores", 0, 300),
    ), "cores of low priority stand in the same list under the same names"


def test_a_list_that_marks_no_size_for_managed_endpoints_says_nothing_of_them(
    client: Any, region: Region, spec_of: SpecOf
):
    region.sizes = [{**one, "supportedComputeTypes": None} for one in SIZES]
    facts, unseen = read_facts(client, spec_of())
    assert unseen == []
    assert [size.managed for size in facts.sizes or ()] == [None, None, None]


def test_the_size_of_the_tutorials_becomes_its_successor(client: Any, spec_of: SpecOf):
    made = make_plan(client, spec_of(resources=Resources()))
    assert codes(made) == [("warning", "vm-retired")]
    assert "$0.90 per hour and instance" in made.findings[0].message
    assert "$0.53 per hour and instance" in made.findings[0].message
    assert made.spec.resources.vm_size == made.vm_size == T4
    kept = make_plan(client, spec_of(resources=Resources(), replace_retired=False))
    assert codes(kept)[0] == ("error", "vm-retired")


def test_too_little_quota_is_an_error_before_anything_is_created(client: Any, region: Region, spec_of: SpecOf):
    region.usages = [usage(T4_FAMILY, 0, 6)]
    made = make_plan(client, spec_of())
    assert codes(made) == [("error", "quota")]
    assert "needs 8 = ceil(1.2 x 1) x 4 cores; used 0 of 6." in made.findings[0].message
    assert "Ask for 8 in family" in made.findings[0].fix


def test_sizes_that_managed_endpoints_do_not_take(client: Any, spec_of: SpecOf):
    made = make_plan(client, spec_of(resources=Resources(8, vm_size="Standard_ND96isr_H200_v5")))
    assert codes(made) == [("error", "vm-managed")]


def test_a_registered_model_gets_its_version_and_template(client: Any, spec_of: SpecOf, network: Path):
    from azure.ai.ml.entities import Model

    client.models.create_or_update(Model(name="seen", path=str(network), type="custom_model"))
    made = make_plan(client, spec_of(model=ModelRef("seen"), template=None, entry_script=None))
    assert codes(made) == []
    assert (made.spec.model, made.template) == (ModelRef("seen", version="1"), "onnx")
    assert made.creates[0] == "endpoint gpu-rn"
    missing = make_plan(client, spec_of(model=ModelRef("unseen"), template=None, entry_script=None))
    assert ("error", "model-missing") in codes(missing)


def test_a_model_of_tritons_needs_no_template(client: Any, spec_of: SpecOf, network: Path):
    from azure.ai.ml.entities import Model

    client.models.create_or_update(Model(name="served", path=str(network.parent), type="triton_model"))
    made = make_plan(client, spec_of(model=ModelRef("served"), template=None, entry_script=None))
    assert codes(made) == []
    assert made.template == "none"


# --- what is there already --------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(client: Any, network: Path) -> str:
    """An endpoint with a deployment that has all of its requests."""
    from azure.ai.ml import entities

    name = "in-use"
    client.models.create_or_update(entities.Model(name="old", path=str(network), type="custom_model"))
    client.online_endpoints.begin_create_or_update(entities.ManagedOnlineEndpoint(name=name)).result()
    code = entities.CodeConfiguration(code=str(network.parent), scoring_script="score.py")
    (network.parent / "score.py").write_text("def init(): ...\ndef run(data): ...\n")
    client.online_deployments.begin_create_or_update(
        entities.ManagedOnlineDeployment(
            name="blue",
            endpoint_name=name,
            model="azureml:old:1",
            environment=entities.Environment(name="env", version="1", image="image"),
            code_configuration=code,
            instance_type=T4,
            instance_count=2,
        )
    ).result()
    endpoint = client.online_endpoints.get(name)
    endpoint.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(endpoint).result()
    return name


def test_a_name_that_is_taken(client: Any, spec_of: SpecOf, deployed: str):
    made = make_plan(client, spec_of(deployed.upper()))
    assert codes(made) == [("error", "name-taken")]


def test_an_update_goes_beside_what_serves(client: Any, region: Region, spec_of: SpecOf, deployed: str):
    made = make_plan(client, spec_of(deployed, overwrite=True))
    assert codes(made) == [("info", "replaces")]
    assert f"serves blue (2 x {T4}). Deployment 'green' gets its requests" in made.findings[0].message
    assert made.creates[1:] == (f"deployment green (1 x {T4})",)
    region.usages = [usage(T4_FAMILY, 12, 16)]
    short = make_plan(client, spec_of(deployed, overwrite=True))
    assert [finding.code for finding in short.errors] == ["quota"]
    assert f"What is replaced, blue (2 x {T4}), holds its cores until the new one serves." in short.errors[0].message


def test_an_endpoint_of_another_kind(client: Any, region: Region, spec_of: SpecOf, deployed: str):
    region.compute = KUBERNETES
    cluster = Cluster("k8s", vm_size="")
    made = make_plan(client, spec_of(deployed, overwrite=True, cluster=cluster, resources=Resources()))
    assert ("error", "endpoint-kind") in codes(made)


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def on_kubernetes(spec_of: SpecOf, **changes: Any) -> ServiceSpec:
    return spec_of(**{"cluster": Cluster("k8s", vm_size=""), "resources": Resources(), **changes})


def test_an_endpoint_on_kubernetes(client: Any, region: Region, spec_of: SpecOf):
    region.compute = KUBERNETES
    made = make_plan(client, on_kubernetes(spec_of, scale=Scale(1, max_replicas=3)))
    assert codes(made) == [("info", "cluster-size-unknown")]
    assert made.spec.resources.vm_size == "gpu"
    assert (made.vm_size, made.nodes, made.price_per_hour, made.quota) == ("", 0, 0.0, "")
    assert made.creates[1:] == ("endpoint gpu-rn", "deployment blue (1 to 3 x gpu on k8s)")
    facts, _ = read_facts(client, on_kubernetes(spec_of))
    assert facts.compute == ComputeFacts(
        "k8s",
        instance_types=(
            InstanceTypeFacts("defaultinstancetype", 0, None, 8.0),
            InstanceTypeFacts("gpu", 1, 3.5, 24.0),
            InstanceTypeFacts("odd"),
        ),
        default="defaultinstancetype",
    )


def test_a_compute_that_is_not_there_or_is_something_else(client: Any, region: Region, spec_of: SpecOf):
    assert codes(make_plan(client, on_kubernetes(spec_of))) == [("error", "cluster-missing")]
    region.compute = {**KUBERNETES, "properties": {"computeType": "AKS", "resourceId": AKS_ID, "properties": {}}}
    made = make_plan(client, on_kubernetes(spec_of))
    assert codes(made) == [("error", "cluster-type")]
    assert "If it is an AksCompute: online endpoints do not run on those" in made.findings[0].message


def test_a_compute_that_names_no_instance_types(client: Any, region: Region, spec_of: SpecOf):
    properties = {**KUBERNETES["properties"], "properties": {"namespace": "default"}}
    region.compute = {**KUBERNETES, "properties": properties}
    made = make_plan(client, on_kubernetes(spec_of))
    assert codes(made) == [("warning", "instance-type"), ("info", "cluster-size-unknown")]
    assert made.spec.resources.vm_size is None
    assert made.creates[-1] == "deployment blue (1 replica on k8s)"


# --- what cannot be read ----------------------------------------------------------------------------------------------

UNREADABLE: list[tuple[str, Any, str]] = [
    ("forbidden", lambda: refusal(403, "AuthorizationFailed"), "Azure answers 403 (AuthorizationFailed)."),
    ("absent", lambda: refusal(404), "Azure answers 404."),
    ("broken", lambda: refusal(500, "InternalServerError"), "Azure answers 500 (InternalServerError)."),
    ("odd", lambda: AttributeError("'NoneType' object has no attribute 'value'"), "has not the shape that is known"),
    ("unreachable", lambda: ConnectionError("no route\nto host"), "no route."),
]


@pytest.mark.parametrize(("make", "why"), [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
@pytest.mark.parametrize(
    ("what", "named"),
    [("sizes", "the region's VM sizes"), ("usages", "the region's quotas"), ("compute", "the compute")],
)
def test_what_cannot_be_read_is_said_and_stops_nothing(
    client: Any, region: Region, spec_of: SpecOf, what: str, named: str, make: Any, why: str
):
    setattr(region, what, make())
    made = make_plan(client, on_kubernetes(spec_of) if what == "compute" else spec_of())
    found = [finding for finding in made.findings if finding.code == "unchecked"]
    if what == "compute" and "404" in why:
        assert found == [], "there is none, which is known then"
        return
    print(found)
    (finding,) = found
    assert named in finding.message
    assert why in finding.message
    assert ("role Reader" in finding.fix) == ("403" in why)
    assert made.errors == ()
    assert made.price_per_hour == pytest.approx(0.0 if what == "compute" else 0.526)


@pytest.mark.parametrize(
    "rows",
    [
        [{"name": None}],
        [{"name": {"value": "x"}, "limit": "much"}],
        [{"limit": 1}],
        [None],
        "none",
    ],
)
def test_an_answer_of_another_shape_is_no_answer(client: Any, region: Region, spec_of: SpecOf, rows: Any):
    region.usages = rows
    assert codes(make_plan(client, spec_of())) == [("warning", "unchecked")]


def test_what_cannot_be_read_for_one_reason_is_said_once(client: Any, region: Region, spec_of: SpecOf):
    region.sizes = region.usages = refusal(403, "AuthorizationFailed")
    (finding,) = make_plan(client, spec_of()).findings
    assert finding.message == (
        "Not to be seen, and so not checked: the region's VM sizes and the region's quotas. Azure answers 403 "
        "(AuthorizationFailed)."
    )


def test_endpoints_that_cannot_be_listed(client: Any, emulator: Emulator, spec_of: SpecOf, deployed: str):
    emulator.add_fault(Fault("endpoints.list", status=403))
    made = make_plan(client, spec_of(deployed))
    assert codes(made) == [("warning", "unchecked")]
    assert "the endpoints. Azure answers 403 (AuthorizationFailed)." in made.findings[0].message


def test_deployments_that_cannot_be_listed(client: Any, emulator: Emulator, spec_of: SpecOf, deployed: str):
    emulator.add_fault(Fault("deployments.list", status=403))
    made = make_plan(client, spec_of(deployed, overwrite=True))
    assert codes(made) == [("info", "replaces"), ("warning", "unchecked")]
    assert made.findings[0].message == f"Endpoint {deployed!r} is there; it is kept."
    assert f"the deployments of endpoint {deployed!r}" in made.findings[1].message


def test_an_answer_that_does_not_come_is_not_waited_for(
    client: Any, region: Region, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.05)
    over = threading.Event()
    region.sizes = lambda: over.wait() and []
    try:
        (finding,) = make_plan(client, spec_of()).findings
    finally:
        over.set()
    assert "the region's VM sizes. Azure gave no answer within 0.05 s." in finding.message


def test_without_a_login_there_is_no_plan(client: Any, region: Region, spec_of: SpecOf):
    from azure.core.exceptions import ClientAuthenticationError

    region.sizes = ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token")
    with pytest.raises(WorkspaceError):
        make_plan(client, spec_of())


# --- the way in, with what the emulator has of region and computes ----------------------------------------------------


def test_a_name_that_we_made_up_gets_a_number(client: Any, network: Path, script: Path, deployed: str):
    path = network.rename(network.parent / deployed)
    made = gpu_infer.plan(path, client, vm_size=T4, template="onnx", entry_script=script)
    assert codes(made) == []
    assert made.spec.name == f"{deployed}-2"
    assert f"endpoint {deployed}-2" in made.creates


def test_plan_takes_an_ml_client(client: Any, network: Path, script: Path):
    made = gpu_infer.plan(network, client, name="gpu-rn", replicas=2, template="onnx", entry_script=script)
    assert codes(made) == [("warning", "vm-retired")]
    text = str(made)
    assert "endpoint      managed, new" in text
    assert "$1.05 per hour, $768 per month" in text
    assert {size.name for size in sizes()} >= {made.vm_size}


@pytest.fixture
def whole(emulator: Emulator) -> Iterator[Any]:
    """A client that asks the emulator for everything."""
    yield emulator.ml_client()
    emulator.set_quota("standard NCASv3_T4 Family", 10_000)


def test_a_deployment_without_quota_creates_nothing(network: Path, script: Path, home: Path):
    asked = {"name": "short", "vm_size": T4, "template": "onnx", "entry_script": script}
    with Emulator(run_services=False, quota={"standard NCASv3_T4 Family": 11}) as emulator:
        client = emulator.ml_client()
        assert codes(gpu_infer.plan(network, client, **asked, replicas=1)) == []
        with pytest.raises(PreflightError, match=r"needs 12 = ceil\(1.2 x 2\) x 4 cores; used 0 of 11") as caught:
            gpu_infer.deploy(network, client, **asked, replicas=2)
        assert {call.method for call in emulator.requests} <= {"GET", "CONNECT"}
    assert "Or lower replicas= to 1." in str(caught.value)


def test_what_serves_takes_of_the_quota_of_what_comes(emulator: Emulator, whole: Any, spec_of: SpecOf, deployed: str):
    used = 12  # ceil(1.2 x 2) x 4, which the endpoint of the fixture holds
    emulator.set_quota("standard NCASv3_T4 Family", used + 8)
    made = make_plan(whole, spec_of(deployed, overwrite=True))
    assert codes(made) == [("info", "replaces")]
    assert made.quota == f"8 = ceil(1.2 x 1) x 4 cores; {used} of 20 used in standard NCASv3_T4 Family"
    emulator.set_quota("standard NCASv3_T4 Family", used + 7)
    assert [finding.code for finding in make_plan(whole, spec_of(deployed, overwrite=True)).errors] == ["quota"]


def test_an_attached_cluster_of_the_emulator(emulator: Emulator, whole: Any, spec_of: SpecOf):
    from azure.ai.ml.entities import KubernetesCompute

    emulator.add_aks(AKS_ID, vm_size=T4, nodes=2)
    types = {"gpu": {"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "3", "memory": "16Gi"}}}}
    properties = {"instanceTypes": types, "defaultInstanceType": "gpu"}
    whole.compute.begin_attach(KubernetesCompute(name="k8s", resource_id=AKS_ID, properties=properties)).result()
    made = make_plan(whole, on_kubernetes(spec_of, scale=Scale(2)))
    assert codes(made) == [("info", "cluster-size-unknown")]
    assert made.creates[-1] == "deployment blue (2 x gpu on k8s)"
