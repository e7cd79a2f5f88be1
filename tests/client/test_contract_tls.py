"""Certificates, over a real socket, sync and async alike; time is scripted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gpu_infer import errors
from gpu_infer.client import RetryPolicy

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
KEY = "sesame-0123456789abcdef"


@pytest.fixture(scope="module")
def certify(tmp_path_factory) -> Callable[..., Path]:
    """Writes certificates that nobody signed but themselves, with their keys."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def new(*, host: str = "127.0.0.1", until: timedelta = timedelta(days=1)) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
        now = datetime.now(UTC)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        here = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        built = built.add_extension(here, critical=False)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        built = built.serial_number(1).not_valid_before(now - timedelta(days=9)).not_valid_after(now + until)
        plain = serialization.NoEncryption()
        path = tmp_path_factory.mktemp("tls") / "server.pem"
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
            + built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        return path

    return new


@pytest.fixture
def serve(steps) -> Iterator[Callable[[Path], Any]]:
    """Starts servers that show a certificate."""
    running: list[Any] = []

    def start(certificate: Path) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        running.append(steps.server(context))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def trust(monkeypatch) -> Callable[[Path], None]:
    """Makes the environment vouch for a certificate."""
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda certificate: monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def test_a_certificate_nobody_vouches_for_stops_the_request(make, certify, serve):
    tls = serve(certify())
    face = make(KEY, uri=tls.uri)
    with pytest.raises(
        errors.ScoringConnectionError, match="certificate of https://127.0.0.1.*Nothing was sent"
    ) as caught:
        face.score(b"x")
    assert caught.value.attempts == 1
    assert tls.seen == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"until": timedelta(days=-1)}, "expired"), ({"host": "127.0.0.2"}, "mismatch, certificate is not valid for")],
)
def test_a_certificate_that_has_expired_or_is_anothers_stops_the_request(make, certify, serve, trust, options, reason):
    certificate = certify(**options)
    trust(certificate)
    tls = serve(certificate)
    with pytest.raises(
        errors.ScoringConnectionError, match=f"was not accepted: .*{reason}.*Nothing was sent"
    ) as caught:
        make(KEY, uri=tls.uri, retries=RetryPolicy(idempotent=True)).score(b"x")
    assert caught.value.attempts == 1
    assert tls.seen == []


def test_https_where_http_is_spoken_is_no_connection_that_broke(make):
    """Nothing was sent, and trying again will not help."""
    heard: list[bytes] = []

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        face = make(KEY, uri=f"https://127.0.0.1:{listener.getsockname()[1]}/score")
        with pytest.raises(
            errors.ScoringConnectionError, match="speak http there, and not https. Nothing was"
        ) as caught:
            face.score(b"x")
        thread.join(5)
    assert caught.value.attempts == 1
    assert KEY.encode() not in heard[0]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_that_the_environment_vouches_for_is_taken(make, steps, certify, serve, trust, monkeypatch, name):
    certificate = certify()
    trust(certificate)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(name, str(certificate))
    tls = serve(certificate)
    tls.plays(steps.answer(200, [1]))
    assert make(KEY, uri=tls.uri).score(b"x") == [1]
