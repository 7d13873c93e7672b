"""Which hosts a request may name, and which web pages may send one."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.errors import BadRequest, ForeignHost, ForeignOrigin, GatewayError
from ollama_proxy.policy.origins import OriginPolicy, origin_pattern
from ollama_proxy.settings.schema import Cors, Server, Settings
from ollama_proxy.settings.tokens import Auth
from tests.rig.tables import each_row

HOST = "gw.example:8080"


def policy(
    *,
    auth: bool = True,
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = ("*",),
    listen: str = "127.0.0.1",
) -> OriginPolicy:
    return OriginPolicy(
        Settings(
            server=Server(host=listen, allowed_hosts=hosts),
            auth=Auth(enabled=auth, allow_open_network=True),
            cors=Cors(origins),
        )
    )


def outcome(
    rules: OriginPolicy, host: str | None = HOST, **environ: str
) -> type[GatewayError] | None:
    """The error of a request, None for one that is answered."""
    sent: dict[str, Any] = {f"HTTP_{name.upper()}": value for name, value in environ.items()}
    try:
        rules.check(sent if host is None else {**sent, "HTTP_HOST": host})
    except GatewayError as error:
        return type(error)
    return None


# Hosts.

MALFORMED = [
    None,
    "",
    " ",
    "a b",
    "gw/path",
    "user@gw",
    "gw:port",
    "gw:",
    "gw:123456",
    "[::1",
    "::1",
    "gw?x",
    "gw#x",
]


@each_row("host", ["gw", "gw.example:8080", "10.0.0.1", "[::1]", "[::1]:8080", "GW_1"])
def test_any_well_formed_host_is_served_if_none_is_listed(host: str) -> None:
    assert outcome(policy(), host) is None


@each_row("host", [*MALFORMED, "gw,b"])
@each_row("auth", [True, False])
def test_a_missing_or_malformed_host_is_refused(host: str | None, auth: bool) -> None:
    assert outcome(policy(auth=auth), host) is BadRequest


@each_row(
    ("host", "served"),
    [
        ("gw.example", True),
        ("GW.Example:8080", True),
        ("gw.example:1", True),
        ("[::1]:80", True),
        ("evil.example", False),
        ("gw.example.evil", False),
        ("127.0.0.1", False),
    ],
)
def test_only_listed_hosts_are_served(host: str, served: bool) -> None:
    assert outcome(policy(hosts=("gw.example", "[::1]")), host) is (None if served else BadRequest)


LOOPBACK = [
    "localhost",
    "LOCALHOST:8080",
    "ollama.localhost",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.9.8.7:80",
    "[::1]:80",
]
ADDRESSES = [
    "192.168.1.5",
    "192.168.1.5:8080",
    "8.8.8.8",
    "0.0.0.0:8080",
    "[fe80::1]:80",
    "[2001:db8::1]",
]
NAMES = [
    *(
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127-0-0-1.nip.example",
        "xlocalhost",
    ),
    *(
        "localhost.",
        "evil.localhost.",
        "127.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "ollama",
        "box.local",
    ),
]


@each_row("host", LOOPBACK)
@each_row("listen", ["127.0.0.1", "0.0.0.0"])
def test_without_auth_loopback_names_are_served(listen: str, host: str) -> None:
    assert outcome(policy(auth=False, listen=listen), host) is None


@each_row("host", [*NAMES, *ADDRESSES])
def test_without_auth_other_hosts_are_refused(host: str) -> None:
    assert outcome(policy(auth=False), host) is ForeignHost


@each_row("host", ADDRESSES)
def test_without_auth_in_an_open_network_addresses_are_served(host: str) -> None:
    """Nobody's DNS can make an address lead elsewhere."""
    assert outcome(policy(auth=False, listen="0.0.0.0"), host) is None


@each_row("host", NAMES)
def test_without_auth_in_an_open_network_names_are_refused(host: str) -> None:
    assert outcome(policy(auth=False, listen="0.0.0.0"), host) is ForeignHost


@pytest.mark.parametrize(
    ("host", "served"),
    [("box.lan:80", True), ("BOX.lan", True), ("localhost", True), ("other.lan", False)],
)
def test_without_auth_listed_hosts_are_served_beside_loopback(host: str, served: bool) -> None:
    assert outcome(policy(auth=False, hosts=("Box.lan",)), host) is (
        None if served else ForeignHost
    )


# Origins.

DESKTOP = ["app://obsidian.md", "vscode-file://vscode-app", "file://", "tauri://localhost", "null"]


@each_row("origin", ["https://evil.example", *DESKTOP])
def test_a_lone_star_is_every_origin(origin: str) -> None:
    assert outcome(policy(), origin=origin) is None


@each_row("origin", ["https://chat.example", "HTTPS://CHAT.example", *DESKTOP, "http://[::1]:3000"])
def test_listed_origins_may_call(origin: str) -> None:
    listed = ("https://chat.example", *DESKTOP, "http://[::1]:3000")
    assert outcome(policy(origins=listed), origin=origin) is None


@each_row(
    "origin",
    [
        *(
            "https://evil.example",
            "null",
            "",
            "file://",
            "https://chat.example:8443",
            "http://chat.example",
        ),
        *(
            "https://chat.example.evil",
            "https://xchat.example",
            "https://chat.example/",
            "https://chat.example x",
        ),
        *(
            "https://chatxexample",
            "app://other",
            "https://gw.example:8080.evil",
            "https://gw.example",
            "//gw.example",
        ),
        *(
            "ftp://gw.example:8080",
            "https://user@gw.example:8080",
            "https://gw.example:80801",
            "gw.example:8080",
        ),
    ],
)
def test_other_origins_may_not(origin: str) -> None:
    assert (
        outcome(policy(origins=("https://chat.example", "app://obsidian.md")), origin=origin)
        is ForeignOrigin
    )


@each_row("auth", [True, False])
@each_row("host", ["localhost:8080", "127.0.0.1", "[::1]:80"])
@each_row("scheme", ["http", "https", "HTTP"])
def test_pages_of_the_gateways_own_address_may_call(auth: bool, host: str, scheme: str) -> None:
    rules = policy(auth=auth, origins=("https://chat.example",))
    assert outcome(rules, host, origin=f"{scheme}://{host}", sec_fetch_site="same-origin") is None


@each_row(
    "origin",
    [
        *(
            "https://evil.example",
            "null",
            "",
            "file://",
            "app://obsidian.md",
            "vscode-webview://x",
            "http://localhost",
        ),
        *(
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://localhost:8080.evil",
            "ftp://localhost:8080",
        ),
    ],
)
def test_without_auth_other_origins_may_not_even_if_they_are_listed(origin: str) -> None:
    rules = policy(auth=False, origins=("*", origin))
    assert outcome(rules, "localhost:8080", origin=origin) is ForeignOrigin
    assert rules.allowed == []


@each_row(
    ("site", "served"),
    [
        ("none", True),
        ("same-origin", True),
        ("same-site", False),
        ("cross-site", False),
        ("", False),
        ("x", False),
    ],
)
def test_without_auth_no_other_site_may_call(site: str, served: bool) -> None:
    """Images, forms without a body and links have no Origin."""
    assert outcome(policy(auth=False), "localhost", sec_fetch_site=site) is (
        None if served else ForeignOrigin
    )


def test_with_auth_links_of_other_sites_lead_here() -> None:
    assert outcome(policy(), sec_fetch_site="cross-site") is None


@each_row(
    ("origin", "covered"),
    [
        ("https://chat.example.com", True),
        ("https://a.b.example.com", True),
        ("https://example.com", False),
        ("https://xexample.com", False),
        ("https://chat.example.com.evil.org", False),
        ("https://evil.org/.example.com", False),
        ("http://chat.example.com", False),
    ],
)
def test_a_star_stands_for_labels_and_nothing_else(origin: str, covered: bool) -> None:
    assert bool(origin_pattern("https://*.example.com").match(origin)) is covered


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://localhost:65535"])
def test_a_star_stands_for_a_port(origin: str) -> None:
    assert origin_pattern("http://localhost:*").match(origin)
