"""Whose address a request has, in the access log and for wrong tokens: the connection's, or a
trusted proxy's word."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import HeaderItems, Stream, bearer, encode_request, request
from tests.rig.nginx import Nginx

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


#: As it is without a setting; of one worker, because each counts for itself.
shared_gateway = module_fixture(lambda shared_upstream: Gateway(config(shared_upstream), workers=1))


@pytest.fixture(scope="module")
def trusting(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """Behind a proxy on this machine."""
    with Gateway(config(shared_upstream, trusted_proxies=["127.0.0.1"]), workers=1) as running:
        yield running


def from_address(source: str, port: int, headers: HeaderItems = (), *, token: str = TOKEN) -> int:
    """The status of a request that comes from an address of this machine."""
    with closing(socket.create_connection(("127.0.0.1", port), 5, (source, 0))) as sock:
        items = [*dict(headers).items()] if isinstance(headers, dict) else list(headers)
        sock.sendall(
            encode_request("gw", "GET", "/api/tags", None, [*bearer(token).items(), *items])
        )
        return Stream(sock).status


def logged_client(gateway: Gateway, ask: Callable[[tuple[str, str]], object]) -> str:
    """The client's address in the line of the access log for one request."""
    name = f"address-{next(NUMBERS)}"
    ask(("X-Request-Id", name))
    found = wait_until(lambda: [line for line in gateway.log_lines("access") if line["id"] == name])
    return str(found[0]["client"])


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_nobody_is_believed_without_a_setting(
    gateway: Gateway, claim: list[tuple[str, str]]
) -> None:
    for source in ("127.0.0.1", "127.0.0.3"):
        seen = logged_client(
            gateway, lambda id, source=source: from_address(source, gateway.port, [*claim, id])
        )  # type: ignore[misc]
        assert seen == source
    assert "canary" not in (gateway.logs_directory / "access.log").read_text()


#: One that has not counted a wrong token yet.
fresh = function_fixture(lambda upstream: Gateway(config(upstream), workers=1))


def test_claimed_addresses_do_not_get_round_the_limit_for_wrong_tokens(fresh: Gateway) -> None:
    guesses = [
        from_address(
            "127.0.0.1", fresh.port, {"X-Forwarded-For": f"198.51.100.{n}"}, token=f"guess-{n}"
        )
        for n in range(LIMIT + 3)
    ]
    assert guesses == [401] * LIMIT + [429] * 3
    assert from_address("127.0.0.5", fresh.port) == 200


def test_claimed_addresses_do_not_lock_others_out(fresh: Gateway) -> None:
    for n in range(LIMIT + 1):
        from_address("127.0.0.1", fresh.port, {"X-Forwarded-For": "127.0.0.7"}, token=f"guess-{n}")
    assert from_address("127.0.0.7", fresh.port) == 200


def test_process_on_another_address_than_the_proxy_is_not_believed(trusting: Gateway) -> None:
    headers = [("X-Forwarded-For", "203.0.113.9")]
    seen = [
        logged_client(
            trusting, lambda id, source=source: from_address(source, trusting.port, [*headers, id])
        )  # type: ignore[misc]
        for source in ("127.0.0.1", "127.0.0.8")
    ]
    assert seen == ["203.0.113.9", "127.0.0.8"]


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
    trusting: Gateway, said: str, client: str
) -> None:
    def ask(id: tuple[str, str]) -> None:
        from_address("127.0.0.1", trusting.port, [("X-Forwarded-For", said), id], token="sk-wrong")

    assert logged_client(trusting, ask) == client
    for log in trusting.logs_directory.iterdir():
        assert "canary" not in log.read_text()


def test_zones_do_not_make_new_addresses_for_wrong_tokens(trusting: Gateway) -> None:
    spellings = [
        "2001:db8:7::1",
        "2001:DB8:7:0::1",
        "2001:db8:7::ffff",
        "2001:db8:7:0:0:0:0:2",
        "2001:db8:7::3",
    ]
    guesses = [
        from_address("127.0.0.1", trusting.port, {"X-Forwarded-For": spelling}, token=f"zone-{n}")
        for n, spelling in enumerate([*spellings, "2001:db8:7::4"])
    ]
    assert guesses == [401] * LIMIT + [429]


def test_client_behind_nginx_has_its_own_address(trusting: Gateway, tmp_path: Path) -> None:
    """Whatever it claims itself."""
    with Nginx(tmp_path, f"127.0.0.1:{trusting.port}") as nginx:
        claim = [("X-Forwarded-For", "203.0.113.9")]
        seen = logged_client(
            trusting, lambda id: from_address("127.0.0.9", nginx.port, [*claim, id])
        )
    assert seen == "127.0.0.9"


@pytest.mark.parametrize(
    ("trusted", "client"), [([], ""), (["127.0.0.1"], ""), (["unix:"], "127.0.0.9")]
)
def test_nginx_on_a_unix_socket(
    shared_upstream: FaultUpstream, tmp_path: Path, trusted: list[str], client: str
) -> None:
    running = Gateway(config(shared_upstream, trusted_proxies=trusted), workers=1)
    path = running.directory / "gateway.sock"
    running._env["GUNICORN_CMD_ARGS"] = f"--bind 127.0.0.1:{running.port} --bind unix:{path}"
    with running, Nginx(tmp_path, f"unix:{path}") as nginx:
        assert (
            logged_client(running, lambda id: from_address("127.0.0.9", nginx.port, [id])) == client
        )


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_gateway_on_both_protocols_knows_one_spelling(
    shared_upstream: FaultUpstream, peer: str
) -> None:
    running = Gateway(config(shared_upstream), workers=1)
    running._env["GUNICORN_CMD_ARGS"] = f"--bind [::]:{running.port}"
    host = f"[{peer}]" if ":" in peer else peer
    with running:
        url = f"http://{host}:{running.port}"

        def ask(id: tuple[str, str]) -> None:
            assert (
                request(url, path="/api/tags", headers=[*bearer(TOKEN).items(), id]).status == 200
            )

        assert logged_client(running, ask) == peer
        with socket.create_connection((peer, running.port), 5) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 400"
        (event,) = wait_until(lambda: running.events("bad_http"))
        assert event["client"] == peer
