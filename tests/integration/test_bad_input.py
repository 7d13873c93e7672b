"""Requests that are malformed, hostile or ambiguous, as raw bytes: refused or read in exactly
one way, never a 500."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.rig import fault_upstream as do
from tests.rig.calls import TOKEN
from tests.rig.checked import checked_gateway
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, encode_request, raw, request
from tests.rig.smuggling import INNER, MARKER, chunks
from tests.rig.stalls import seconds_without_stalls

CHAT = {
    "model": MODEL,
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
NATIVE_CHAT, OPENAI_CHAT, ANTHROPIC_CHAT = "/api/chat", "/v1/chat/completions", "/v1/messages"
CHATS = (NATIVE_CHAT, OPENAI_CHAT, ANTHROPIC_CHAT)


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    with checked_gateway(shared_upstream, TOKEN, unsaid=("Traceback",)) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: FaultUpstream) -> FaultUpstream:
    """The gateway's upstream, healthy again; it shows every model whatever the
    bytes of the request."""
    shared_upstream.clear()
    shared_upstream.script("/api/show", [do.Json({"model_info": {}})])
    return shared_upstream


def posts_seen(upstream: FaultUpstream) -> list[bytes]:
    """The bodies of all POST requests that reached the upstream."""
    return [seen.body for seen in upstream.requests if seen.method == "POST"]


# Bodies that are not read.

UNREAD = {
    "wrong token": ("POST", "/api/show", "wrong", {}),
    "unknown address": ("POST", "/nope", TOKEN, {}),
    "wrong method": ("PUT", "/api/show", TOKEN, {}),
    "multipart": ("POST", "/api/show", TOKEN, {"Content-Type": "multipart/form-data"}),
    "refused route": ("POST", "/api/me", TOKEN, {}),
    "no body expected": ("GET", "/api/tags", TOKEN, {}),
    "public page": ("GET", "/livez", TOKEN, {}),
    "options": ("OPTIONS", "/api/show", TOKEN, {}),
}


@pytest.mark.parametrize(("method", "path", "token", "headers"), UNREAD.values(), ids=UNREAD.keys())
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_body_that_nobody_wanted_is_never_the_next_request(
    gateway: Gateway,
    upstream: FaultUpstream,
    method: str,
    path: str,
    token: str,
    headers: dict[str, str],
    framing: str,
) -> None:
    more = {"Transfer-Encoding": "chunked"} if framing == "chunked" else {}
    body = chunks(INNER) if framing == "chunked" else INNER
    sent = {**bearer(token), "Connection": "keep-alive", **headers, **more}
    answer = raw(gateway.port, encode_request("gw", method, path, body, sent) + MARKER, quiet_s=0.3)
    assert answer.startswith(b"HTTP/1.1 ")
    assert not [seen for seen in posts_seen(upstream) if b'"inner-' in seen]
    assert len(posts_seen(upstream)) <= 1


# Hosts.


def with_host(gateway: Gateway, host: str, token: str) -> bytes:
    head = (
        b"GET /api/tags HTTP/1.1\r\nHost: "
        + host.encode()
        + b"\r\nConnection: close\r\nAuthorization: Bearer "
    )
    return raw(gateway.port, head + token.encode() + b"\r\n\r\n").split(b" ", 2)[1]


def test_only_listed_hosts_are_served_and_strangers_not_believed(upstream: FaultUpstream) -> None:
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": upstream.url},
        "server": {"allowed_hosts": ["gw.example", "127.0.0.1"], "trusted_proxies": ["192.0.2.1"]},
    }
    with Gateway(config, workers=1) as running:
        hosts = (
            "gw.example",
            "GW.EXAMPLE:99",
            "evil.example",
            "gw.example.evil",
            "127.0.0.1",
            "localhost",
        )
        expected = [b"200", b"200", b"400", b"400", b"200", b"400"]
        assert [with_host(running, host, TOKEN) for host in hosts] == expected
        forged = {**bearer(TOKEN), "X-Forwarded-For": "6.6.6.6", "X-Request-Id": "forged"}
        assert (
            request(
                running.url, "GET", "/api/tags", headers={**forged, "Host": "gw.example"}
            ).status
            == 200
        )
        lines = running.log_lines("access", at_least=len(hosts) + 2)
        assert [line["client"] for line in lines if line["id"] == "forged"] == ["127.0.0.1"]


# JSON.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("depth", [990, 1000, 1010, 1020, 1023])
def test_deep_json_with_escapes_is_no_failure_of_the_gateway(
    gateway: Gateway, path: str, depth: int
) -> None:
    deep = b"[" * depth + b"]" * depth
    answer = gateway.ask(path, json.dumps(CHAT).encode()[:-1] + b',"\\u0078":' + deep + b"}")
    assert answer.status in (200, 400)


@pytest.mark.parametrize("path", CHATS)
def test_a_key_that_means_something_to_the_gateway_alone_is_just_a_key(
    gateway: Gateway, path: str
) -> None:
    assert gateway.ask(path, json.dumps({**CHAT, "\0twice": 5}).encode()).status == 200


@pytest.mark.parametrize("path", CHATS)
def test_a_hundred_thousand_equal_keys_do_not_stop_the_worker(gateway: Gateway, path: str) -> None:
    began = time.monotonic()
    body = json.dumps(CHAT).encode()[:-1] + b',"\\u0061":1' + b',"a":1' * 90_000 + b"}"
    assert gateway.ask(path, body).status in (200, 400)
    assert seconds_without_stalls(began) < 2


TAILS = [b"garbage", b"{}", b"}", b"]", b"\0", b'{"model":"other"}', b"\n# comment"]


@pytest.mark.parametrize("tail", TAILS)
def test_bytes_behind_the_object_are_ignored_natively_as_ollama_does(
    gateway: Gateway, upstream: FaultUpstream, tail: bytes
) -> None:
    upstream.script(
        NATIVE_CHAT, [do.Json({"message": {"role": "assistant", "content": "hi"}, "done": True})]
    )
    body = json.dumps(CHAT).encode() + tail
    assert gateway.ask(NATIVE_CHAT, body).status == 200
    assert posts_seen(upstream) == [body]
    for path in (OPENAI_CHAT, ANTHROPIC_CHAT):
        assert_error(gateway.ask(path, body), dialect_of(path), 400)


# Bodies that do not come whole.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 1000", json.dumps(CHAT).encode()),
        (
            b"Transfer-Encoding: chunked",
            b"%x\r\n%b\r\n" % (len(json.dumps(CHAT)), json.dumps(CHAT).encode()),
        ),
        (b"Transfer-Encoding: chunked", b"fff\r\n" + json.dumps(CHAT).encode()),
        (b"Transfer-Encoding: chunked", b"zz\r\n" + json.dumps(CHAT).encode()),
    ],
    ids=["length", "between chunks", "inside a chunk", "no chunk at all"],
)
def test_a_body_that_stops_in_its_middle_is_never_sent_on(
    gateway: Gateway, upstream: FaultUpstream, path: str, framing: bytes, sent: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %b\r\n" % (
        path.encode(),
        TOKEN.encode(),
    )
    answer = raw(gateway.port, head + framing + b"\r\n\r\n" + sent, half_close=True)
    assert answer.split()[1] == b"400"
    assert posts_seen(upstream) == []
