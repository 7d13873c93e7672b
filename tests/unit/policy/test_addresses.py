"""Which hosts images may be fetched from."""

from __future__ import annotations

import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.policy.addresses import Address, FetchPolicy, is_own, is_public, plain_host
from ollama_proxy.settings.schema import settings_from
from tests.rig.tables import check_rows, each_row

PUBLIC = [
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]

NOT_PUBLIC = {
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private ten": "10.255.255.255",
    "carrier's NAT": "100.64.0.1",
    "Alibaba's metadata": "100.100.100.200",
    "loopback": "127.0.0.1",
    "far loopback": "127.255.255.254",
    "metadata": "169.254.169.254",
    "task metadata": "169.254.170.2",
    "Azure's metadata": "168.63.129.16",
    "private 172": "172.31.255.255",
    "Oracle's metadata": "192.0.0.192",
    "documentation": "192.0.2.1",
    "relay": "192.88.99.1",
    "private 192": "192.168.0.1",
    "benchmarks": "198.19.255.255",
    "more documentation": "198.51.100.1",
    "yet more documentation": "203.0.113.1",
    "multicast": "224.0.0.1",
    "global multicast": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "unspecified 6": "::",
    "loopback 6": "::1",
    "compatible": "::8.8.8.8",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:a9fe:a9fe",
    "translated, old style": "::ffff:0:127.0.0.1",
    "NAT64 to loopback": "64:ff9b::7f00:1",
    "NAT64 to a private one": "64:ff9b::10.0.0.1",
    "local NAT64": "64:ff9b:1::8.8.8.8",
    "discard": "100::1",
    "Teredo": "2001::1",
    "orchid": "2001:20::1",
    "documentation 6": "2001:db8::1",
    "6to4 of loopback": "2002:7f00:1::",
    "6to4 of metadata": "2002:a9fe:a9fe::1",
    "newer documentation": "3fff::1",
    "outside of global unicast": "4000::1",
    "segment routing": "5f00::1",
    "unique local": "fc00::1",
    "AWS's metadata 6": "fd00:ec2::254",
    "link-local": "fe80::1",
    "link-local with a zone": "fe80::1%1",
    "site-local": "fec0::1",
    "multicast 6": "ff02::1",
    "global multicast 6": "ff0e::1",
}


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


@each_row("text", PUBLIC)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))


def test_addresses_of_some_other_use_are_not() -> None:
    def check(use: str, text: str) -> None:
        assert not is_public(ip_address(text))

    check_rows(NOT_PUBLIC.items(), check)


# --- Hosts ----------------------------------------------------------------------------------------


@each_row(
    ("text", "host"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org.", "example.org"),
        ("a_b.example-1.org", "a_b.example-1.org"),
        ("localhost", "localhost"),
        ("3com.example", "3com.example"),
        ("10.0.0.1.example", "10.0.0.1.example"),
        ("0x7f.example", "0x7f.example"),
        ("图片.中国", "xn--wcsw84d.xn--fiqs8s"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0::0001", "::1"),
        ("::ffff:127.0.0.1", "::ffff:7f00:1"),
    ],
)
def test_hosts_have_one_spelling(text: str, host: str) -> None:
    assert plain_host(text) == host


@each_row(
    "text",
    [
        "",
        ".",
        "2130706433",
        "0",
        "127.1",
        "127.0.1",
        "0x7f000001",
        "0x7f.1",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.0",
        "1.0x",
        "256.1.1.1",
        "1.2.3.4.5",
        "%31%32%37.0.0.1",
        "::1%lo",
        "fe80::1%251",
        "v1.x:1",
        "a..b",
        ".a",
        "a b.example",
        "a@b",
        "a/b",
        "a\\b",
        "a:80",
        "x" * 64 + ".example",
        "x." * 127 + "xx",
    ],
)
def test_odd_spellings_are_no_hosts(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a host|label"):
        plain_host(text)


def test_a_host_without_end_is_refused_at_once() -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="not a host"):
        plain_host("图" * 100_000)
    assert time.process_time() - began < 0.1


# --- The operator's word --------------------------------------------------------------------------


@each_row(
    ("texts", "permitted"),
    [
        (["8.8.8.8"], True),
        (["8.8.8.8", "2606:4700::1"], True),
        (["8.8.8.8", "10.0.0.1"], False),
        (["10.0.0.1", "8.8.8.8"], False),
        ([], False),
    ],
)
def test_every_address_of_a_host_has_to_be_public(texts: list[str], permitted: bool) -> None:
    policy = FetchPolicy("public", [], lambda address: False)
    assert policy.permits("example.org", addresses(*texts)) is permitted


@each_row(
    ("allow", "host", "text", "permitted"),
    [
        ("pictures.example", "pictures.example", "10.0.0.1", True),
        ("Pictures.Example", "pictures.example", "10.0.0.1", True),
        ("pictures.example", "other.example", "10.0.0.1", False),
        ("pictures.example", "my.pictures.example", "10.0.0.1", False),
        ("pictures.example", "pictures.example.evil.test", "10.0.0.1", False),
        ("*.example", "pictures.example", "10.0.0.1", True),
        ("*.example", "a.b.example", "10.0.0.1", True),
        ("*.example", "example", "10.0.0.1", False),
        ("*.example", "evilexample", "10.0.0.1", False),
        ("10.0.0.0/8", "any.test", "10.0.0.1", True),
        ("10.0.0.0/8", "10.0.0.1", "10.0.0.1", True),
        ("10.1.2.3/8", "10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2", False),
        ("10.0.0.0/8", "::ffff:a00:1", "::ffff:10.0.0.1", False),
        ("fd00::/8", "fd00::1", "fd00::1", True),
    ],
)
@each_row("fetch", ["public", "allowlist"])
def test_what_the_operator_allows_may_be_private(
    fetch: str, allow: str, host: str, text: str, permitted: bool
) -> None:
    assert FetchPolicy(fetch, [allow]).permits(host, addresses(text)) is permitted


def test_an_allowed_network_covers_all_addresses_of_a_host_or_it_does_not_count() -> None:
    assert not FetchPolicy("allowlist", ["10.0.0.0/8"]).permits(
        "a.example", addresses("10.0.0.1", "10.0.0.2", "::1")
    )


def test_an_allowed_network_and_the_internet_go_together() -> None:
    policy = FetchPolicy("public", ["10.0.0.0/8"], lambda address: False)
    assert policy.permits("a.example", addresses("10.0.0.1", "8.8.8.8"))


@pytest.mark.parametrize("fetch", ["allowlist", "off"])
def test_public_addresses_are_fetched_from_only_where_that_is_the_rule(fetch: str) -> None:
    assert not FetchPolicy(fetch, [], lambda address: False).permits(
        "example.org", addresses("8.8.8.8")
    )


def test_nothing_is_fetched_where_fetching_is_off() -> None:
    assert not FetchPolicy("off", ["example.org", "10.0.0.0/8"]).permits(
        "example.org", addresses("10.0.0.1")
    )


def test_the_machine_itself_is_not_the_internet_whatever_its_address() -> None:
    assert not FetchPolicy("public", [], lambda address: True).permits(
        "example.org", addresses("8.8.8.8")
    )
    assert FetchPolicy("public", ["8.8.8.8"], lambda address: True).permits(
        "example.org", addresses("8.8.8.8")
    )


def test_a_machine_knows_its_own_addresses() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("8.8.8.8"))
    assert not is_own(ip_address("2606:4700:4700::1111"))


# --- The setting ----------------------------------------------------------------------------------


@each_row(
    "entry",
    [
        "example.org",
        "*.example.org",
        "localhost",
        "10.0.0.0/8",
        "10.0.0.1",
        "fd00::/8",
        "::1",
        "a_b.x-1.Org",
    ],
)
def test_places_that_may_be_allowed(entry: str) -> None:
    assert _allowed(entry) == (entry,)


@each_row(
    "entry",
    [
        "*",
        "*.",
        "a*.example",
        "*.*.example",
        "http://example.org",
        "example.org:80",
        "10.0.0.300",
        "10.1",
        "a b",
        "::/x",
    ],
)
def test_places_that_can_only_be_mistakes_are_refused(entry: str) -> None:
    with pytest.raises(
        ConfigError, match=r"c.yaml:1: images.allow\[1\] must be a host, a pattern such as"
    ):
        _allowed(entry)


def _allowed(entry: str) -> tuple[str, ...]:
    text = f'images: {{allow: ["{entry}"]}}\nauth: {{generate_tokens: [a-token]}}'
    return settings_from(text.encode(), Path("c.yaml"), {}).images.allow
