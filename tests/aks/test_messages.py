"""What people are told on their way to AKS where something is wrong: the words, and the next step in them."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_infer
from gpu_infer import Cluster
from gpu_infer.cli import main
from gpu_infer.emulator import Emulator, Fault
from gpu_infer.errors import PreflightError, UnsupportedError
from gpu_infer.targets.aks import workspace_from

T4 = "Standard_NC4as_T4_v3"

pytestmark = pytest.mark.usefixtures("home")


def plan(workspace: Any, model: str, **options: Any) -> gpu_infer.Plan:
    return gpu_infer.plan(model, workspace, cluster=Cluster("gpus", vm_size=T4), **options)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["7", "abc", ""])
def test_a_version_that_there_is_not(workspace: Any, register: Callable[..., Any], version: str) -> None:
    register(workspace)
    register(workspace)
    (error,) = plan(workspace, f"net:{version}").errors
    assert str(error) == (
        f"Model 'net:{version}' is not registered in workspace 'emulated', and there is no such path here. "
        "Of 'net' there are versions 1, 2. Without a version the newest is taken."
    )


def test_a_version_of_the_only_one(workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    assert "Of 'net' there is version 1." in str(plan(workspace, "net:2").errors[0])
    with pytest.raises(PreflightError, match="Of 'net' there is version 1"):
        gpu_infer.plan("net:2", workspace, target="local")


def test_a_path_that_is_not_there(workspace: Any) -> None:
    (error,) = plan(workspace, "models/nosuch").errors
    assert str(error) == (
        "There is no model at models/nosuch. "
        "Give the path of a model file or folder, or the name of a registered model."
    )
    (error,) = gpu_infer.plan("models/nosuch").errors
    assert "a registered model needs a workspace as second argument" in str(error)


def test_a_path_with_a_colon_is_a_path(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net:best").write_bytes(b"")
    assert plan(workspace, "net:best").spec.model.path == Path("net:best")


# --- workspaces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json", "config.json cannot be read as the config.json of a workspace: Expecting value"),
        ("[]", "it has no subscription_id, no resource_group, no workspace_name."),
        ('{"subscription_id": "a", "resource_group": ""}', "it has no resource_group, no workspace_name."),
    ],
)
@pytest.mark.parametrize("named", ["config.json", "."])
def test_a_broken_config_json(
    text: str,
    says: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(text)
    with pytest.raises(PreflightError) as caught:
        workspace_from(Path(named))
    assert says in str(caught.value)
    assert "config.json" in str(caught.value).partition("It needs")[0]
    assert "It needs subscription_id, resource_group, workspace_name; the Azure portal" in str(caught.value)
    assert main(["ls", "-w", named]) == 1
    assert "support request" not in capsys.readouterr().err


def test_a_folder_without_config_json(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"There is no config\.json in .*, nor in a folder above it"):
        workspace_from(tmp_path)


# --- services ---------------------------------------------------------------------------------------------------------


def test_keys_that_there_are_not(emulator: Emulator, workspace: Any, register: Callable[..., Any]) -> None:
    register(workspace)
    with gpu_infer.deploy("net", workspace, name="svc", cluster=Cluster("gpus", vm_size=T4), auth="token") as service:
        emulator.clear_log()
        with pytest.raises(UnsupportedError, match=r'scored with tokens \(auth="token"\), so there are no keys'):
            service.rotate_keys()
        assert not [call for call in emulator.requests if "key" in call.operation]


def test_a_port_means_nothing_in_azure(
    emulator: Emulator, workspace: Any, register: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    register(workspace)
    made = plan(workspace, "net", environment_variables={"SERVER_PORT": "5001", "A": "1"})
    assert [(one.level, one.code) for one in made.findings if "port" in one.code] == [("warning", "port")]
    assert made.spec.environment_variables == {"A": "1"}
    capsys.readouterr()
    assert main(["plan", "net", "-w", emulator.url, "--vm-size", T4, "--port", "5001"]) == 0
    assert "Warning: --port chooses a port of this machine, and is left out in Azure." in capsys.readouterr().out


@pytest.mark.parametrize("command", [["score", "svc", "x.jpg"], ["logs", "svc"], ["stats", "svc"]])
def test_a_service_that_is_looked_for_here_and_may_be_there(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "There is no local service 'svc'." in err
    assert "If it runs in Azure, name the workspace: -w WHERE, or the variable GPU_INFER_WORKSPACE." in err


def test_the_price_of_a_cluster_is_counted_once(
    emulator: Emulator,
    workspace: Any,
    register: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table leaves the price out
    register(workspace)
    for name, cluster in (("one", "gpus"), ("two", "gpus"), ("three", "others")):
        gpu_infer.deploy("net", workspace, name=name, cluster=Cluster(cluster, vm_size=T4, nodes=3))
    found = gpu_infer.services(workspace)
    assert {one.name: one.cluster for one in found} == {"one": "gpus", "two": "gpus", "three": "others"}
    price = gpu_infer.attach("two", workspace).price_per_hour
    assert price == pytest.approx(3 * 0.526)
    assert sorted(one.price_per_hour for one in found) == [0, price, price]
    assert sum(one.price_per_hour for one in gpu_infer.leftovers(workspace)) == pytest.approx(2 * price)
    capsys.readouterr()
    assert main(["ls", "-w", emulator.url]) == 0
    shown = capsys.readouterr().out
    assert (shown.count("1.58"), shown.count("shared")) == (2, 1)
    assert main(["ls", "-w", emulator.url, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert sum(one["price_per_hour"] for one in listed) == pytest.approx(2 * price)
    assert {one["cluster"] for one in listed} == {"gpus", "others"}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises: a process that a shell has started in the background ignores it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_ctrl_c_has_removed_and_left(
    emulator: Emulator,
    workspace: Any,
    register: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    interruptible: None,
) -> None:
    register(workspace)
    command = ["deploy", "net", "-w", emulator.url, "--cluster", "gpus", "--vm-size", T4, "--name", "svc"]

    def interrupt(_request: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    emulator.add_fault(Fault("services.create", "call_before", call=interrupt))
    assert main(command) == 130
    assert "Interrupted.\nRemoved: service svc, cluster gpus." in capsys.readouterr().err
    assert emulator.billed() == []
    emulator.add_fault(Fault("services.create", "call_before", call=interrupt))
    emulator.add_fault(Fault("compute.delete", "status", status=400, times=None))
    assert main(command) == 130
    err = capsys.readouterr().err
    assert "cluster 'gpus' may exist and be billed; gpu-infer sweep -w WHERE removes it" in err
    assert emulator.billed() == ["gpus"]


def test_nothing_secret_is_logged_while_we_call(
    workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"not looked at")
    (tmp_path / "own.py").write_text("def init(): ...\ndef run(data): return data\n")
    with caplog.at_level(logging.DEBUG):
        gpu_infer.deploy("net.onnx", workspace, cluster=Cluster("gpus", vm_size=T4), entry_script="own.py").delete()
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "sig=***" in said
    assert not re.search(r"sig=(?!\*)|Bearer (?!\*)|\beyJ", said)
    assert not any(logging.getLogger(name).filters for name in ("urllib3.connectionpool", "msrest.http_logger"))
