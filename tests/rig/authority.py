"""A certificate authority for tests, and TLS servers with good and bad certificates."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gevent import ssl as gssl

LAST_YEAR = MappingProxyType(
    {"not_before": datetime(2024, 1, 1, tzinfo=UTC), "not_after": datetime(2024, 2, 1, tzinfo=UTC)}
)
THIS_MONTH: Mapping[str, datetime] = MappingProxyType({})

#: What a certificate for 127.0.0.1 may have that proves nothing; arguments of `Authority.server`.
REFUSED: dict[str, dict[str, Any]] = {
    "expired": {"names": "IP:127.0.0.1", "valid": LAST_YEAR},
    "another name": {"names": "DNS:elsewhere.example"},
    "another address": {"names": "IP:127.0.0.2"},
    "self-signed": {"names": "IP:127.0.0.1", "signed": False},
}


class Authority:
    """Its files are in a directory of its own: `certificate` is what to trust, ``server.crt`` and
    ``server.key`` belong to the latest server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.certificate)

    def server(
        self, names: str, *, valid: Mapping[str, datetime] = THIS_MONTH, signed: bool = True
    ) -> ssl.SSLContext:
        """A server's context whose certificate is for this name (``IP:127.0.0.1``, ``DNS:x``)."""
        kind, _, name = names.partition(":")
        if signed:
            issued = self._authority.issue_cert(name, **valid)
            key, certificate = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
        else:
            key, certificate = _self_signed(
                x509.DNSName(name) if kind == "DNS" else x509.IPAddress(ip_address(name))
            )
        (self.directory / "server.key").write_bytes(key)
        (self.directory / "server.crt").write_bytes(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
        return context

    def client(self) -> Any:
        """A client's context that trusts this authority alone."""
        context = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=str(self.certificate))
        return context


def _self_signed(name: x509.GeneralName) -> tuple[bytes, bytes]:
    """Key and certificate, which `trustme` only makes with an authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    unsigned = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number()
    )
    valid = unsigned.not_valid_before(now - timedelta(days=1)).not_valid_after(
        now + timedelta(days=30)
    )
    certificate = valid.add_extension(x509.SubjectAlternativeName([name]), critical=False).sign(
        key, hashes.SHA256()
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(pem)
