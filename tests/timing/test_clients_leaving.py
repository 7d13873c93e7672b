"""A client that leaves is noticed within a second: by each of several answers, by a provider whose
bytes pass, and by the second try of a prompt that is cut.

Clients that leave a plain call are rows of tests/reliability.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


@dataclass
class Leaving:
    """A client that leaves: what it asks for, how the upstream answers each of the requests that
    this takes, and what the client reads before it leaves."""

    path: str
    body: dict[str, Any]
    script: Script
    requests: int = 1
    upstream_path: str = "/api/chat"
    reads: tuple[bytes, int] = (b"", 0)
    reset: bool = False


def start(gateway: Gateway, path: str, body: dict[str, Any], request_id: str) -> Stream:
    headers = bearer(TOKEN) | {"X-Request-Id": request_id}
    return open_stream(gateway.url, "POST", path, body, headers, wait_for_head=False)


def connections_of(server: ScriptedServer, path: str, count: int) -> list[int]:
    """The connections of so many requests, once they have come."""
    server.wait_for_request(count, path)
    return [seen.connection for seen in server.requests if seen.path == path]


def leave_together(
    gateway: Gateway, server: ScriptedServer, request_id: str, clients: Mapping[str, Leaving]
) -> None:
    """All clients leave at once, and each promise is checked."""
    scripts: dict[str, list[Script]] = {}
    for each in clients.values():
        scripts.setdefault(each.upstream_path, []).extend([each.script] * each.requests)
    for path, of_path in scripts.items():
        server.script(path, *of_path)
    streams: dict[str, Stream] = {}
    connections: dict[str, list[int]] = {}
    sent: Counter[str] = Counter()
    for name, each in clients.items():
        streams[name] = start(gateway, each.path, each.body, f"{request_id}-{len(streams)}")
        before, path = sent[each.upstream_path], each.upstream_path
        sent[path] += each.requests
        connections[name] = connections_of(server, path, sent[path])[before:]
        read_until(streams[name], *each.reads)
    left_at = time.monotonic()
    for name, stream in streams.items():
        stream.close(reset=clients[name].reset)
    noticed_s = {
        name: max(map(server.wait_peer_closed, connections[name])) - left_at for name in clients
    }
    assert {name for name, seconds in noticed_s.items() if seconds >= NOTICED_S} == set()
    for number in range(len(clients)):
        assert access_line(gateway, f"{request_id}-{number}")["state"] == "client_gone"


def read_until(client: Stream, text: bytes, times: int) -> None:
    """Read up to the last of so many occurrences of a text."""
    read = b""
    while read.count(text) < times:
        data = client.read_some()
        assert data, f"ended early: {read!r}"
        read += data


def test_client_that_leaves_ends_each_of_several_answers(
    gateway: Gateway, upstream: Box, request_id: str
) -> None:
    streamed = CHOICES | {"stream": True}
    silent, tokens = [WaitForPeerClose()], [STREAM_HEAD, TOKEN_LINE, WaitForPeerClose()]
    read = (b"Hel", 3)
    clients = {
        "before the heads": Leaving(CHAT, streamed, silent, 3),
        "before the first tokens": Leaving(CHAT, streamed, [STREAM_HEAD, WaitForPeerClose()], 3),
        "single": Leaving(CHAT, CHOICES | {"stream": False}, silent, 3),
        "between tokens": Leaving(CHAT, streamed, tokens, 3, reads=read),
        "by a reset": Leaving(CHAT, streamed, tokens, 3, reads=read, reset=True),
        "several prompts": Leaving(
            COMPLETIONS, PROMPTS | {"stream": True}, silent, 3, "/api/generate"
        ),
    }
    leave_together(gateway, upstream, request_id, clients)


def test_client_that_leaves_when_some_have_ended_closes_the_rest(
    gateway: Gateway, upstream: Box, request_id: str
) -> None:
    done: Script = [STREAM_HEAD, END_LINE]
    upstream.script("/api/chat", done, done, [STREAM_HEAD, WaitForPeerClose()])
    client = start(gateway, CHAT, CHOICES | {"stream": True}, request_id)
    read_until(client, b'"stop"', 2)
    connections_of(upstream, "/api/chat", 3)
    left_at = time.monotonic()
    client.close()
    assert upstream.wait_event("peer_closed").at - left_at < NOTICED_S
    assert access_line(gateway, request_id)["state"] == "client_gone"


def test_provider_whose_bytes_pass_is_left_with_the_client(
    gateway: Gateway, provider: Provider, request_id: str
) -> None:
    def leaving(stream: bool, *before: Action, reads: tuple[bytes, int] = (b"", 0)) -> Leaving:
        body = {"model": MODEL, "messages": MESSAGES, "stream": stream}
        return Leaving(CHAT, body, [*before, WaitForPeerClose()], 1, CHAT, reads)

    json_head = Head(200, {"Content-Type": "application/json"})
    clients = {
        "before the head": leaving(True),
        "before an event": leaving(True, Head(200, SSE)),
        "between events": leaving(True, Head(200, SSE), EVENT, reads=(b"delta", 1)),
        "single": leaving(False),
        "half a single": leaving(False, json_head, Chunk(b'{"id":')),
    }
    leave_together(gateway, provider, request_id, clients)


@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
def test_client_that_leaves_during_the_second_try_ends_it(
    gateway: Gateway, upstream: Box, request_id: str, stream: bool
) -> None:
    """A prompt that is too long is cut, and tried again."""
    too_long: Script = [Json({"error": "the input length exceeds the context length"}, 400)]
    upstream.script("/api/chat", too_long, [WaitForPeerClose()])
    face = FACES["openai chat"]
    client = start(
        gateway, face.path, face.body | {"model": "lenient", "stream": stream}, request_id
    )
    second = upstream.wait_for_request(2, "/api/chat")
    left_at = time.monotonic()
    client.close()
    assert upstream.wait_peer_closed(second.connection) - left_at < NOTICED_S
    assert access_line(gateway, request_id)["state"] == "client_gone"
