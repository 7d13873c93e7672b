"""A client that leaves is noticed within a second: by each of several answers, by a provider whose
bytes pass, and by the second try of a prompt that is cut.

Clients that leave a plain call are rows of tests/reliability.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.face import TOKEN
from tests.rig import SSE
from tests.rig.boxes import Box
from tests.rig.calls import CHAT_LINE, FACES, MESSAGES, STREAM_HEAD, access_line
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Head,
    Json,
    Script,
    ScriptedServer,
    WaitForPeerClose,
)
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, open_stream
from tests.rig.provider import CHAT, KEY, MODEL, Provider, upstream_entry

NOTICED_S = 1.0
#: A model that cuts prompts that are too long.
LENIENT = {"lenient": {"target": "m", "truncate": True}}

COMPLETIONS = "/v1/completions"
CHOICES: dict[str, Any] = {"model": "m", "messages": MESSAGES, "n": 3}
PROMPTS: dict[str, Any] = {"model": "m", "prompt": ["a", "b", "c"]}

TOKEN_LINE = Chunk(json.dumps(CHAT_LINE).encode() + b"\n")
END_LINE = Chunk(json.dumps(CHAT_LINE | {"done": True, "done_reason": "stop"}).encode() + b"\n")
EVENT = Chunk(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n')


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Box]:
    with Box("box", ["m"]) as server:
        yield server


@pytest.fixture
def upstream(shared_upstream: Box) -> Box:
    """The gateway's Ollama server, without scripts."""
    shared_upstream.clear()
    return shared_upstream


@pytest.fixture(scope="module")
def gateway(shared_upstream: Box, shared_provider: Provider) -> Iterator[Gateway]:
    """One gateway for the module, before an Ollama server and a provider."""
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": [
            shared_upstream.declared,
            upstream_entry(shared_provider.base_url, api_key_env="LAB_SECRET"),
        ],
        "models": LENIENT,
    }
    with Gateway(config, workers=1, env={"LAB_SECRET": KEY}) as running:
        yield running


def start(gateway: Gateway, path: str, body: dict[str, Any], request_id: str) -> Stream:
    headers = bearer(TOKEN) | {"X-Request-Id": request_id}
    return open_stream(gateway.url, "POST", path, body, headers, wait_for_head=False)


def leave(client: Stream, server: ScriptedServer, connections: list[int], **how: bool) -> None:
    """Close the client's connection and check the promise."""
    left_at = time.monotonic()
    client.close(**how)
    for connection in connections:
        assert server.wait_peer_closed(connection) - left_at < NOTICED_S


def read_until(client: Stream, text: bytes, times: int) -> None:
    """Read up to the last of so many occurrences of a text."""
    read = b""
    while read.count(text) < times:
        data = client.read_some()
        assert data, f"ended early: {read!r}"
        read += data


# --- Several answers ------------------------------------------------------------------------------


def connections_of(upstream: Box, path: str = "/api/chat", count: int = 3) -> list[int]:
    """The connections of so many requests, once they have come."""
    upstream.wait_for_request(count, path)
    return [seen.connection for seen in upstream.requests if seen.path == path]


@pytest.mark.parametrize(
    ("stream", "before"),
    [(True, []), (True, [STREAM_HEAD]), (False, [])],
    ids=["before the heads", "before the first tokens", "single"],
)
def test_client_that_leaves_early_closes_all(
    gateway: Gateway, upstream: Box, request_id: str, stream: bool, before: list[Action]
) -> None:
    upstream.script("/api/chat", [*before, WaitForPeerClose()])
    client = start(gateway, CHAT, CHOICES | {"stream": stream}, request_id)
    leave(client, upstream, connections_of(upstream))
    assert access_line(gateway, request_id)["state"] == "client_gone"


def test_client_that_leaves_several_prompts_closes_all(
    gateway: Gateway, upstream: Box, request_id: str
) -> None:
    upstream.script("/api/generate", [WaitForPeerClose()])
    client = start(gateway, COMPLETIONS, PROMPTS | {"stream": True}, request_id)
    leave(client, upstream, connections_of(upstream, "/api/generate"))
    assert access_line(gateway, request_id)["state"] == "client_gone"


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_client_that_leaves_between_tokens_closes_all(
    gateway: Gateway, upstream: Box, request_id: str, reset: bool
) -> None:
    upstream.script("/api/chat", [STREAM_HEAD, TOKEN_LINE, WaitForPeerClose()])
    client = start(gateway, CHAT, CHOICES | {"stream": True}, request_id)
    read_until(client, b"Hel", 3)
    leave(client, upstream, connections_of(upstream), reset=reset)
    assert access_line(gateway, request_id)["state"] == "client_gone"


def test_client_that_leaves_when_some_have_ended_closes_the_rest(
    gateway: Gateway, upstream: Box, request_id: str
) -> None:
    done: Script = [STREAM_HEAD, END_LINE]
    upstream.script("/api/chat", done, done, [STREAM_HEAD, WaitForPeerClose()])
    client = start(gateway, CHAT, CHOICES | {"stream": True}, request_id)
    read_until(client, b'"stop"', 2)
    connections_of(upstream)
    left_at = time.monotonic()
    client.close()
    assert upstream.wait_event("peer_closed").at - left_at < NOTICED_S
    assert access_line(gateway, request_id)["state"] == "client_gone"


# --- A provider whose bytes pass ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "before"),
    [
        (True, []),
        (True, [Head(200, SSE)]),
        (True, [Head(200, SSE), EVENT]),
        (False, []),
        (False, [Head(200, {"Content-Type": "application/json"}), Chunk(b'{"id":')]),
    ],
    ids=["before the head", "before an event", "between events", "single", "half a single"],
)
def test_provider_is_left_within_a_second_of_the_client(
    gateway: Gateway, provider: Provider, request_id: str, stream: bool, before: list[Action]
) -> None:
    provider.script(CHAT, [*before, WaitForPeerClose()])
    body = {"model": MODEL, "messages": MESSAGES, "stream": stream}
    client = start(gateway, CHAT, body, request_id)
    connection = provider.wait_for_request(1, CHAT).connection
    if EVENT in before:
        assert client.read_some()
    leave(client, provider, [connection])
    assert access_line(gateway, request_id)["state"] == "client_gone"


# --- The second try of a prompt that is cut -------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
def test_client_that_leaves_during_the_second_try_ends_it(
    gateway: Gateway, upstream: Box, request_id: str, stream: bool
) -> None:
    too_long: Script = [Json({"error": "the input length exceeds the context length"}, 400)]
    upstream.script("/api/chat", too_long, [WaitForPeerClose()])
    face = FACES["openai chat"]
    client = start(
        gateway, face.path, face.body | {"model": "lenient", "stream": stream}, request_id
    )
    second = upstream.wait_for_request(2, "/api/chat")
    leave(client, upstream, [second.connection])
    assert access_line(gateway, request_id)["state"] == "client_gone"
