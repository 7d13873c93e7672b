"""Checks of the address that clients use: name, connection, certificate, and who answers."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address

from ollama_proxy.cli.doctor.door import FAILURES, Door
from ollama_proxy.cli.doctor.finding import Finding, Level
from ollama_proxy.cli.doctor.installation import check_clock
from ollama_proxy.version import VERSION

#: Days before its end from which a certificate is reported.
EXPIRES_DAYS = 21

DAY_S = 24 * 3600


def check_address(door: Door) -> Iterator[Finding | Door]:
    """Checks that the gateway answers at an address; yields, after the findings, the door through
    which the rest can be checked, unless nothing useful answers."""
    try:
        resolved = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        mend = "correct the address, or add the name to the DNS or to /etc/hosts"
        yield Finding(Level.FAULT, "address", f"{door.host} can't be resolved ({error})", mend)
        return
    is_local = all(ip_address(place[4][0]).is_loopback for place in resolved)
    try:
        if door.is_encrypted:
            yield from check_certificate(door)
        else:
            door.connect().close()
            if is_local:
                what = f"{door.url} is not encrypted, which is fine on this machine only"
                yield Finding(Level.NOTE, "TLS", what)
            else:
                mend = "enable the TLS lines of deploy/nginx/ollama-proxy.conf"
                yield Finding(Level.WARNING, "TLS", "tokens and prompts travel unencrypted", mend)
    except ssl.SSLCertVerificationError as error:
        mend = "install a certificate for this name, with its whole chain, and reload nginx"
        yield Finding(
            Level.FAULT, "TLS", f"clients refuse the certificate: {error.verify_message}", mend
        )
        door = replace(door, checks_certificate=False)
    except FAILURES as error:
        mend = (
            "start the gateway (`systemctl status ollama-proxy`) and nginx, and open the "
            "port in the firewall"
        )
        yield Finding(Level.FAULT, "address", f"nothing answers at {door.url} ({error})", mend)
        return
    yield from check_service(door)


def check_certificate(door: Door) -> Iterator[Finding]:
    """Checks how long the certificate is valid. Raises OSError, also
    ssl.SSLCertVerificationError."""
    with closing(door.connect()) as connection:
        assert isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / DAY_S
    if days < EXPIRES_DAYS:
        mend = "renew it, and see why that did not happen by itself (`systemctl list-timers`)"
        yield Finding(Level.WARNING, "TLS", f"the certificate expires in {days:.0f} days", mend)


def check_service(door: Door) -> Iterator[Finding | Door]:
    """Checks that an ollama-proxy of this version answers and is ready."""
    try:
        answer = door.ask("/health", {"Accept": "application/json"})
        ready = door.ask("/readyz", {})
    except FAILURES as error:
        mend = "see the error log of nginx and `journalctl -u ollama-proxy`"
        yield Finding(
            Level.FAULT,
            "address",
            f"no answer from {door.url} ({error or type(error).__name__})",
            mend,
        )
        return
    if answer.document.get("service") != "ollama-proxy":
        mend = "point it at the gateway: in nginx `proxy_pass http://127.0.0.1:8080;`"
        what = f"something else answers at {door.url} (status {answer.status})"
        yield Finding(Level.FAULT, "address", what, mend)
        return
    if (version := answer.document.get("version")) != VERSION:
        what = f"version {version} is running, and {VERSION} is installed here"
        yield Finding(Level.WARNING, "gateway", what, "systemctl restart ollama-proxy")
    if ready.status != 200:
        what = f"it is not ready: {ready.document.get('reason') or f'status {ready.status}'}"
        yield Finding(Level.FAULT, "gateway", what, "see the upstreams below, and events.log")
    yield from check_clock(f"the gateway at {door.url}", answer.headers.get("date"))
    yield door
