"""A certificate authority of the tests' own, made by openssl, and servers with good and bad certificates."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

from gevent import ssl as gssl

from tests.rig.programs import require_program

_CONFIG = """\
[ca]
default_ca = this
[this]
database = index.txt
unique_subject = no
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
[any]
commonName = supplied
"""
_NEW_KEY = ("-newkey", "rsa:2048", "-nodes")
LAST_YEAR = ("-startdate", "20240101000000Z", "-enddate", "20240201000000Z")
THIS_MONTH = ("-days", "30")

#: What a certificate for 127.0.0.1 may have that proves nothing; arguments of `Authority.server`.
REFUSED: dict[str, dict[str, Any]] = {
    "expired": {"names": "IP:127.0.0.1", "valid": LAST_YEAR},
    "another name": {"names": "DNS:elsewhere.example"},
    "another address": {"names": "IP:127.0.0.2"},
    "self-signed": {"names": "IP:127.0.0.1", "signed": False},
}


class Authority:
    """Its files are in a directory of its own; `certificate` is what to trust."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._write("ca.cnf", _CONFIG)
        self._write("index.txt", "")
        self._write("serial", "1000\n")
        self._openssl("req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority")

    def server(self, names: str, *, valid: tuple[str, ...] = THIS_MONTH, signed: bool = True) -> ssl.SSLContext:
        """A server's context whose certificate is for these names (``IP:127.0.0.1``, ``DNS:x``)."""
        self._write("server.ext", f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        subject = ("-subj", "/CN=server")
        if signed:
            self._openssl("req", *_NEW_KEY, "-keyout", "server.key", "-out", "server.csr", *subject)
            signing = ("-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-extfile", "server.ext")
            self._openssl("ca", "-batch", "-notext", *signing, *valid, "-in", "server.csr", "-out", "server.crt")
        else:
            own = (*_NEW_KEY, "-keyout", "server.key", "-out", "server.crt", "-addext", f"subjectAltName={names}")
            self._openssl("req", "-x509", *own, *subject)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
        return context

    def client(self) -> Any:
        """A client's context that trusts this authority alone."""
        context = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=str(self.certificate))
        return context

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def _openssl(self, *arguments: str) -> None:
        command = [require_program("openssl"), *arguments]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
