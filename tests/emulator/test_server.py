"""The emulator as a server: HTTP, TLS and proxy; starting, stopping, and what it leaves behind."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_infer.emulator import Emulator, variables, workspace

METADATA = "/metadata/endpoints"


def talk(emulator: Emulator, text: str) -> bytes:
    """Send text as it is; what comes back until the connection ends."""
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_one_connection_serves_many_requests(emulator: Emulator) -> None:
    with closing(HTTPConnection(emulator.url.removeprefix("http://"), timeout=10)) as connection:
        connection.connect()
        ours = connection.sock.getsockname()
        for _ in range(3):
            connection.request("GET", METADATA)
            answer = connection.getresponse()
            assert (answer.status, answer.version, len(answer.read())) == (
                200,
                11,
                int(answer.headers["Content-Length"]),
            )
        assert connection.sock.getsockname() == ours


def test_bodies_may_come_in_chunks(emulator: Emulator) -> None:
    form = iter([b"client_secret=", b"emulator", b"&scope=x/.default"])
    answer = requests.post(f"{emulator.url}/tenant/oauth2/v2.0/token", data=form, timeout=10)
    assert answer.json()["token_type"] == "Bearer"


def test_a_client_that_waits_for_leave_to_send_gets_it(emulator: Emulator) -> None:
    head = "POST /tenant/oauth2/v2.0/token HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 22\n\n"
    answer = talk(emulator, f"{head}client_secret=emulator")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_a_client_that_goes_away_in_the_middle_does_no_harm(emulator: Emulator) -> None:
    assert talk(emulator, "POST /tenant/oauth2/v2.0/token HTTP/1.1\nContent-Length: 99\n\nonly this") == b""
    assert requests.get(emulator.url + METADATA, timeout=10).ok
    assert [request.operation for request in emulator.requests] == ["metadata.get"]


def test_slashes_may_be_doubled(emulator: Emulator) -> None:
    assert requests.get(f"{emulator.url}//metadata//endpoints", timeout=10).ok


def test_unknown_paths_and_methods_are_named_in_the_log(emulator: Emulator) -> None:
    assert requests.get(f"{emulator.url}/nothing", timeout=10).status_code == 404
    wrong = requests.delete(emulator.url + METADATA, timeout=10)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "MethodNotAllowed")
    assert [(request.operation, request.status) for request in emulator.requests] == [
        ("unmatched", 404),
        ("unmatched", 405),
    ]


def test_the_certificate_is_trusted_through_the_file_only(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert requests.get(emulator.tls_url + METADATA, verify=str(emulator.ca_file), timeout=10).ok
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(emulator.tls_url + METADATA, timeout=10)


def test_a_strict_client_takes_the_certificates(emulator: Emulator) -> None:
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    host, port = emulator.tls_url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        certificate: Any = secure.getpeercert()
        assert ("IP Address", "127.0.0.1") in certificate["subjectAltName"]


def test_the_file_holds_what_was_trusted_before(tmp_path: Path) -> None:
    (tmp_path / "mine.pem").write_text("a certificate of mine\n")
    code = "from gpu_infer.emulator import Emulator\nwith Emulator() as emulator: print(emulator.ca_file.read_text())"
    environment = {**os.environ, "REQUESTS_CA_BUNDLE": str(tmp_path / "mine.pem")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("-----BEGIN CERTIFICATE-----")
    assert "a certificate of mine" in done.stdout


def test_the_proxy_leads_nowhere_else(emulator: Emulator) -> None:
    proxies = {"https": emulator.url}
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get("https://example.org/", proxies=proxies, timeout=10)
    trusted = str(emulator.ca_file)
    answer = requests.get("https://management.azure.com" + METADATA, proxies=proxies, verify=trusted, timeout=10)
    assert answer.json()[0]["name"] == "AzureMLEmulator"


def test_it_listens_on_loopback_only(emulator: Emulator) -> None:
    import psutil

    addresses = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections(kind="tcp")
        if connection.status == "LISTEN" and str(connection.laddr.port) in emulator.url + emulator.tls_url
    }
    assert addresses == {"127.0.0.1"}


@pytest.fixture
def threads() -> Iterator[None]:
    """No thread of an emulator may be left."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if "emulator" in thread.name]
    assert left == []


def test_nothing_is_left_when_it_stops(threads: None, tmp_path: Path) -> None:
    session = requests.Session()
    with Emulator(run_services=False, folder=tmp_path / "here") as emulator:
        url = emulator.url
        assert session.get(url + METADATA, timeout=10).ok  # this connection stays open
        assert list((tmp_path / "here").iterdir()) == [emulator.folder]
    assert list((tmp_path / "here").iterdir()) == []
    with pytest.raises(requests.exceptions.ConnectionError):
        session.get(url + METADATA, timeout=10)
    session.close()
    emulator.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = emulator.url


def test_it_can_be_started_again_and_is_empty_then(start: Callable[..., Emulator], steps: Any) -> None:
    emulator = start()
    steps.cluster(emulator.workspace())
    with pytest.raises(RuntimeError, match="runs already"):
        emulator.start()
    emulator.stop()
    emulator.start()
    assert (emulator.billed(), emulator.requests) == ([], [])
    assert emulator.workspace().compute_targets == {}


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing(emulator: Emulator, threads: None, tmp_path: Path) -> None:
    port = int(emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        Emulator(tls_port=port, folder=tmp_path / "here").start()
    assert list((tmp_path / "here").iterdir()) == []


def test_the_environment_is_put_back_after_the_last_one(sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/mine.pem")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    with Emulator(run_services=False) as first:
        first.workspace()
        with Emulator(run_services=False) as second:
            second.workspace()
            assert os.environ["NO_PROXY"] == "example.org,127.0.0.1"
        assert os.environ["REQUESTS_CA_BUNDLE"] == str(first.ca_file)
        assert requests.get(first.tls_url + METADATA, timeout=10).ok
    assert (os.environ["REQUESTS_CA_BUNDLE"], os.environ["NO_PROXY"]) == ("/mine.pem", "example.org")
    assert "no_proxy" not in os.environ


def test_two_emulators_do_not_know_each_other(start: Callable[..., Emulator], steps: Any) -> None:
    one, other = start(), start(name="other", location="westeurope")
    steps.cluster(one.workspace())
    assert other.workspace().compute_targets == {}
    assert (other.workspace().name, other.workspace().location) == ("other", "westeurope")


def test_a_workspace_can_be_had_from_its_address(emulator: Emulator) -> None:
    assert workspace(emulator.url).name == "emulated"
    assert variables(emulator.url)["REQUESTS_CA_BUNDLE"] == str(emulator.ca_file)


def test_a_mode_must_be_prepared(emulator: Emulator) -> None:
    with pytest.raises(RuntimeError, match="needs ARM_CLOUD_METADATA_URL, AZURE_CONFIG_DIR in the environment"):
        workspace(emulator.url, mode="environment")
    with pytest.raises(RuntimeError, match="needs HTTPS_PROXY, https_proxy"):
        workspace(emulator.url, mode="proxy")
    with pytest.raises(ValueError, match="no mode 'magic'"):
        workspace(emulator.url, mode="magic")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("url", ["http://example.org:80", "ftp://127.0.0.1:80", "127.0.0.1:80"])
def test_an_address_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="127.0.0.1|unknown url type"):
        workspace(url)


def test_nobody_there_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match="Start one with `gpu-infer emulator`"):
            workspace(f"http://127.0.0.1:{free.getsockname()[1]}")


def test_a_mistake_of_the_emulator_is_an_answer_and_is_kept(start: Callable[..., Emulator], header: Any) -> None:
    emulator = start()
    emulator._running()[1].clusters.targets = None  # type: ignore[assignment]
    scope = emulator._running()[1].settings.scope
    answer = requests.get(f"{emulator.url}/rp/workspaces{scope}/computes", headers=header, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "EmulatorError")
    assert len(emulator.errors) == 1
    emulator.errors.clear()


def test_a_missing_package_is_named() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from gpu_infer.emulator import Emulator\n"
        "try: Emulator().start()\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "MissingDependencyError" in done.stdout
    assert "pip install 'gpu-infer[emulator]'" in done.stdout


def test_importing_it_loads_neither_the_sdk_nor_the_server(sdk: None) -> None:
    code = "import sys, gpu_infer.emulator; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"azureml", "azure", "flask", "werkzeug", "cryptography", "numpy"}.isdisjoint(done.stdout.split())


def test_of_many_at_once_one_creates(emulator: Emulator, header: dict[str, str]) -> None:
    scope = emulator._running()[1].settings.scope
    url = f"{emulator.url}{scope}/computes/aks-gpu?api-version=2020-02-02"
    body = {"properties": {"computeType": "AKS", "properties": {"agentVmSize": "Standard_NC4as_T4_v3"}}}

    def create(_: int) -> int:
        return requests.put(url, json=body, headers=header, timeout=30).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(create, range(32)))
    assert sorted(statuses) == [201, *[409] * 31]
    assert sorted(request.number for request in emulator.requests) == list(range(1, 33))
    assert {request.status for request in emulator.requests} == {201, 409}
