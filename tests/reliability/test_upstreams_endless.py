"""Answers without an end, to clients that want all of it at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig import SSE
from tests.rig.calls import MESSAGES, resident_kib
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import Flood, Head, ScriptedServer
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import bearer, request
from tests.rig.provider import CHAT, Provider, chunk, refused, said, upstream_entry

#: One answer may have 64 MiB; its pieces take more in memory than on the line.
MOST_MIB = 400.0
#: What takes OpenAI's bytes is passed through, and nothing is collected for it.
ROUTES: dict[str, dict[str, Any]] = {
    "/api/chat": {"stream": False},
    "/v1/messages": {"max_tokens": 100},
    "/v1/responses": {"input": "hi"},
}
OTHERS = [path for path in ROUTES if path != "/api/chat"]
CALL = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "1" * 60_000}}
ENDLESS = {
    "text": chunk({"content": "word " * 40}),
    "thinking": chunk({"reasoning_content": "hm " * 60}),
    "a call": chunk({"tool_calls": [CALL]}),
    "nothing": chunk({"x": "y" * 1000}),
}


provider = module_fixture(Provider)


@pytest.fixture(scope="module")
def rig(provider: ScriptedServer) -> Iterator[Rig]:
    """One worker, and a provider that has said of its model that it only streams."""
    lab = upstream_entry(f"{provider.url}/v1", models={"gpt-lab": "org/tiny-1"})
    with Rig(more_upstreams=[lab | {"api_key_env": "LAB_KEY"}], env={"LAB_KEY": "sk-lab"}) as rig:
        provider.script(
            CHAT, refused(400, "This model only supports stream mode."), said(stream=True)
        )
        body = {"model": "gpt-lab", "messages": MESSAGES, "stream": False}
        assert request(rig.gateway.url, "POST", "/api/chat", body, bearer(TOKEN)).status == 200
        yield rig


def test_u33_stream_without_end_for_a_single_answer(row: Row, provider: Provider) -> None:
    """Cut at 64 MiB with 502, whatever it is made of; the connection to the provider is
    closed, others are served."""
    row.allow(502)
    (pid,) = row.gateway.worker_pids()
    before, most = resident_kib(pid), 0.0
    provider.clear()
    asked = [("/api/chat", name) for name in ENDLESS] + [(path, "text") for path in OTHERS]
    for path, name in asked if BOTH_DOORS else asked[::2]:
        frame = b"data: " + json.dumps(ENDLESS[name]).encode() + b"\n\n"
        flood = [Head(200, SSE), Flood(frame * (1 + 65536 // len(frame)), limit_s=60)]
        provider.script(CHAT, flood)
        body = {"model": "gpt-lab", "messages": MESSAGES, **ROUTES[path]}
        answer = row.ask("POST", path, body, timeout=60)
        assert "answer is too large" in assert_error(answer, dialect_of(path), 502), (path, name)
        most = max(most, (resident_kib(pid) - before) / 1024)
        provider.wait_peer_closed(provider.requests[-1].connection, 15)
    assert most < MOST_MIB
    row.measured("memory of a worker on top", max(0.0, most), "MiB")
