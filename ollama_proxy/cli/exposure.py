"""Checks whether an Ollama server answers, and whether it can be used without the gateway: it
requires no token, so anyone may do anything. For the commands; the gateway itself does not use it.

Requests only versions and lists of models, at the addresses of the configuration, the
operator, and this machine.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ollama_proxy.policy import Address, as_address, is_own
from ollama_proxy.settings import Settings, effective_upstreams, is_open

#: Where Linux lists the addresses of this machine.
_IPV4_TABLE, _IPV6_TABLE = Path("/proc/net/fib_trie"), Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"\|-- ([0-9.]+)\n +/32 host LOCAL")

#: Addresses for documentation (RFC 5737, RFC 3849): their routes give the own
#: address. Nothing is sent.
FAR_AWAY = ("192.0.2.1", "2001:db8::1")

#: Longest wait for data, in seconds.
PROBE_TIMEOUT_S = 1.5

#: Most bytes of an answer that are read.
PROBE_BYTES = 1 << 20

#: The refusal of a server that requires authentication.
WANTS_TOKEN = "it requires a token"


@dataclass(frozen=True, slots=True)
class Probe:
    """The result: why the server can't be used (empty: it can), its first model, and its version if
    it can be used. `is_silent`: nothing answered."""

    refusal: str
    model: str = ""
    is_silent: bool = False
    version: str = ""


def probe_ollama(base_url: str, *, checks_certificate: bool = True) -> Probe:
    """Ask for the version and the models, directly, as anyone on the network could: without a token
    and a proxy. Waits at most 1.5 s for each."""
    context = ssl.create_default_context() if base_url.startswith("https:") else None
    if context and not checks_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        status, document = _fetch(base_url, "/api/version", context)
        if status in (401, 403):
            return Probe(WANTS_TOKEN)
        version = document.get("version")
        if not isinstance(version, str):
            return Probe("the server there is not Ollama")
        models = _fetch(base_url, "/api/tags", context)[1].get("models")
        names = (
            [each.get("name") for each in models if isinstance(each, dict)]
            if isinstance(models, list)
            else []
        )
        first = next((name for name in names if isinstance(name, str) and name), "")
        return Probe("", first, version=version)
    except (OSError, HTTPException, ValueError) as error:
        return Probe(
            f"no answer ({getattr(error, 'strerror', None) or type(error).__name__})",
            is_silent=True,
        )


def _fetch(base_url: str, path: str, context: ssl.SSLContext | None) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object at a path; an empty one for any status but 200,
    and if there is none."""
    parts = urlsplit(base_url)
    host, timeout = parts.hostname or "", PROBE_TIMEOUT_S
    connection = (
        HTTPSConnection(host, parts.port, timeout=timeout, context=context)
        if context
        else HTTPConnection(host, parts.port, timeout=timeout)
    )
    try:
        connection.request(
            "GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"}
        )
        answer = connection.getresponse()
        document = json.loads(answer.read(PROBE_BYTES)) if answer.status == 200 else None
        return answer.status, document if isinstance(document, dict) else {}
    finally:
        connection.close()


#: Nothing secret is sent, and an attacker would not check the certificate.
_probe = partial(probe_ollama, checks_certificate=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one server, as text. `is_open`: others can use it without a token;
    `is_unknown`: it could not be checked, because nothing answered, or a different server did."""

    text: str
    is_open: bool = False
    is_unknown: bool = False


def check_upstreams(settings: Settings) -> Iterator[Finding]:
    """A finding for the gateway, if it requires no token, and for each server that
    the team runs itself."""
    if is_open(settings):
        place = f"{settings.server.host}:{settings.server.port}"
        yield Finding(
            f"the gateway ({place}): OPEN. It requires no token: auth.enabled is false.", True
        )
    servers = [
        each for each in effective_upstreams(settings) if each.is_shared and each.protocol != "demo"
    ]
    if not servers:
        yield Finding("No upstream is an Ollama server.")
    for upstream in servers:
        url, shown = upstream.base_url, f"{upstream.name} ({upstream.base_url})"
        if upstream.protocol != "ollama":
            yield Finding(f"{shown}: not checked, because it is not an Ollama server.")
        elif is_here(url):
            yield _check_here(url, shown)
        elif refusal := _probe(url).refusal:
            yield Finding(f"{shown}: {refusal}.", is_unknown=refusal != WANTS_TOKEN)
        else:
            addresses = _resolve(urlsplit(url).hostname or "")
            source = find_source(addresses[0]) if addresses else None
            yield Finding(
                f"{shown}: on another machine, and it answers this one, as it should. Whether "
                "it also answers others can't be checked from here: its firewall should admit "
                f"only {source or 'the gateway'}. Run on a third machine: ollama-proxy "
                f"check-exposure {url}"
            )


def check_servers(urls: Iterable[str]) -> Iterator[Finding]:
    """A finding for each address, checked from this machine, which should not be the gateway's."""
    for url in urls:
        if is_here(url):
            yield _check_here(url, url)
            continue
        found = _probe(url)
        model = f" Its first model is {found.model}." if found.model else ""
        if found.is_silent:
            why = f"{found.refusal}. Either a firewall blocks this machine, or nothing runs there."
            yield Finding(f"{url}: {why}", is_unknown=True)
        elif found.refusal:
            yield Finding(f"{url}: closed, {found.refusal}.")
        else:
            yield Finding(
                f"{url}: OPEN. It can be used from this machine without a token.{model} Unless "
                "this is the gateway's machine, its firewall should admit only the gateway.",
                True,
            )


def _check_here(url: str, shown: str) -> Finding:
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    hosts = [f"[{each}]" if each.version == 6 else str(each) for each in own_addresses()]
    places = [parts._replace(netloc=host + port).geturl() for host in hosts]
    open_at = [place for place in places if not _probe(place).refusal]
    if open_at:
        return Finding(
            f"{shown}: OPEN at {', '.join(open_at)}. Anyone on the network can use it without "
            "a token, unless a firewall on this machine blocks them. Make it listen on this "
            "machine only: OLLAMA_HOST=127.0.0.1 in its environment, base_url with "
            "127.0.0.1, and restart it.",
            True,
        )
    here = _probe(url)
    if here.refusal and here.refusal != WANTS_TOKEN:
        return Finding(f"{shown}: {here.refusal}, so it could not be checked.", is_unknown=True)
    why = here.refusal or f"it answers only on this machine ({len(places)} other addresses tried)"
    return Finding(f"{shown}: closed, {why}.")


# Addresses.


def own_addresses() -> list[Address]:
    """The addresses at which others reach this machine, without loopback and link-local ones."""
    texts: list[str] = []
    with suppress(OSError):
        texts += _LOCAL.findall(_IPV4_TABLE.read_text("ascii"))
    with suppress(OSError):
        lines = _IPV6_TABLE.read_text("ascii").splitlines()
        texts += [str(IPv6Address(bytes.fromhex(line[:32]))) for line in lines]
    texts += [*_resolve(socket.gethostname()), *filter(None, map(find_source, FAR_AWAY))]
    found = dict.fromkeys(address for address in map(as_address, texts) if address is not None)
    return [each for each in found if not (each.is_loopback or each.is_link_local) and is_own(each)]


def find_source(target: str) -> str | None:
    """The address of this machine from which it reaches another one."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])
    return None


def is_here(url: str) -> bool:
    """Whether a server is on this machine."""
    addresses = map(as_address, _resolve(urlsplit(url).hostname or ""))
    return any(
        each.is_loopback or each.is_unspecified or is_own(each)
        for each in addresses
        if each is not None
    )


def _resolve(host: str) -> list[str]:
    try:
        return [
            str(place[4][0]) for place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        ]
    except (OSError, UnicodeError):
        return []
