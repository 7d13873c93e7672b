"""Decides which hosts images may be fetched from: those on the public internet, and those
that the operator allows.

The gateway has its own table of public addresses. The standard library's differs between patch
versions, and includes multicast groups and addresses that wrap a private one.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Limit for the URL of an image: a longer one is not even split, which takes long and is cached.
MAX_URL_CHARS = 8192

NO_WEB_ADDRESS = "must be an http(s) URL or a base64 data URI"
_WEB_SCHEME = re.compile(r"https?://", re.IGNORECASE)

#: A name has at most 253 characters and the root's dot.
_MAX_HOST_CHARS = 254

#: IPv6 addresses outside this are for one machine, one link, one site or nobody
#: (RFC 4291 section 2.4).
GLOBAL_UNICAST = IPv6Network("2000::/3")

#: Translated to the IPv4 address in its last 32 bits (RFC 6052).
NAT64 = IPv6Network("64:ff9b::/96")

#: IANA's special-purpose registries (RFC 6890), and the metadata services of clouds.
NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's metadata, on an address like any other
        "169.254.0.0/16",  # link-local, with the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays to 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, with the broadcast address
        "2001::/23",  # protocol assignments, with Teredo
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)

#: A numeric last label makes it an address in an unusual spelling: 127.1, 0x7f.1, 2130706433.
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_-]{1,63}\.)*(?!([0-9]+|0x[0-9a-f]*)\Z)[a-z0-9_-]{1,63}")


def is_web_address(text: str) -> bool:
    """Whether a text starts with the scheme of an http(s) address."""
    return bool(_WEB_SCHEME.match(text))


def as_address(text: str) -> Address | None:
    """Returns the address if a text is one in its usual spelling; None for anything else."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def plain_host(text: str) -> str:
    """Returns the normalized host of a URL: an address, or a name in lower case and
    ASCII, without the root's dot.

    Raises ValueError for anything else, such as an unusual spelling of an
    address, or one with a zone.
    """
    if len(text) > _MAX_HOST_CHARS:  # encoding a long one takes seconds
        raise ValueError(f"not a host: {text[:80]!r}")
    host = text if ":" in text else text.encode("idna").decode("ascii").lower().removesuffix(".")
    address = as_address(host)
    if "%" in host or address is None and not _NAME.fullmatch(host):
        raise ValueError(f"not a host: {text[:80]!r}")
    return host if address is None else str(address)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet. An IPv6 address that leads to an IPv4
    address (mapped, 6to4, NAT64) is as public as that one."""
    if isinstance(address, IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            wrapped = IPv4Address(int(address) & 0xFFFF_FFFF)
        if wrapped is not None:
            return is_public(wrapped)
        if address not in GLOBAL_UNICAST:
            return False
    return not any(address in network for network in NOT_PUBLIC)


def is_own(address: Address) -> bool:
    """Whether the address belongs to this machine, where no firewall protects local
    services. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((str(address), 9))
            # The source address of a packet to this machine is its destination.
            return as_address(probe.getsockname()[0]) == address
    except OSError:
        return False  # there is no route to it


class FetchPolicy:
    """The operator's settings for fetching images: `images.fetch` and `images.allow`."""

    def __init__(
        self, fetch: str, allow: Sequence[str], is_own: Callable[[Address], bool] = is_own
    ) -> None:
        self._public = fetch == "public"
        self._off = fetch == "off"
        networks: list[Network] = []
        names: list[str] = []
        for entry in allow:
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                names.append(entry.lower())
        self._networks, self._names = networks, names
        self._is_own = is_own

    def permits(self, host: str, addresses: Sequence[Address]) -> bool:
        """Whether images may be fetched from `host`, which has exactly these addresses. An allowed
        network covers addresses as they are, not wrapped ones."""
        if self._off or not addresses:
            return False
        if any(
            host.endswith(name[1:]) if name.startswith("*.") else host == name
            for name in self._names
        ):
            return True
        return all(
            any(address in network for network in self._networks)
            or (self._public and is_public(address) and not self._is_own(address))
            for address in addresses
        )
