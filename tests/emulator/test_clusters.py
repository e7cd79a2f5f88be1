"""Clusters: options that are kept, clusters that are attached, updated and detached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpu_infer.emulator import Emulator, Fault

OUTSIDE = "/subscriptions/s/resourcegroups/theirs/providers/Microsoft.ContainerService/managedClusters/their-aks"


def attach(ws: Any, name: str = "attached", **options: Any) -> Any:
    from azureml.core.compute import AksCompute, ComputeTarget

    return ComputeTarget.attach(ws, name, AksCompute.attach_configuration(resource_id=OUTSIDE, **options))


def test_sizes_and_purpose_have_azures_defaults(ws: Any) -> None:
    from azureml.core.compute import AksCompute, ComputeTarget

    plain = ComputeTarget.create(ws, "plain", AksCompute.provisioning_configuration())
    assert (plain.agent_vm_size, plain.agent_count, plain.cluster_purpose) == ("Standard_D3_v2", 3, "FastProd")
    purpose = AksCompute.ClusterPurpose.DEV_TEST
    small = ComputeTarget.create(ws, "small", AksCompute.provisioning_configuration(cluster_purpose=purpose))
    assert (small.agent_count, small.cluster_purpose) == (1, "DevTest")


def test_ssl_and_network_options_are_kept_but_not_the_key(emulator: Emulator, ws: Any, tmp_path: Path) -> None:
    from azureml.core.compute import AksCompute, ComputeTarget

    (tmp_path / "cert.pem").write_text("certificate")
    (tmp_path / "key.pem").write_text("secret")
    config = AksCompute.provisioning_configuration(
        vm_size="Standard_NC4as_T4_v3",
        location="westus2",
        vnet_resourcegroup_name="nets",
        vnet_name="net",
        subnet_name="sub",
        service_cidr="10.0.0.0/16",
        dns_service_ip="10.0.0.10",
        docker_bridge_cidr="172.17.0.1/16",
        load_balancer_type="InternalLoadBalancer",
        load_balancer_subnet="sub",
    )
    config.enable_ssl("www.example.org", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    cluster = ComputeTarget.create(ws, "aks-ssl", config)
    assert (cluster.cluster_location, cluster.load_balancer_type) == ("westus2", "InternalLoadBalancer")
    ssl = cluster.ssl_configuration
    assert (ssl.status, ssl.cname, ssl.cert, ssl.key) == ("Enabled", "www.example.org", None, None)
    shown: Any = ComputeTarget._get(ws, "aks-ssl")
    assert shown["properties"]["properties"]["aksNetworkingConfiguration"]["subnetId"].endswith(
        "/virtualNetworks/net/subnets/sub"
    )
    sent = next(request.body for request in emulator.requests if request.operation == "compute.create")
    assert sent["properties"]["properties"]["sslConfiguration"]["key"] == "secret"


def test_ssl_can_be_changed_on_a_cluster_that_runs(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.core.compute.aks import AksUpdateConfiguration, SslConfiguration

    cluster = steps.cluster(ws)
    cluster.update(AksUpdateConfiguration(ssl_configuration=SslConfiguration(leaf_domain_label="mine")))
    cluster.wait_for_completion()
    assert (cluster.ssl_configuration.status, cluster.ssl_configuration.leaf_domain_label) == ("Auto", "mine")
    assert "compute.update" in [request.operation for request in emulator.requests]
    assert emulator.billed() == ["aks-gpu"]


def test_an_attached_cluster_is_used_and_only_detached(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.core.compute import ComputeTarget
    from azureml.exceptions import ComputeTargetException

    emulator.add_aks(OUTSIDE, vm_size="Standard_NC4as_T4_v3", nodes=2)
    cluster = attach(ws)
    cluster.wait_for_completion()
    assert (cluster.is_attached, cluster.cluster_resource_id, cluster.agent_vm_size) == (True, OUTSIDE, None)
    assert emulator.billed() == []
    model = steps.model(ws)
    assert steps.deploy(ws, cluster, [model], num_replicas=2).state == "Healthy"
    assert steps.deploy(ws, cluster, [model], "second").state == "Unschedulable"
    with pytest.raises(ComputeTargetException, match="cannot be deleted, only detached"):
        cluster.delete()
    cluster.detach()
    cluster.wait_for_completion(is_delete_operation=True)
    with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
        ComputeTarget(ws, "attached")
    assert attach(ws, "again").provisioning_state == "Succeeded"


def test_what_was_said_at_the_attaching_is_kept(emulator: Emulator, ws: Any) -> None:
    emulator.add_aks(OUTSIDE, vm_size="Standard_NC4as_T4_v3", nodes=2)
    cluster = attach(ws, cluster_purpose="DevTest", load_balancer_type="PublicIp")
    assert (cluster.cluster_purpose, cluster.load_balancer_type, cluster.agent_count) == ("DevTest", "PublicIp", None)


def test_an_unknown_cluster_cannot_be_attached(ws: Any) -> None:
    from azureml.exceptions import ComputeTargetException

    with pytest.raises(ComputeTargetException, match=r"Response Code: 404[\s\S]*their-aks"):
        attach(ws)


def test_a_cluster_of_ours_is_billed_even_when_detached(emulator: Emulator, ws: Any, steps: Any) -> None:
    cluster = steps.cluster(ws)
    cluster.detach()
    (left,) = emulator.billed()
    assert left == cluster.cluster_resource_id.rpartition("/")[2]


def test_a_failed_deletion_leaves_the_cluster_failed_and_billed(emulator: Emulator, ws: Any, steps: Any) -> None:
    cluster = steps.cluster(ws)
    emulator.add_fault(Fault("compute.delete", "fail_operation"))
    cluster.delete()
    assert cluster.get_status() == "Failed"
    assert cluster.provisioning_errors[0]["error"]["code"] == "InternalServerError"
    assert emulator.billed() == ["aks-gpu"]
    cluster.delete()
    assert emulator.billed() == []


def test_services_on_a_deleted_cluster_answer_no_more(ws: Any, steps: Any) -> None:
    from azureml.core import Webservice

    cluster = steps.cluster(ws)
    steps.deploy(ws, cluster, [steps.model(ws)])
    cluster.delete()
    found: Any = Webservice(ws, "gpu-rn")
    assert found.state == "Unhealthy"


def test_nothing_is_deployed_to_a_cluster_that_is_not_ready(emulator: Emulator, ws: Any, steps: Any) -> None:
    from azureml.exceptions import WebserviceException

    emulator.add_fault(Fault("compute.create", "fail_operation"))
    cluster = steps.cluster(ws)
    with pytest.raises(WebserviceException, match="aks-gpu is not in Succeeded state: Failed"):
        steps.deploy(ws, cluster, [steps.model(ws)])
