"""A request as WSGI shows it to an Exchange: its id, its client's address and user, its
path without secrets."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any
from urllib.parse import unquote_to_bytes

from ollama_proxy.clock import Clock
from ollama_proxy.errors import Forbidden, NotFound
from ollama_proxy.gateway import ClientDialect, Exchange
from ollama_proxy.policy import ConfiguredTokens, as_address
from ollama_proxy.settings import Admin, Settings
from ollama_proxy.upstreams import Call

#: In `server.trusted_proxies`: whoever connects to a unix socket, where the gateway listens on one.
UNIX_SOCKET = "unix:"

#: Of the longest address in text form: IPv6 with an IPv4 address at its end.
MAX_ADDRESS_CHARS = 45

#: Longest name of a user from a header, in bytes of UTF-8: that of an e-mail address.
MAX_USER_BYTES = 254

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: What stands behind a `/k/`, however it is written.
_BEHIND_K = re.compile(r"((?:^|/)k/+)[^/]+", re.IGNORECASE)

#: A path without anything that could be read two ways: no escapes, no empty or dotted segments.
_PLAIN = re.compile(r"/|(/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~:@!$&'()*+,=-]+)+")

#: Where names and digests stand, the slash and the colon in them may be escaped; in the names of
#: managed models, which go to no upstream, also `*`, blanks, and letters of any language.
_ESCAPED = re.compile(
    r"/(v1/models|api/blobs)(/([A-Za-z0-9_.~:@!$&'()*+,=-]|%2[Ff]|%3[Aa])+)+"
    r"|/admin/api/models(/([A-Za-z0-9_.~:@!$&'()*+,=-]|%2[0AaFf]|%3[Aa]|%[89A-Fa-f][0-9A-Fa-f])+)+"
)


def new_exchange(
    environ: Mapping[str, Any],
    settings: Settings,
    dialect: ClientDialect,
    configured_tokens: ConfiguredTokens,
    clock: Clock,
) -> Exchange:
    """What is known of a call before anything was decided."""
    path = environ["PATH_INFO"]
    return Exchange(
        id=request_id(environ.get("HTTP_X_REQUEST_ID"), configured_tokens),
        method=environ["REQUEST_METHOD"],
        path=path,
        client=client_address(environ, settings.server.trusted_proxies),
        dialect=dialect,
        call=Call(settings.timeouts, clock),
        started_at=clock.time(),
    )


def redacted(path: str, is_token: Callable[[str], bool]) -> str:
    """The path as it may be written down: base URLs are often slightly wrong, and then a token
    stands where none is looked for."""
    if _BEHIND_K.search(path):
        path = _BEHIND_K.sub(r"\1***", path)
    return "/".join("***" if part and is_token(part) else part for part in path.split("/"))


def request_id(sent: str | None, configured_tokens: ConfiguredTokens) -> str:
    """The client's own id if it is one and holds no token, else a new one."""
    if sent and _REQUEST_ID.fullmatch(sent) and not configured_tokens.is_in(sent):
        return sent
    return new_request_id()


def new_request_id() -> str:
    """Return a new random request id."""
    return secrets.token_hex(12)


def user_name(header: str) -> str | None:
    """The name of a user in a header, as programs encode it: UTF-8 in percent escapes. Returns at
    most MAX_USER_BYTES of it without control characters, None if nothing is left."""
    text = unquote_to_bytes(header[: 4 * MAX_USER_BYTES].encode("latin-1")).decode(
        "utf-8", "replace"
    )
    printable = "".join(filter(str.isprintable, text)).strip()
    return printable.encode()[:MAX_USER_BYTES].decode("utf-8", "ignore") or None


def client_address(environ: Mapping[str, Any], trusted: tuple[str, ...]) -> str:
    """The nearest address that is not one of the trusted proxies, as plain_address writes it;
    "" for a unix socket."""
    address = plain_address(environ.get("REMOTE_ADDR") or "")
    forwarded = environ.get("HTTP_X_FORWARDED_FOR")
    if not forwarded or not is_trusted(address, trusted):
        return address
    for hop in reversed(forwarded.split(",")):
        client = plain_address(hop.strip())
        if not client:
            break
        address = client
        if not is_trusted(address, trusted):
            break
    return address


def is_secure(environ: Mapping[str, Any], trusted: tuple[str, ...]) -> bool:
    """Whether the client uses TLS: up to the gateway, or up to a trusted proxy, which says so."""
    if environ["wsgi.url_scheme"] == "https":
        return True
    address = plain_address(environ.get("REMOTE_ADDR") or "")
    return environ.get("HTTP_X_FORWARDED_PROTO") == "https" and is_trusted(address, trusted)


def plain_address(text: str) -> str:
    """The canonical text of an IP address, of IPv4 if it is mapped into IPv6; "" for anything else,
    also for an address with a zone, which is free text."""
    return _plain_address(text) if len(text) <= MAX_ADDRESS_CHARS else ""


@lru_cache(maxsize=1024)
def _plain_address(text: str) -> str:
    address = None if "%" in text else as_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return "" if address is None else str(address)


@lru_cache(maxsize=1024)
def is_trusted(address: str, trusted: tuple[str, ...]) -> bool:
    """Whether a plain address is one of the proxies, "" being a unix socket."""
    parsed = as_address(address)
    if parsed is None:
        return UNIX_SOCKET in trusted and not address
    return any(parsed in network for network in _networks(trusted))


@lru_cache(maxsize=16)
def _networks(trusted: tuple[str, ...]) -> list[IPv4Network | IPv6Network]:
    """The networks of the proxies, of IPv4 if they are mapped into IPv6: plain addresses are."""
    networks: list[IPv4Network | IPv6Network] = []
    for entry in trusted:
        if entry == UNIX_SOCKET:
            continue
        network = ip_network(entry, strict=False)
        first = network.network_address
        if isinstance(first, IPv6Address) and first.ipv4_mapped and network.prefixlen >= 96:
            network = IPv4Network((first.ipv4_mapped, network.prefixlen - 96))
        networks.append(network)
    return networks


def check_admin_access(admin: Admin, client: str) -> None:
    """Raises NotFound if there is no admin API, Forbidden if this address may not use it."""
    if not admin.enabled:
        raise NotFound
    if admin.allow and not is_trusted(client, admin.allow):
        raise Forbidden(
            "The admin API is not open to your address; see admin.allow.", detail="admin.allow"
        )


def check_path(environ: Mapping[str, Any]) -> None:
    """Raises NotFound for a path whose raw form could mean another one to somebody on the way."""
    raw = (environ.get("RAW_URI") or environ["PATH_INFO"]).partition("?")[0]
    if _PLAIN.fullmatch(raw):
        return
    escaped = _ESCAPED.fullmatch(raw) and not any(
        part in (".", "..") for part in environ["PATH_INFO"].split("/")
    )
    if not escaped:
        raise NotFound
