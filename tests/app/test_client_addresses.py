"""Whose address a request has, in the access log and for wrong tokens: the connection's, or a
trusted proxy's word."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.rig.calls import TOKEN
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway

LIMIT = 5
NUMBERS = itertools.count(1)

#: What a process may say that wants to be somebody else.
CLAIMS: dict[str, list[tuple[str, str]]] = {
    "an address": [("X-Forwarded-For", "203.0.113.9")],
    "several": [("X-Forwarded-For", "203.0.113.9, 198.51.100.1"), ("X-Forwarded-For", "192.0.2.1")],
    "IPv6": [("X-Forwarded-For", "2001:db8::1")],
    "loopback": [("X-Forwarded-For", "127.0.0.7")],
    "a zone": [("X-Forwarded-For", "fe80::1%canary")],
    "other headers": [
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
        ("X_Forwarded_For", "203.0.113.9"),
    ],
    "proxy protocol": [("X-Client-IP", "203.0.113.9"), ("True-Client-IP", "203.0.113.9")],
}


def config(upstream: FaultUpstream, **server: Any) -> dict[str, Any]:
    return {
        "auth": {"generate_tokens": [TOKEN], "max_failed_logins": LIMIT},
        "service": {"base_url": upstream.url},
        "server": server,
    }


#: As it is without a setting.
shared_gateway = module_fixture(lambda shared_upstream: LocalGateway(config(shared_upstream)))


@pytest.fixture(scope="module")
def trusting(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """Behind a proxy on this machine."""
    with LocalGateway(config(shared_upstream, trusted_proxies=["127.0.0.1"])) as running:
        yield running


def from_address(
    source: str,
    gateway: LocalGateway,
    headers: Sequence[tuple[str, str]] = (),
    *,
    token: str = TOKEN,
) -> int:
    """The status of a request that comes from this address."""
    gateway.client = source
    items = [*bearer(token).items(), *headers]
    return gateway.request("GET", "/api/tags", None, items).status


def logged_client(
    source: str,
    gateway: LocalGateway,
    headers: Sequence[tuple[str, str]] = (),
    *,
    token: str = TOKEN,
) -> str:
    """The client's address in the line of the access log for one such request."""
    name = f"address-{next(NUMBERS)}"
    from_address(source, gateway, [*headers, ("X-Request-Id", name)], token=token)
    [line] = [line for line in gateway.log_lines("access") if line["id"] == name]
    return str(line["client"])


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_nobody_is_believed_without_a_setting(
    gateway: LocalGateway, claim: list[tuple[str, str]]
) -> None:
    for source in ("127.0.0.1", "127.0.0.3", "2001:db8::7"):
        assert logged_client(source, gateway, claim) == source
    assert "canary" not in (gateway.logs_directory / "access.log").read_text()


#: One that has not counted a wrong token yet.
fresh = function_fixture(lambda upstream: LocalGateway(config(upstream)))


def test_claimed_addresses_do_not_get_round_the_limit_for_wrong_tokens(
    fresh: LocalGateway,
) -> None:
    guesses = [
        from_address(
            "127.0.0.1", fresh, [("X-Forwarded-For", f"198.51.100.{n}")], token=f"guess-{n}"
        )
        for n in range(LIMIT + 3)
    ]
    assert guesses == [401] * LIMIT + [429] * 3
    assert from_address("127.0.0.5", fresh) == 200


def test_claimed_addresses_do_not_lock_others_out(fresh: LocalGateway) -> None:
    for n in range(LIMIT + 1):
        from_address("127.0.0.1", fresh, [("X-Forwarded-For", "127.0.0.7")], token=f"guess-{n}")
    assert from_address("127.0.0.7", fresh) == 200


def test_process_on_another_address_than_the_proxy_is_not_believed(
    trusting: LocalGateway,
) -> None:
    headers = [("X-Forwarded-For", "203.0.113.9")]
    assert logged_client("127.0.0.1", trusting, headers) == "203.0.113.9"
    assert logged_client("127.0.0.8", trusting, headers) == "127.0.0.8"


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%canary", "127.0.0.1"),
        ("203.0.113.9%canary", "127.0.0.1"),
        ("canary", "127.0.0.1"),
        ("203.0.113.9, fe80::1%canary", "127.0.0.1"),
    ],
)
def test_word_of_a_proxy_is_an_address_or_nothing(
    trusting: LocalGateway, said: str, client: str
) -> None:
    headers = [("X-Forwarded-For", said)]
    assert logged_client("127.0.0.1", trusting, headers, token="sk-wrong") == client
    for log in trusting.logs_directory.iterdir():
        assert "canary" not in log.read_text()


@pytest.mark.parametrize(
    ("trusted", "client"), [([], ""), (["127.0.0.1"], ""), (["unix:"], "203.0.113.9")]
)
def test_peer_on_a_unix_socket_is_believed_if_it_is_trusted(
    upstream: FaultUpstream, trusted: list[str], client: str
) -> None:
    with LocalGateway(config(upstream, trusted_proxies=trusted)) as running:
        assert logged_client("", running, [("X-Forwarded-For", "203.0.113.9")]) == client


def test_zones_do_not_make_new_addresses_for_wrong_tokens(trusting: LocalGateway) -> None:
    spellings = [
        "2001:db8:7::1",
        "2001:DB8:7:0::1",
        "2001:db8:7::ffff",
        "2001:db8:7:0:0:0:0:2",
        "2001:db8:7::3",
        "2001:db8:7::4",
    ]
    guesses = [
        from_address("127.0.0.1", trusting, [("X-Forwarded-For", spelling)], token=f"zone-{n}")
        for n, spelling in enumerate(spellings)
    ]
    assert guesses == [401] * LIMIT + [429]
