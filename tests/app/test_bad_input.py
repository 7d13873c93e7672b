"""Requests that are malformed, hostile or ambiguous: refused or read in exactly one way,
never a 500. Those that are so as raw bytes are in integration/test_bad_input.py."""

from __future__ import annotations

import json
import time

import pytest

from tests.golden.face import local_gateway
from tests.rig import fault_upstream as do
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.local import LocalGateway

CHAT = {
    "model": MODEL,
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
NATIVE_CHAT, OPENAI_CHAT, ANTHROPIC_CHAT = "/api/chat", "/v1/chat/completions", "/v1/messages"
CHATS = (NATIVE_CHAT, OPENAI_CHAT, ANTHROPIC_CHAT)


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


# Hosts.


def test_only_listed_hosts_are_served_and_strangers_not_believed(upstream: FaultUpstream) -> None:
    server = {"allowed_hosts": ["gw.example", "127.0.0.1"], "trusted_proxies": ["192.0.2.1"]}
    with local_gateway(upstream, server=server) as running:
        statuses = {
            "gw.example": 200,
            "GW.EXAMPLE:99": 200,
            "evil.example": 400,
            "gw.example.evil": 400,
            "127.0.0.1": 200,
            "localhost": 400,
        }
        assert statuses == {host: running.ask("/api/tags", Host=host).status for host in statuses}
        forged = {"Host": "gw.example", "X-Forwarded-For": "6.6.6.6", "X-Request-Id": "forged"}
        assert running.ask("/api/tags", **forged).status == 200
        lines = [line for line in running.log_lines("access") if line["id"] == "forged"]
        assert [line["client"] for line in lines] == ["127.0.0.1"]


# JSON.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("depth", [990, 1000, 1010, 1020, 1023])
def test_deep_json_with_escapes_is_no_failure_of_the_gateway(
    gateway: LocalGateway, path: str, depth: int
) -> None:
    deep = b"[" * depth + b"]" * depth
    answer = gateway.ask(path, json.dumps(CHAT).encode()[:-1] + b',"\\u0078":' + deep + b"}")
    assert answer.status in (200, 400)


@pytest.mark.parametrize("path", CHATS)
def test_a_key_that_means_something_to_the_gateway_alone_is_just_a_key(
    gateway: LocalGateway, path: str
) -> None:
    assert gateway.ask(path, json.dumps({**CHAT, "\0twice": 5}).encode()).status == 200


@pytest.mark.parametrize("path", CHATS)
def test_a_hundred_thousand_equal_keys_do_not_stop_the_worker(
    gateway: LocalGateway, path: str
) -> None:
    began = time.process_time()
    body = json.dumps(CHAT).encode()[:-1] + b',"\\u0061":1' + b',"a":1' * 90_000 + b"}"
    assert gateway.ask(path, body).status in (200, 400)
    assert time.process_time() - began < 2


TAILS = [b"garbage", b"{}", b"}", b"]", b"\0", b'{"model":"other"}', b"\n# comment"]


@pytest.mark.parametrize("tail", TAILS)
def test_bytes_behind_the_object_are_ignored_natively_as_ollama_does(
    gateway: LocalGateway, upstream: FaultUpstream, tail: bytes
) -> None:
    upstream.script(
        NATIVE_CHAT, [do.Json({"message": {"role": "assistant", "content": "hi"}, "done": True})]
    )
    body = json.dumps(CHAT).encode() + tail
    assert gateway.ask(NATIVE_CHAT, body).status == 200
    assert posts_seen(upstream) == [body]
    for path in (OPENAI_CHAT, ANTHROPIC_CHAT):
        assert_error(gateway.ask(path, body), dialect_of(path), 400)
