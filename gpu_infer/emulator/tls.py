"""A certificate authority of this process, and the certificates that it signs.

One authority for all emulators of a process: ``REQUESTS_CA_BUNDLE`` names one file, however many of them run. Its key
never leaves the memory of the process.
"""

from __future__ import annotations

import atexit
import datetime as dt
import ipaddress
import os
import shutil
import ssl
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Finding, MissingDependencyError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Authority", "authority", "server_context"]

_VALID = dt.timedelta(days=30)
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority.

    Attributes:
        key: signs.
        certificate: its own.
        bundle: a file with its certificate and those that this process trusted before.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    bundle: Path


def authority() -> Authority:
    """The authority of this process, made at the first call (some milliseconds).

    Raises:
        MissingDependencyError: cryptography or certifi is not installed.
    """
    with _lock:
        return _authority(os.getpid())


@cache
def _authority(_pid: int) -> Authority:
    try:
        import certifi
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        message = f"The emulator needs the package {error.name}, which is not installed: the SDK uploads over TLS."
        fix = "Run: pip install 'gpu-infer[emulator]'"
        raise MissingDependencyError([Finding("error", "missing-extra", message, fix)]) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gpu-infer emulator")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = Path(tempfile.mkdtemp(prefix="gpu-infer-ca-"))
    atexit.register(_remove, folder, os.getpid())
    before = Path(os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where())
    trusted = before.read_bytes() if before.is_file() else Path(certifi.where()).read_bytes()
    bundle = folder / "ca.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + trusted)
    return Authority(key, certificate, bundle)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child may run this too
        shutil.rmtree(folder, ignore_errors=True)


def server_context(names: Sequence[str], folder: Path) -> ssl.SSLContext:
    """What a TLS server for these names and addresses needs.

    Args:
        names: DNS names and IP addresses.
        folder: gets the certificate and its key for as long as it takes to load them.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer = authority()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    certificate = (
        _builder(subject, signer.certificate.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.certificate.public_key()),  # pyright: ignore[reportArgumentType] (it is ours, an EC key)
            critical=False,
        )
        .sign(signer.key, hashes.SHA256())
    )
    file = folder / "server.pem"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        out.write(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    file.unlink()
    return context


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    from cryptography import x509

    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _VALID)
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
