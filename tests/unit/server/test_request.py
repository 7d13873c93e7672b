"""A request as it arrives: its id, its client, its host and its path."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.dialects.openai.blueprint import OPENAI
from ollama_proxy.errors import NotFound
from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.server.request import (
    check_path,
    client_address,
    is_secure,
    is_trusted,
    new_exchange,
    redacted,
    request_id,
    user_name,
)
from ollama_proxy.settings.schema import Server, Settings
from ollama_proxy.settings.state_dir import token_digest
from tests.rig.tables import each_row

LOOPBACK = ("127.0.0.1", "::1")


@pytest.mark.parametrize("sent", ["abc", "A-1_b:c.d", "x" * 128])
def test_an_id_of_the_client_is_kept(sent: str) -> None:
    assert request_id(sent, ConfiguredTokens()) == sent


@each_row("sent", [None, "", " ", "a b", "x" * 129, "a\n", 'a"b', "é", "a,b", "<script>"])
def test_what_is_no_id_is_replaced_by_a_new_one(sent: str | None) -> None:
    made = request_id(sent, ConfiguredTokens())
    assert made != sent and len(made) == 24
    assert request_id(sent, ConfiguredTokens()) != made


def test_a_token_is_no_id() -> None:
    tokens = ConfiguredTokens()
    tokens.replace({token_digest("sk-team-token"): None})
    assert request_id("job-7", tokens) == "job-7"
    assert "sk-team-token" not in request_id("sk-team-token", tokens)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/k/sk-wrong/api/tags", "/k/***/api/tags"),
        ("/v1/K//sk-wrong", "/v1/K//***"),
        ("/api/blobs/sk-right", "/api/blobs/***"),
        ("/api/tags", "/api/tags"),
    ],
)
def test_tokens_are_masked_in_paths(path: str, shown: str) -> None:
    assert redacted(path, lambda part: part == "sk-right") == shown


@each_row(
    ("header", "user"),
    [
        ("ann@example.org", "ann@example.org"),
        ("%E5%BC%A0 %E4%B8%89", "张 三"),
        ("张三".encode().decode("latin-1"), "张三"),
        ("a%0D%0A%1B[2Jb%00%E2%80%AE%C2%85", "a[2Jb"),
        ("%", "%"),
        ("%zz%FF", "%zz\ufffd"),
        ("%F0%9F%8E%89" * 999, "🎉" * 63),
        ("x" * 9999, "x" * 254),
        ("", None),
        ("%20%09", None),
    ],
)
def test_name_of_a_user_is_decoded_bounded_and_printable(header: str, user: str | None) -> None:
    assert user_name(header) == user


@each_row(
    ("peer", "forwarded", "trusted", "client"),
    [
        ("10.1.1.1", None, LOOPBACK, "10.1.1.1"),
        ("10.1.1.1", "9.9.9.9", LOOPBACK, "10.1.1.1"),
        ("127.0.0.1", "9.9.9.9", LOOPBACK, "9.9.9.9"),
        ("::1", "2001:db8::1", LOOPBACK, "2001:db8::1"),
        ("", "9.9.9.9", LOOPBACK, ""),
        ("", "9.9.9.9", ("unix:",), "9.9.9.9"),
        ("127.0.0.1", "9.9.9.9", ("unix:",), "127.0.0.1"),
        ("fe80::1%eth0", "9.9.9.9", ("fe80::/10",), ""),
        ("::ffff:127.0.0.1", "9.9.9.9", LOOPBACK, "9.9.9.9"),
        ("::ffff:7f00:1", "9.9.9.9", LOOPBACK, "9.9.9.9"),
        ("::ffff:10.1.1.1", "9.9.9.9", ("::ffff:10.0.0.0/104",), "9.9.9.9"),
        ("10.1.1.1", "9.9.9.9", ("::ffff:10.0.0.0/104",), "9.9.9.9"),
        ("10.1.1.1", "9.9.9.9", ("::/0",), "10.1.1.1"),
        ("::ffff:10.1.1.1", None, (), "10.1.1.1"),
        ("2001:DB8:0:0::1", None, (), "2001:db8::1"),
        ("127.0.0.1", "::ffff:9.9.9.9", LOOPBACK, "9.9.9.9"),
        ("127.0.0.1", "2001:DB8::0:1", LOOPBACK, "2001:db8::1"),
        ("127.0.0.1", "fe80::1%eth0", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "fe80::1%" + "x" * 5000, LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "fe80::1%25<script>, 9.9.9.9", LOOPBACK, "9.9.9.9"),
        ("127.0.0.1", "9.9.9.9:1234", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "[2001:db8::1]", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "010.1.1.1", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "1.2.3", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9,", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "6.6.6.6, 9.9.9.9", LOOPBACK, "9.9.9.9"),
        ("127.0.0.1", "9.9.9.9, 127.0.0.1", LOOPBACK, "9.9.9.9"),
        ("10.0.0.1", "9.9.9.9, 10.0.0.2", ("10.0.0.0/8",), "9.9.9.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", ("10.0.0.0/8",), "10.0.0.3"),
        ("127.0.0.1", "9.9.9.9, junk", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "junk, 127.0.0.1", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "", LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", '9.9.9.9", "x', LOOPBACK, "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9", (), "127.0.0.1"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, forwarded: str | None, trusted: tuple[str, ...], client: str
) -> None:
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}
    assert client_address(environ, trusted) == client


@each_row(
    ("address", "trusted", "expected"),
    [
        ("10.2.3.4", ("10.0.0.0/8",), True),
        ("11.2.3.4", ("10.0.0.0/8",), False),
        ("fe80::1", ("fe80::/10",), True),
        ("10.0.0.1", ("::1",), False),
        ("host.example", ("0.0.0.0/0",), False),
    ],
)
def test_trusted_proxies_are_addresses_or_networks(
    address: str, trusted: tuple[str, ...], expected: bool
) -> None:
    assert is_trusted(address, trusted) is expected


@each_row(
    "raw",
    [
        "/",
        "/api/chat",
        "/api/chat?x=%2e%2e/..//;",
        "/v1/models/ns%2Fm",
        "/v1/models/ns/m%3Atag",
        "/v1/models/m.1..2",
        "/api/blobs/sha256%3aabc",
        "/admin/api/models/hf.co%2Forg%2Fm%3Atag",
        "/admin/api/models/my%20qwen3%2a",
        "/admin/api/models/%e6%88%91",
    ],
)
def test_plain_paths_pass(raw: str) -> None:
    check_path({"RAW_URI": raw, "PATH_INFO": raw.partition("?")[0]})


@each_row(
    ("raw", "decoded"),
    [
        ("//api/tags", "//api/tags"),
        ("/api//tags", "/api//tags"),
        ("/api/../tags", "/api/../tags"),
        ("/api/./tags", "/api/./tags"),
        ("/api/..", "/api/.."),
        ("/api/tags;x", "/api/tags;x"),
        ("/api\\tags", "/api\\tags"),
        ("/%61pi/tags", "/api/tags"),
        ("/api%2ftags", "/api/tags"),
        ("/api/tags%3fx", "/api/tags?x"),
        ("/api/tags%00", "/api/tags\0"),
        ("/admin/api/models/..%2fx", "/admin/api/models/../x"),
        ("/admin/api/models/x%00", "/admin/api/models/x\0"),
        ("/admin/api/models/x%5cy", "/admin/api/models/x\\y"),
        ("/admin/api/tokens/x%20y", "/admin/api/tokens/x y"),
        ("/admin/api%2fstatus", "/admin/api/status"),
        ("/v1/models/%2e%2e/x", "/v1/models/../x"),
        ("/v1/models/m%0d%0a", "/v1/models/m\r\n"),
        ("/v1/models/m%252f", "/v1/models/m%2f"),
        ("/v1/models/..%2fx", "/v1/models/../x"),
        ("http://gw/api/tags", "/api/tags"),
        ("*", "*"),
        ("/%", "/api/tags"),
    ],
)
def test_paths_that_could_mean_another_one_are_not_found(raw: str, decoded: str) -> None:
    with pytest.raises(NotFound):
        check_path({"RAW_URI": raw, "PATH_INFO": decoded})


def test_an_exchange_knows_what_is_known_at_its_arrival() -> None:
    environ: dict[str, Any] = {
        "PATH_INFO": "/v1/models",
        "REQUEST_METHOD": "GET",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_FORWARDED_FOR": "9.9.9.9",
        "HTTP_X_REQUEST_ID": "mine",
    }
    exchange = new_exchange(
        environ,
        Settings(server=Server(trusted_proxies=LOOPBACK)),
        OPENAI,
        ConfiguredTokens(),
        SYSTEM_CLOCK,
    )
    assert (exchange.id, exchange.method, exchange.path) == ("mine", "GET", "/v1/models")
    assert (exchange.client, exchange.dialect) == ("9.9.9.9", OPENAI)


def test_nobody_is_a_trusted_proxy_by_default() -> None:
    environ = {
        "PATH_INFO": "/",
        "REQUEST_METHOD": "GET",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_FORWARDED_FOR": "9.9.9.9",
    }
    assert (
        new_exchange(environ, Settings(), OPENAI, ConfiguredTokens(), SYSTEM_CLOCK).client
        == "127.0.0.1"
    )


def test_long_lists_of_hops_cost_little() -> None:
    """They may be as long as a head, and end at the first hop that nobody trusts."""
    environ = {
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_FORWARDED_FOR": "," * 30_000 + "9.9.9.9, 127.0.0.1",
    }
    began = time.process_time()
    for _ in range(100):
        assert client_address(environ, LOOPBACK) == "9.9.9.9"
    assert time.process_time() - began < 1


@each_row(
    ("environ", "is_so"),
    [
        ({"wsgi.url_scheme": "https"}, True),
        ({"wsgi.url_scheme": "http"}, False),
        (
            {
                "wsgi.url_scheme": "http",
                "REMOTE_ADDR": "10.0.0.2",
                "HTTP_X_FORWARDED_PROTO": "https",
            },
            True,
        ),
        (
            {
                "wsgi.url_scheme": "http",
                "REMOTE_ADDR": "10.0.0.2",
                "HTTP_X_FORWARDED_PROTO": "http",
            },
            False,
        ),
        (
            {
                "wsgi.url_scheme": "http",
                "REMOTE_ADDR": "192.0.2.1",
                "HTTP_X_FORWARDED_PROTO": "https",
            },
            False,
        ),
    ],
)
def test_trusted_proxies_say_whether_a_client_uses_tls(
    environ: dict[str, str], is_so: bool
) -> None:
    assert is_secure(environ, ("10.0.0.0/8",)) is is_so
